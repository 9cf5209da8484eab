// Ties with the fastest job. See decide.h.
#include "planner/jobs/decide.h"

namespace orrery::planner::jobs {
namespace {

// Jobs that are predicted to find those that tie: an interval takes some thirty predictions.
constexpr std::size_t kMost = 20000, kMostIntervals = 512;

}  // namespace

double score_of(const simulator::JobPrediction& p, Risk risk) {
  return (risk == Risk::kP90 ? p.p90 : p.step).value();
}

Fastest fastest_of(const simulator::JobPrediction& p, Risk risk) {
  const double step = p.step.value();
  return {score_of(p, risk), step, p.parts, (p.p90.value() - step) / step};
}

bool ties(const Fastest& fastest, double score, double step, const simulator::StepParts& parts) {
  return step <= fastest.step * (1 + kTieWindow) && score <= fastest.score * (1 + kTieWindow) &&
         score - fastest.score <= noise_s(parts, fastest.parts, fastest.relative);
}

Tied find_ties(Search& search, const Candidate& best, const Fastest& fastest, Risk risk) {
  const Near near = search.near(fastest.score * (1 + kTieWindow), fastest.step * (1 + kTieWindow),
                                risk == Risk::kP90 ? kMostIntervals : kMost);
  Tied out;
  out.complete = near.complete;
  out.bounded = near.bounded;
  out.replayed = near.replayed;
  const Simplicity own = simplicity(best.block, best.member);
  for (const Near::One& one : near.all) {
    const Simplicity key = simplicity(one.candidate.block, one.candidate.member);
    if (key == own || !ties(fastest, one.score, one.step, one.parts)) continue;
    ++out.count;
    if (!out.simplest && key < own) out.simplest = one.candidate;
  }
  return out;
}

}  // namespace orrery::planner::jobs
