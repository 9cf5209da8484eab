// The space that the planner searches: every layout, chunking and memory policy that the engine
// executes, by named rules. A candidate is a layout, chunk sizes that suit its micro-batch, and a
// policy; each is legal on its own, so the space is kept factored.
//
// Policies come in lines: whether the inputs of recomputed layers go to the host (swap) and where
// the optimizer's moments live are fixed in a line, how many layers are recomputed rises along it.
// Mechanisms that only save time (interleaving, exchange parts, buckets ...) vary where pinned;
// refine.h tries them around the best.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "core/plan.h"
#include "core/result.h"
#include "planner/plans/pins.h"
#include "planner/plans/planner.h"

namespace orrery::planner {

// What may vary without changing who holds what.
struct Choice {
  Chunks chunks;
  MemoryPolicy policy;
};

struct Space {
  std::vector<Layout> layouts;  // the simpler ones first
  // By micro_batch, sp, and ep where exchange parts are pinned; the simpler ones first.
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, std::vector<Chunks>> chunks;
  // Lines, none empty, the simpler ones first: an earlier line asks no more of the host than any
  // later one that has its depths. recompute_layers ascends along each.
  std::vector<std::vector<MemoryPolicy>> policies;
  bool chunks_by_ep = false;
  Pins pins;
  std::int64_t enumerated = 0;
  std::int64_t legal = 0;
  // Why the others fell, each counted once, under the first rule that it breaks.
  std::vector<Rejection> rejected;

  const std::vector<Chunks>& chunks_of(const Layout& layout) const;
  std::int64_t policy_count() const;
};

// kUsage: a pin with an unknown name or an unreadable value. kInfeasible: nothing is legal under
// these pins, or the batch divides over no layout; the error names the rules.
Result<Space> enumerate(const Request& request);

// In ascending order.
std::vector<std::int64_t> divisors(std::int64_t n);

}  // namespace orrery::planner
