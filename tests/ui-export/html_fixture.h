// What the tests of the HTML report share: traces to report on, and the document inside a page.
#pragma once

#include <string>

#include "core/json.h"
#include "core/plan.h"
#include "core/program/program.h"
#include "core/trace_events.h"
#include "tracer/trace_db.h"
#include "ui-export/html/report.h"

namespace orrery::testing {

TraceReader write_trace(const std::string& path, const RunInfo& info, const Program& program,
                        const TraceEvents& events, RunStatus status = RunStatus::kOk,
                        const std::string& reason = "");

// A small mixture of experts on `world` ranks, simulated; and the same run as if it had been
// measured: three steps, each op slower by a factor of its own, every step begins at another time.
struct Pair {
  Plan plan;
  Program program;
  TraceEvents predicted, measured;
};
Pair simulated_pair(std::int64_t world = 4);
RunInfo info_of(const Pair& pair, RunKind kind);

// The document as the page holds it, parsed; CHECKs that there is exactly one.
Json document_of(const std::string& page);

// page = html_report(input), which must succeed.
std::string page_of(TraceReader* predicted, TraceReader* measured);

}  // namespace orrery::testing
