// Lower bounds of a candidate's step time, without lowering it.
//
// Two of them, both never above the replay of the nominal clock (a property test holds them so):
//   quick_bound  sums over lanes: constant time, for the whole space;
//   bound        a walk over the segments of the step on one rank's lanes: what waits for what.
//
// Why sums over two lanes add: in this program each exchange between experts waits for the compute
// before it and the compute after it waits for the exchange, but for the balancing loss; so compute
// and exchanges form one chain, and only gathers and reductions run beside it. Where micro-batches
// interleave, exchanges go in parts or by gathers, or layers share buckets, stay gathered or are
// run again in part, exchanges may hide as well: both bounds are then the largest sum on one lane,
// and what hiding it costs. Copies to the host bound a step only at its end.
#pragma once

#include "planner/plans/costs.h"

namespace orrery::planner {

// Of the step, in nanoseconds.
double quick_bound(Costs& costs, const Layout& layout, const Choice& choice,
                   const CandidateCosts& prices);
double bound(Costs& costs, const Layout& layout, const Choice& choice,
             const CandidateCosts& prices);

// Whether each exchange is waited for at once: where the walk applies.
bool exposes_exchanges(const Layout& layout, const Choice& choice);

// The walk under given slowdowns of compute beside a collective and of a collective beside compute.
// With both 1 it is the length of the critical path.
struct Slowdowns {
  double compute = 1, link = 1;
};
double walk(const Costs& costs, const Layout& layout, const Choice& choice,
            const CandidateCosts& prices, const Slowdowns& slowdowns);

// Compute that recomputation adds, undisturbed; of routed rows that of the fullest member.
double recompute_time(const Costs& costs, const Layout& layout, const Choice& choice,
                      const CandidateCosts& prices);

}  // namespace orrery::planner
