// Text as rows of bytes: every row once a round, files in the order of their paths, errors.
#include "engine/data.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <limits>
#include <set>

#include "tests/engine/launch.h"

namespace orrery::engine {
namespace {

using Tokens = std::vector<std::int64_t>;

struct Row {
  Tokens ids, labels;
};

Row row_of(const TextSource& source, std::int64_t index) {
  Row row;
  source.append_row(index, row.ids, row.labels);
  return row;
}

TextSource open(const std::string& path, std::int64_t tokens) {
  auto source = TextSource::open(path, tokens);
  CHECK(source.ok(), source.error().text());
  return std::move(source).value();
}

TEST(TextSource, VisitsEveryRowOnceARound) {
  const Folder folder;
  for (const std::int64_t rows : {1, 2, 3, 4, 7, 10, 64, 100, 618, 1000}) {
    SCOPED_TRACE(rows);
    // Rows of two bytes that spell the row's number.
    std::string text;
    for (std::int64_t r = 0; r < rows; ++r) {
      text += {static_cast<char>(r / 256), static_cast<char>(r % 256)};
    }
    const TextSource source = open(folder.write("text", text + "x"), 2);
    ASSERT_EQ(source.rows(), rows);
    EXPECT_EQ(source.bytes(), 2 * rows + 1);
    std::set<Tokens> seen;
    for (std::int64_t i = 0; i < rows; ++i) {
      const Row row = row_of(source, i);
      seen.insert(row.ids);
      EXPECT_EQ(row_of(source, i + 3 * rows).ids, row.ids);
    }
    EXPECT_EQ(std::ssize(seen), rows);
  }
}

TEST(TextSource, ShufflesTheRows) {
  const Folder folder;
  std::string text;
  for (int r = 0; r < 200; ++r) text += static_cast<char>(r);
  const TextSource source = open(folder.write("text", text), 1);
  std::int64_t neighbours = 0;
  for (std::int64_t i = 0; i + 1 < source.rows(); ++i) {
    neighbours += row_of(source, i + 1).ids[0] == row_of(source, i).ids[0] + 1 ? 1 : 0;
  }
  EXPECT_LT(neighbours, 10);
}

TEST(TextSource, LabelsAreTheBytesThatFollow) {
  const Folder folder;
  const TextSource source = open(folder.write("text", "ab\xff\x80zq"), 5);
  ASSERT_EQ(source.rows(), 1);
  EXPECT_EQ(row_of(source, 0).ids, (Tokens{'a', 'b', 255, 128, 'z'}));
  EXPECT_EQ(row_of(source, 0).labels, (Tokens{'b', 255, 128, 'z', 'q'}));
}

TEST(TextSource, AppendsBehindWhatIsThere) {
  const Folder folder;
  const TextSource source = open(folder.write("text", "abc"), 2);
  Row row{{1}, {2, 3}};
  source.append_row(0, row.ids, row.labels);
  EXPECT_EQ(row.ids, (Tokens{1, 'a', 'b'}));
  EXPECT_EQ(row.labels, (Tokens{2, 3, 'b', 'c'}));
}

TEST(TextSource, TakesAnyRowNumber) {
  const Folder folder;
  const TextSource source = open(folder.write("text", std::string(5001, 'a')), 5);
  EXPECT_EQ(row_of(source, std::numeric_limits<std::int64_t>::max()).ids, Tokens(5, 'a'));
}

TEST(TextSource, ReadsAFolderInTheOrderOfPaths) {
  const Folder folder;
  std::filesystem::create_directories(folder.file("text/b"));
  std::filesystem::create_directories(folder.file("text/empty"));
  folder.write("text/c", "5");
  folder.write("text/b/z", "4");
  folder.write("text/b/a", "3");
  folder.write("text/a", "12");
  folder.write("text/a.txt", "");
  const TextSource source = open(folder.file("text"), 4);
  EXPECT_EQ(row_of(source, 0).ids, (Tokens{'1', '2', '3', '4'}));
  EXPECT_EQ(row_of(source, 0).labels, (Tokens{'2', '3', '4', '5'}));
}

void expect_error(const std::string& path, std::int64_t tokens, ErrorCode code,
                  const std::string& message) {
  const auto source = TextSource::open(path, tokens);
  ASSERT_FALSE(source.ok());
  EXPECT_EQ(source.error().code, code);
  EXPECT_NE(source.error().text().find(path + ": " + message), std::string::npos)
      << source.error().text();
}

TEST(TextSource, SaysWhatIsWrong) {
  const Folder folder;
  expect_error(folder.file("none"), 4, ErrorCode::kIo, "no text files there");
  std::filesystem::create_directories(folder.file("empty/inside"));
  expect_error(folder.file("empty"), 4, ErrorCode::kIo, "no text files there");
  ASSERT_EQ(::mkfifo(folder.file("pipe").c_str(), 0600), 0);
  expect_error(folder.file("pipe"), 4, ErrorCode::kIo, "no text files there");
  expect_error(folder.write("nothing", ""), 4, ErrorCode::kInvalid,
               "0 bytes are less than one row");
  // The last label needs a byte too.
  expect_error(folder.write("short", "abcd"), 4, ErrorCode::kInvalid,
               "4 bytes are less than one row of 4 tokens and a label");
  EXPECT_TRUE(TextSource::open(folder.write("enough", "abcde"), 4).ok());
}

TEST(TextSource, AFileThatMayNotBeRead) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const Folder folder;
  const std::string path = folder.write("secret", "abcdefgh");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  expect_error(path, 4, ErrorCode::kIo, "cannot be read");
}

}  // namespace
}  // namespace orrery::engine
