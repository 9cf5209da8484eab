// A job looked at by itself: whether it fits, what takes its memory and its time, which changes fix
// it or make it faster, what would change the answer. Every figure is a prediction of the
// simulator's.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "planner/jobs/changes.h"
#include "planner/jobs/planner.h"
#include "simulator/stages/memory.h"

namespace orrery::planner::jobs {

// One change made, or two; what comes out.
struct Trial {
  std::vector<Change> changes;
  PlannedJob after;
  double speed = 1;           // tokens a second over those of the job as it is
  std::string saves;          // what takes less time: "experts -1.2 s"; empty: nothing of weight
  std::string words() const;  // of the changes, joined by " and "
};

// A circumstance that could be otherwise.
struct WhatIf {
  std::string words;  // "memory 25 % smaller"
  PlannedJob own;     // the same job then; a step of 0 where a rule forbids it
  // The best of all then; none: nothing fits, or it was not looked for.
  std::optional<PlannedJob> best;
  bool searched = false;  // else only the job itself was predicted
  // How the best then differs from the best now: "pp 4, recompute full"; empty: not by more than
  // noise, kTie.
  std::string otherwise;
};
inline constexpr double kTie = 0.02;  // of a step

struct Question {
  Job job;  // as its file says, without fitted values
  simulator::ParameterSet parameters;
  std::vector<std::pair<std::string, std::string>> pins;  // that its search had
  double probability_fits = 0.99;                         // of what counts as sure
  int threads = 0;
};

struct Diagnosis {
  PlannedJob own;
  simulator::MemoryParts memory;
  bool sure = false;    // fits with the wanted probability
  std::string binding;  // one sentence: what holds this job back
  std::vector<std::string> notes;
  std::vector<Trial> fixes;   // changes after which it fits for sure, smallest first
  std::vector<Trial> helps;   // where there are none: changes that free most memory
  std::vector<Trial> faster;  // of a job that fits: changes that make it faster and keep it so
  std::vector<Trial> faster_pairs;  // two axes at once, where that gains clearly more than any one
  // The planner's own answer to the same work; none: nothing fits, or the job is of a kind that it
  // does not search (adapters, fp16).
  std::optional<PlannedJob> best;
  std::string best_words;             // how it differs from the job
  std::optional<PlannedJob> changed;  // where nothing fits: a good one after `change`
  std::string change;
  std::vector<WhatIf> what_ifs;
};

// Bounded: a few hundred predictions, and one search; what_ifs search again only where a search
// looks at few blocks.
Diagnosis diagnose(const Question& question);

// "experts -1.20 s, bubble -0.31 s": the two terms by which `less` takes less, a `scale` of its
// time; empty where none is of weight.
std::string saved_by(const simulator::JobPrediction& more, const simulator::JobPrediction& less,
                     double scale);

}  // namespace orrery::planner::jobs
