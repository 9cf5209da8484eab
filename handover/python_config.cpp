// See python_config.h. First tokens, then statements; an expression that is not understood is
// skipped to its end, calls inside it are still read.
#include "handover/python_config.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

namespace orrery::handover {
namespace {

constexpr int kMostNested = 100;

enum class Kind { kName, kNumber, kText, kMark, kLineEnd };

struct Token {
  Kind kind = Kind::kMark;
  std::string text;
  int line = 1;
};

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

class Scanner {
 public:
  Scanner(const std::string& text, std::string place) : text_(text), place_(std::move(place)) {}

  Result<std::vector<Token>> run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (c == '\n') {
        if (open_.empty()) put(Kind::kLineEnd, "");
        ++line_;
        ++at_;
      } else if (c == '\\' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n') {
        ++line_;
        at_ += 2;
      } else if (c == '"' || c == '\'') {
        TRY_OK(read_text());
      } else if (is_letter(c)) {
        TRY_OK(read_name());
      } else if (is_digit(c)) {
        read_number();
      } else if (c == ' ' || c == '\t' || c == '\r') {
        ++at_;
      } else {
        TRY_OK(read_mark());
      }
    }
    if (!open_.empty()) return broken("'" + std::string(1, open_.back()) + "' is not closed");
    put(Kind::kLineEnd, "");
    return std::move(tokens_);
  }

 private:
  void put(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  Error broken(const std::string& what) const {
    return Error::of(ErrorCode::kInvalid, place_ + ":" + std::to_string(line_), what,
                     "give a configuration that Python can read");
  }

  Status read_name() {
    std::string name;
    while (at_ < text_.size() && (is_letter(text_[at_]) || is_digit(text_[at_]))) {
      name += text_[at_++];
    }
    const bool prefix = name.size() <= 2 && name.find_first_not_of("rRbBuUfF") == std::string::npos;
    if (prefix && at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) {
      TRY_OK(read_text());
      // Its braces would have to be evaluated.
      if (name.find_first_of("fF") != std::string::npos) tokens_.back() = {Kind::kMark, "f", line_};
      return Ok{};
    }
    put(Kind::kName, std::move(name));
    return Ok{};
  }

  void read_number() {
    std::string number;
    while (at_ < text_.size() &&
           (is_letter(text_[at_]) || is_digit(text_[at_]) || text_[at_] == '.')) {
      if (text_[at_] != '_') number += text_[at_];
      ++at_;
    }
    put(Kind::kNumber, std::move(number));
  }

  Status read_text() {
    const char quote = text_[at_];
    const int first = line_;
    const bool triple = text_.compare(at_, 3, std::string(3, quote)) == 0;
    const std::string end(triple ? 3 : 1, quote);
    at_ += end.size();
    std::string value;
    while (at_ < text_.size() && text_.compare(at_, end.size(), end) != 0) {
      if (text_[at_] == '\n' && !triple) break;
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
      if (text_[at_] == '\n') ++line_;
      value += text_[at_++];
    }
    if (text_.compare(at_, end.size(), end) != 0) {
      line_ = first;
      return broken("a text is not closed");
    }
    at_ += end.size();
    put(Kind::kText, std::move(value));
    tokens_.back().line = first;
    return Ok{};
  }

  Status read_mark() {
    const char c = text_[at_++];
    if (c == '(' || c == '[' || c == '{') open_ += c;
    if (c == ')' || c == ']' || c == '}') {
      const char opens = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open_.empty() || open_.back() != opens) {
        return broken("'" + std::string(1, c) + "' closes nothing");
      }
      open_.pop_back();
    }
    put(Kind::kMark, std::string(1, c));
    return Ok{};
  }

  const std::string& text_;
  std::string place_;
  std::vector<Token> tokens_;
  std::string open_;
  std::size_t at_ = 0;
  int line_ = 1;
};

struct Value {
  std::string text;
  std::string unknown;  // why; empty: the text is the value
};

Value unknown(const std::string& why) {
  return {"", why};
}

class Statements {
 public:
  Statements(std::vector<Token> tokens, Settings& settings)
      : tokens_(std::move(tokens)), settings_(settings) {}

  void run() {
    while (at_ < tokens_.size()) {
      if (!assignment()) expression(0);
      // What is left of a statement may hold calls as well.
      while (at_ < tokens_.size() && tokens_[at_].kind != Kind::kLineEnd) expression(0);
      ++at_;
    }
  }

 private:
  bool is(std::size_t at, const char* mark) const {
    return at < tokens_.size() && tokens_[at].kind == Kind::kMark && tokens_[at].text == mark;
  }
  bool is_kind(std::size_t at, Kind kind) const {
    return at < tokens_.size() && tokens_[at].kind == kind;
  }
  std::string at_line(int line) const { return settings_.place() + ":" + std::to_string(line); }

  void set(const std::string& key, const Value& value, int line) {
    settings_.add({key, value.text, at_line(line), value.unknown});
  }

  // NAME(.NAME)* = value, or os.environ["NAME"] = value.
  bool assignment() {
    std::size_t at = at_;
    std::vector<std::string> path;
    while (is_kind(at, Kind::kName)) {
      path.push_back(tokens_[at++].text);
      if (!is(at, ".")) break;
      ++at;
    }
    if (path.empty()) return false;
    std::string item;
    if (is(at, "[") && is_kind(at + 1, Kind::kText) && is(at + 2, "]")) {
      item = tokens_[at + 1].text;
      at += 3;
    }
    if (!is(at, "=") || is(at + 1, "=")) return false;
    const int line = tokens_[at].line;
    at_ = at + 1;
    const Value value = expression(0);
    if (path.size() == 2 && path.back() == "environ" && !item.empty()) {
      set("environ." + item, value, line);
    } else if (path.size() == 1 && item.empty()) {
      names_[path[0]] = value;
    } else if (item.empty()) {
      set(path[0] + "." + path.back(), value, line);
    }
    return true;
  }

  // Until the "," or bracket that ends it, or the end of the line.
  Value expression(int depth) {
    Value value = operand(depth);
    while (at_ < tokens_.size()) {
      const Token& t = tokens_[at_];
      const bool ends =
          t.kind == Kind::kLineEnd ||
          (t.kind == Kind::kMark && std::string(",)]}").find(t.text) != std::string::npos);
      if (ends) {
        if (depth == 0 && t.kind == Kind::kMark) ++at_;  // of a statement: what follows it
        break;
      }
      value = multiplied(value, depth);
    }
    return value;
  }

  // "a * b" of whole numbers is one; any other operator makes the whole unknown.
  Value multiplied(const Value& left, int depth) {
    const bool times = is(at_, "*") && !is(at_ + 1, "*");
    ++at_;
    const Value right = operand(depth);
    const auto a = whole_number(left.text), b = whole_number(right.text);
    std::int64_t both = 0;
    const bool known = times && left.unknown.empty() && right.unknown.empty() && a && b;
    if (!known || __builtin_mul_overflow(*a, *b, &both)) return unknown("an expression");
    return {std::to_string(both), ""};
  }

  Value operand(int depth) {
    if (at_ >= tokens_.size() || tokens_[at_].kind == Kind::kLineEnd) return unknown("nothing");
    const Token t = tokens_[at_];
    if (t.kind == Kind::kMark && std::string(",)]}").find(t.text) != std::string::npos) {
      return unknown("nothing");
    }
    ++at_;
    if (t.kind == Kind::kText || t.kind == Kind::kNumber) return {t.text, ""};
    if (t.kind == Kind::kName) return named(t, depth);
    if (t.text == "-" && is_kind(at_, Kind::kNumber)) return {"-" + tokens_[at_++].text, ""};
    if (t.text == "(" || t.text == "[" || t.text == "{") {
      group(depth);
      return unknown("a collection");
    }
    return unknown("an expression");
  }

  // The members of a bracket that is open, and the bracket that closes it.
  void group(int depth) {
    while (at_ < tokens_.size() && !closes(at_)) {
      if (depth < kMostNested) {
        expression(depth + 1);
        if (at_ < tokens_.size() && !closes(at_)) ++at_;
      } else {
        skip_group();
        return;
      }
    }
    ++at_;
  }

  bool closes(std::size_t at) const { return is(at, ")") || is(at, "]") || is(at, "}"); }

  void skip_group() {
    for (int open = 1; at_ < tokens_.size() && open > 0; ++at_) {
      if (is(at_, "(") || is(at_, "[") || is(at_, "{")) ++open;
      if (closes(at_)) --open;
    }
  }

  // A name that was assigned, a word of the language, or a call.
  Value named(const Token& first, int depth) {
    std::string last = first.text;
    bool dotted = false;
    while (is(at_, ".") && is_kind(at_ + 1, Kind::kName)) {
      dotted = true;
      last = tokens_[at_ + 1].text;
      at_ += 2;
    }
    if (is(at_, "(")) {
      ++at_;
      return call(last, dotted, depth);
    }
    if (is(at_, "[")) {
      ++at_;
      group(depth);
      return unknown("an item of " + first.text);
    }
    if (dotted) return unknown(first.text + "." + last + " is not evaluated");
    if (last == "True" || last == "False" || last == "None") return {last, ""};
    const auto found = names_.find(last);
    return found == names_.end() ? unknown(last + " is not set in this file") : found->second;
  }

  Value call(const std::string& name, bool dotted, int depth) {
    std::vector<Value> arguments;
    while (at_ < tokens_.size() && !closes(at_)) {
      if (depth >= kMostNested) {
        skip_group();
        return unknown("nested too deep");
      }
      const bool keyword = is_kind(at_, Kind::kName) && is(at_ + 1, "=") && !is(at_ + 2, "=");
      if (keyword) {
        const Token key = tokens_[at_];
        at_ += 2;
        set(name + "." + key.text, expression(depth + 1), key.line);
      } else {
        arguments.push_back(expression(depth + 1));
      }
      if (at_ < tokens_.size() && !closes(at_)) ++at_;
    }
    ++at_;
    const bool converts = !dotted && (name == "int" || name == "float" || name == "str");
    if (converts && arguments.size() == 1) return arguments[0];
    // os.environ.get("NAME", "8") and os.getenv: the default, since the file says no other.
    if (dotted && (name == "get" || name == "getenv") && arguments.size() == 2) return arguments[1];
    return unknown(name + "(...) is not evaluated");
  }

  std::vector<Token> tokens_;
  Settings& settings_;
  std::size_t at_ = 0;
  std::map<std::string, Value> names_;
};

}  // namespace

Result<Settings> parse_python(const std::string& text, const std::string& place) {
  TRY(std::vector<Token> tokens, Scanner(text, place).run());
  Settings settings(place);
  Statements(std::move(tokens), settings).run();
  return settings;
}

}  // namespace orrery::handover
