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
  // predicted.peak_bytes by simulator::MemoryClass, and "allocator": freed, but not given back.
  std::vector<MemoryRow> memory = {};
};
// A legal job with its prediction, its interval and its memory.
PlannedJob looked_at(const simulator::ParameterSet& parameters, Job job);

// A step of the frontier of time against memory (frontier.h): from `memory_bytes` of a device on
// this job fits, and for `searched_bytes` it is the fastest.
struct FrontierJob {
  double memory_bytes = 0, searched_bytes = 0;
  PlannedJob job;
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
  bool tie = false;                // with the fastest
};

// best_s: of the fastest, by what jobs are ranked, whichever of its ties is taken.
struct JobProof {
  std::int64_t legal = 0, layouts = 0, bounded = 0, replayed = 0;
  double best_s = 0, bound_remaining_s = 0, seconds = 0;
  bool closed() const { return bound_remaining_s >= best_s; }
};

// Which of the jobs that tie with the fastest was taken (score.h).
struct JobDecision {
  Risk risk = Risk::kExpected;
  double probability_fits = 0.99;
  std::int64_t ties = 0;              // others than the fastest
  bool complete = true;               // all that tie were found; else of the simplest some
  std::optional<PlannedJob> fastest;  // where another was taken
};

struct JobPlan {
  std::optional<PlannedJob> best;
  std::vector<Rival> rivals;
  std::map<std::string, std::int64_t> removed;  // layouts by rule
  JobProof proof;
  JobDecision decision;
  bool stopped = false;               // by Request::stop
  std::vector<FrontierJob> frontier;  // where it was asked for; the first is the fastest
  simulator::CellTimes cells;         // of the pipeline of `best`, where it has one
  // Where nothing fits.
  std::optional<PlannedJob> nearest;
  std::string change;                 // "twice the devices, 4096"; empty: none was found
  std::optional<PlannedJob> changed;  // a good one then
};

// kUsage: pins that cannot be read. kInfeasible: pins that no rule allows. A plan without `best` is
// for the caller to report as kInfeasible.
Result<JobPlan> plan(const Request& request);

// The smallest change after which something fits, of a plan of which nothing does: fills `change`
// and `changed`, as plan() does where it explains.
void find_change(const Request& request, JobPlan& plan);

}  // namespace orrery::planner::jobs
