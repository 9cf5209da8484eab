// The source tree as it is, held against every house rule.
#include <gtest/gtest.h>

#include <string>

#include "tests/tidy/tables.h"
#include "tests/tidy/tidy.h"

namespace orrery::tidy {
namespace {

const Tree& the_tree() {
  static const Tree tree = load_tree(ORRERY_SOURCE_DIR);
  return tree;
}

// One line a violation, as a compiler writes it.
testing::AssertionResult none(const Violations& violations) {
  if (violations.empty()) return testing::AssertionSuccess();
  std::string text = std::to_string(violations.size()) + " violations\n";
  for (const Violation& v : violations) {
    text += v.path + (v.line > 0 ? ":" + std::to_string(v.line) : "") + ": " + v.message + "\n";
  }
  return testing::AssertionFailure() << text;
}

// A walk from the wrong place would find nothing to complain about.
TEST(Tidy, SeesTheTree) {
  std::size_t sources = 0;
  bool sees_this_file = false;
  for (const SourceFile& file : the_tree().files) {
    if (is_source(file.path)) ++sources;
    if (file.path == "tests/tidy/tidy_test.cpp") sees_this_file = true;
  }
  EXPECT_GE(sources, 30U);
  EXPECT_TRUE(sees_this_file);
}

TEST(Tidy, Layering) {
  EXPECT_TRUE(none(check_layering(the_tree())));
}
TEST(Tidy, IncludeOwners) {
  EXPECT_TRUE(none(check_include_owners(the_tree())));
}
TEST(Tidy, QuotedIncludes) {
  EXPECT_TRUE(none(check_quoted_includes(the_tree())));
}
TEST(Tidy, Columns) {
  EXPECT_TRUE(none(check_columns(the_tree())));
}
TEST(Tidy, FileLengths) {
  EXPECT_TRUE(none(check_file_lengths(the_tree(), long_files())));
}
TEST(Tidy, FunctionLengths) {
  EXPECT_TRUE(none(check_function_lengths(the_tree(), long_functions())));
}
TEST(Tidy, Openings) {
  EXPECT_TRUE(none(check_openings(the_tree())));
}
TEST(Tidy, BannedCode) {
  EXPECT_TRUE(none(check_banned_code(the_tree())));
}
TEST(Tidy, BannedText) {
  EXPECT_TRUE(none(check_banned_text(the_tree())));
}
TEST(Tidy, CMakeLists) {
  EXPECT_TRUE(none(check_cmake_lists(the_tree())));
}
TEST(Tidy, Readmes) {
  EXPECT_TRUE(none(check_readmes(the_tree())));
}
TEST(Tidy, Links) {
  EXPECT_TRUE(none(check_links(the_tree())));
}

TEST(Tidy, NamedTests) {
  EXPECT_TRUE(none(check_named_tests(the_tree())));
}
TEST(Tidy, Analyses) {
  EXPECT_TRUE(none(check_analyses(the_tree())));
}

}  // namespace
}  // namespace orrery::tidy
