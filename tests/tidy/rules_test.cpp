// Every rule fires on a small bad example and stays quiet on a good one: a broken rule fails here.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/tidy/tables.h"
#include "tests/tidy/tidy.h"

namespace orrery::tidy {
namespace {

// A tree of one file.
Tree one(const std::string& path, const std::string& text) {
  return {{{path, text}}};
}

// A body of `lines` statements.
std::string statements(std::size_t lines) {
  std::string text;
  for (std::size_t i = 0; i < lines; ++i) text += "  x += 1;\n";
  return text;
}

std::vector<std::string> names_in(const std::string& text) {
  std::vector<std::string> names;
  for (const Function& f : functions_of({"core/x.cpp", text})) names.push_back(f.name);
  return names;
}

TEST(Reader, BlanksCommentsAndLiterals) {
  EXPECT_EQ(code_only("a // b\nc"), "a     \nc");
  EXPECT_EQ(code_only("a /* b\n */ c"), "a     \n    c");
  EXPECT_EQ(code_only("f(\"x\\\"y\") g"), "f(\"    \") g");
  EXPECT_EQ(code_only("f('{', 1'000)"), "f(' ', 1'000)");
  EXPECT_EQ(code_only("R\"(}\n\")\" g"), "R\"  \n  \" g");
  EXPECT_EQ(code_only("\"// no comment\" g"), "\"             \" g");
}

TEST(Reader, FindsIncludesOutsideLiterals) {
  const SourceFile file{"core/a.cpp",
                        "#include \"core/a.h\"\n#include <vector>\nR\"(\n#include <map>\n)\";\n"
                        "// #include <set>\n"};
  const std::vector<Include> found = includes_of(file);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].target, "core/a.h");
  EXPECT_TRUE(found[0].quoted);
  EXPECT_EQ(found[1].target, "vector");
  EXPECT_EQ(found[1].line, 2U);
}

TEST(Reader, FindsFunctions) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(names_in("namespace a {\nint f(int x) {\n  if (x) { return 1; }\n  return 2;\n}\n}"),
            Names{"f"});
  EXPECT_EQ(
      names_in(
          "struct S {\n public:\n  S() : a_(1), b_{2} { g(); }\n  int h() const { return 1; }\n"
          "  int b_{3};\n};\n"),
      (Names{"S", "h"}));
  EXPECT_EQ(names_in("template <class T>\nauto A<T>::f(T x) -> Result<T> {\n}\n"),
            Names{"A<T>::f"});
  EXPECT_EQ(
      names_in("const Row kRows[] = {{\"a\", f(1)}, {\"b\", f(2)}};\nvoid g(Opt o = {}) {}\n"),
      Names{"g"});
  EXPECT_EQ(names_in("enum class E : int { kA };\nclass C : public D {};\n"), Names{});
  EXPECT_EQ(names_in("TEST(A, B) {\n  EXPECT_EQ(f({1, 2}), 3);\n}\n"), Names{"TEST(A, B)"});
  EXPECT_EQ(names_in("#define M(x) \\\n  do {  \\\n  } while (0)\nvoid f() {}\n"), Names{"f"});
}

TEST(Rules, Layering) {
  const auto count = [](const std::string& path, const std::string& target) {
    return check_layering(one(path, "#include \"" + target + "\"\n")).size();
  };
  EXPECT_EQ(count("core/a.cpp", "simulator/b.h"), 1U);
  EXPECT_EQ(count("simulator/a.cpp", "planner/b.h"), 1U);
  EXPECT_EQ(count("simulator/a.cpp", "tracer/b.h"), 1U);
  EXPECT_EQ(count("engine/torch/a.cpp", "simulator/b.h"), 1U);
  EXPECT_EQ(count("engine/comm/a.cpp", "tracer/b.h"), 1U);
  EXPECT_EQ(count("cli/a.cpp", "engine/b.h"), 1U);
  EXPECT_EQ(count("tests/core/a.cpp", "cli/b.h"), 1U);
  EXPECT_EQ(count("tests/core/a.cpp", "engine/b.h"), 1U);
  EXPECT_EQ(count("elsewhere/a.cpp", "core/b.h"), 1U);
  EXPECT_EQ(count("planner/a.cpp", "simulator/b.h"), 0U);
  EXPECT_EQ(count("engine/a.cpp", "tracer/b.h"), 0U);
  EXPECT_EQ(count("cli/a.cpp", "planner/b.h"), 0U);
  EXPECT_EQ(count("tests/parity/a.cpp", "engine/b.h"), 0U);
}

TEST(Rules, IncludeOwners) {
  const auto count = [](const std::string& path, const std::string& target) {
    return check_include_owners(one(path, "#include <" + target + ">\n")).size();
  };
  EXPECT_EQ(count("planner/a.cpp", "nlohmann/json.hpp"), 1U);
  EXPECT_EQ(count("core/a.h", "nlohmann/json.hpp"), 1U);
  EXPECT_EQ(count("core/a.cpp", "nlohmann/json.hpp"), 0U);
  EXPECT_EQ(count("ui-export/a.cpp", "sqlite3.h"), 1U);
  EXPECT_EQ(count("tracer/a.h", "sqlite3.h"), 1U);
  EXPECT_EQ(count("tracer/a.cpp", "sqlite3.h"), 0U);
  EXPECT_EQ(count("engine/a.cpp", "ATen/ops/mm.h"), 1U);
  EXPECT_EQ(count("engine/torch/a.cpp", "ATen/ops/mm.h"), 0U);
  EXPECT_EQ(count("engine/torch/a.h", "ATen/ATen.h"), 1U);
  EXPECT_EQ(count("engine/torch/a.cpp", "torch/torch.h"), 1U);
  EXPECT_EQ(count("engine/torch/a.cpp", "mpi.h"), 1U);
  EXPECT_EQ(count("engine/comm/a.h", "mpi.h"), 1U);
  EXPECT_EQ(count("engine/comm/a.cpp", "mpi.h"), 0U);
  EXPECT_EQ(count("core/a.cpp", "CLI/CLI.hpp"), 1U);
  EXPECT_EQ(count("core/a.cpp", "boost/any.hpp"), 1U);
  EXPECT_EQ(count("tracer/a.cpp", "trace.pb.h"), 1U);
  EXPECT_EQ(count("core/a.cpp", "vector"), 0U);
  EXPECT_EQ(count("core/a.cpp", "sys/stat.h"), 0U);
  EXPECT_EQ(check_include_owners(one("core/a.cpp", "#include \"nlohmann/json.hpp\"\n")).size(), 1U);
}

TEST(Rules, QuotedIncludes) {
  const SourceFile header{"core/a.h", "// A.\n#pragma once\n"};
  const auto count = [&](const std::string& text) {
    return check_quoted_includes({{header, {"core/a.cpp", text}}}).size();
  };
  EXPECT_EQ(count("#include \"core/a.h\"\n#include <vector>\n"), 0U);
  EXPECT_EQ(count("#include <vector>\n#include \"core/a.h\"\n"), 1U);
  EXPECT_EQ(count("#include \"core/a.h\"\n#include \"a.h\"\n"), 1U);
  EXPECT_EQ(count(""), 1U);
}

TEST(Rules, Columns) {
  EXPECT_EQ(check_columns(one("core/a.cpp", std::string(100, 'x') + "\n")).size(), 0U);
  EXPECT_EQ(check_columns(one("core/a.cpp", std::string(101, 'x') + "\n")).size(), 1U);
  EXPECT_EQ(check_columns(one("scripts/a", std::string(101, 'x') + "\n")).size(), 1U);
  EXPECT_EQ(check_columns(one("ui-export/a.js", std::string(101, 'x') + "\n")).size(), 1U);
  EXPECT_EQ(check_columns(one("ui-export/a.css", std::string(101, 'x') + "\n")).size(), 1U);
  EXPECT_EQ(check_columns(one("scripts/README.md", std::string(101, 'x') + "\n")).size(), 0U);
  std::string wide;
  for (int i = 0; i < 100; ++i) wide += "\u00e9";  // two bytes, one column
  EXPECT_EQ(check_columns(one("core/a.cpp", wide)).size(), 0U);
  EXPECT_EQ(check_columns(one("Containerfile", std::string(101, 'x') + "\n")).size(), 1U);
  EXPECT_EQ(check_columns(one("ui-export/a.proto", std::string(101, 'x') + "\n")).size(), 1U);
}

TEST(Rules, FileLengths) {
  const std::string fits(600, '\n'), exceeds(601, '\n');
  EXPECT_EQ(check_file_lengths(one("core/a.cpp", fits), {}).size(), 0U);
  EXPECT_EQ(check_file_lengths(one("core/a.cpp", exceeds), {}).size(), 1U);
  EXPECT_EQ(check_file_lengths(one("core/a.cpp", exceeds), {{"core/a.cpp", 601}}).size(), 0U);
  EXPECT_EQ(check_file_lengths(one("ui-export/a.js", exceeds), {}).size(), 1U);
  // The list may only shrink: an entry that is no longer needed, or too high, is a violation.
  EXPECT_EQ(check_file_lengths(one("core/a.cpp", exceeds), {{"core/a.cpp", 700}}).size(), 1U);
  EXPECT_EQ(check_file_lengths(one("core/a.cpp", fits), {{"core/a.cpp", 601}}).size(), 1U);
}

TEST(Rules, FunctionLengths) {
  const std::string fits = "void f() {\n" + statements(68) + "}\n";
  const std::string exceeds = "void f() {\n" + statements(69) + "}\n";
  EXPECT_EQ(check_function_lengths(one("core/a.cpp", fits), {}).size(), 0U);
  EXPECT_EQ(check_function_lengths(one("core/a.cpp", exceeds), {}).size(), 1U);
  EXPECT_EQ(check_function_lengths(one("core/a.cpp", exceeds), {{"core/a.cpp", "f", 71}}).size(),
            0U);
  EXPECT_EQ(check_function_lengths(one("core/a.cpp", exceeds), {{"core/a.cpp", "f", 80}}).size(),
            1U);
  EXPECT_EQ(check_function_lengths(one("core/a.cpp", fits), {{"core/a.cpp", "f", 71}}).size(), 1U);
  EXPECT_EQ(check_function_lengths(one("core/a.cpp", exceeds), {{"core/a.cpp", "g", 71}}).size(),
            2U);
  // A long class or table is not a long function.
  EXPECT_EQ(
      check_function_lengths(one("core/a.h", "struct S {\n" + statements(90) + "};\n"), {}).size(),
      0U);
}

TEST(Rules, Openings) {
  EXPECT_EQ(check_openings(one("core/a.h", "// A.\n#pragma once\n")).size(), 0U);
  EXPECT_EQ(check_openings(one("core/a.h", "#pragma once\n")).size(), 1U);
  EXPECT_EQ(check_openings(one("core/a.h", "// A.\n#include <vector>\n")).size(), 1U);
  EXPECT_EQ(check_openings(one("core/a.cpp", "// A.\n")).size(), 0U);
  EXPECT_EQ(check_openings(one("core/a.cpp", "#include <vector>\n")).size(), 1U);
  EXPECT_EQ(check_openings(one("ui-export/a.js", "// A.\n")).size(), 0U);
  EXPECT_EQ(check_openings(one("ui-export/a.js", "const a = 1;\n")).size(), 1U);
  EXPECT_EQ(check_openings(one("ui-export/a.css", "/* A. */\n")).size(), 0U);
  EXPECT_EQ(check_openings(one("ui-export/a.css", "a { }\n")).size(), 1U);
  EXPECT_EQ(check_openings(one("tracer/analyses/a.sql", "-- A.\nselect 1;\n")).size(), 0U);
  EXPECT_EQ(check_openings(one("tracer/analyses/a.sql", "select 1;\n")).size(), 1U);
}

// Each row of the table fires where it should and names its replacement.
TEST(Rules, EveryBanFires) {
  for (const Ban& ban : banned_code()) {
    const std::string call = ban.kind == Ban::Kind::kCall ? "(x)" : "";
    const Violations found = check_banned_code(one("core/a.cpp", "  " + ban.word + call + ";\n"));
    ASSERT_EQ(found.size(), 1U) << ban.word;
    EXPECT_NE(found[0].message.find(ban.replacement), std::string::npos);
    EXPECT_EQ(check_banned_code(one("core/a.cpp", "// " + ban.word + call + "\n")).size(), 0U);
  }
  for (const TextBan& ban : banned_text()) {
    EXPECT_EQ(check_banned_text(one("core/a.cpp", "// " + ban.text + "\n")).size(), 1U) << ban.text;
  }
}

TEST(Rules, BansSpareTheInnocent) {
  const auto count = [](const std::string& path, const std::string& line) {
    return check_banned_code(one(path, line + "\n")).size() +
           check_banned_text(one(path, line + "\n")).size();
  };
  EXPECT_EQ(count("cli/a.cpp", "std::cout << 1;"), 0U);
  EXPECT_EQ(count("core/a.cpp", "static_assert(sizeof(int) == 4);"), 0U);
  EXPECT_EQ(count("core/a.cpp", "run.system(); node->system(); my::system();"), 0U);
  EXPECT_EQ(count("core/a.cpp", "std::string system(int node);"), 0U);
  EXPECT_EQ(count("core/a.cpp", "return std::system(text);"), 1U);
  EXPECT_EQ(count("core/a.cpp", "return system(text);"), 1U);
  EXPECT_EQ(count("core/a.cpp", "int n = ::system(text);"), 1U);
  EXPECT_EQ(count("core/a.cpp", "f(\"std::cout\");"), 0U);
  EXPECT_EQ(count("docs/a.md",
                  "https://example.org/wo"
                  "rk/paper"),
            0U);
  EXPECT_EQ(count("docs/a.md",
                  "see /wo"
                  "rk/paper"),
            1U);
  EXPECT_EQ(count("docs/a.md",
                  "an itera"
                  "tor is no step"),
            0U);
  EXPECT_EQ(count("docs/a.md",
                  "Itera"
                  "tion 3"),
            1U);
}

TEST(Rules, CMakeLists) {
  const auto count = [](const std::string& cmake, const std::string& text) {
    return check_cmake_lists({{{cmake, text}, {"core/program/a.cpp", "// A.\n"}}}).size();
  };
  EXPECT_EQ(count("core/CMakeLists.txt", "add_library(x program/a.cpp)\n"), 0U);
  EXPECT_EQ(count("core/program/CMakeLists.txt", "add_library(x\n  a.cpp\n)\n"), 0U);
  EXPECT_EQ(count("core/CMakeLists.txt", "add_library(x program/aa.cpp b/program/a.cpp)\n"), 1U);
  EXPECT_EQ(count("core/CMakeLists.txt", "# program/a.cpp\n"), 1U);
  EXPECT_EQ(count("tests/CMakeLists.txt", "add_library(x program/a.cpp)\n"), 1U);
}

TEST(Rules, Readmes) {
  const SourceFile source{"core/program/a.h", ""};
  const SourceFile readme{"core/README.md", "# core\n"}, inner{"core/program/README.md", "# p\n"};
  EXPECT_EQ(check_readmes({{source}}).size(), 2U);
  EXPECT_EQ(check_readmes({{source, readme}}).size(), 1U);
  EXPECT_EQ(check_readmes({{source, readme, inner}}).size(), 0U);
  EXPECT_EQ(check_readmes(one("core/README.md", std::string(61, '\n'))).size(), 1U);
  EXPECT_EQ(check_readmes(one("README.md", std::string(90, '\n'))).size(), 0U);
}

TEST(Rules, Analyses) {
  const SourceFile sql{"tracer/analyses/steps.sql", "-- Steps.\n"};
  EXPECT_EQ(check_analyses({{sql}}).size(), 1U);
  EXPECT_EQ(check_analyses({{sql, {"tests/tracer/analyses/steps.test", "x"}}}).size(), 0U);
}

TEST(Rules, Links) {
  const auto count = [](const std::string& text) {
    return check_links({{{"README.md", "# top\n"}, {"docs/a/b.md", text}, {"docs/c.md", "# c\n"}}})
        .size();
  };
  EXPECT_EQ(count("[c](../c.md), [top](../../README.md), [it](b.md#x), [folder](../../docs)"), 0U);
  EXPECT_EQ(count("[far](https://example.org/c.md), [here](#c)"), 0U);
  EXPECT_EQ(count("[c](../c.md) and [d](../d.md)"), 1U);
  EXPECT_EQ(count("[c](c.md)"), 1U);
}

TEST(Rules, NamedTests) {
  const SourceFile tests{"tests/a_test.cpp",
                         "TEST(Suite, Case) {}\nTEST_F(Other,\n       Long) {}\n"};
  const auto count = [&](const std::string& text) {
    return check_named_tests({{tests, {"docs/b.md", text}}}).size();
  };
  EXPECT_EQ(count("`Suite.Case` and `Other.Long`; not `Job.h`, `a.B`, Suite.None"), 0U);
  EXPECT_EQ(count("`Suite.None`, `Suite.Case`"), 1U);
}

}  // namespace
}  // namespace orrery::tidy
