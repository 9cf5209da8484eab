// A JSON value: what configs, plans and reports are made of. Parsing is strict: duplicate keys,
// NaN, trailing text, bad UTF-8 and more than 200 levels are errors; an integer beyond int64 is
// read as a double. Objects keep their order, so dumps are stable.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/result.h"

namespace orrery {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;

  Json() = default;
  Json(bool value) : data_(value) {}                            // NOLINT
  Json(int value) : data_(static_cast<std::int64_t>(value)) {}  // NOLINT
  Json(std::int64_t value) : data_(value) {}                    // NOLINT
  Json(double value);                                           // NOLINT  CHECKs that it is finite
  Json(std::string value) : data_(std::move(value)) {}          // NOLINT
  Json(std::string_view value) : data_(std::string(value)) {}   // NOLINT
  Json(const char* value) : data_(std::string(value)) {}        // NOLINT
  static Json object() { return Json(Data(Object{})); }
  static Json array() { return Json(Data(Array{})); }
  static Json object(Object members) { return Json(Data(std::move(members))); }  // distinct keys
  static Json array(Array items) { return Json(Data(std::move(items))); }

  // `place` (a file name) starts the `where` of every error: "file:line:column", or
  // "file:/json/pointer" for a duplicate key. A file that cannot be read is kIo.
  static Result<Json> parse(std::string_view text, const std::string& place);
  static Result<Json> load(const std::string& path);

  // indent < 0: one line; else arrays of scalars take one. Ends without a newline.
  std::string dump(int indent = 2) const;

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_integer() const { return std::holds_alternative<std::int64_t>(data_); }
  bool is_number() const { return is_integer() || std::holds_alternative<double>(data_); }
  bool is_string() const { return std::holds_alternative<std::string>(data_); }
  bool is_array() const { return std::holds_alternative<Array>(data_); }
  bool is_object() const { return std::holds_alternative<Object>(data_); }

  // Each CHECKs the kind; test it first (or read through ObjectReader).
  bool as_bool() const;
  std::int64_t as_integer() const;
  double as_double() const;
  const std::string& as_string() const;
  const Array& items() const;
  const Object& members() const;

  const Json* find(std::string_view key) const;  // nullptr when absent; CHECKs that it is an object
  Json& set(std::string key, Json value);        // adds or replaces; returns *this
  Json& push(Json value);                        // appends to an array; returns *this

  bool operator==(const Json&) const = default;

 private:
  using Data = std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Array, Object>;
  explicit Json(Data data) : data_(std::move(data)) {}
  Data data_ = nullptr;
};

// Reads one JSON object strictly and collects every problem: wrong kind, out of range, missing,
// unknown key (with "did you mean"). A getter that fails returns its fallback and notes a problem.
class ObjectReader {
 public:
  // `place` is "file:" + JSON pointer, e.g. "a.json:/link". Problems go to `problems`.
  ObjectReader(const Json& json, std::string place, std::vector<Problem>& problems);

  bool has(std::string_view key);  // present and not null; marks the key as known
  std::int64_t integer(std::string_view key, std::int64_t min, std::int64_t max);
  std::int64_t integer_or(std::string_view key, std::int64_t min, std::int64_t max,
                          std::int64_t fallback);
  double number(std::string_view key, double min, double max);
  double number_or(std::string_view key, double min, double max, double fallback);
  bool boolean_or(std::string_view key, bool fallback);
  std::string text(std::string_view key);
  std::string text_or(std::string_view key, std::string fallback);
  // One of `choices`; the problem names the nearest.
  std::string choice(std::string_view key, const std::vector<std::string>& choices);
  // Quantities with the unit in the text; a bare number is a problem (quantity.h).
  double quantity(std::string_view key, std::string_view dimension);
  double quantity_or(std::string_view key, std::string_view dimension, double fallback);
  const Json* child(std::string_view key);  // an object; a problem when missing or another kind
  const Json* array(std::string_view key);  // an array; the same

  void ignore(std::string_view key) { known_.emplace_back(key); }
  void note(std::string_view key, std::string message, std::string hint = "");
  // Notes a problem for every key that no getter asked for. Call it last; configs of other tools
  // (a Hugging Face config.json) do not call it.
  void finish();
  const std::string& place() const { return place_; }

 private:
  const Json* get(std::string_view key, bool required);
  const Json* json_;
  std::string place_;
  std::vector<Problem>& problems_;
  std::vector<std::string> known_;
};

}  // namespace orrery
