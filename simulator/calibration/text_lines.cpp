// See text_lines.h.
#include "simulator/calibration/text_lines.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/check.h"

namespace orrery::simulator {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Without escape sequences of colours: ESC [ ... letter.
std::string plain(std::string_view line) {
  std::string out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\r') continue;
    if (line[i] != '\x1b') {
      out += line[i];
      continue;
    }
    if (i + 1 >= line.size() || line[i + 1] != '[') continue;
    i += 2;
    while (i < line.size() && (is_digit(line[i]) || line[i] == ';')) ++i;
  }
  return out;
}

// Length of "[1,0]<stdout>:" or "0: " at the start of a line.
std::size_t label_length(const std::string& line) {
  std::size_t i = 0;
  if (!line.empty() && line[0] == '[') {
    const std::size_t end = line.find(">:");
    const std::size_t open = line.find("]<std");
    return end != std::string::npos && open != std::string::npos && open < end ? end + 2 : 0;
  }
  while (i < line.size() && is_digit(line[i])) ++i;
  return i > 0 && line.compare(i, 2, ": ") == 0 ? i + 2 : 0;
}

}  // namespace

std::vector<std::string> terminal_lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string line = plain(text.substr(0, end));
    lines.push_back(line.substr(label_length(line)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  constexpr std::string_view kBlank = " \t\v\f";
  for (std::size_t at = line.find_first_not_of(kBlank); at != std::string_view::npos;) {
    const std::size_t end = std::min(line.find_first_of(kBlank, at), line.size());
    words.emplace_back(line.substr(at, end - at));
    at = line.find_first_not_of(kBlank, end);
  }
  return words;
}

std::optional<double> number_of(std::string_view word) {
  double value = 0;
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<std::int64_t> whole_of(std::string_view word) {
  std::int64_t value = 0;
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

std::string place_of(const std::string& file, std::size_t index) {
  return file + ":" + std::to_string(index + 1);
}

double median_of(std::vector<double> values) {
  CHECK(!values.empty(), "the median of nothing");
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace orrery::simulator
