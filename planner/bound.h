// Lower bounds of a candidate's step time, without lowering it.
//
// Two of them, both never above the replay of the nominal clock (a property test holds them so):
//   quick_bound  sums over lanes: constant time, for the whole space;
//   bound        a walk over the segments of the step on one rank's lanes: what waits for what.
//
// Why sums over two lanes add: in this program each exchange between experts waits for the compute
// before it and the compute after it waits for the exchange, but for the balancing loss; so compute
// and exchanges form one chain, and only gathers and reductions run beside it.
#pragma once

#include "planner/costs.h"

namespace orrery::planner {

// Of the step, in nanoseconds.
double quick_bound(const Costs& costs, const Layout& layout, const Choice& choice,
                   const CandidateCosts& prices);
double bound(const Costs& costs, const Layout& layout, const Choice& choice,
             const CandidateCosts& prices);

// The walk under given slowdowns of compute beside a collective and of a collective beside compute.
// With both 1 it is the length of the critical path.
struct Slowdowns {
  double compute = 1, link = 1;
};
double walk(const Costs& costs, const Layout& layout, const Choice& choice,
            const CandidateCosts& prices, const Slowdowns& slowdowns);

// Compute that recomputation adds, undisturbed.
double recompute_time(const Costs& costs, const Layout& layout, const Choice& choice,
                      const CandidateCosts& prices);

}  // namespace orrery::planner
