// Analyses as data: tests/tracer/analyses/NAME.test gives rows and what the analysis must say of
// them. And the interval arithmetic of `breakdown` and of exposed time against counting
// nanoseconds.
#include "tracer/analysis.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <set>

#include "tests/tracer/trace_fixture.h"
#include "tracer/schema.h"
#include "tracer/sqlite.h"

namespace orrery {
namespace {

using testing::TempDir;

// A trace with the rows that `sql` inserts.
TraceReader trace_of(const TempDir& dir, const std::string& sql) {
  auto writer = TraceWriter::create(dir.file("t.db"), {});
  CHECK(writer.ok(), writer.error().text());
  CHECK(std::move(writer).value().finish(RunStatus::kOk).ok(), "cannot write");
  {
    auto opened = sql::Database::open(dir.file("t.db"), sql::Mode::kReadWrite);
    CHECK(opened.ok(), opened.error().text());
    sql::Database db = std::move(opened).value();
    const Status inserted = db.exec(sql);
    CHECK(inserted.ok(), inserted.error().text());
    CHECK(seal(db).ok(), "cannot seal");
  }
  auto reader = TraceReader::open(dir.file("t.db"));
  CHECK(reader.ok(), reader.error().text());
  return std::move(reader).value();
}

std::string text_of(const std::vector<Table>& tables) {
  std::string text;
  for (const Table& table : tables) {
    if (!text.empty()) text += "\n";
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
      text += (i > 0 ? "|" : "") + table.columns[i];
    }
    text += "\n";
    for (const auto& row : table.rows) {
      for (std::size_t i = 0; i < row.size(); ++i) text += (i > 0 ? "|" : "") + to_text(row[i]);
      text += "\n";
    }
  }
  return text;
}

const std::filesystem::path kCases = ORRERY_SOURCE_DIR "/tests/tracer/analyses";
const std::filesystem::path kQueries = ORRERY_SOURCE_DIR "/tracer/analyses";

class AnalysisCase : public ::testing::TestWithParam<std::string> {};

TEST_P(AnalysisCase, SaysWhatItsTestExpects) {
  const std::string test = testing::read_file(kCases / (GetParam() + ".test"));
  ASSERT_FALSE(test.empty()) << "every analysis has a test in " << kCases;
  const std::string given = "-- given\n", expect = "-- expect\n";
  const std::size_t at = test.find(given), to = test.find(expect);
  ASSERT_NE(at, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  const TempDir dir;
  TraceReader reader = trace_of(dir, test.substr(at + given.size(), to - at - given.size()));
  const auto tables = run_analysis(reader, GetParam());
  ASSERT_TRUE(tables.ok()) << tables.error().text();
  EXPECT_EQ(text_of(tables.value()), test.substr(to + expect.size()));
}

// Also where nothing has happened there is an answer.
TEST_P(AnalysisCase, AnswersOnAnEmptyTrace) {
  const TempDir dir;
  TraceReader reader = trace_of(dir, "");
  const auto tables = run_analysis(reader, GetParam());
  ASSERT_TRUE(tables.ok()) << tables.error().text();
  for (const Table& table : tables.value()) EXPECT_TRUE(table.rows.empty());
}

// Every column of every table is explained in the file.
TEST_P(AnalysisCase, ExplainsItsColumns) {
  const TempDir dir;
  TraceReader reader = trace_of(dir, "");
  const auto tables = run_analysis(reader, GetParam()).value();
  for (const AnalysisInfo& info : list_analyses()) {
    if (info.name != GetParam()) continue;
    EXPECT_FALSE(info.description.empty());
    ASSERT_EQ(info.columns.size(), tables.size());
    for (std::size_t i = 0; i < tables.size(); ++i) {
      for (const std::string& column : tables[i].columns) {
        EXPECT_NE(info.columns[i].find(column), std::string::npos) << column;
      }
    }
  }
}

// Names of the files with an ending, without it.
std::vector<std::string> names_in(const std::filesystem::path& folder, const std::string& ending) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ending) names.insert(entry.path().stem());
  }
  return {names.begin(), names.end()};
}

INSTANTIATE_TEST_SUITE_P(All, AnalysisCase, ::testing::ValuesIn(names_in(kQueries, ".sql")),
                         [](const auto& test) { return test.param; });

TEST(Analysis, EveryFileIsBuiltInAndTested) {
  std::vector<std::string> names;
  for (const AnalysisInfo& info : list_analyses()) names.push_back(info.name);
  EXPECT_EQ(names, names_in(kQueries, ".sql"));
  EXPECT_EQ(names, names_in(kCases, ".test"));
  for (const std::string name : {"breakdown", "exposed", "memory", "skew", "slowest", "steps"}) {
    EXPECT_TRUE(std::find(names.begin(), names.end(), name) != names.end()) << name;
  }
}

TEST(Analysis, AnUnknownNameIsUsageAndNamesTheNearest) {
  const TempDir dir;
  TraceReader reader = trace_of(dir, "");
  const auto tables = run_analysis(reader, "brakdown");
  ASSERT_FALSE(tables.ok());
  EXPECT_EQ(tables.error().code, ErrorCode::kUsage);
  EXPECT_NE(tables.error().text().find("'breakdown'"), std::string::npos);
}

TEST(Analysis, TablesAreJsonArraysOfObjects) {
  Table table;
  table.columns = {"a", "b", "c", "d"};
  table.rows = {{std::int64_t{1}, 2.5, std::string("x"), std::monostate{}},
                {std::int64_t{2}, 1.0 / 0.0, std::string(), std::monostate{}}};
  EXPECT_EQ(to_json(table).dump(-1), Json::parse(R"([{"a":1,"b":2.5,"c":"x","d":null},)"
                                                 R"({"a":2,"b":null,"c":"","d":null}])",
                                                 "test")
                                         .value()
                                         .dump(-1));
}

// Time nanosecond by nanosecond: which rank computes, communicates, at each.
struct Counted {
  std::vector<bool> compute, communication;
};

class IntervalArithmetic : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(IntervalArithmetic, EqualsCountingNanoseconds) {
  constexpr std::int32_t kRanks = 3, kSteps = 2;
  constexpr std::int64_t kStep = 400;  // ns
  std::mt19937 random(GetParam());
  const auto up_to = [&](int most) { return static_cast<std::int64_t>(random() % (most + 1u)); };
  std::string sql;
  std::vector<Counted> counted(kRanks);
  struct Span {
    std::int32_t rank;
    std::int64_t start, end;
  };
  std::vector<Span> communications;
  for (std::int32_t op = 0; op < 2; ++op) {
    sql += "INSERT INTO op VALUES (0, " + std::to_string(op) +
           ", 0, 'k', 'p', 'l', 'x', 0, 0, '', '', " + std::to_string(op) + ", 0, NULL);";
  }
  for (std::int32_t rank = 0; rank < kRanks; ++rank) {
    sql += "INSERT INTO rank (rank, role) VALUES (" + std::to_string(rank) + ", 0);";
    counted[static_cast<std::size_t>(rank)].compute.resize(kStep * kSteps + 100);
    counted[static_cast<std::size_t>(rank)].communication.resize(kStep * kSteps + 100);
    for (std::int32_t step = 0; step < kSteps; ++step) {
      const std::string who = std::to_string(rank) + ", " + std::to_string(step) + ", ";
      sql += "INSERT INTO step VALUES (" + who + std::to_string(step * kStep) + ", " +
             std::to_string((step + 1) * kStep) + ", 0, 0, 0, 0);";
      for (std::int64_t n = up_to(12); n > 0; --n) {
        const bool communication = up_to(1) == 1;
        const std::int64_t start = step * kStep + up_to(kStep - 80);
        const std::int64_t end = start + up_to(80);  // sometimes nothing at all
        sql += "INSERT INTO span VALUES (" + who + (communication ? "1" : "0") + ", 0, " +
               std::to_string(start) + ", " + std::to_string(end) + ", NULL);";
        auto& line = counted[static_cast<std::size_t>(rank)];
        for (auto t = static_cast<std::size_t>(start); t < static_cast<std::size_t>(end); ++t) {
          (communication ? line.communication : line.compute)[t] = true;
        }
        if (communication) communications.push_back({rank, start, end});
      }
    }
  }
  const TempDir dir;
  TraceReader reader = trace_of(dir, sql);

  const Table breakdown = run_analysis(reader, "breakdown").value().at(0);
  ASSERT_EQ(breakdown.rows.size(), static_cast<std::size_t>(kRanks * kSteps));
  for (const auto& row : breakdown.rows) {
    const auto& line = counted[static_cast<std::size_t>(std::get<std::int64_t>(row[0]))];
    const std::int64_t begin = std::get<std::int64_t>(row[1]) * kStep;
    int compute = 0, exposed = 0, hidden = 0, idle = 0;
    for (auto t = static_cast<std::size_t>(begin); t < static_cast<std::size_t>(begin + kStep);
         ++t) {
      compute += line.compute[t];
      exposed += line.communication[t] && !line.compute[t];
      hidden += line.communication[t] && line.compute[t];
      idle += !line.communication[t] && !line.compute[t];
    }
    const auto ns = [&](std::size_t column) { return std::get<double>(row[column]) * 1e6; };
    EXPECT_NEAR(ns(3), compute, 1e-6);
    EXPECT_NEAR(ns(4), exposed, 1e-6);
    EXPECT_NEAR(ns(5), hidden, 1e-6);
    EXPECT_NEAR(ns(6), idle, 1e-6);
  }

  const Table spans = reader
                          .query(
                              "SELECT exposed_ns FROM v_op WHERE communication ORDER BY rank, "
                              "step, start_ns, end_ns")
                          .value();
  std::sort(communications.begin(), communications.end(), [](const Span& a, const Span& b) {
    return std::tuple(a.rank, a.start, a.end) < std::tuple(b.rank, b.start, b.end);
  });
  ASSERT_EQ(spans.rows.size(), communications.size());
  for (std::size_t i = 0; i < communications.size(); ++i) {
    const Span& span = communications[i];
    std::int64_t exposed = 0;
    for (auto t = static_cast<std::size_t>(span.start); t < static_cast<std::size_t>(span.end);
         ++t) {
      exposed += !counted[static_cast<std::size_t>(span.rank)].compute[t];
    }
    EXPECT_EQ(std::get<std::int64_t>(spans.rows[i][0]), exposed) << "span " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, IntervalArithmetic, ::testing::Range(0u, 40u));

}  // namespace
}  // namespace orrery
