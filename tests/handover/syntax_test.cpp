// The readers of shell flags and of Python, apart from what the settings mean.
#include <gtest/gtest.h>

#include "handover/python_config.h"
#include "handover/shell_flags.h"

namespace orrery::handover {
namespace {

// "key=value@line", or "key?@line" where the value is unknown.
std::vector<std::string> listed(const Settings& settings) {
  std::vector<std::string> out;
  for (const Unused& u : settings.unused()) out.push_back(u.what + "@" + u.where);
  return out;
}

std::string value(Settings settings, const std::string& key) {
  const Setting* s = settings.find(key, false);
  return s == nullptr ? "<unknown>" : s->value;
}

Settings flags(const std::string& text) {
  return parse_shell_flags(text, "f", {"--many"});
}

TEST(ShellFlags, WordsQuotesAndContinuedLines) {
  EXPECT_EQ(value(flags("run --a 1 2 --b='x y' --c"), "--a"), "1");
  EXPECT_EQ(value(flags("run --a 1 2 --b='x y' --c"), "--b"), "x y");
  EXPECT_EQ(value(flags("run --many a b c --d"), "--many"), "a b c");
  EXPECT_EQ(value(flags("run --a \\\n 7"), "--a"), "7");
  EXPECT_EQ(value(flags("run --a\n7"), "--a"), "");
  EXPECT_EQ(value(flags("run --a 1 # --a 2"), "--a"), "1");
  EXPECT_EQ(value(flags("run --a 1\r\n"), "--a"), "1");
}

TEST(ShellFlags, VariablesAndTheirDefaults) {
  EXPECT_EQ(value(flags("A=3\nrun --a $A"), "--a"), "3");
  EXPECT_EQ(value(flags("A=3; run --a \"${A}4\""), "--a"), "34");
  EXPECT_EQ(value(flags("run --a ${A:-5}"), "--a"), "5");
  EXPECT_EQ(value(flags("run --a ${A:-${B:-6}}"), "--a"), "6");
  EXPECT_EQ(value(flags("A=1; A=2; run --a $A"), "--a"), "2");
  for (const char* unknown : {"$A", "${A}", "$(nproc)", "$((1+1))", "`nproc`"}) {
    EXPECT_EQ(value(flags(std::string("run --a ") + unknown), "--a"), "<unknown>") << unknown;
  }
}

TEST(ShellFlags, FlagsInVariablesAndArraysAreReadOnceWithTheirLines) {
  const Settings s =
      flags("A=\"--a 1\n--b 2\"\nB=(\n --c 3 # note\n --d 4\n)\nrun $A ${B[@]} --e 5");
  EXPECT_EQ(listed(s),
            (std::vector<std::string>{"--a@f:1", "--b@f:2", "--c@f:4", "--d@f:5", "--e@f:7"}));
  EXPECT_EQ(value(s, "--d"), "4");
}

TEST(ShellFlags, DoublingVariablesStayBounded) {
  std::string text = "A=aaaaaaaa\n";
  for (int i = 0; i < 100; ++i) text += "A=\"$A$A\"\n";
  EXPECT_EQ(value(flags(text + "run --a $A"), "--a"), "<unknown>");
}

TEST(PythonConfig, LiteralsNamesAndCalls) {
  const auto read = [](const std::string& text, const std::string& key) {
    const Result<Settings> s = parse_python(text, "f");
    return s.ok() ? value(s.value(), key) : s.error().text();
  };
  EXPECT_EQ(read("x = 3\ny = C(a=x, b='t', c=-1, d=True)", "C.a"), "3");
  EXPECT_EQ(read("y = C(a=1, b='t')", "C.b"), "t");
  EXPECT_EQ(read("y = C(a=1, c=-1)", "C.c"), "-1");
  EXPECT_EQ(read("y = D([C(a=4 * 1024)], {'k': C2(b=1)})", "C.a"), "4096");
  EXPECT_EQ(read("y = D([C(a=4)], {'k': C2(b=1)})", "C2.b"), "1");
  EXPECT_EQ(read("m.n.a = 8", "m.a"), "8");
  EXPECT_EQ(read("os.environ['A'] = \"1\"", "environ.A"), "1");
  EXPECT_EQ(read("C(a=int(os.environ.get('E', '8')))", "C.a"), "8");
  EXPECT_EQ(read("# C(a=1)\n'''C(a=2)'''\nC(a=3)", "C.a"), "3");
  for (const char* unknown : {"f()", "z", "1 + 1", "f'{x}'", "[1]", "a.b", "1 if x else 2"}) {
    EXPECT_EQ(read(std::string("C(a=") + unknown + ")", "C.a"), "<unknown>") << unknown;
  }
}

TEST(PythonConfig, TextsThatDoNotEndAreErrors) {
  for (const char* text : {"C(", "x = 'a", ")", "x = [1)", "'''"}) {
    EXPECT_FALSE(parse_python(text, "f").ok()) << text;
  }
  std::string deep = "x = ";
  for (int i = 0; i < 100000; ++i) deep += "(";
  for (int i = 0; i < 100000; ++i) deep += ")";
  EXPECT_TRUE(parse_python(deep, "f").ok());
}

}  // namespace
}  // namespace orrery::handover
