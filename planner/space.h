// The space that the planner searches: every layout, chunking and recompute policy that the engine
// executes, by named rules. A candidate is a layout, chunk sizes that suit its micro-batch, and a
// number of layers to recompute; the three are legal on their own, so the space is kept factored.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/plan.h"
#include "core/result.h"
#include "planner/planner.h"

namespace orrery::planner {

// What may vary without changing who holds what.
struct Choice {
  Chunks chunks;
  MemoryPolicy policy;
};

struct Space {
  std::vector<Layout> layouts;                         // the simpler ones first
  std::map<std::int64_t, std::vector<Chunks>> chunks;  // by micro_batch; the simpler ones first
  std::vector<std::int64_t> recompute;                 // ascending
  std::int64_t enumerated = 0;
  std::int64_t legal = 0;
  // Why the others fell, each counted once, under the first rule that it breaks.
  std::vector<Rejection> rejected;
};

// kUsage: a pin with an unknown name or an unreadable value. kInfeasible: nothing is legal under
// these pins, or the batch divides over no layout; the error names the rules.
Result<Space> enumerate(const Request& request);

// In ascending order.
std::vector<std::int64_t> divisors(std::int64_t n);

}  // namespace orrery::planner
