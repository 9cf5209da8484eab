// See mutate_text.h.
#include "tests/fuzz/mutate_text.h"

#include <algorithm>
#include <array>

namespace orrery {
namespace {

// Pieces that steer a mutation into the grammar rather than out of it.
constexpr std::array<const char*, 22> kTokens = {
    "null", "true", "{}",   "[]",     "-1",       "0",         "1e308", "9223372036854775808",
    "0.5",  "\"\"", ",",    ":",      "\"name\"", "[[[[[[",    "\xff",  "\\u0000",
    "\"",   "1e-9", " GiB", "\"ep\"", "[1, 2]",   "4294967296"};

}  // namespace

std::string mutate(std::string text, std::mt19937_64& rng) {
  for (std::uint64_t edits = 1 + rng() % 3; edits > 0 && !text.empty(); --edits) {
    const std::size_t at = rng() % text.size();
    const std::size_t length = std::min<std::size_t>(1 + rng() % 40, text.size() - at);
    switch (rng() % 8) {
      case 0:
        text[at] = static_cast<char>(rng());
        break;
      case 1:
        text[at] = static_cast<char>('0' + rng() % 10);
        break;
      case 2:
        text.resize(at);
        break;
      case 3:
        text.erase(at, length);
        break;
      case 4:
        text.insert(at, text.substr(at, length));
        break;
      case 5:
        text.insert(at, kTokens[rng() % kTokens.size()]);
        break;
      case 6: {  // a digit elsewhere: stays well formed, so it reaches the checks behind the syntax
        const std::size_t digit = text.find_first_of("0123456789", at);
        if (digit != std::string::npos) text[digit] = static_cast<char>('0' + rng() % 10);
        break;
      }
      default: {  // a value becomes another
        const std::size_t colon = text.find(": ", at);
        const std::size_t end = text.find_first_of(",\n}", colon);
        if (colon != std::string::npos && end != std::string::npos) {
          text.replace(colon + 2, end - colon - 2, kTokens[rng() % kTokens.size()]);
        }
      }
    }
  }
  return text;
}

}  // namespace orrery
