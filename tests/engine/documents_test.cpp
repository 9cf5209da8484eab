// Documents as rows: what is read, what a step has, labels at ends and cuts.
#include "engine/documents.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "tests/engine/launch.h"

namespace orrery::engine {
namespace {

using Tokens = std::vector<std::int64_t>;

DocumentSource::Options options_of(std::int64_t row_tokens, Packing packing, const Deal& deal,
                                   Balance balance = Balance::kLevels) {
  DocumentSource::Options options;
  options.row_tokens = row_tokens;
  options.packing = packing;
  options.deal = deal;
  options.balance = balance;
  return options;
}

DocumentSource open(const std::string& path, const DocumentSource::Options& options) {
  auto source = DocumentSource::open(path, options);
  CHECK(source.ok(), source.error().text());
  return std::move(source).value();
}

struct Row {
  Tokens ids, labels, documents;
};

std::vector<Row> rows_of(const DocumentSource& source, std::int64_t step, std::int64_t rows) {
  std::vector<Row> out(static_cast<std::size_t>(rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    Row& row = out[static_cast<std::size_t>(r)];
    source.append_row(step, r, row.ids, row.labels, row.documents);
  }
  return out;
}

// Document d: d's letter, as many as its length.
std::string lettered(const Tokens& lengths) {
  std::string text;
  for (std::size_t d = 0; d < lengths.size(); ++d) {
    text += std::string(static_cast<std::size_t>(lengths[d]), static_cast<char>('A' + d)) + "\n";
  }
  return text;
}

TEST(DocumentSource, LabelsEndWithTheirDocument) {
  const Folder folder;
  const auto source =
      open(folder.write("lines", "abc\nde\n"), options_of(8, Packing::kSoft, {1, 1, 1}));
  const Row row = rows_of(source, 0, 1)[0];
  std::map<std::int64_t, Tokens> labels;  // by first byte of the document
  std::int64_t at = 0;
  for (const std::int64_t length : row.documents) {
    labels[row.ids[static_cast<std::size_t>(at)]] = {row.labels.begin() + at,
                                                     row.labels.begin() + at + length};
    at += length;
  }
  EXPECT_EQ(at, 8);
  EXPECT_EQ(labels['a'], (Tokens{'b', 'c', -100}));
  EXPECT_EQ(labels['d'], (Tokens{'e', -100}));
  EXPECT_EQ(labels[0], (Tokens{-100, -100, -100})) << "padding";
}

TEST(DocumentSource, ACutDocumentStillKnowsItsNextByte) {
  const Folder folder;
  const auto source =
      open(folder.write("lines", "abcdefgh\n"), options_of(5, Packing::kHard, {2, 1, 1}));
  std::map<std::int64_t, Row> by_first;
  for (Row& row : rows_of(source, 0, 2)) by_first[row.ids[0]] = std::move(row);
  EXPECT_EQ(by_first['a'].ids, (Tokens{'a', 'b', 'c', 'd', 'e'}));
  EXPECT_EQ(by_first['a'].labels, (Tokens{'b', 'c', 'd', 'e', 'f'}));
  EXPECT_EQ(by_first['a'].documents, Tokens{5});
  EXPECT_EQ(by_first['f'].ids, (Tokens{'f', 'g', 'h', 0, 0}));
  EXPECT_EQ(by_first['f'].labels, (Tokens{'g', 'h', -100, -100, -100}));
  EXPECT_EQ(by_first['f'].documents, (Tokens{3, 2}));
}

TEST(DocumentSource, AFolderHoldsADocumentAFileAndAFileADocumentALine) {
  const Folder folder;
  std::filesystem::create_directories(folder.file("docs/sub"));
  folder.write("docs/a", "one\nstill one");
  folder.write("docs/sub/b", "two");
  folder.write("docs/empty", "");
  folder.write("docs/c", "x");
  const auto options = options_of(16, Packing::kSoft, {1, 1, 1});
  const auto files = open(folder.file("docs"), options);
  EXPECT_EQ(files.documents(), 2);
  EXPECT_EQ(files.left_out(), 1) << "one byte has no label";
  const auto lines = open(folder.write("lines", "first\r\n\nsecond\nlast"), options);
  EXPECT_EQ(lines.documents(), 3);
  const Row row = rows_of(lines, 0, 1)[0];
  EXPECT_EQ(std::count(row.ids.begin(), row.ids.end(), '\r'), 0);
  EXPECT_EQ(std::count(row.ids.begin(), row.ids.end(), '\n'), 0);
}

TEST(DocumentSource, SaysWhatIsWrong) {
  const Folder folder;
  const auto error = [&](const std::string& text, Packing packing) {
    const auto source =
        DocumentSource::open(folder.write("t", text), options_of(4, packing, {1, 1, 1}));
    return source.ok() ? "" : source.error().text();
  };
  EXPECT_NE(error("\n\n", Packing::kSoft).find("no document of 2 to 4 bytes"), std::string::npos);
  EXPECT_NE(error("abcdef", Packing::kSoft).find("and 1 of other lengths"), std::string::npos);
  EXPECT_EQ(error("abcdef", Packing::kHard), "");
  const auto none = DocumentSource::open(folder.file("none"), options_of(4, Packing::kSoft, {}));
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kIo);
}

// Over a round of steps every document is seen whole, once; for any ranks and either balance each
// step has the same documents.
TEST(DocumentSource, StepsHaveTheSameDocumentsForAnyRanks) {
  const Folder folder;
  Tokens lengths;
  for (std::int64_t d = 0; d < 26; ++d) lengths.push_back(2 + d * d % 29);
  const std::string path = folder.write("lines", lettered(lengths));
  for (const Packing packing : {Packing::kSoft, Packing::kHard}) {
    std::vector<std::map<std::int64_t, std::int64_t>> counts;  // of each id, by deal
    for (const Deal& deal : {Deal{1, 4, 1}, Deal{4, 1, 1}, Deal{2, 1, 2}, Deal{2, 2, 1}}) {
      for (const Balance balance : {Balance::kNaive, Balance::kLevels}) {
        const auto source = open(path, options_of(32, packing, deal, balance));
        auto& count = counts.emplace_back();
        const std::int64_t steps = source.rows() / 4;
        ASSERT_GE(steps, 2);
        for (std::int64_t step = 0; step < steps; ++step) {
          for (const Row& row : rows_of(source, step, 4)) {
            ASSERT_EQ(row.ids.size(), 32U);
            ASSERT_EQ(row.labels.size(), 32U);
            for (const std::int64_t id : row.ids) ++count[1000 * step + id];
          }
        }
      }
    }
    for (const auto& count : counts) EXPECT_EQ(count, counts[0]);
    const auto whole = open(path, options_of(32, packing, {1, 1, 1}));
    std::map<std::int64_t, std::int64_t> seen;
    for (std::int64_t step = 0; step < whole.rows(); ++step) {
      const Row row = rows_of(whole, step, 1)[0];
      for (const std::int64_t id : row.ids) ++seen[id];
    }
    for (std::size_t d = 0; d < lengths.size(); ++d) {
      EXPECT_EQ(seen['A' + static_cast<std::int64_t>(d)], lengths[d]);
    }
    EXPECT_EQ(rows_of(whole, whole.rows() + 1, 1)[0].ids, rows_of(whole, 1, 1)[0].ids);
    EXPECT_EQ(rows_of(whole, std::int64_t{1} << 40, 1)[0].ids.size(), 32U);
  }
}

}  // namespace
}  // namespace orrery::engine
