// Comparing runs: known durations give known medians, means, joins and errors.
#include "tracer/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/tracer/trace_fixture.h"

namespace orrery {
namespace {

using testing::TempDir;
using Duration = std::function<std::int64_t(std::int32_t rank, std::int32_t step, std::int32_t op)>;

TraceReader run_of(const std::string& path, const Program& program, std::int32_t steps,
                   const Duration& duration, std::int64_t step_ns) {
  TraceEvents events;
  for (std::int32_t rank = 0; rank < program.world; ++rank) {
    for (std::int32_t step = 0; step < steps; ++step) {
      const std::int64_t end_ns = step_ns + duration(rank, step, 0);
      events.steps.push_back({rank, step, 0, end_ns, 1, 0, 0, 1, 1e-3, 1});
      events.peaks.push_back({rank, step, -1, 1000 + 10 * rank + step});
      events.peaks.push_back({rank, step, static_cast<std::int32_t>(BufferClass::kGradient), 500});
      const auto ops = static_cast<std::int32_t>(program.role_of(rank).ops.size());
      for (std::int32_t op = 0; op < ops; ++op) {
        events.spans.push_back({rank, step, op, 0, 7, 7 + duration(rank, step, op)});
      }
    }
  }
  auto writer = TraceWriter::create(path, testing::run_info(program));
  CHECK(writer.ok(), writer.error().text());
  TraceWriter trace = std::move(writer).value();
  CHECK(trace.write_program(program).ok() && trace.write(events).ok(), "cannot write");
  CHECK(trace.finish(RunStatus::kOk).ok(), "cannot finish");
  auto reader = TraceReader::open(path);
  CHECK(reader.ok(), reader.error().text());
  return std::move(reader).value();
}

TEST(Compare, MediansOverStepsAndMeansOverRanks) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  TraceReader a = run_of(
      dir.file("a.db"), program, 1, [](auto, auto, auto op) { return 1000 * (op + 1); }, 5'000'000);
  // The first step is slow and does not count; of 100, 300, 700 the median is 300.
  TraceReader b = run_of(
      dir.file("b.db"), program, 4,
      [](std::int32_t rank, std::int32_t step, std::int32_t op) {
        const std::int64_t by_step[] = {900'000, 700, 100, 300};
        return by_step[step] * (op + 1) + 200 * rank;
      },
      4'000'000);
  const CompareReport report = compare_runs(a, b).value();
  EXPECT_TRUE(report.same_program);
  // The roles share all ops but one of each.
  EXPECT_EQ(report.joined_ops, 8);
  EXPECT_EQ(report.only_a, 0);
  EXPECT_EQ(report.only_b, 0);
  EXPECT_NEAR(report.step_s.predicted, 5.001e-3, 1e-12);
  EXPECT_NEAR(report.step_s.measured, 4.0004e-3, 1e-12);
  EXPECT_NEAR(report.step_s.error(), 5.001 / 4.0004 - 1, 1e-9);
  EXPECT_EQ(report.peak_bytes.predicted, 1010);
  EXPECT_EQ(report.peak_bytes.measured, 1013);
  ASSERT_EQ(report.memory.size(), 1u);
  EXPECT_EQ(report.memory[0].cls, name_of(BufferClass::kGradient));
  EXPECT_EQ(report.memory[0].bytes.measured, 500);
  // Op 6 of 7: 7 us against 300 ns * 7 + 100 ns: the widest apart, so the first.
  ASSERT_EQ(report.ops.size(), 8u);
  EXPECT_EQ(report.ops[0].path, "layer.0");
  EXPECT_NEAR(report.ops[0].seconds.predicted, 7e-6, 1e-15);
  EXPECT_NEAR(report.ops[0].seconds.measured, 2.2e-6, 1e-15);
  for (std::size_t i = 1; i < report.ops.size(); ++i) {
    EXPECT_GE(std::abs(report.ops[i - 1].difference_s()), std::abs(report.ops[i].difference_s()));
  }
}

TEST(Compare, ClassesAddUpToTheTimeOfARank) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  TraceReader a = run_of(
      dir.file("a.db"), program, 2, [](auto, auto, auto op) { return 1000 << op; }, 1);
  TraceReader b = run_of(
      dir.file("b.db"), program, 2, [](auto rank, auto, auto) { return 100 * (rank + 1); }, 1);
  const CompareReport report = compare_runs(a, b).value();
  double predicted = 0, measured = 0;
  for (const auto& row : report.classes) {
    predicted += row.seconds.predicted;
    measured += row.seconds.measured;
  }
  EXPECT_NEAR(predicted, 127e-6, 1e-12);
  EXPECT_NEAR(measured, 7 * 250e-9, 1e-12);
  EXPECT_EQ(report.classes.size(), 6u);  // the forward blocks are one class
}

TEST(Compare, OtherProgramsJoinByPath) {
  const TempDir dir;
  Program other = testing::small_program(2);
  other.plan_hash = "another plan";
  for (Role& role : other.roles) {
    role.ops[5].path = "layer.0/reduce_all";
    for (Op& op : role.ops) op.key += 1;  // keys of another making
  }
  const auto one = [](auto, auto, auto) { return 1000; };
  TraceReader a = run_of(dir.file("a.db"), testing::small_program(2), 1, one, 1);
  TraceReader b = run_of(dir.file("b.db"), other, 1, one, 1);
  const CompareReport report = compare_runs(a, b).value();
  EXPECT_FALSE(report.same_program);
  EXPECT_EQ(report.joined_ops, 7);
  EXPECT_EQ(report.only_a, 1);
  EXPECT_EQ(report.only_b, 1);
}

TEST(Compare, ARunAgainstItselfHasNoError) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  const auto uneven = [](auto rank, auto step, auto op) { return 100 + 7 * rank + 3 * step * op; };
  TraceReader a = run_of(dir.file("a.db"), program, 5, uneven, 99);
  TraceReader b = run_of(dir.file("b.db"), program, 5, uneven, 99);
  const CompareReport report = compare_runs(a, b).value();
  EXPECT_EQ(report.step_s.error(), 0);
  for (const auto& row : report.ops) EXPECT_EQ(row.seconds.error(), 0);
  for (const auto& row : report.classes) EXPECT_EQ(row.seconds.error(), 0);
}

TEST(Compare, ErrorIsRelativeToTheMeasured) {
  EXPECT_EQ((Compared{3, 2}).error(), 0.5);
  EXPECT_EQ((Compared{0, 0}).error(), 0);
  EXPECT_TRUE(std::isnan((Compared{1, 0}).error()));
}

}  // namespace
}  // namespace orrery
