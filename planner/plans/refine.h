// Mechanisms beyond the searched space, tried around its best plans: interleaved micro-batches,
// exchange parts, the other dispatcher, buckets of layers, layers that stay gathered, deeper
// prefetch, and recomputing classes of ops instead of whole layers.
//
// Coordinate descent by replay: one mechanism is changed at a time, the batch divided anew and the
// depth of recompute set to the least that fits, and what is faster is kept. A budget of replays
// and of replayed ops ends it, and a clock only where the request has one (Request::stop): else the
// same request gives the same plan. Nothing is proved: what was not tried may be faster.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "planner/plans/search.h"

namespace orrery::planner {

struct Refined {
  std::optional<Trial> best;  // where one is faster than every seed
  std::int64_t replays = 0;
};

// Pinned mechanisms stay as they are.
Refined refine(Search& search, const Request& request);

}  // namespace orrery::planner
