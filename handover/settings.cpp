// See settings.h.
#include "handover/settings.h"

#include <algorithm>
#include <charconv>

namespace orrery::handover {
namespace {

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::string quoted(const std::string& value) {
  constexpr std::size_t kLongest = 60;
  return "'" + (value.size() > kLongest ? value.substr(0, kLongest) + "..." : value) + "'";
}

}  // namespace

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, value);
  if (failed != std::errc() || rest != end || text.empty()) return std::nullopt;
  return value;
}

const Setting* Settings::find(std::string_view key, bool needed) {
  const Setting* found = nullptr;
  const bool again = std::find(read_.begin(), read_.end(), key) != read_.end();
  read_.emplace_back(key);
  for (const Setting& s : settings_) {
    if (s.key != key) continue;
    if (found != nullptr && (found->value != s.value || found->unknown != s.unknown) && !again) {
      problem(s.where,
              s.key + " is " + quoted(s.value) + " here and " + quoted(found->value) + " at " +
                  found->where,
              "keep one");
    }
    found = &s;
  }
  if (found == nullptr || found->unknown.empty()) return found;
  if (!again && needed) {
    problem(found->where, found->key + " has no value: " + found->unknown,
            "write the value itself");
  } else if (!again) {
    aside_.push_back({found->where, found->key, found->unknown});
  }
  return nullptr;
}

bool Settings::has(std::string_view key) {
  return find(key) != nullptr;
}

std::optional<std::int64_t> Settings::integer(std::string_view key, std::int64_t min,
                                              std::int64_t max) {
  const Setting* s = find(key);
  if (s == nullptr) return std::nullopt;
  const auto value = whole_number(s->value);
  if (value && *value >= min && *value <= max) return value;
  problem(s->where, s->key + " " + quoted(s->value) + " is not a whole number",
          "from " + std::to_string(min) + " to " + std::to_string(max));
  return std::nullopt;
}

std::int64_t Settings::integer_or(std::string_view key, std::int64_t fallback) {
  return integer(key).value_or(fallback);
}

std::optional<bool> Settings::boolean(std::string_view key) {
  const Setting* s = find(key);
  if (s == nullptr) return std::nullopt;
  const std::string value = lower(s->value);
  if (value == "true" || value == "1") return true;
  if (value == "false" || value == "0") return false;
  problem(s->where, s->key + " " + quoted(s->value) + " is neither true nor false");
  return std::nullopt;
}

std::string Settings::word_or(std::string_view key, const std::vector<std::string>& words,
                              const std::string& fallback) {
  const Setting* s = find(key);
  if (s == nullptr) return fallback;
  if (std::find(words.begin(), words.end(), s->value) != words.end()) return s->value;
  std::string known;
  for (const std::string& word : words) known += (known.empty() ? "" : ", ") + word;
  problem(s->where, s->key + " " + quoted(s->value) + " is none of its values", "known: " + known);
  return fallback;
}

void Settings::set_aside(std::string_view key, const std::string& why) {
  const Setting* s = find(key, false);
  if (s != nullptr) aside_.push_back({s->where, s->key, why});
}

void Settings::expect(std::string_view key, std::int64_t value, const std::string& whose) {
  const auto found = integer(key, 0);
  if (!found || *found == value) return;
  problem(where(key),
          std::string(key) + " is " + std::to_string(*found) + ", but " + whose + " has " +
              std::to_string(value),
          "name the model and workload of this file, or mend it");
}

std::vector<std::string> Settings::keys_ending(std::string_view end) const {
  std::vector<std::string> keys;
  for (const Setting& s : settings_) {
    const bool ends = s.key.size() > end.size() && s.key.ends_with(end);
    if (ends && std::find(keys.begin(), keys.end(), s.key) == keys.end()) keys.push_back(s.key);
  }
  return keys;
}

void Settings::forget(std::string_view value, const std::string& why) {
  std::vector<Setting> kept;
  for (Setting& s : settings_) {
    if (s.value == value) {
      aside_.push_back({s.where, s.key, why});
    } else {
      kept.push_back(std::move(s));
    }
  }
  settings_ = std::move(kept);
}

bool Settings::forgotten(std::string_view key) const {
  const bool there = std::any_of(settings_.begin(), settings_.end(),
                                 [&](const Setting& s) { return s.key == key; });
  return !there &&
         std::any_of(aside_.begin(), aside_.end(), [&](const Unused& u) { return u.what == key; });
}

std::string Settings::where(std::string_view key) const {
  for (auto s = settings_.rbegin(); s != settings_.rend(); ++s) {
    if (s->key == key) return s->where;
  }
  return place_;
}

std::vector<Unused> Settings::unused() const {
  std::vector<Unused> all = aside_;
  for (const Setting& s : settings_) {
    if (std::find(read_.begin(), read_.end(), s.key) != read_.end()) continue;
    all.push_back({s.where, s.key, ""});
  }
  return all;
}

void add_json(const Json& json, const std::string& pointer, Settings& settings) {
  if (json.is_object()) {
    for (const auto& [key, value] : json.members()) {
      add_json(value, pointer + "/" + key, settings);
    }
    return;
  }
  std::string value = json.is_string() ? json.as_string() : json.dump(-1);
  settings.add({pointer, std::move(value), settings.place() + ":" + pointer});
}

}  // namespace orrery::handover
