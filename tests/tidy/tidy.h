// The house rules as code: the layering table and the other rules of docs/architecture.md, checked
// against the source tree. A rule is a function from the tree to violations.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::tidy {

struct SourceFile {
  std::string path;  // relative to the root, with '/'
  std::string text;
};

struct Tree {
  std::vector<SourceFile> files;  // sorted by path
};

struct Violation {
  std::string path;
  std::size_t line = 0;  // from 1; 0: the file as a whole
  std::string message;   // what is wrong and what to do instead
};
using Violations = std::vector<Violation>;

// --- source.cpp: reading -------------------------------------------------------------------------

// Reads every text file, and the name of every picture, under `root`, except build/, hidden folders
// other than .ci, and traces.
Tree load_tree(const std::string& root);

// The text with comments and the insides of literals blanked; line breaks and columns stay.
std::string code_only(std::string_view text);

std::vector<std::string> split_lines(std::string_view text);

struct Include {
  std::string target;  // as written between the brackets or quotes
  bool quoted = false;
  std::size_t line = 0;
};
std::vector<Include> includes_of(const SourceFile& file);

struct Function {
  std::string name;
  std::size_t first_line = 0, lines = 0;  // from the first line of its head to its closing brace
};
// A scanner by brace depth, good enough for clang-formatted code; lambdas belong to their function.
std::vector<Function> functions_of(const SourceFile& file);

bool is_source(std::string_view path);  // .h or .cpp
bool is_page(std::string_view path);    // .html, .css or .js
bool is_header(std::string_view path);
bool starts_with_any(std::string_view path, const std::vector<std::string>& prefixes);

// --- rules.cpp and tree_rules.cpp ----------------------------------------------------------------

// Files and functions that were too long when they came; lists that may only shrink.
struct LongFile {
  std::string path;
  std::size_t lines = 0;  // at most; the entry must shrink with the file
};
struct LongFunction {
  std::string path, name;
  std::size_t lines = 0;
};

Violations check_layering(const Tree& tree);
Violations check_include_owners(const Tree& tree);
Violations check_quoted_includes(const Tree& tree);  // exist, root-relative, own header first
Violations check_columns(const Tree& tree);
Violations check_file_lengths(const Tree& tree, const std::vector<LongFile>& ratchet);
Violations check_function_lengths(const Tree& tree, const std::vector<LongFunction>& ratchet);
Violations check_openings(const Tree& tree);  // opening comments and #pragma once
Violations check_banned_code(const Tree& tree);
Violations check_banned_text(const Tree& tree);
Violations check_cmake_lists(const Tree& tree);
Violations check_readmes(const Tree& tree);
Violations check_analyses(const Tree& tree);
Violations check_links(const Tree& tree);        // of documents, to files of the tree
Violations check_named_tests(const Tree& tree);  // `Suite.Case` in documents

}  // namespace orrery::tidy
