// Ways of dealing a model's layers out to the stages of a pipeline.
#pragma once

#include <cstdint>
#include <vector>

namespace orrery::planner::jobs {

// The simplest first. kLast, kFirst, kEnds: one layer fewer in the stages that also have the head,
// the embedding, or both, than kEven gives them. kBalanced: by the seconds of layers and ends.
enum class Deal : std::uint8_t { kEven, kLast, kFirst, kEnds, kBalanced };
inline constexpr int kNumDeals = 5;
const char* name_of(Deal deal);  // "even", "last", "first", "ends", "balanced"

// Those of `listed` that `layers` can be dealt out by: the first and the last stage may have none,
// others have one at least. A single stage has all.
std::vector<Deal> deals_of(const std::vector<Deal>& listed, std::int64_t layers,
                           std::int64_t stages);

// Layers of each stage, of a deal that deals_of gives; not of kBalanced.
std::vector<std::int64_t> dealt(Deal deal, std::int64_t layers, std::int64_t stages);

// Of layers that take `layer_s` each, and ends `first_s` and `last_s`: one after the other to the
// rank that has least, which of its stages to the one with fewest. With equal layers no other way
// has a slowest rank that is faster (each layer goes where it ends first).
std::vector<std::int64_t> balanced(std::int64_t layers, std::int64_t ranks,
                                   std::int64_t virtual_stages, double layer_s, double first_s,
                                   double last_s);

}  // namespace orrery::planner::jobs
