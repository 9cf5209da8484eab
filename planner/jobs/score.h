// By what jobs are ranked: the step, or its 90th percentile; and which differences are noise.
#pragma once

#include "planner/risk.h"
#include "simulator/stages/parameter_set.h"

namespace orrery::planner::jobs {

class Score {
 public:
  // The step. `parameters` outlives it.
  Score(const simulator::ParameterSet& parameters, Risk risk);
  Risk risk() const { return risk_; }
  // No score is below this times the job's step.
  double least() const { return least_; }
  // Seconds, of a job with the parameters' values applied and its prediction. More than `limit`
  // where it is shown to be above it: then it is a lower bound.
  double of(const Job& job, const simulator::JobPrediction& prediction, double limit) const;

 private:
  const simulator::ParameterSet& parameters_;
  Risk risk_;
  double least_ = 1;
};

// Jobs that are slower than the fastest by more than this are never taken as if they were not.
inline constexpr double kTieWindow = 0.05;

// Half-width of what is uncertain of the difference of two steps, seconds: as noise_s of
// plans/decide.h, over all terms of a step; `relative`: that of the interval of one step, over the
// step.
double noise_s(const simulator::StepParts& a, const simulator::StepParts& b, double relative);

}  // namespace orrery::planner::jobs
