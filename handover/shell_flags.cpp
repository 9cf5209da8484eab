// See shell_flags.h. A word is read with the line of each of its characters, since a quoted text
// may span lines and be split into flags afterwards.
#include "handover/shell_flags.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace orrery::handover {
namespace {

constexpr char kUnknown = '\1';  // stands in a word for what only a shell could know
constexpr int kMostNested = 20;  // defaults within defaults
constexpr std::size_t kLongestWord = 1 << 16;

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

struct Word {
  std::string text;
  std::vector<int> lines;  // of each character
  std::string unknown;     // the first thing that is
  bool quoted = false;

  void add(char c, int line) {
    text += c;
    lines.push_back(line);
  }
};

bool has_flags(const std::string& text) {
  return text.rfind("--", 0) == 0 || text.find(" --") != std::string::npos ||
         text.find("\n--") != std::string::npos || text.find("\t--") != std::string::npos;
}

class Script {
 public:
  Script(const std::string& text, Settings& settings, const std::vector<std::string>& several)
      : text_(text), settings_(settings), several_(several) {}

  void run() {
    bool starts = true;  // a command
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        skip_comment();
      } else if (is_blank(c) || std::string_view(";&|<>(){}").find(c) != std::string_view::npos) {
        const bool ends = c != ' ' && c != '\t' && c != '\r';
        if (ends) {
          end_command();
          starts = true;
        }
        advance();
      } else {
        const int line = line_;
        const Word word = read_word(false);
        if (assigns(word)) continue;
        if (starts && is_condition(word.text)) {
          settings_.add({"if", word.text, at(line)});
        } else {
          take(word);
          starts = false;
        }
      }
    }
    end_command();
  }

 private:
  struct Value {
    std::string text, unknown;
  };

  std::string at(int line) const { return settings_.place() + ":" + std::to_string(line); }

  char advance() {
    const char c = text_[at_++];
    if (c == '\n') ++line_;
    return c;
  }
  bool next_is(std::string_view what) const { return text_.compare(at_, what.size(), what) == 0; }
  void skip_comment() {
    while (at_ < text_.size() && text_[at_] != '\n') advance();
  }

  static bool is_condition(const std::string& word) {
    return word == "if" || word == "elif" || word == "case" || word == "for" || word == "while";
  }

  // Until a blank or an operator outside quotes; `inside`: until the closing brace of an expansion.
  Word read_word(bool inside) {
    Word word;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (inside ? c == '}' : is_blank(c)) break;
      if (!inside && std::string_view(";&|<>()").find(c) != std::string_view::npos) break;
      if (c == '\\') {
        const int line = line_;
        advance();
        if (at_ < text_.size()) {
          const char escaped = advance();
          if (escaped != '\n') word.add(escaped, line);
          // A line that goes on: the word ends where the next line has a blank.
        }
      } else if (c == '\'') {
        word.quoted = true;
        advance();
        while (at_ < text_.size() && text_[at_] != '\'') word.add(text_[at_], line_), advance();
        if (at_ < text_.size()) advance();
      } else if (c == '"') {
        word.quoted = true;
        read_quoted(word);
      } else if (c == '$' || c == '`') {
        expand(word);
      } else {
        word.add(c, line_);
        advance();
      }
    }
    return word;
  }

  void read_quoted(Word& word) {
    advance();
    while (at_ < text_.size() && text_[at_] != '"') {
      const char c = text_[at_];
      if (c == '\\' && at_ + 1 < text_.size()) {
        advance();
        const int line = line_;
        const char escaped = advance();
        word.add(escaped == '\n' ? ' ' : escaped, line);
      } else if (c == '$' || c == '`') {
        expand(word);
      } else {
        word.add(c, line_);
        advance();
      }
    }
    if (at_ < text_.size()) advance();
  }

  static void add_unknown(Word& word, const std::string& what, int line) {
    if (word.unknown.empty()) word.unknown = what;
    word.add(kUnknown, line);
  }

  // "$NAME", "${NAME}", "${NAME:-default}", "$(...)", "`...`"
  void expand(Word& word) {
    const int line = line_;
    if (advance() == '`') {
      while (at_ < text_.size() && text_[at_] != '`') advance();
      if (at_ < text_.size()) advance();
      add_unknown(word, "a command's output", line);
      return;
    }
    if (next_is("(")) {
      skip_balanced();
      add_unknown(word, "$(...) is not evaluated", line);
    } else if (next_is("{")) {
      advance();
      expand_braces(word, line);
    } else {
      std::string name;
      while (at_ < text_.size() && is_name(text_[at_])) name += advance();
      if (name.empty() && at_ < text_.size() &&
          std::string_view("@*#?!$-").find(text_[at_]) != std::string_view::npos) {
        advance();
        return;  // the words of the call: nothing of this file
      }
      put(word, name, std::nullopt, line);
    }
  }

  void expand_braces(Word& word, int line) {
    std::string name;
    while (at_ < text_.size() && is_name(text_[at_])) name += advance();
    std::optional<Word> otherwise;
    if (next_is("[@]") || next_is("[*]")) {  // an array: its words were read where it was set
      at_ += 3;
      if (arrays_.count(name) > 0 && next_is("}")) {
        advance();
        return;
      }
    }
    if (next_is(":-") || next_is(":=") || next_is("-") || next_is("=")) {
      advance();
      if (at_ < text_.size() && (text_[at_] == '-' || text_[at_] == '=')) advance();
      if (++nested_ <= kMostNested) otherwise = read_word(true);
      --nested_;
    }
    while (at_ < text_.size() && text_[at_] != '}') advance();
    if (at_ < text_.size()) advance();
    put(word, name, otherwise, line);
  }

  void skip_balanced() {
    int depth = 0;
    while (at_ < text_.size()) {
      const char c = advance();
      if (c == '(') ++depth;
      if (c == ')' && --depth == 0) return;
    }
  }

  void put(Word& word, const std::string& name, const std::optional<Word>& otherwise, int line) {
    const auto found = variables_.find(name);
    const std::size_t more = found != variables_.end() ? found->second.text.size() : 0;
    if (word.text.size() + more > kLongestWord) {  // doubled again and again
      if (word.unknown.empty()) add_unknown(word, "is too long", line);
    } else if (found != variables_.end()) {
      if (has_flags(found->second.text)) return;  // read where the variable was set
      if (word.unknown.empty()) word.unknown = found->second.unknown;
      for (const char c : found->second.text) word.add(c, line);
    } else if (otherwise) {
      if (word.unknown.empty()) word.unknown = otherwise->unknown;
      for (const char c : otherwise->text) word.add(c, line);
    } else if (arrays_.count(name) == 0) {
      add_unknown(word, "$" + name + " is not set in this file", line);
    }
  }

  // "NAME=value", "NAME=(words)" and "+=" of both: takes it, and reads the words of an array.
  bool assigns(const Word& word) {
    const std::size_t equals = word.text.find('=');
    if (equals == std::string::npos || equals == 0) return false;
    const bool adds = word.text[equals - 1] == '+';
    const std::string name = word.text.substr(0, equals - (adds ? 1 : 0));
    if (name.empty() || !std::all_of(name.begin(), name.end(), is_name)) return false;
    if (equals + 1 == word.text.size() && at_ < text_.size() && text_[at_] == '(') {
      arrays_.insert(name);
      read_array();
      return true;
    }
    const std::string value = word.text.substr(equals + 1);
    if (has_flags(value)) {
      end_command();
      Word rest = word;
      rest.text = value;
      rest.lines.erase(rest.lines.begin(),
                       rest.lines.begin() + static_cast<std::ptrdiff_t>(equals + 1));
      split(rest);
      end_command();
    }
    Value& variable = variables_[name];
    variable = {adds ? variable.text + value : value, word.unknown};
    if (variable.text.size() > kLongestWord) variable = {std::string(1, kUnknown), "is too long"};
    return true;
  }

  void read_array() {
    end_command();
    advance();
    while (at_ < text_.size() && text_[at_] != ')') {
      const char c = text_[at_];
      if (c == '#') {
        skip_comment();
      } else if (is_blank(c) || std::string_view(";&|<>(").find(c) != std::string_view::npos) {
        advance();
      } else {
        take(read_word(false));
      }
    }
    if (at_ < text_.size()) advance();
    end_command();
  }

  void take(const Word& word) {
    // A text of several flags is split, as `eval` or an unquoted variable would.
    if (has_flags(word.text) && word.text.find_first_of(" \n\t") != std::string::npos &&
        word.text.find('=') > word.text.find_first_of(" \n\t")) {
      split(word);
    } else {
      push(word.text, word.lines.empty() ? line_ : word.lines.front(), word.unknown);
    }
  }

  void split(const Word& word) {
    std::string part;
    int line = line_;
    for (std::size_t i = 0; i <= word.text.size(); ++i) {
      if (i < word.text.size() && !is_blank(word.text[i])) {
        if (part.empty()) line = word.lines[i];
        part += word.text[i];
        continue;
      }
      if (!part.empty()) push(part, line, word.unknown);
      part.clear();
    }
  }

  // The next word of a command: a flag, or a value of the one before.
  void push(const std::string& text, int line, const std::string& unknown) {
    const bool known = text.find(kUnknown) == std::string::npos;
    if (text.size() > 2 && text.rfind("--", 0) == 0 && (is_name(text[2]))) {
      end_command();
      const std::size_t equals = text.find('=');
      flag_ = Setting{text.substr(0, equals), "", at(line)};
      if (equals != std::string::npos) {
        flag_->value = text.substr(equals + 1);
        if (!known) flag_->unknown = unknown;
        end_command();
      }
      return;
    }
    if (!flag_ || text.empty()) return;
    const bool takes_more =
        std::find(several_.begin(), several_.end(), flag_->key) != several_.end();
    if (!flag_->value.empty() && !takes_more) return;
    if (!known && flag_->unknown.empty()) flag_->unknown = unknown;
    flag_->value += (flag_->value.empty() ? "" : " ") + text;
  }

  void end_command() {
    if (flag_) settings_.add(std::move(*flag_));
    flag_.reset();
  }

  const std::string& text_;
  Settings& settings_;
  const std::vector<std::string>& several_;
  std::size_t at_ = 0;
  int line_ = 1;
  int nested_ = 0;
  std::map<std::string, Value> variables_;
  std::set<std::string> arrays_;
  std::optional<Setting> flag_;
};

}  // namespace

Settings parse_shell_flags(const std::string& text, const std::string& place,
                           const std::vector<std::string>& several) {
  Settings settings(place);
  std::string plain = text;
  plain.erase(std::remove(plain.begin(), plain.end(), '\r'), plain.end());
  Script(plain, settings, several).run();
  return settings;
}

}  // namespace orrery::handover
