// The frontier of time against memory of the engine's plans.
#pragma once

#include <vector>

#include "planner/plans/planner.h"

namespace orrery::planner {

// At how many sizes of memory below the device's a fastest plan is searched for, at most.
inline constexpr int kFrontierSearches = 5;
// Down to this part of it: with less, what fits takes many times as long, and so do searches.
inline constexpr double kLeastOfDevice = 0.2;

// `winner` first; then the proved best of the listed space (planner.h; not refined) for devices
// with ever less memory, evenly spaced as logarithms down to the least that any plan fits in. Sizes
// fall, and steps rise but for what refining gave the winner. `request` is the one that the winner
// was found for; each size is a search of its own.
std::vector<FrontierPoint> frontier_of(const Request& request, const Plan& winner);

}  // namespace orrery::planner
