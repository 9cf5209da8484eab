// Runs every transcript of a folder (ORRERY_TRANSCRIPTS) against the built `orrery`.
#include "tests/cli/transcript.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace orrery::cli_test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> transcripts() {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(ORRERY_TRANSCRIPTS)) {
    if (entry.path().extension() == ".t") paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

class Transcript : public testing::TestWithParam<std::string> {};

TEST_P(Transcript, SaysAndDoes) {
  std::string base = std::string(ORRERY_BINARY_DIR) + "/tests/cli-XXXXXX";
  ASSERT_NE(::mkdtemp(base.data()), nullptr);
  const std::string folder = base + "/work";
  fs::create_directory(folder);
  fs::create_directory(base + "/tmp");
  for (const Case& run : parse_transcript(GetParam())) {
    const Ran ran = run_shell(run.command, folder);
    const std::string where =
        GetParam() + ":" + std::to_string(run.line) + ": $ " + run.command + "\n";
    EXPECT_EQ(ran.code, run.code) << where << ran.err;
    const std::string out = difference(run.out, ran.out), err = difference(run.err, ran.err);
    EXPECT_TRUE(out.empty()) << where << "stdout " << out;
    EXPECT_TRUE(err.empty()) << where << "stderr " << err;
  }
  EXPECT_TRUE(fs::is_empty(base + "/tmp")) << "a command left a temporary file";
  fs::remove_all(base);
}

INSTANTIATE_TEST_SUITE_P(Files, Transcript, testing::ValuesIn(transcripts()),
                         [](const testing::TestParamInfo<std::string>& file) {
                           std::string name = fs::path(file.param).stem().string();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Difference, FindsWhatIsNotAsExpected) {
  EXPECT_EQ(difference({"a", "b"}, "a\nb\n"), "");
  EXPECT_EQ(difference({"a ... c", "..."}, "a b c\nx\ny\n"), "");
  EXPECT_EQ(difference({"...", "end"}, "end\nx\nend\n"), "");
  EXPECT_NE(difference({"a"}, "a\nb\n"), "");
  EXPECT_NE(difference({"a", "b"}, "a\n"), "");
  EXPECT_NE(difference({}, "a\n"), "");
  EXPECT_NE(difference({"a ... c"}, "a b d\n"), "");
}

}  // namespace
}  // namespace orrery::cli_test
