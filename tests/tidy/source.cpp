// Reading the tree: files, lines, code without comments and literals, includes, functions.
#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/tidy/tidy.h"

namespace orrery::tidy {
namespace {

namespace fs = std::filesystem;

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

bool is_text_file(const std::string& path) {
  static const std::array<std::string, 12> endings = {".h",     ".cpp",  ".md",    ".sql",
                                                      ".test",  ".txt",  ".cmake", ".json",
                                                      ".proto", ".html", ".css",   ".js"};
  const bool by_ending = std::any_of(endings.begin(), endings.end(), [&](const std::string& e) {
    return path.size() > e.size() && path.compare(path.size() - e.size(), e.size(), e) == 0;
  });
  return by_ending || path == "LICENSE" || path == "Containerfile" ||
         path.rfind("scripts/", 0) == 0 || path.rfind(".ci/", 0) == 0;
}

// Blanks everything but line breaks in text[begin, end).
void blank(std::string& text, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < std::min(end, text.size()); ++i) {
    if (text[i] != '\n') text[i] = ' ';
  }
}

// The index after the closing quote of the literal that opens at `open`.
std::size_t end_of_literal(std::string_view text, std::size_t open) {
  const char quote = text[open];
  for (std::size_t i = open + 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == quote || text[i] == '\n') {
      return i + 1;
    }
  }
  return text.size();
}

// The index after R"x(...)x" whose quote is at `open`.
std::size_t end_of_raw_string(std::string_view text, std::size_t open) {
  const std::size_t paren = text.find('(', open);
  if (paren == std::string_view::npos) return text.size();
  const std::string closing = ")" + std::string(text.substr(open + 1, paren - open - 1)) + "\"";
  const std::size_t end = text.find(closing, paren);
  return end == std::string_view::npos ? text.size() : end + closing.size();
}

std::string trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t\n") - first + 1));
}

// Drops `template <...>` from the front of a declaration's head.
std::string without_template(std::string head) {
  while (head.rfind("template", 0) == 0) {
    const std::size_t open = head.find('<');
    if (open == std::string::npos) return head;
    int depth = 0;
    std::size_t i = open;
    for (; i < head.size(); ++i) {
      if (head[i] == '<') ++depth;
      if (head[i] == '>' && --depth == 0) break;
    }
    head = i < head.size() ? trim(std::string_view(head).substr(i + 1)) : "";
  }
  return head;
}

bool ends_with_word(const std::string& head, std::string_view word) {
  return head.size() > word.size() &&
         head.compare(head.size() - word.size(), word.size(), word) == 0 &&
         !is_word(head[head.size() - word.size() - 1]);
}

// Does a body follow this head? Bodies follow ')', a qualifier, a trailing return type, or the last
// member of a constructor's list; anything else opens a scope, a type or an initialiser.
bool opens_function(const std::string& raw_head) {
  const std::string head = without_template(trim(raw_head));
  const std::size_t paren = head.rfind(')');
  if (paren == std::string::npos) return false;
  if (head.back() == ')') return true;
  for (const char* word : {"const", "noexcept", "override", "final", "mutable"}) {
    if (ends_with_word(head, word)) return true;
  }
  if (head.find("->", paren) != std::string::npos) return true;
  if (head.back() == '&' && head.find_first_not_of("& ", paren + 1) == std::string::npos)
    return true;
  return head.back() == '}' && head.find(')') != std::string::npos;
}

std::string name_in(const std::string& raw_head) {
  const std::string head = without_template(trim(raw_head));
  std::size_t end = head.find('(');
  if (end == std::string::npos) return "?";
  if (head.compare(0, 5, "TEST(") == 0 || head.compare(0, 7, "TEST_F(") == 0 ||
      head.compare(0, 7, "TEST_P(") == 0) {
    return head.substr(0, head.find(')') + 1);
  }
  while (end > 0 && head[end - 1] == ' ') --end;
  std::size_t begin = end;
  int angles = 0;  // inside the arguments of `Table<Key, Row>::find`
  for (; begin > 0; --begin) {
    const char c = head[begin - 1];
    if (c == '>') ++angles;
    if (angles == 0 && !is_word(c) && c != ':' && c != '~') break;
    if (c == '<') --angles;
  }
  return head.substr(begin, end - begin);
}

// Walks code by braces; outside functions it collects the head of what comes next.
class FunctionScanner {
 public:
  explicit FunctionScanner(std::string_view code) : code_(code) {}

  std::vector<Function> scan() {
    for (std::size_t i = 0; i < code_.size(); ++i) step(code_[i]);
    return std::move(found_);
  }

 private:
  void step(char c) {
    if (c == '\n') ++line_;
    if (in_function_) {
      if (c == '{') ++depth_;
      if (c == '}' && --depth_ == 0) finish();
    } else if (c == '{') {
      open();
    } else if (c == '}') {
      close();
    } else if (c == ';' && paren_depth_ == 0) {
      clear();
    } else {
      if (c == '(') ++paren_depth_;
      if (c == ')' && paren_depth_ > 0) --paren_depth_;
      add(c);
    }
  }

  void add(char c) {
    if (head_.empty()) {
      if (std::isspace(static_cast<unsigned char>(c)) != 0) return;
      head_line_ = line_;
    }
    const bool space = std::isspace(static_cast<unsigned char>(c)) != 0;
    if (space && head_.back() == ' ') return;
    head_ += space ? ' ' : c;
    // An access specifier is no part of the declaration after it.
    for (const char* label : {"public:", "private:", "protected:"}) {
      if (head_ == label) clear();
    }
  }

  // The member initialiser `b_{x}` of a constructor: a name before the brace, after `) : `.
  bool opens_member_initialiser() const {
    const std::string head = trim(head_);
    const std::size_t list = head.find(" : ");
    return list != std::string::npos && head.find(')') < list && is_word(head.back());
  }

  void open() {
    if (opens_member_initialiser() || (paren_depth_ > 0 && !opens_function(head_))) {
      heads_.push_back({head_ + "{}", head_line_, paren_depth_, true});
      clear();
      return;
    }
    if (opens_function(head_)) {
      in_function_ = true;
      depth_ = 1;
      return;
    }
    heads_.push_back({"", 0, 0, false});
    clear();
  }

  void close() {
    clear();
    if (heads_.empty()) return;
    const Saved saved = heads_.back();
    heads_.pop_back();
    if (!saved.resumes) return;
    head_ = saved.head;
    head_line_ = saved.line;
    paren_depth_ = saved.parens;
  }

  void finish() {
    found_.push_back({name_in(head_), head_line_, line_ - head_line_ + 1});
    in_function_ = false;
    // A lambda among arguments: the rest of its statement is of no interest.
    clear();
  }

  void clear() {
    head_.clear();
    paren_depth_ = 0;
  }

  struct Saved {
    std::string head;
    std::size_t line;
    int parens;
    bool resumes;  // the head goes on after the closing brace
  };

  std::string_view code_;
  std::vector<Function> found_;
  std::vector<Saved> heads_;
  std::string head_;
  std::size_t line_ = 1, head_line_ = 1;
  int depth_ = 0, paren_depth_ = 0;
  bool in_function_ = false;
};

// Preprocessor lines, with their continuations, are no code of a function.
void blank_preprocessor(std::string& code) {
  std::size_t begin = 0;
  bool continued = false;
  while (begin < code.size()) {
    const std::size_t end = std::min(code.find('\n', begin), code.size());
    const std::size_t first = code.find_first_not_of(" \t", begin);
    const bool directive = continued || (first < end && code[first] == '#');
    continued = directive && end > begin && code[end - 1] == '\\';
    if (directive) blank(code, begin, end);
    begin = end + 1;
  }
}

}  // namespace

Tree load_tree(const std::string& root) {
  Tree tree;
  fs::recursive_directory_iterator entry(root, fs::directory_options::skip_permission_denied);
  for (; entry != fs::recursive_directory_iterator(); ++entry) {
    const std::string path = fs::relative(entry->path(), root).generic_string();
    const std::string name = entry->path().filename().string();
    if (entry->is_directory()) {
      if (path == "build" || (name[0] == '.' && path != ".ci")) entry.disable_recursion_pending();
    } else if (entry->is_regular_file() && name[0] != '.' && is_text_file(path)) {
      std::ifstream stream(entry->path(), std::ios::binary);
      tree.files.push_back({path, std::string(std::istreambuf_iterator<char>(stream), {})});
    } else if (entry->is_regular_file() && (path.ends_with(".png") || path.ends_with(".svg"))) {
      tree.files.push_back({path, ""});  // documents link to it
    }
  }
  std::sort(tree.files.begin(), tree.files.end(),
            [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return tree;
}

std::string code_only(std::string_view text) {
  std::string code(text);
  std::size_t i = 0;
  while (i < text.size()) {
    std::size_t end = i + 1;
    if (text.substr(i, 2) == "//") {
      end = std::min(text.find('\n', i), text.size());
      blank(code, i, end);
    } else if (text.substr(i, 2) == "/*") {
      end = std::min(text.find("*/", i + 2), text.size() - 2) + 2;
      blank(code, i, end);
    } else if (text[i] == '"') {
      const bool raw = i > 0 && text[i - 1] == 'R';
      end = raw ? end_of_raw_string(text, i) : end_of_literal(text, i);
      blank(code, i + 1, end - 1);
    } else if (text[i] == '\'' && (i == 0 || !is_word(text[i - 1]))) {
      end = end_of_literal(text, i);  // after a word character it separates digits: 1'000
      blank(code, i + 1, end - 1);
    }
    i = end;
  }
  return code;
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::vector<Include> includes_of(const SourceFile& file) {
  std::vector<Include> found;
  const std::vector<std::string> lines = split_lines(file.text);
  const std::vector<std::string> code = split_lines(code_only(file.text));
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (code[i].rfind("#include", 0) != 0) continue;
    const std::size_t open = lines[i].find_first_of("<\"");
    if (open == std::string::npos) continue;
    const bool quoted = lines[i][open] == '"';
    const std::size_t close = lines[i].find(quoted ? '"' : '>', open + 1);
    if (close == std::string::npos) continue;
    found.push_back({lines[i].substr(open + 1, close - open - 1), quoted, i + 1});
  }
  return found;
}

std::vector<Function> functions_of(const SourceFile& file) {
  std::string code = code_only(file.text);
  blank_preprocessor(code);
  return FunctionScanner(code).scan();
}

bool is_header(std::string_view path) {
  return path.size() > 2 && path.substr(path.size() - 2) == ".h";
}

bool is_source(std::string_view path) {
  return is_header(path) || (path.size() > 4 && path.substr(path.size() - 4) == ".cpp");
}

bool is_page(std::string_view path) {
  return path.ends_with(".html") || path.ends_with(".css") || path.ends_with(".js");
}

bool starts_with_any(std::string_view path, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& prefix) {
    return path.substr(0, prefix.size()) == prefix;
  });
}

}  // namespace orrery::tidy
