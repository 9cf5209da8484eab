// Json: parsing through nlohmann's SAX interface, which stays inside this file, and dumping.
// The parser of nlohmann keeps its own stack, so hostile nesting cannot overflow ours.
#include "core/json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/configs.h"

namespace orrery {
namespace {

constexpr std::size_t kMaxDepth = 200;

std::string escaped_pointer(std::string_view key) {
  std::string out;
  for (const char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

// Builds a Json bottom up. Each callback returns false to stop.
class Builder {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  bool null() { return add(Json()); }
  bool boolean(bool value) { return add(Json(value)); }
  bool number_integer(number_integer_t value) { return add(Json(std::int64_t{value})); }
  bool number_unsigned(number_unsigned_t value) {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) {
      return add(Json(static_cast<double>(value)));
    }
    return add(Json(static_cast<std::int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t& text) {
    if (!std::isfinite(value)) return fail("number out of range: " + text.substr(0, 40));
    return add(Json(value));
  }
  bool string(string_t& value) { return add(Json(std::move(value))); }
  bool binary(binary_t&) { return fail("binary values are not JSON"); }

  bool start_object(std::size_t) { return open(true); }
  bool start_array(std::size_t) { return open(false); }
  bool key(string_t& value) {
    Frame& frame = stack_.back();
    frame.key = value;
    if (!frame.seen.insert(value).second) return fail("duplicate key \"" + value + "\"");
    return true;
  }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& ex) {
    position_ = position;
    message_ = ex.what();
    return false;
  }

  Json take() { return std::move(root_); }
  const std::string& message() const { return message_; }  // of a failure
  std::size_t position() const { return position_; }       // bytes read; 0: see pointer()
  std::string pointer() const {
    std::string out;
    for (const Frame& frame : stack_) {
      out +=
          "/" + (frame.is_object ? escaped_pointer(frame.key) : std::to_string(frame.items.size()));
    }
    return out.empty() ? "/" : out;
  }

 private:
  struct Frame {
    bool is_object = false;
    std::string key;
    std::unordered_set<std::string> seen;
    Json::Object members;
    Json::Array items;
  };

  bool fail(std::string message) {
    message_ = std::move(message);
    return false;
  }
  bool open(bool is_object) {
    if (stack_.size() >= kMaxDepth) return fail("nested deeper than 200 levels");
    stack_.push_back({is_object, {}, {}, {}, {}});
    return true;
  }
  bool close() {
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    return add(frame.is_object ? Json::object(std::move(frame.members))
                               : Json::array(std::move(frame.items)));
  }
  bool add(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (stack_.back().is_object) {
      stack_.back().members.emplace_back(stack_.back().key, std::move(value));
    } else {
      stack_.back().items.push_back(std::move(value));
    }
    return true;
  }

  Json root_;
  std::vector<Frame> stack_;
  std::string message_;
  std::size_t position_ = 0;
};

// "file:line:column" of the last of `read` bytes.
std::string position_in(std::string_view text, std::size_t read, const std::string& place) {
  std::size_t line = 1;
  std::size_t column = 0;
  for (std::size_t i = 0; i < text.size() && i + 1 < read; ++i) {
    ++column;
    if (text[i] == '\n') {
      ++line;
      column = 0;
    }
  }
  return place + ":" + std::to_string(line) + ":" + std::to_string(column + 1);
}

// nlohmann's text without its tag and position, which `where` says.
std::string plain_message(const std::string& what) {
  const std::size_t column = what.find("column ");
  std::size_t begin = column == std::string::npos ? what.find("] ") : what.find(": ", column);
  begin = begin == std::string::npos ? 0 : begin + 2;
  std::string message = what.substr(begin);
  if (message.size() > 200) message = message.substr(0, 200) + "...";
  for (char& c : message) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';  // it may quote broken UTF-8
  }
  return message;
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string number_text(double value) {
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  std::string text(buffer.data(), end);
  // A double stays a double when it is read again.
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

void write(const Json& json, int indent, int level, std::string& out) {
  const auto line_break = [&](int at) {
    if (indent < 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(indent * at), ' ');
  };
  const char* comma = indent < 0 ? ", " : ",";
  bool first = true;
  if (json.is_null()) {
    out += "null";
  } else if (json.is_bool()) {
    out += json.as_bool() ? "true" : "false";
  } else if (json.is_integer()) {
    out += std::to_string(json.as_integer());
  } else if (json.is_number()) {
    out += number_text(json.as_double());
  } else if (json.is_string()) {
    out += quoted(json.as_string());
  } else if (json.is_array()) {
    // An array of scalars stays on one line: curves and lengths are read by people.
    const bool flat = std::none_of(json.items().begin(), json.items().end(), [](const Json& item) {
      return item.is_array() || item.is_object();
    });
    if (flat && indent >= 0) return write(json, -1, level, out);
    out += '[';
    for (const Json& item : json.items()) {
      if (!first) out += comma;
      first = false;
      line_break(level + 1);
      write(item, indent, level + 1, out);
    }
    if (!first) line_break(level);
    out += ']';
  } else {
    out += '{';
    for (const auto& [key, value] : json.members()) {
      if (!first) out += comma;
      first = false;
      line_break(level + 1);
      out += quoted(key) + ": ";
      write(value, indent, level + 1, out);
    }
    if (!first) line_break(level);
    out += '}';
  }
}

}  // namespace

Json::Json(double value) : data_(value) {
  CHECK(std::isfinite(value), "a JSON number is not finite");
}

Result<Json> Json::parse(std::string_view text, const std::string& place) {
  Builder builder;
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return builder.take();
  if (builder.position() > 0) {
    return Error::of(ErrorCode::kInvalid, position_in(text, builder.position(), place),
                     plain_message(builder.message()));
  }
  return Error::of(ErrorCode::kInvalid, place + ":" + builder.pointer(), builder.message());
}

Result<Json> Json::load(const std::string& path) {
  TRY(const std::string text, read_file(path));
  return parse(text, path);
}

std::string Json::dump(int indent) const {
  std::string out;
  write(*this, indent, 0, out);
  return out;
}

bool Json::as_bool() const {
  CHECK(is_bool(), "JSON value is not a boolean");
  return std::get<bool>(data_);
}

std::int64_t Json::as_integer() const {
  CHECK(is_integer(), "JSON value is not an integer");
  return std::get<std::int64_t>(data_);
}

double Json::as_double() const {
  CHECK(is_number(), "JSON value is not a number");
  if (is_integer()) return static_cast<double>(std::get<std::int64_t>(data_));
  return std::get<double>(data_);
}

const std::string& Json::as_string() const {
  CHECK(is_string(), "JSON value is not a string");
  return std::get<std::string>(data_);
}

const Json::Array& Json::items() const {
  CHECK(is_array(), "JSON value is not an array");
  return std::get<Array>(data_);
}

const Json::Object& Json::members() const {
  CHECK(is_object(), "JSON value is not an object");
  return std::get<Object>(data_);
}

const Json* Json::find(std::string_view key) const {
  for (const Member& member : members()) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

Json& Json::set(std::string key, Json value) {
  CHECK(is_object(), "JSON value is not an object");
  for (Member& member : std::get<Object>(data_)) {
    if (member.first == key) {
      member.second = std::move(value);
      return *this;
    }
  }
  std::get<Object>(data_).emplace_back(std::move(key), std::move(value));
  return *this;
}

Json& Json::push(Json value) {
  CHECK(is_array(), "JSON value is not an array");
  std::get<Array>(data_).push_back(std::move(value));
  return *this;
}

}  // namespace orrery
