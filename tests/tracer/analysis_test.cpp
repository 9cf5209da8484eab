// Analyses as data: tests/tracer/analyses/NAME.test gives rows and what the analysis must say of
// them. And the interval arithmetic of `breakdown` and of exposed time against counting
// nanoseconds.
#include "tracer/analysis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>
#include <tuple>

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

struct RandomSpan {
  std::int32_t rank = 0, step = 0;
  bool communication = false;
  std::int64_t start_ns = 0, end_ns = 0;
};

constexpr std::int32_t kRanks = 3, kSteps = 2;
constexpr std::int64_t kStepNs = 400;

// Sorted as v_op is asked for below. Some last no time at all.
std::vector<RandomSpan> random_spans(std::uint32_t seed) {
  std::mt19937 random(seed);
  const auto up_to = [&](std::int64_t most) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most + 1));
  };
  std::vector<RandomSpan> spans;
  for (std::int32_t rank = 0; rank < kRanks; ++rank) {
    for (std::int32_t step = 0; step < kSteps; ++step) {
      for (std::int64_t n = up_to(12); n > 0; --n) {
        const bool communication = up_to(1) == 1;
        const std::int64_t start = step * kStepNs + up_to(kStepNs - 80);
        spans.push_back({rank, step, communication, start, start + up_to(80)});
      }
    }
  }
  std::sort(spans.begin(), spans.end(), [](const RandomSpan& a, const RandomSpan& b) {
    return std::tuple(a.rank, a.start_ns, a.end_ns, a.communication) <
           std::tuple(b.rank, b.start_ns, b.end_ns, b.communication);
  });
  return spans;
}

std::string inserts_of(const std::vector<RandomSpan>& spans) {
  std::string sql;
  const auto insert = [&](const char* table, std::initializer_list<std::int64_t> values,
                          const char* rest) {
    sql += std::string("INSERT INTO ") + table + " VALUES (";
    for (const std::int64_t value : values) sql += std::to_string(value) + ", ";
    sql += std::string(rest) + ");";
  };
  insert("op", {0, 0, 10}, "'k', 'p', 'l', 'x', 0, 0, '', '', 0, 0, NULL");
  insert("op", {0, 1, 11}, "'k', 'p', 'l', 'x', 0, 0, '', '', 1, 0, NULL");
  for (std::int32_t rank = 0; rank < kRanks; ++rank) {
    insert("rank (rank, role)", {rank}, "0");
    for (std::int32_t step = 0; step < kSteps; ++step) {
      insert("step", {rank, step, step * kStepNs, (step + 1) * kStepNs}, "0, 0, 0, 0, 0, 0");
    }
  }
  for (const RandomSpan& span : spans) {
    insert("span", {span.rank, span.step, span.communication, 0, span.start_ns, span.end_ns},
           "NULL");
  }
  return sql;
}

// Whether any span of a kind covers the nanosecond that begins at `t`.
bool covers(const std::vector<RandomSpan>& spans, std::int64_t rank, bool communication,
            std::int64_t t) {
  return std::any_of(spans.begin(), spans.end(), [&](const RandomSpan& span) {
    return span.rank == rank && span.communication == communication && span.start_ns <= t &&
           t < span.end_ns;
  });
}

class IntervalArithmetic : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(IntervalArithmetic, OfTheBreakdownEqualsCountingNanoseconds) {
  const auto spans = random_spans(GetParam());
  const TempDir dir;
  TraceReader reader = trace_of(dir, inserts_of(spans));
  const Table breakdown = run_analysis(reader, "breakdown").value().at(0);
  ASSERT_EQ(breakdown.rows.size(), static_cast<std::size_t>(kRanks * kSteps));
  for (const auto& row : breakdown.rows) {
    const std::int64_t rank = std::get<std::int64_t>(row[0]);
    const std::int64_t begin = std::get<std::int64_t>(row[1]) * kStepNs;
    int compute = 0, exposed = 0, hidden = 0, idle = 0;
    for (std::int64_t t = begin; t < begin + kStepNs; ++t) {
      const bool computes = covers(spans, rank, false, t);
      const bool communicates = covers(spans, rank, true, t);
      compute += computes;
      exposed += communicates && !computes;
      hidden += communicates && computes;
      idle += !communicates && !computes;
    }
    const auto ns = [&](std::size_t column) { return std::get<double>(row[column]) * 1e6; };
    EXPECT_NEAR(ns(3), compute, 1e-6);
    EXPECT_NEAR(ns(4), exposed, 1e-6);
    EXPECT_NEAR(ns(5), hidden, 1e-6);
    EXPECT_NEAR(ns(6), idle, 1e-6);
  }
}

TEST_P(IntervalArithmetic, OfExposedTimeEqualsCountingNanoseconds) {
  const auto spans = random_spans(GetParam());
  const TempDir dir;
  TraceReader reader = trace_of(dir, inserts_of(spans));
  const Table rows = reader
                         .query(
                             "SELECT exposed_ns FROM v_op ORDER BY rank, start_ns, end_ns, "
                             "communication")
                         .value();
  ASSERT_EQ(rows.rows.size(), spans.size());
  std::int64_t total = 0, counted = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const auto* exposed = std::get_if<std::int64_t>(&rows.rows[i][0]);
    total += exposed ? *exposed : 0;
    for (std::int64_t t = spans[i].start_ns; t < spans[i].end_ns; ++t) {
      counted += spans[i].communication && !covers(spans, spans[i].rank, false, t);
    }
    EXPECT_EQ(total, counted) << "from span " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, IntervalArithmetic, ::testing::Range(0u, 40u));

}  // namespace
}  // namespace orrery
