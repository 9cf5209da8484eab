// The merge: parts of all ranks give the trace one writer would have given; damaged runs are kept.
#include "tracer/merge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "tests/tracer/trace_fixture.h"
#include "tracer/recorder.h"
#include "tracer/rows.h"

namespace orrery {
namespace {

using testing::TempDir;

TraceReader open(const std::string& path) {
  auto reader = TraceReader::open(path);
  CHECK(reader.ok(), reader.error().text());
  return std::move(reader).value();
}

// Records the rank's events in shuffled order, with its clock `offset_ns` behind rank 0's.
void record_part(const std::string& out, std::int32_t rank, const Program& program,
                 TraceEvents events, std::int64_t offset_ns, RunStatus status = RunStatus::kOk) {
  RankInfo info;
  info.rank = rank;
  info.node = "node" + std::to_string(rank / 2);
  auto opened = Recorder::open(out, info, testing::run_info(program), program);
  CHECK(opened.ok(), opened.error().text());
  Recorder& recorder = *opened.value();
  recorder.set_clock(offset_ns, 5);
  std::mt19937 random(static_cast<std::uint32_t>(rank));
  std::shuffle(events.spans.begin(), events.spans.end(), random);
  TraceProducer& producer = recorder.producer();
  for (SpanEvent e : events.spans) {
    e.enqueue_ns -= offset_ns, e.start_ns -= offset_ns, e.end_ns -= offset_ns;
    producer.record(e);
  }
  for (CollectiveEvent e : events.collectives) {
    e.posted_ns -= offset_ns, e.ready_ns -= offset_ns, e.end_ns -= offset_ns;
    producer.record(e);
  }
  for (AllocEvent e : events.allocs) {
    e.time_ns -= offset_ns;
    producer.record(e);
  }
  for (const PeakEvent& e : events.peaks) producer.record(e);
  for (const Binding& e : events.bindings) recorder.record_binding(e);
  for (StepEvent e : events.steps) {
    e.start_ns -= offset_ns, e.end_ns -= offset_ns;
    recorder.end_step(e);
  }
  ASSERT_TRUE(recorder.close(status, status == RunStatus::kOk ? "" : "out of memory").ok());
}

MergeOptions options_for(const std::string& out, const Program& program) {
  MergeOptions options;
  options.out = out;
  options.world = program.world;
  options.run = testing::run_info(program);
  return options;
}

TEST(Merge, AlignedPartsEqualOneTrace) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  TraceEvents events = testing::random_events(program, 5, 3);
  const std::string out = dir.file("run.db");
  for (std::int32_t rank = 3; rank >= 0; --rank) {
    record_part(out, rank, program, testing::of_rank(events, rank), rank * 1'000'003);
  }
  const auto report = merge_parts(options_for(out, program));
  ASSERT_TRUE(report.ok()) << report.error().text();
  EXPECT_EQ(report.value().status, RunStatus::kOk);
  EXPECT_TRUE(report.value().missing.empty());
  EXPECT_EQ(dir.entries(), std::vector<std::string>{"run.db"});

  auto writer = TraceWriter::create(dir.file("whole.db"), testing::run_info(program));
  TraceWriter whole = std::move(writer).value();
  ASSERT_TRUE(whole.write_program(program).ok());
  for (std::int32_t rank = 0; rank < 4; ++rank) {
    RankInfo info;
    info.rank = rank;
    info.role = rank % 2;
    info.node = "node" + std::to_string(rank / 2);
    info.clock_offset_ns = rank * 1'000'003;
    info.clock_error_ns = 5;
    ASSERT_TRUE(whole.write_rank(info).ok());
  }
  rows::sort(events);
  ASSERT_TRUE(whole.write(events).ok());
  ASSERT_TRUE(whole.finish(RunStatus::kOk).ok());
  EXPECT_EQ(testing::dump(out), testing::dump(dir.file("whole.db")));
}

TEST(Merge, AMissingRankIsNotedAndTheRestKept) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  const TraceEvents events = testing::random_events(program, 5, 2);
  const std::string out = dir.file("run.db");
  for (const std::int32_t rank : {0, 1, 3}) {
    record_part(out, rank, program, testing::of_rank(events, rank), 0,
                rank == 3 ? RunStatus::kFailed : RunStatus::kOk);
  }
  const auto report = merge_parts(options_for(out, program));
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report.value().missing, std::vector<std::int32_t>{2});
  TraceReader reader = open(out);
  EXPECT_EQ(reader.run().status, RunStatus::kFailed);
  EXPECT_NE(reader.run().reason.find("rank 2"), std::string::npos);
  EXPECT_NE(reader.run().reason.find("out of memory"), std::string::npos);
  const auto notes = reader.notes().value();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(notes[0].rank, 2);
  EXPECT_EQ(notes[0].name, "rank_missing");
  EXPECT_EQ(reader.steps().value().size(), 6u);
  EXPECT_EQ(dir.entries(), std::vector<std::string>{"run.db"});
}

class TornPart : public ::testing::TestWithParam<std::uintmax_t> {};

TEST_P(TornPart, WhatIsReadableIsKept) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  const TraceEvents events = testing::random_events(program, 5, 200);
  const std::string out = dir.file("run.db");
  // A page that ends amid its cells reads on as zeros: at each of its sixteenths.
  const std::uintmax_t cut = GetParam() * 256;
  record_part(out, 0, program, testing::of_rank(events, 0), 0);
  record_part(out, 1, program, testing::of_rank(events, 1), 0);
  const std::string torn = part_path(out, 1);
  std::filesystem::resize_file(torn, std::filesystem::file_size(torn) / 8192 * 4096 + cut);
  const auto report = merge_parts(options_for(out, program));
  ASSERT_TRUE(report.ok()) << report.error().text();
  EXPECT_EQ(report.value().status, RunStatus::kFailed);
  EXPECT_EQ(report.value().torn, std::vector<std::int32_t>{1});
  TraceReader reader = open(out);
  EXPECT_EQ(reader.notes().value().at(0).name, "rank_torn");
  const auto count = [&](const std::string& of) {
    return std::get<std::int64_t>(reader.query("SELECT count(*) FROM " + of).value().rows[0][0]);
  };
  EXPECT_EQ(count("span WHERE rank = 0"), 1400);
  EXPECT_GT(count("span WHERE rank = 1"), 0);
  EXPECT_LT(count("span WHERE rank = 1"), 1400);
}

INSTANTIATE_TEST_SUITE_P(Cuts, TornPart, ::testing::Range<std::uintmax_t>(0, 16));

TEST(Merge, ForeignAndStalePartsCountAsMissing) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  Program other = program;
  other.plan_hash = "another plan";
  const TraceEvents events = testing::random_events(program, 5, 1);
  const std::string out = dir.file("run.db");
  for (const std::int32_t rank : {0, 1, 2}) {
    record_part(out, rank, rank == 1 ? other : program, testing::of_rank(events, rank), 0);
  }
  testing::write_file(part_path(out, 2), std::string(9000, 'x'));
  testing::write_file(part_path(out, 3), "");
  const auto report = merge_parts(options_for(out, program));
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report.value().missing, (std::vector<std::int32_t>{1, 2, 3}));
  EXPECT_EQ(open(out).steps().value().size(), 1u);
}

TEST(Merge, WithoutAnyPartThereIsStillAFailedRun) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  MergeOptions options = options_for(dir.file("run.db"), program);
  options.run.status = RunStatus::kFailed;
  options.run.reason = "mpirun: no such host";
  ASSERT_TRUE(merge_parts(options).ok());
  TraceReader reader = open(options.out);
  EXPECT_EQ(reader.run().status, RunStatus::kFailed);
  EXPECT_EQ(reader.run().reason.find("mpirun: no such host"), 0u);
  EXPECT_EQ(reader.notes().value().size(), 2u);
}

TEST(Merge, WhenTheResultCannotBeWrittenThePartsStay) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  const std::string out = dir.file("run.db");
  record_part(out, 0, program, testing::random_events(program, 5, 1), 0);
  std::filesystem::create_directory(out);  // a folder has the name already
  const auto report = merge_parts(options_for(out, program));
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kIo);
  EXPECT_TRUE(std::filesystem::exists(part_path(out, 0)));
  EXPECT_EQ(dir.entries(), (std::vector<std::string>{"run.db", "run.db.parts"}));
}

}  // namespace
}  // namespace orrery
