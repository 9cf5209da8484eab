// ObjectReader: reads an object key by key and remembers everything that is wrong with it.
#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "core/quantity.h"

namespace orrery {
namespace {

const char* kind_of(const Json& json) {
  if (json.is_null()) return "null";
  if (json.is_bool()) return "a boolean";
  if (json.is_number()) return "a number";
  if (json.is_string()) return "a string";
  return json.is_array() ? "an array" : "an object";
}

// The value, cut where it is long.
std::string shown(const Json& json) {
  std::string text = json.dump(-1);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

std::string mismatch(const Json& json, const char* expected) {
  return std::string(expected) + " expected, found " + kind_of(json) + ": " + shown(json);
}

std::string bound_text(double bound) {
  return Json(bound).dump();
}

}  // namespace

ObjectReader::ObjectReader(const Json& json, std::string place, std::vector<Problem>& problems)
    : json_(&json), place_(std::move(place)), problems_(problems) {
  if (json.is_object()) return;
  problems_.push_back({place_, mismatch(json, "an object"), ""});
  json_ = nullptr;  // silences every getter: one problem is enough
}

void ObjectReader::note(std::string_view key, std::string message, std::string hint) {
  std::string where = place_ + "/";
  for (const char c : key) {
    if (c == '~') {
      where += "~0";
    } else if (c == '/') {
      where += "~1";
    } else {
      where += c;
    }
  }
  problems_.push_back({std::move(where), std::move(message), std::move(hint)});
}

const Json* ObjectReader::get(std::string_view key, bool required) {
  ignore(key);
  if (json_ == nullptr) return nullptr;
  const Json* value = json_->find(key);
  if (value != nullptr && !value->is_null()) return value;
  if (required) note(key, "is missing");
  return nullptr;
}

bool ObjectReader::has(std::string_view key) {
  return get(key, false) != nullptr;
}

std::int64_t ObjectReader::integer(std::string_view key, std::int64_t min, std::int64_t max) {
  return get(key, true) == nullptr ? min : integer_or(key, min, max, min);
}

std::int64_t ObjectReader::integer_or(std::string_view key, std::int64_t min, std::int64_t max,
                                      std::int64_t fallback) {
  const Json* value = get(key, false);
  if (value == nullptr) return fallback;
  std::int64_t result = 0;
  if (value->is_integer()) {
    result = value->as_integer();
  } else if (value->is_number() && std::trunc(value->as_double()) == value->as_double() &&
             std::abs(value->as_double()) < 9e15) {
    result = static_cast<std::int64_t>(value->as_double());  // 1000000.0
  } else {
    note(key, mismatch(*value, "a whole number"));
    return fallback;
  }
  if (result < min || result > max) {
    note(key, "is " + std::to_string(result) + ", not between " + std::to_string(min) + " and " +
                  std::to_string(max));
    return fallback;
  }
  return result;
}

double ObjectReader::number(std::string_view key, double min, double max) {
  return get(key, true) == nullptr ? min : number_or(key, min, max, min);
}

double ObjectReader::number_or(std::string_view key, double min, double max, double fallback) {
  const Json* value = get(key, false);
  if (value == nullptr) return fallback;
  if (!value->is_number()) {
    note(key, mismatch(*value, "a number"));
    return fallback;
  }
  const double result = value->as_double();
  if (result < min || result > max) {
    note(key,
         "is " + shown(*value) + ", not between " + bound_text(min) + " and " + bound_text(max));
    return fallback;
  }
  return result;
}

bool ObjectReader::boolean_or(std::string_view key, bool fallback) {
  const Json* value = get(key, false);
  if (value == nullptr) return fallback;
  if (value->is_bool()) return value->as_bool();
  note(key, mismatch(*value, "true or false"));
  return fallback;
}

std::string ObjectReader::text(std::string_view key) {
  return get(key, true) == nullptr ? "" : text_or(key, "");
}

std::string ObjectReader::text_or(std::string_view key, std::string fallback) {
  const Json* value = get(key, false);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->as_string();
  note(key, mismatch(*value, "a string"));
  return fallback;
}

std::string ObjectReader::choice(std::string_view key, const std::vector<std::string>& choices) {
  CHECK(!choices.empty(), "choice() of nothing");
  const Json* value = get(key, true);
  if (value == nullptr) return choices.front();
  if (!value->is_string()) {
    note(key, mismatch(*value, "a string"));
    return choices.front();
  }
  const std::string& word = value->as_string();
  if (std::find(choices.begin(), choices.end(), word) != choices.end()) return word;
  std::string hint;
  if (const std::string near = nearest(word, choices); !near.empty()) {
    hint = "did you mean '" + near + "'?";
  } else {
    for (const std::string& known : choices) hint += (hint.empty() ? "one of: " : ", ") + known;
  }
  note(key, "unknown value " + shown(*value), hint);
  return choices.front();
}

double ObjectReader::quantity(std::string_view key, std::string_view dimension) {
  return get(key, true) == nullptr ? 0 : quantity_or(key, dimension, 0);
}

double ObjectReader::quantity_or(std::string_view key, std::string_view dimension,
                                 double fallback) {
  const Json* value = get(key, false);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    note(key, mismatch(*value, "a quantity with its unit, in quotes,"),
         value->is_number() ? "for example \"" + shown(*value) + " " + std::string(dimension) + "\""
                            : "");
    return fallback;
  }
  Result<double> result = parse_quantity(value->as_string(), dimension, "");
  if (result.ok()) return result.value();
  for (const Problem& problem : result.error().problems) note(key, problem.message, problem.hint);
  return fallback;
}

const Json* ObjectReader::child(std::string_view key) {
  const Json* value = get(key, true);
  if (value == nullptr || value->is_object()) return value;
  note(key, mismatch(*value, "an object"));
  return nullptr;
}

const Json* ObjectReader::array(std::string_view key) {
  const Json* value = get(key, true);
  if (value == nullptr || value->is_array()) return value;
  note(key, mismatch(*value, "an array"));
  return nullptr;
}

void ObjectReader::finish() {
  if (json_ == nullptr) return;
  for (const auto& [key, value] : json_->members()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string near = nearest(key, known_);
    note(key, "unknown key", near.empty() ? "" : "did you mean '" + near + "'?");
  }
}

}  // namespace orrery
