// Ranks as text (trace_db.h): maximal runs of equal stride, left to right.
#include <charconv>
#include <string>

#include "tracer/trace_db.h"

namespace orrery {
namespace {

constexpr std::size_t kMostRanks = 1 << 24;  // a text may come from a torn file

// Takes an integer of 0..2^31-1 from the front of `text`.
bool take_integer(std::string_view& text, std::int32_t& value) {
  if (text.empty() || text.front() == '-') return false;
  const auto [next, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(next - text.data()));
  return true;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

std::string ranks_text(const std::vector<std::int32_t>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    const std::int32_t stride = i + 1 < ranks.size() ? ranks[i + 1] - ranks[i] : 0;
    while (stride > 0 && last + 1 < ranks.size() && ranks[last + 1] - ranks[last] == stride) ++last;
    if (last == i + 1 && stride > 1) last = i;  // two far ranks are clearer as two
    if (!text.empty()) text += ',';
    text += std::to_string(ranks[i]);
    if (last > i) text += '-' + std::to_string(ranks[last]);
    if (last > i && stride > 1) text += ':' + std::to_string(stride);
    i = last + 1;
  }
  return text;
}

Result<std::vector<std::int32_t>> parse_ranks(std::string_view text) {
  const auto bad = [whole = std::string(text)] {
    return Error::of(ErrorCode::kInvalid, "ranks", "'" + whole + "' is not a list of rank ranges",
                     "write them as 0-6:2,9");
  };
  std::vector<std::int32_t> ranks;
  while (!text.empty()) {
    std::int32_t first = 0, last = 0, stride = 1;
    if (!take_integer(text, first)) return bad();
    last = first;
    if (take(text, '-') && !take_integer(text, last)) return bad();
    if (take(text, ':') && !take_integer(text, stride)) return bad();
    if (stride < 1 || last < first) return bad();
    for (std::int64_t rank = first; rank <= last; rank += stride) {
      if (ranks.size() == kMostRanks) return bad();
      ranks.push_back(static_cast<std::int32_t>(rank));
    }
    if (!text.empty() && (!take(text, ',') || text.empty())) return bad();
  }
  return ranks;
}

}  // namespace orrery
