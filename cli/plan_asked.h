// A call of `orrery plan` as its questions see it: a setting, whom to ask, and how an answer reads,
// for both purposes of a plan.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/plan_request.h"
#include "planner/jobs/request.h"
#include "planner/questions/goodput.h"
#include "planner/questions/searcher.h"
#include "planner/questions/versus.h"

namespace orrery::cli {

struct Asked {
  planner::Setting setting;
  std::shared_ptr<const planner::Searcher> searcher;
  bool simulates = false;  // jobs over all axes
};
Asked asked_of(const planner::Request& request, const planner::DecisionRule& rule);
Asked asked_of(const planner::jobs::Request& request);

bool asks_for_jobs(const Arguments& arguments);  // --for simulate
// All of it but the cluster, of which a call may name several. kUsage, kInvalid, kIo.
Result<Asked> read_asked(const Arguments& arguments, const std::string& cluster);

// "qwen3-8b on h100x8, pretrain-4k", and the stack of jobs.
std::string title_of(const planner::Setting& setting, bool simulates);
// The layout in a line.
std::string words_of(const planner::Answer& answer);
// {"layout", "chunks", "memory_policy"}, or {"job"}.
Json layout_json(const planner::Answer& answer);
// The same with "predicted".
Json row_json(const planner::Answer& answer);
// The whole plan of a setting, as `orrery plan` writes it; `cluster` is any that can be read.
// kInfeasible where none fits.
Result<Json> file_json(const Arguments& arguments, const std::string& cluster,
                       const planner::Setting& setting);
// The call that plans on this cluster: what next() is given.
std::vector<std::string> call_of(const Arguments& arguments, const std::string& cluster);

// --device-mtbf, --save-time, --restart-time. kUsage.
Result<planner::Reliability> read_reliability(const Arguments& arguments);

// What stands beside one plan.
struct Beside {
  std::optional<planner::OwnLayout> own;  // --versus
  std::int64_t tokens = 0;                // --tokens; 0: not asked
  planner::Reliability reliability;
  bool any() const { return own || tokens > 0; }
};
Result<Beside> read_beside(const Arguments& arguments);
// Prints them beside `best`; {"plan", "versus", "run"}, or `plan` alone where nothing is asked.
Result<Json> answer_beside(const Beside& beside, const Asked& asked, const planner::Answer& best,
                           const Json& plan, Output& out);

}  // namespace orrery::cli
