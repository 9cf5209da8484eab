// A trace as one HTML page that needs nothing else: no network, no server, no other file. With two
// traces, what was predicted stands beside what was measured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/plan.h"
#include "core/result.h"
#include "tracer/trace_db.h"
#include "ui-export/html/schedule.h"

namespace orrery {

// At least one of the two traces is there. The plan is that of the measured run, else of the other.
struct HtmlInput {
  TraceReader* predicted = nullptr;
  TraceReader* measured = nullptr;
  std::optional<Prediction> prediction;  // of `predicted`, for its interval
  std::string predicted_by;              // how it was made, in words
  std::vector<std::string> remarks;      // what a reader has to know of this page
  Json answer;  // of a page about a plan: what its planner answered (answer.h); else null
};

// A job over all axes, of which there is no trace.
struct JobPageInput {
  Json answer;                                    // answer_of_job (answer.h)
  std::optional<html::PipelinePicture> schedule;  // of its pipeline, where it has one
  std::vector<std::string> remarks;
};

// A page is never larger: a large trace is thinned out, and the page says what was left out.
inline constexpr std::size_t kMaxReportBytes = 3'000'000;

// The whole page. The same traces give the same bytes. kInvalid and kIo as the readers have them.
Result<std::string> html_report(const HtmlInput& input);

// The page of a job: the same answer gives the same bytes.
std::string job_page(const JobPageInput& input);
Json job_page_data(const JobPageInput& input);  // the document inside (for tests)

// The step that the page opens at: the one of median time (the lower of two), where of three or
// more the first does not count: warm-up. -1 where the trace has no whole step.
Result<std::int32_t> report_step(TraceReader& trace);

// The JSON document inside the page, before it is escaped (for tests).
Result<Json> html_data(const HtmlInput& input);

}  // namespace orrery
