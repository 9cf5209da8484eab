// The planner over all axes: the fastest job that fits, proved; the best of each other family and
// what it loses by; or the job that needs least memory, and the smallest change that makes one fit.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "planner/jobs/request.h"
#include "simulator/stages/step.h"

namespace orrery::planner::jobs {

// A job as it would be written to a file: nouns without the fitted values.
struct PlannedJob {
  Job job;
  simulator::JobPrediction predicted;
};

struct Term {
  std::string name;  // as StepParts
  double seconds = 0;
};
std::vector<Term> terms_of(const simulator::StepParts& parts);

// The best of another family of layouts.
struct Rival {
  std::string family;              // "no tensor parallelism", "FSDP"
  std::optional<PlannedJob> best;  // none: nothing of it fits
  std::string lost_by;             // "bubble +1.20 s, experts +0.31 s"
  bool proved = true;              // else the best that was found of it
};

struct JobProof {
  std::int64_t legal = 0, layouts = 0, bounded = 0, replayed = 0;
  double best_s = 0, bound_remaining_s = 0, seconds = 0;
};

struct JobPlan {
  std::optional<PlannedJob> best;
  std::vector<Rival> rivals;
  std::map<std::string, std::int64_t> removed;  // layouts by rule
  JobProof proof;
  // Where nothing fits.
  std::optional<PlannedJob> nearest;
  std::string change;                 // "twice the devices, 4096"; empty: none was found
  std::optional<PlannedJob> changed;  // a good one then
};

// kUsage: pins that cannot be read. kInfeasible: pins that no rule allows. A plan without `best` is
// for the caller to report as kInfeasible.
Result<JobPlan> plan(const Request& request);

}  // namespace orrery::planner::jobs
