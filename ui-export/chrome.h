// The trace as Chrome trace events (JSON), which chrome://tracing and Perfetto open: one process a
// rank, one thread a lane. Format: "Trace Event Format", Google, the JSON object form.
#pragma once

#include <string>

#include "core/result.h"
#include "tracer/trace_db.h"

namespace orrery {

// Times are microseconds since the earliest span, with nanosecond digits. Appears by rename only.
Status export_chrome(TraceReader& trace, const std::string& out);

}  // namespace orrery
