// The document inside the report against the trace's rows, read by SQL or by other code.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "tests/tracer/trace_fixture.h"
#include "tests/ui-export/html_fixture.h"
#include "tracer/analysis.h"
#include "tracer/compare.h"

namespace orrery {
namespace {

using testing::document_of;
using testing::page_of;
using testing::TempDir;

const Json& at(const Json& json, const std::string& key) {
  const Json* found = json.find(key);
  CHECK(found != nullptr, "no " + key);
  return *found;
}

std::vector<std::int64_t> integers(const Json& list) {
  std::vector<std::int64_t> values;
  for (const Json& item : list.items()) values.push_back(item.as_integer());
  return values;
}

std::vector<std::vector<Cell>> rows_of(TraceReader& trace, const std::string& sql) {
  const auto table = trace.query(sql);
  CHECK(table.ok(), table.error().text());
  return table.value().rows;
}

std::int64_t integer(const Cell& cell) {
  return std::get<std::int64_t>(cell);
}

double number(const Cell& cell) {
  const auto* whole = std::get_if<std::int64_t>(&cell);
  return whole ? static_cast<double>(*whole) : std::get<double>(cell);
}

// step, rank, path, phase, kind, lane, micro-batch, ns after the step's earliest start, ns it took.
using SpanText = std::tuple<std::int64_t, std::int64_t, std::string, std::string, std::string,
                            std::string, std::int64_t, std::int64_t, std::int64_t>;

std::multiset<SpanText> spans_of_page(const Json& document, const std::string& side) {
  const Json& ops = at(document, "ops");
  const auto& names = at(ops, "names").items();
  const auto name = [&](const char* column, std::size_t op) {
    return names[static_cast<std::size_t>(at(ops, column).items()[op].as_integer())].as_string();
  };
  std::multiset<SpanText> spans;
  for (const Json& step : at(at(at(document, side), "timeline"), "steps").items()) {
    for (const Json& rank : at(step, "ranks").items()) {
      const auto op = integers(at(rank, "op")), later = integers(at(rank, "at"));
      const auto ns = integers(at(rank, "ns"));
      std::int64_t start = 0;
      for (std::size_t i = 0; i < op.size(); ++i) {
        start += later[i];
        const auto o = static_cast<std::size_t>(op[i]);
        spans.emplace(at(step, "step").as_integer(), at(rank, "rank").as_integer(),
                      at(ops, "path").items()[o].as_string(), name("phase", o), name("kind", o),
                      name("lane", o), at(ops, "micro_batch").items()[o].as_integer(), start,
                      ns[i]);
      }
    }
  }
  return spans;
}

std::multiset<SpanText> spans_of_trace(TraceReader& trace) {
  std::multiset<SpanText> spans;
  for (const auto& row : rows_of(
           trace,
           "SELECT o.step, o.rank, o.path, o.phase, o.kind, o.lane, o.micro_batch, "
           "o.start_ns - (SELECT min(start_ns) FROM v_step s WHERE s.step = o.step), o.duration_ns "
           "FROM v_op o")) {
    spans.emplace(integer(row[0]), integer(row[1]), std::get<std::string>(row[2]),
                  std::get<std::string>(row[3]), std::get<std::string>(row[4]),
                  std::get<std::string>(row[5]), integer(row[6]), integer(row[7]), integer(row[8]));
  }
  return spans;
}

TEST(HtmlData, TheTimelineHoldsEverySpan) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  for (const std::uint32_t seed : {1U, 2U, 3U}) {
    TraceReader trace = testing::write_trace(dir.file("a.db"), testing::run_info(program), program,
                                             testing::random_events(program, seed, 4));
    const Json document = document_of(page_of(nullptr, &trace));
    EXPECT_TRUE(at(document, "omitted").items().empty());
    const auto expected = spans_of_trace(trace);
    EXPECT_EQ(expected.size(), 4U * 4U * 7U);
    EXPECT_EQ(spans_of_page(document, "measured"), expected) << "seed " << seed;
  }
}

TEST(HtmlData, BothSidesShareTheOpsOfOneProgram) {
  const TempDir dir;
  const testing::Pair pair = testing::simulated_pair();
  TraceReader sim = testing::write_trace(dir.file("sim.db"), testing::info_of(pair, RunKind::kSim),
                                         pair.program, pair.predicted);
  TraceReader run = testing::write_trace(
      dir.file("run.db"), testing::info_of(pair, RunKind::kMeasured), pair.program, pair.measured);
  const Json document = document_of(page_of(&sim, &run));
  EXPECT_EQ(spans_of_page(document, "predicted"), spans_of_trace(sim));
  EXPECT_EQ(spans_of_page(document, "measured"), spans_of_trace(run));
  const auto ops = rows_of(sim,
                           "SELECT count(DISTINCT path || phase || micro_batch || chunk) "
                           "FROM op");
  EXPECT_EQ(at(at(document, "ops"), "path").items().size(),
            static_cast<std::size_t>(integer(ops[0][0])));
}

// Compute, exposed and hidden communication and idle time, summed over phases, are those of the
// analysis, which counts them by another algorithm.
TEST(HtmlData, TheBreakdownIsThatOfTheAnalysis) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  for (const std::uint32_t seed : {4U, 5U, 6U}) {
    TraceReader trace = testing::write_trace(dir.file("a.db"), testing::run_info(program), program,
                                             testing::random_events(program, seed, 3));
    const auto tables = run_analysis(trace, "breakdown");
    ASSERT_TRUE(tables.ok());
    // Columns: rank, step, step_ms, compute_ms, exposed_ms, hidden_ms, idle_ms, ...
    std::map<std::int64_t, std::vector<double>> expected;
    for (const auto& row : tables.value()[0].rows) {
      auto& sums = expected[integer(row[1])];
      sums.resize(4);
      for (std::size_t i = 0; i < 4; ++i) sums[i] += number(row[3 + i]) * 1e6 / 4;
    }
    const Json document = document_of(page_of(nullptr, &trace));
    const auto& steps = at(at(at(document, "measured"), "breakdown"), "steps").items();
    ASSERT_EQ(steps.size(), expected.size());
    for (const Json& step : steps) {
      const auto& sums = expected.at(at(step, "step").as_integer());
      const char* parts[] = {"compute", "exposed", "hidden", "idle"};
      for (std::size_t i = 0; i < 4; ++i) {
        const auto phases = integers(at(step, parts[i]));
        const auto sum = std::accumulate(phases.begin(), phases.end(), std::int64_t{0});
        // Each phase is rounded to a nanosecond.
        EXPECT_NEAR(static_cast<double>(sum), sums[i], static_cast<double>(phases.size()))
            << parts[i];
      }
    }
  }
}

// Idle time belongs to the phase that comes next; worked out by hand.
TEST(HtmlData, TheBreakdownByHand) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  TraceEvents events;
  // Rank 0: gather 10..30 (fwd), attention 20..50 (fwd), backward 70..90, then nothing to 100.
  events.steps = {{0, 0, 0, 100, 1, 0, 0, 1, 0, 8}};
  events.spans = {{0, 0, 0, 10, 10, 30}, {0, 0, 1, 20, 20, 50}, {0, 0, 4, 70, 70, 90}};
  TraceReader trace =
      testing::write_trace(dir.file("a.db"), testing::run_info(program), program, events);
  const Json document = document_of(page_of(nullptr, &trace));
  const Json& breakdown = at(at(document, "measured"), "breakdown");
  ASSERT_EQ(at(breakdown, "phases").dump(-1), R"(["fwd", "bwd", "opt"])");
  const Json& step = at(breakdown, "steps").items().at(0);
  EXPECT_EQ(integers(at(step, "compute")), (std::vector<std::int64_t>{30, 20, 0}));
  EXPECT_EQ(integers(at(step, "exposed")), (std::vector<std::int64_t>{10, 0, 0}));
  EXPECT_EQ(integers(at(step, "hidden")), (std::vector<std::int64_t>{10, 0, 0}));
  EXPECT_EQ(integers(at(step, "idle")), (std::vector<std::int64_t>{10, 30, 0}));
}

// The highest total over time is that of the rows, summed in their order, on top of what the
// program's buffers hold from before the step.
TEST(HtmlData, MemoryReachesThePeakOfTheRows) {
  const TempDir dir;
  const testing::Pair pair = testing::simulated_pair();
  TraceReader trace = testing::write_trace(
      dir.file("sim.db"), testing::info_of(pair, RunKind::kSim), pair.program, pair.predicted);
  const Json document = document_of(page_of(&trace, nullptr));
  const Json& memory = at(at(document, "predicted"), "memory");
  const auto standing =
      rows_of(trace, "SELECT sum(c0_bytes) FROM buffer WHERE role = 0 AND taken_by < 0");
  for (const Json& rank : at(memory, "ranks").items()) {
    const auto highest =
        rows_of(trace,
                "SELECT max(total) FROM (SELECT sum(delta_bytes) OVER (ORDER BY time_ns, op, rowid "
                "ROWS UNBOUNDED PRECEDING) AS total FROM alloc WHERE class < 8 AND rank = " +
                    std::to_string(at(rank, "rank").as_integer()) + ")");
    std::vector<std::int64_t> totals;
    for (const Json& cls : at(rank, "bytes").items()) {
      std::int64_t level = 0;
      totals.resize(cls.items().size());
      for (std::size_t i = 0; i < totals.size(); ++i) {
        level += cls.items()[i].as_integer();
        totals[i] += level;
      }
    }
    EXPECT_EQ(*std::max_element(totals.begin(), totals.end()),
              integer(highest[0][0]) + integer(standing[0][0]));
  }
  const Json& peaks = at(at(document, "predicted"), "peaks");
  for (const auto& row : rows_of(trace,
                                 "SELECT class, max(peak_bytes) FROM v_memory "
                                 "GROUP BY class")) {
    EXPECT_EQ(at(peaks, std::get<std::string>(row[0])).as_integer(), integer(row[1]));
  }
}

TEST(HtmlData, ExpertLoadsAreTheRecordedRows) {
  const TempDir dir;
  const testing::Pair pair = testing::simulated_pair();
  TraceReader trace = testing::write_trace(
      dir.file("run.db"), testing::info_of(pair, RunKind::kMeasured), pair.program, pair.measured);
  const Json document = document_of(page_of(nullptr, &trace));
  const Json& experts = at(at(document, "measured"), "experts");
  ASSERT_EQ(at(experts, "layers").items().size(), 2U);
  // Variable 0 of a record counts all rows that its rank received; 2 x 2 peers and local experts.
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const std::string name = "'route/layer." + std::to_string(layer) + "/*'";
    const auto loads = integers(at(experts, "rows").items()[layer]);
    ASSERT_EQ(loads.size(), 4U);
    const auto all = rows_of(trace,
                             "SELECT sum(value) FROM v_binding WHERE step = 1 AND idx = 0 "
                             "AND variable GLOB " +
                                 name);
    EXPECT_EQ(std::accumulate(loads.begin(), loads.end(), std::int64_t{0}), integer(all[0][0]));
    for (std::int64_t expert = 0; expert < 4; ++expert) {
      const auto rows = rows_of(
          trace,
          "SELECT sum(b.value) FROM v_binding b JOIN comm_group g ON g.name = 'ep' "
          "WHERE b.step = 1 AND b.rank / g.stride % g.size = " +
              std::to_string(expert / 2) + " AND b.idx = " + std::to_string(5 + expert % 2) +
              " AND variable GLOB " + name);
      EXPECT_EQ(loads[static_cast<std::size_t>(expert)], integer(rows[0][0])) << expert;
    }
  }
}

TEST(HtmlData, FiguresAreThoseOfCompare) {
  const TempDir dir;
  const testing::Pair pair = testing::simulated_pair();
  TraceReader sim = testing::write_trace(dir.file("sim.db"), testing::info_of(pair, RunKind::kSim),
                                         pair.program, pair.predicted);
  TraceReader run = testing::write_trace(
      dir.file("run.db"), testing::info_of(pair, RunKind::kMeasured), pair.program, pair.measured);
  const auto compared = compare_runs(sim, run);
  ASSERT_TRUE(compared.ok());
  const CompareReport& report = compared.value();
  const Json document = document_of(page_of(&sim, &run));
  const Json& before = at(at(document, "predicted"), "headline");
  const Json& after = at(at(document, "measured"), "headline");
  EXPECT_DOUBLE_EQ(at(before, "step_s").as_double(), report.step_s.predicted);
  EXPECT_DOUBLE_EQ(at(after, "step_s").as_double(), report.step_s.measured);
  EXPECT_EQ(at(before, "peak_bytes").as_double(), report.peak_bytes.predicted);
  EXPECT_DOUBLE_EQ(at(before, "mfu").as_double(), pair.plan.predicted.mfu);
  EXPECT_DOUBLE_EQ(at(before, "tokens_per_s").as_double(), pair.plan.predicted.tokens_per_s);
  const Json& rows = at(at(document, "compare"), "ops");
  ASSERT_EQ(at(rows, "op").items().size(), report.ops.size());
  for (std::size_t i = 0; i < report.ops.size(); ++i) {
    const auto op = static_cast<std::size_t>(at(rows, "op").items()[i].as_integer());
    EXPECT_EQ(at(at(document, "ops"), "path").items()[op].as_string(), report.ops[i].path);
    EXPECT_NEAR(at(rows, "measured").items()[i].as_double(), report.ops[i].seconds.measured * 1e9,
                0.51);
  }
  EXPECT_EQ(at(at(document, "compare"), "joined").as_integer(), report.joined_ops);
  // Layers together: two layers of the same ops, and no time lost.
  double all = 0, together = 0;
  std::int64_t count = 0;
  for (const auto& row : report.ops) all += row.seconds.measured * 1e9;
  std::set<std::string> paths;
  for (const Json& row : at(at(document, "compare"), "layers").items()) {
    together += at(row, "measured").as_double();
    count += at(row, "count").as_integer();
    paths.insert(at(row, "path").as_string());
  }
  EXPECT_NEAR(together, all, static_cast<double>(report.ops.size()));
  EXPECT_EQ(count, report.joined_ops);
  EXPECT_EQ(paths.count("layer.*/attn"), 1U);
  EXPECT_EQ(paths.count("layer.0/attn"), 0U);
}

TEST(HtmlData, StepsAreThoseOfTheView) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  TraceReader trace = testing::write_trace(dir.file("a.db"), testing::run_info(program), program,
                                           testing::random_events(program, 8, 5));
  const Json document = document_of(page_of(nullptr, &trace));
  const Json& steps = at(at(document, "measured"), "steps");
  const auto rows = rows_of(trace,
                            "SELECT step, avg(duration_ns) / 1e9, max(loss) FROM v_step "
                            "GROUP BY step ORDER BY step");
  ASSERT_EQ(at(steps, "step").items().size(), rows.size());
  std::vector<std::pair<double, std::int64_t>> counted;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(at(steps, "step").items()[i].as_integer(), integer(rows[i][0]));
    EXPECT_NEAR(at(steps, "seconds").items()[i].as_double(), number(rows[i][1]), 1e-12);
    EXPECT_EQ(at(steps, "loss").items()[i].as_double(), number(rows[i][2]));
    if (i > 0) counted.emplace_back(number(rows[i][1]), integer(rows[i][0]));
  }
  std::sort(counted.begin(), counted.end());
  EXPECT_EQ(at(at(document, "measured"), "default_step").as_integer(), counted[1].second);
  const auto step = report_step(trace);
  ASSERT_TRUE(step.ok());
  EXPECT_EQ(step.value(), counted[1].second);
}

TEST(HtmlData, DependenciesAndBytesAreTheProgram) {
  const TempDir dir;
  const testing::Pair pair = testing::simulated_pair(2);
  TraceReader trace = testing::write_trace(
      dir.file("sim.db"), testing::info_of(pair, RunKind::kSim), pair.program, pair.predicted);
  const Json document = document_of(page_of(&trace, nullptr));
  const Json& ops = at(document, "ops");
  const auto paths = at(ops, "path").items();
  std::size_t checked = 0;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    // Of the ops whose path, in the forward pass, is one op.
    const std::string of = " o.path = '" + paths[i].as_string() + "'";
    const auto same = rows_of(trace, "SELECT count(*), max(o.static_bytes) FROM op o WHERE" + of);
    if (integer(same[0][0]) != 1) continue;
    ++checked;
    std::multiset<std::string> expected, found;
    for (const auto& row : rows_of(trace,
                                   "SELECT p.path FROM op o JOIN dep d ON d.role = o.role "
                                   "AND d.op = o.op JOIN op p ON p.role = d.role AND "
                                   "p.op = d.on_op WHERE" +
                                       of)) {
      expected.insert(std::get<std::string>(row[0]));
    }
    for (const auto dep : integers(at(ops, "deps").items()[i])) {
      found.insert(paths[static_cast<std::size_t>(dep)].as_string());
    }
    EXPECT_EQ(found, expected) << paths[i].as_string();
    const Json& bytes = at(ops, "bytes").items()[i];
    EXPECT_EQ(bytes.is_null(), std::holds_alternative<std::monostate>(same[0][1]));
    if (!bytes.is_null()) {
      EXPECT_EQ(bytes.as_integer(), integer(same[0][1]));
    }
  }
  EXPECT_GT(checked, 3U);
}

}  // namespace
}  // namespace orrery
