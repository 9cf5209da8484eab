// Which of the jobs that the model cannot tell apart is taken. A job ties with the fastest where it
// is slower by no more than is uncertain of the difference (noise_s), and by no more than
// kTieWindow of its step. Both share their model, cluster and stack, so what one trades for the
// other is what may be off.
#pragma once

#include "planner/jobs/search.h"

namespace orrery::planner::jobs {

// A job that others are held against.
struct Fastest {
  double score = 0, step = 0;
  simulator::StepParts parts;
  double relative = 0;  // half-width of the interval of its step, over the step
};
double score_of(const simulator::JobPrediction& predicted, Risk risk);
Fastest fastest_of(const simulator::JobPrediction& predicted, Risk risk);
bool ties(const Fastest& fastest, double score, double step, const simulator::StepParts& parts);

struct Tied {
  std::optional<Candidate> simplest;  // of those that tie and the fastest; none: it is the fastest
  std::int64_t count = 0;             // others than the fastest
  bool complete = true;
  std::int64_t bounded = 0, replayed = 0;
};
Tied find_ties(Search& search, const Candidate& best, const Fastest& fastest, Risk risk);

}  // namespace orrery::planner::jobs
