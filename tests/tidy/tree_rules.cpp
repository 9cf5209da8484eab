// The rules that hold one file of the tree against others.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include "tests/tidy/tables.h"
#include "tests/tidy/tidy.h"

namespace orrery::tidy {
namespace {

namespace fs = std::filesystem;

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::set<std::string> paths_of(const Tree& tree) {
  std::set<std::string> paths;
  for (const SourceFile& file : tree.files) paths.insert(file.path);
  return paths;
}

// Does a CMake file name this source, as a word of its own and outside comments?
bool lists(const std::string& cmake, const std::string& source) {
  for (const std::string& line : split_lines(cmake)) {
    const std::string code = line.substr(0, line.find('#'));
    for (std::size_t at = code.find(source); at != std::string::npos;
         at = code.find(source, at + 1)) {
      const std::size_t end = at + source.size();
      const std::string edges = " \t()\"";
      const bool starts = at == 0 || edges.find(code[at - 1]) != std::string::npos;
      if (starts && (end == code.size() || edges.find(code[end]) != std::string::npos)) return true;
    }
  }
  return false;
}

// Is `path` listed by the CMakeLists.txt of its folder or of one above?
bool is_listed(const Tree& tree, const std::string& path) {
  return std::any_of(tree.files.begin(), tree.files.end(), [&](const SourceFile& file) {
    if (name_of(file.path) != "CMakeLists.txt") return false;
    const std::string folder = folder_of(file.path);
    const std::string prefix = folder.empty() ? "" : folder + "/";
    return path.compare(0, prefix.size(), prefix) == 0 &&
           lists(file.text, path.substr(prefix.size()));
  });
}

// Folders of one or two levels explain themselves; those of tests and of data are told by the one
// above, and deeper ones by theirs.
bool needs_readme(const std::string& folder) {
  if (folder.empty() || folder[0] == '.' || folder == "cmake") return false;
  const std::size_t slash = folder.find('/');
  if (slash == std::string::npos) return true;
  const std::string top = folder.substr(0, slash);
  for (const char* whole : {"tests", "configs", "docs", "benchmarks", "scripts"}) {
    if (top == whole) return false;
  }
  return folder.find('/', slash + 1) == std::string::npos;
}

// The path that a link of a document in `folder` leads to; "" for addresses and anchors.
std::string destination(const std::string& folder, const std::string& link) {
  const std::string path = link.substr(0, link.find('#'));
  if (path.empty() || path.find("://") != std::string::npos) return "";
  std::string full = fs::path(folder + "/" + path).lexically_normal().generic_string();
  if (full[0] == '/') full.erase(0, 1);
  if (!full.empty() && full.back() == '/') full.pop_back();
  return full;
}

}  // namespace

Violations check_quoted_includes(const Tree& tree) {
  Violations out;
  const std::set<std::string> paths = paths_of(tree);
  for (const SourceFile& file : tree.files) {
    if (!is_source(file.path)) continue;
    const std::vector<Include> includes = includes_of(file);
    for (const Include& include : includes) {
      const bool generated = include.target.find(".pb.h") != std::string::npos;
      if (!include.quoted || generated || paths.count(include.target) > 0) continue;
      out.push_back(
          {file.path, include.line,
           "\"" + include.target + "\" is no file of the tree: includes start at the root"});
    }
    const std::string own = file.path.substr(0, file.path.rfind('.')) + ".h";
    if (is_header(file.path) || paths.count(own) == 0) continue;
    if (includes.empty() || includes.front().target != own) {
      out.push_back({file.path, 0, "\"" + own + "\" is not its first include: the own header is"});
    }
  }
  return out;
}

Violations check_cmake_lists(const Tree& tree) {
  Violations out;
  for (const SourceFile& file : tree.files) {
    const bool built = (is_source(file.path) && !is_header(file.path)) || is_page(file.path);
    if (!built || is_listed(tree, file.path)) continue;
    out.push_back({file.path, 0, "in no CMakeLists.txt: list it, or delete it"});
  }
  return out;
}

Violations check_readmes(const Tree& tree) {
  Violations out;
  std::set<std::string> folders;
  const std::set<std::string> paths = paths_of(tree);
  for (const SourceFile& file : tree.files) {
    for (std::string f = folder_of(file.path); !f.empty(); f = folder_of(f)) folders.insert(f);
    if (name_of(file.path) != "README.md" || file.path == "README.md") continue;
    const std::size_t lines = split_lines(file.text).size();
    if (lines <= kMaxReadmeLines) continue;
    out.push_back({file.path, 0, std::to_string(lines) + " lines: move the details to docs/"});
  }
  for (const std::string& folder : folders) {
    if (!needs_readme(folder) || paths.count(folder + "/README.md") > 0) continue;
    out.push_back({folder, 0, "has no README.md: purpose, includes, what to read first"});
  }
  return out;
}

Violations check_analyses(const Tree& tree) {
  Violations out;
  const std::string from = "tracer/analyses/", ending = ".sql";
  const std::set<std::string> paths = paths_of(tree);
  for (const std::string& path : paths) {
    if (path.compare(0, from.size(), from) != 0 || path.size() <= from.size() + ending.size())
      continue;
    const std::size_t stem = path.size() - ending.size();
    if (path.compare(stem, ending.size(), ending) != 0) continue;
    const std::string test = "tests/" + path.substr(0, stem) + ".test";
    if (paths.count(test) == 0) out.push_back({path, 0, "an analysis without a test: add " + test});
  }
  return out;
}

Violations check_links(const Tree& tree) {
  Violations out;
  std::set<std::string> known = paths_of(tree);
  for (const SourceFile& file : tree.files) {
    for (std::string f = folder_of(file.path); !f.empty(); f = folder_of(f)) known.insert(f);
  }
  for (const SourceFile& file : tree.files) {
    if (file.path.size() < 3 || file.path.substr(file.path.size() - 3) != ".md") continue;
    const std::vector<std::string> lines = split_lines(file.text);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      for (std::size_t at = lines[i].find("]("); at != std::string::npos;
           at = lines[i].find("](", at + 2)) {
        const std::size_t close = lines[i].find(')', at);
        if (close == std::string::npos) break;
        const std::string link = lines[i].substr(at + 2, close - at - 2);
        const std::string path = destination(folder_of(file.path), link);
        if (path.empty() || known.count(path) > 0) continue;
        out.push_back({file.path, i + 1, "the link to " + link + " leads to no file"});
      }
    }
  }
  return out;
}

namespace {

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

// "Suite.Name" of every TEST, TEST_F and TEST_P.
void add_tests(const std::string& text, std::set<std::string>& names) {
  for (std::size_t at = text.find("TEST"); at != std::string::npos; at = text.find("TEST", at)) {
    at += 4;
    std::size_t open = at;
    while (open < text.size() && (text[open] == '_' || text[open] == 'F' || text[open] == 'P')) {
      ++open;
    }
    if (open >= text.size() || text[open] != '(') continue;
    const std::size_t close = text.find(')', open);
    if (close == std::string::npos) return;
    std::string name;
    for (const char c : text.substr(open + 1, close - open - 1)) {
      if (is_word(c)) name += c;
      if (c == ',') name += '.';
    }
    names.insert(name);
  }
}

// "Suite.Name", both with a capital.
bool is_test_name(const std::string& text) {
  const std::size_t dot = text.find('.');
  const auto capital = [&](std::size_t i) {
    return i < text.size() && std::isupper(static_cast<unsigned char>(text[i])) != 0;
  };
  if (dot == std::string::npos || !capital(0) || !capital(dot + 1)) return false;
  return std::all_of(
             text.begin(), text.end(),
             [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.'; }) &&
         text.find('.', dot + 1) == std::string::npos;
}

}  // namespace

Violations check_named_tests(const Tree& tree) {
  std::set<std::string> known;
  for (const SourceFile& file : tree.files) {
    if (file.path.rfind("tests/", 0) == 0) add_tests(file.text, known);
  }
  Violations out;
  for (const SourceFile& file : tree.files) {
    if (file.path.size() < 3 || file.path.substr(file.path.size() - 3) != ".md") continue;
    const std::vector<std::string> lines = split_lines(file.text);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      // Every second piece between marks of code.
      std::size_t from = lines[i].find('`');
      while (from != std::string::npos) {
        const std::size_t to = lines[i].find('`', from + 1);
        if (to == std::string::npos) break;
        const std::string name = lines[i].substr(from + 1, to - from - 1);
        if (is_test_name(name) && known.count(name) == 0) {
          out.push_back({file.path, i + 1, "no test is called " + name});
        }
        from = lines[i].find('`', to + 1);
      }
    }
  }
  return out;
}

}  // namespace orrery::tidy
