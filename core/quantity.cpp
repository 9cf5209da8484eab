// Units in the text. Factors above one are multiplied and factors below one divided, so that the
// result is the double nearest to what is written ("2.5 us" is exactly the literal 2.5e-6).
#include "core/quantity.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace orrery {
namespace {

struct Unit {
  std::string name;
  double multiply = 1;
  double divide = 1;
  bool written = true;  // false: understood, but never chosen for output
};

constexpr double kKi = 1024;

std::vector<Unit> byte_units(const std::string& suffix) {
  std::vector<Unit> units = {{"bytes" + suffix}, {"B" + suffix}};
  const std::array<const char*, 6> si = {"k", "M", "G", "T", "P", "E"};
  const std::array<const char*, 6> iec = {"Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  double decimal = 1;
  double binary = 1;
  for (std::size_t i = 0; i < si.size(); ++i) {
    decimal *= 1000;
    binary *= kKi;
    units.push_back({si[i] + ("B" + suffix), decimal});
    units.push_back({iec[i] + ("B" + suffix), binary});
    if (!suffix.empty()) {  // bits only as a rate: 1 Gb/s is 1e9 / 8 bytes/s
      units.push_back({si[i] + ("b" + suffix), decimal / 8, 1, false});
      units.push_back({si[i] + ("bit" + suffix), decimal / 8, 1, false});
    }
  }
  return units;
}

std::vector<Unit> units_of(std::string_view dimension) {
  if (dimension == "bytes") return byte_units("");
  if (dimension == "bytes/s") return byte_units("/s");
  if (dimension == "s") {
    return {{"s"},
            {"ms", 1, 1e3},
            {"us", 1, 1e6},
            {"\xc2\xb5s", 1, 1e6, false},
            {"ns", 1, 1e9},
            {"min", 60, 1, false},
            {"h", 3600, 1, false},
            {"day", 86400, 1, false},
            {"days", 86400, 1, false}};
  }
  CHECK(dimension == "flop/s", "unknown dimension " + std::string(dimension));
  return {{"FLOP/s"},        {"MFLOP/s", 1e6},  {"GFLOP/s", 1e9},
          {"TFLOP/s", 1e12}, {"PFLOP/s", 1e15}, {"EFLOP/s", 1e18}};
}

const std::vector<Unit>& cached_units(std::string_view dimension) {
  static const std::vector<Unit> bytes = units_of("bytes");
  static const std::vector<Unit> rate = units_of("bytes/s");
  static const std::vector<Unit> seconds = units_of("s");
  static const std::vector<Unit> flops = units_of("flop/s");
  if (dimension == "bytes") return bytes;
  if (dimension == "bytes/s") return rate;
  if (dimension == "s") return seconds;
  CHECK(dimension == "flop/s", "unknown dimension " + std::string(dimension));
  return flops;
}

const char* example_of(std::string_view dimension) {
  if (dimension == "bytes") return "80 GiB";
  if (dimension == "bytes/s") return "450 GB/s";
  if (dimension == "s") return "2.5 us";
  return "989 TFLOP/s";
}

// Long input is cut in messages.
std::string shown(std::string_view text) {
  if (text.size() <= 40) return "'" + std::string(text) + "'";
  return "'" + std::string(text.substr(0, 40)) + "...'";
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

double apply(const Unit& unit, double number) {
  return number * unit.multiply / unit.divide;
}

// At most four significant digits and at least two: 3.21, 13.7, 412.3, 1023.
std::string digits(double value) {
  if (value < 9.995) return fmt::format("{:.2f}", value);
  if (value < 999.95) return fmt::format("{:.1f}", value);
  return fmt::format("{:.0f}", value);
}

// value is in the first unit; each further unit is `step` times the one before.
std::string scaled(double value, double step, const std::vector<const char*>& units) {
  CHECK(std::isfinite(value), "a quantity to print is not finite");
  if (value < 0) return "-" + scaled(-value, step, units);
  // Moves up where the digits would round to the next unit: never "1000.0 ms".
  const double limit = step == kKi ? 1023.5 : 999.95;
  std::size_t i = 0;
  while (i + 1 < units.size() && value >= limit) {
    value /= step;
    ++i;
  }
  return digits(value) + " " + units[i];
}

}  // namespace

Result<double> parse_quantity(std::string_view text, std::string_view dimension,
                              const std::string& where) {
  const auto fail = [&](std::string message, std::string hint) {
    return Error::of(ErrorCode::kInvalid, where, std::move(message), std::move(hint));
  };
  const std::string write = fmt::format("write it as in \"{}\"", example_of(dimension));
  const std::string_view body = trimmed(text);
  if (body.empty() || ((body.front() < '0' || body.front() > '9') && body.front() != '.')) {
    return fail(shown(text) + " does not begin with a number that is zero or more", write);
  }
  double number = 0;
  const auto [end, ec] = std::from_chars(body.data(), body.data() + body.size(), number);
  if (ec != std::errc()) return fail(shown(text) + " has no usable number", write);
  const auto used = static_cast<std::size_t>(end - body.data());
  const std::string_view name = trimmed(body.substr(used));
  if (name.empty()) {
    if (body == "0") return 0.0;
    return fail(shown(text) + " has no unit", write);
  }
  std::vector<std::string> names;
  for (const Unit& unit : cached_units(dimension)) {
    if (name == unit.name) {
      const double value = apply(unit, number);
      if (!std::isfinite(value)) return fail(shown(text) + " is too large", write);
      return value;
    }
    names.push_back(unit.name);
  }
  if (name.ends_with("bps")) {
    return fail("the unit of " + shown(text) + " may mean bits or bytes",
                "write \"Gb/s\" for bits or \"GB/s\" for bytes");
  }
  const std::string near = nearest(name, names);
  return fail(fmt::format("unknown unit in {} ({} expected)", shown(text), dimension),
              near.empty() ? write : "did you mean '" + near + "'?");
}

std::string exact_quantity(double value, std::string_view dimension) {
  CHECK(std::isfinite(value) && value >= 0, "a quantity to write is negative or not finite");
  std::string best;
  for (const Unit& unit : cached_units(dimension)) {
    if (!unit.written) continue;
    const double number = value / unit.multiply * unit.divide;
    if (!std::isfinite(number) || apply(unit, number) != value) continue;
    std::string text = fmt::format("{}", number) + " " + unit.name;
    // The first unit of two equal lengths wins, and the base unit always works.
    if (best.empty() || text.size() < best.size()) best = std::move(text);
  }
  return best;
}

std::string format_bytes(Bytes bytes) {
  const auto value = static_cast<double>(bytes.value());
  if (std::abs(value) < kKi) return fmt::format("{} B", bytes.value());
  return scaled(value, kKi, {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"});
}

std::string format_seconds(Seconds seconds) {
  const double value = seconds.value();
  if (value == 0) return "0 s";
  return scaled(value * 1e9, 1e3, {"ns", "us", "ms", "s"});
}

std::string format_rate(BytesPerSecond rate) {
  return scaled(rate.value(), 1e3, {"B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s"});
}

std::string format_flops(Flops flops) {
  return scaled(flops.value(), 1e3, {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"});
}

std::string format_count(double count) {
  CHECK(std::isfinite(count), "a count to print is not finite");
  const double size = std::abs(count);
  if (size < 999.95) return fmt::format("{:.4g}", count);
  if (size < 9.95e3) return fmt::format("{:.1f}k", count / 1e3);
  if (size < 999.5e3) return fmt::format("{:.0f}k", count / 1e3);
  return scaled(count / 1e6, 1e3, {"M", "B", "T"});
}

std::string nearest(std::string_view word, const std::vector<std::string>& choices) {
  if (word.empty() || word.size() > 64) return "";
  std::string best;
  // Nearer than this; a short word is near to everything, so it is allowed less.
  std::size_t best_distance = word.size() <= 3 ? 2 : std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& choice : choices) {
    if (choice.size() > 64) continue;
    // Levenshtein distance, one row at a time; letters that differ in case only cost nothing.
    std::vector<std::size_t> row(choice.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    for (std::size_t i = 0; i < word.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i + 1;
      for (std::size_t j = 0; j < choice.size(); ++j) {
        const std::size_t replaced = diagonal + (lower(word[i]) == lower(choice[j]) ? 0U : 1U);
        diagonal = row[j + 1];
        row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
      }
    }
    if (row.back() < best_distance && row.back() < std::max(word.size(), choice.size())) {
      best_distance = row.back();
      best = choice;
    }
  }
  return best;
}

}  // namespace orrery
