// See pinned_number.h.
#include "planner/pinned_number.h"

#include <charconv>

namespace orrery::planner {

std::optional<std::int64_t> pinned_number(const std::string& text, std::int64_t least) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, value);
  if (failed != std::errc() || rest != end) return std::nullopt;
  if (value < least || value > kMostPinned) return std::nullopt;
  return value;
}

}  // namespace orrery::planner
