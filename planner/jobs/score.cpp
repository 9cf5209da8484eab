// Scores and noise. See score.h.
#include "planner/jobs/score.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "simulator/stages/spread.h"

namespace orrery::planner::jobs {
namespace {

using Terms = std::array<double, 10>;

Terms terms_of(const simulator::StepParts& p) {
  return {p.compute, p.host,   p.tensor,    p.context, p.expert,
          p.data,    p.bubble, p.optimizer, p.fixed,   p.straggle};
}

double sum(const Terms& terms) {
  double all = 0;
  for (const double t : terms) all += t;
  return all;
}

}  // namespace

Score::Score(const simulator::ParameterSet& parameters, Risk risk)
    : parameters_(parameters), risk_(risk) {
  const simulator::SpreadSide& side = parameters.spread.slower;
  // The interval of a job of which nothing is exposed and that is like measured ones.
  const bool grows = side.base >= 0 && side.exposed >= 0 && side.unseen >= 0;
  if (risk == Risk::kP90 && grows) least_ = std::exp(side.base);
}

double Score::of(const Job& job, const simulator::JobPrediction& p, double limit) const {
  const double step = p.step.value();
  if (risk_ == Risk::kExpected) return step;
  simulator::SpreadFeatures known;
  known.exposed =
      std::max(0.0, p.parts.tensor + p.parts.context + p.parts.expert + p.parts.data) / step;
  known.distance = 0;
  // Without what the parameters' intervals add, which takes some thirty predictions.
  const double least = step * simulator::factors(parameters_.spread, known).p90 * (1 - 1e-9);
  if (least > limit) return least;
  const simulator::SpreadFeatures all =
      spread_features(job, p, parameters_.values, parameters_.spread.shapes);
  return step * simulator::factors(parameters_.spread, all).p90;
}

double noise_s(const simulator::StepParts& a, const simulator::StepParts& b, double relative) {
  const Terms of_a = terms_of(a), of_b = terms_of(b);
  double squares = 0;
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    squares += (of_a[i] - of_b[i]) * (of_a[i] - of_b[i]);
  }
  return std::max(kNoiseFloor * std::min(sum(of_a), sum(of_b)), relative * std::sqrt(squares));
}

}  // namespace orrery::planner::jobs
