// The trace in Perfetto's own format: a process a rank, a track a lane. Smaller than Chrome's JSON,
// and it holds what that cannot: the same collective connected across ranks, the live memory.
#pragma once

#include <string>

#include "core/result.h"
#include "tracer/trace_db.h"

namespace orrery {

// Times are ns since the earliest moment of the trace. Spans that overlap on one lane (a damaged
// trace) lie on several tracks of its name. In memory: the program's ops, one row, and the rows of
// table `flow`. Appears by rename only.
Status export_perfetto(TraceReader& trace, const std::string& out);

}  // namespace orrery
