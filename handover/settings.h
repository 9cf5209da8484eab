// What a configuration file sets, whatever its syntax: keys with values and places. Reading one
// marks it; what nobody reads is reported as unused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "handover/handover.h"

namespace orrery::handover {

struct Setting {
  std::string key;
  std::string value;  // without quotes; of a flag alone: ""
  std::string where;  // "run.sh:12"
  // Why the value is not known ("$TP is not set in this file"); empty: it is.
  std::string unknown = {};
};

class Settings {
 public:
  explicit Settings(std::string place) : place_(std::move(place)) {}

  // Of a file that sets a key twice, both; it is a problem where they are read and differ.
  void add(Setting setting) { settings_.push_back(std::move(setting)); }
  bool empty() const { return settings_.empty(); }
  const std::string& place() const { return place_; }

  // All getters mark the key as read. nullptr: not set, or to a value that is not known: then the
  // setting is noted as unused, or as a problem where it would be `needed`.
  const Setting* find(std::string_view key, bool needed = true);
  bool has(std::string_view key);
  // A whole number in [min, max]; anything else is a problem, and nothing.
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t min = 1,
                                      std::int64_t max = kMax);
  std::int64_t integer_or(std::string_view key, std::int64_t fallback);
  // "true" or "false" in either case, "1" or "0"; anything else is a problem.
  std::optional<bool> boolean(std::string_view key);
  // One of `words`; anything else is a problem that names them.
  std::string word_or(std::string_view key, const std::vector<std::string>& words,
                      const std::string& fallback);
  // A key that says what a plan cannot: unused, with the reason.
  void set_aside(std::string_view key, const std::string& why);
  // A size of the target's: a problem where the file has another.
  void expect(std::string_view key, std::int64_t value, const std::string& whose);

  // The keys that end so, each once, in the order of the file.
  std::vector<std::string> keys_ending(std::string_view end) const;
  // Settings of this value are as if they were not there, and reported with `why`.
  void forget(std::string_view value, const std::string& why);
  bool forgotten(std::string_view key) const;

  // Where a key stands; the file where it does not.
  std::string where(std::string_view key) const;
  void problem(std::string where, std::string message, std::string hint = "") {
    problems_.push_back({std::move(where), std::move(message), std::move(hint)});
  }
  const std::vector<Problem>& problems() const { return problems_; }
  // With all that nobody read, in the order of the file.
  std::vector<Unused> unused() const;

  static constexpr std::int64_t kMax = 1'000'000'000;

 private:
  std::string place_;
  std::vector<Setting> settings_;
  std::vector<std::string> read_;
  std::vector<Unused> aside_;
  std::vector<Problem> problems_;
};

// A whole number and nothing else.
std::optional<std::int64_t> whole_number(std::string_view text);

// One setting a leaf: "/a/b" of {"a": {"b": 1}}; its place is "file:/a/b". Texts, numbers, true,
// false and null as they are written; arrays as JSON.
void add_json(const Json& json, const std::string& pointer, Settings& settings);

}  // namespace orrery::handover
