// Deciding under uncertainty: which of the plans that the model cannot tell apart is taken, and how
// surely it fits.
//
// Ties. Two plans of one cluster share the errors of its peaks and links, so what is uncertain of
// their difference is what they spend differently on each. With u the relative half-width of the
// prediction's p10-p90 interval, the half-width of a difference is
//   max(kNoiseFloor x step, u x sqrt(dCompute^2 + dExposed^2 + dIdle^2)):
// errors of compute and of links are independent, each the same in both plans. A plan that is
// faster in every part ties with none (beyond the floor); one that trades compute for communication
// may. Those within that half-width of the fastest tie with it, and the simplest of them is taken.
//
// Fit. Expert loads are drawn: a plan's peak is the largest over ranks, layers and micro-batches,
// whose distribution over the draws is taken to be Gumbel's (the limit of largest values), by the
// moments of up to kDraws replays of memory (fewer where the program is long).
#pragma once

#include <string>
#include <vector>

#include "planner/plans/planner.h"
#include "planner/risk.h"

namespace orrery::planner {

inline constexpr int kDraws = 32;

struct DecisionRule {
  Risk risk = Risk::kExpected;    // by what plans are ranked: the step, or its 90th percentile
  double fit_probability = 0.99;  // at least; 0: a replay that fits is enough
  bool simplest = true;           // of ties; else the fastest
};

// What a plan uses beyond fully sharded data parallelism, one micro-batch shape and whole layers
// kept: "host optimizer", "swap", "sp", "ep", ...
std::vector<std::string> mechanisms(const Layout& layout, const Chunks& chunks,
                                    const MemoryPolicy& policy);

// True where `a` is the simpler plan: fewer mechanisms; then fewer of them on the host, fewer axes,
// fewer that interleave or cut exchanges; then less recompute, fewer passes a step.
bool simpler(const RunnerUp& a, const RunnerUp& b);

// Mean compute, exposed communication and idle time of the replayed ranks.
struct Parts {
  double compute_s = 0, exposed_s = 0, idle_s = 0;
  double step_s() const { return compute_s + exposed_s + idle_s; }
};

// Half-width of the difference of two steps, in seconds. `relative`: of the interval of one step.
double noise_s(const Parts& a, const Parts& b, double relative);

// Probability that the next draw is at most `limit`, and the value that it does not exceed with
// `probability`, by a Gumbel distribution with the mean and spread of `draws`.
double probability_within(const std::vector<double>& draws, double limit);
double quantile_of(const std::vector<double>& draws, double probability);

// Peaks of memory of a legal plan, by the draw of its loads; one where none are drawn.
std::vector<double> drawn_peaks(const Plan& plan, int draws);

// plan(), then the decision: the outcome's plan is the one taken, the others that tie are marked
// among the runners-up. Where the best does not fit surely enough, memory is held back and the
// search runs again; where then nothing fits, there is no best.
Result<Outcome> decide(const Request& request, const DecisionRule& rule);

}  // namespace orrery::planner
