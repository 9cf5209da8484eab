// The number that a pin holds an axis to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace orrery::planner {

// No count of ranks, sequences, rows or layers is larger; products of two can be counted.
inline constexpr std::int64_t kMostPinned = std::int64_t{1} << 24;

// Nothing: it is no whole number from `least` to kMostPinned.
std::optional<std::int64_t> pinned_number(const std::string& text, std::int64_t least);

}  // namespace orrery::planner
