// See megatron_stages.h.
#include "handover/megatron_stages.h"

#include <charconv>

namespace orrery::handover::megatron {
namespace {

constexpr std::size_t kLongest = 1 << 16;  // letters, spelled out

// `text` with repetitions spelled out, without commas and blanks; the fault in `wrong` where there
// is one.
class Speller {
 public:
  explicit Speller(const std::string& text) : text_(text) {}

  std::string spell(std::string& wrong) {
    const std::string out = sequence();
    if (wrong_.empty() && at_ < text_.size()) wrong_ = "')' without '('";
    wrong = wrong_;
    return out;
  }

 private:
  // Until the end or a closing bracket. One level of brackets, as Megatron reads it.
  std::string sequence() {
    std::string out;
    while (at_ < text_.size() && text_[at_] != ')' && wrong_.empty()) {
      const char c = text_[at_++];
      if (c == ',' || c == ' ') continue;
      std::string item(1, c);
      if (c == '(') {
        if (inside_) wrong_ = "brackets inside brackets";
        inside_ = true;
        item = sequence();
        inside_ = false;
        if (at_ >= text_.size()) wrong_ = "'(' is not closed";
        ++at_;
      } else if (std::string("EtmL|").find(c) == std::string::npos) {
        wrong_ = "'" + item + "' is none of E, t, m, L and |";
      }
      append(item, times(), out);
    }
    return out;
  }

  std::size_t times() {
    if (at_ >= text_.size() || text_[at_] != '*') return 1;
    std::size_t count = 0;
    const char* end = text_.data() + text_.size();
    const auto [rest, failed] = std::from_chars(text_.data() + at_ + 1, end, count);
    if (failed != std::errc()) {
      wrong_ = "'*' without a number";
      return 0;
    }
    at_ = static_cast<std::size_t>(rest - text_.data());
    return count;
  }

  void append(const std::string& item, std::size_t count, std::string& out) {
    if (!item.empty() && count > (kLongest - out.size()) / item.size()) {
      wrong_ = "more than " + std::to_string(kLongest) + " letters";
      return;
    }
    for (std::size_t i = 0; i < count; ++i) out += item;
    if (out.size() > kLongest) wrong_ = "more than " + std::to_string(kLongest) + " letters";
  }

  const std::string& text_;
  std::size_t at_ = 0;
  bool inside_ = false;
  std::string wrong_;
};

}  // namespace

Result<std::vector<std::int64_t>> parse_stages(const std::string& text, const std::string& place) {
  std::string wrong;
  const std::string letters = Speller(text).spell(wrong);
  std::vector<std::int64_t> layers(1);
  for (const char c : letters) {
    if (c == '|') layers.push_back(0);
    if (c == 't') ++layers.back();
  }
  if (wrong.empty() && (letters.empty() || letters.front() != 'E' || letters.back() != 'L')) {
    wrong = "it does not begin with the embedding (E) and end with the loss (L)";
  }
  if (wrong.empty()) return layers;
  return Error::of(ErrorCode::kInvalid, place, "'" + text.substr(0, 60) + "': " + wrong,
                   "for example \"Et|(tt|)*30mL\"");
}

}  // namespace orrery::handover::megatron
