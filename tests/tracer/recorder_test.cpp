// The recorder: nothing is lost without being counted, and what was committed survives a kill.
#include "tracer/recorder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <thread>

#include "tests/tracer/trace_fixture.h"
#include "tracer/merge.h"
#include "tracer/ring_buffer.h"

namespace orrery {
namespace {

using testing::TempDir;

std::unique_ptr<Recorder> start(const std::string& out, std::int32_t rank, const Program& program,
                                const Recorder::Options& options = {}) {
  RankInfo info;
  info.rank = rank;
  auto opened = Recorder::open(out, info, testing::run_info(program), program, options);
  CHECK(opened.ok(), opened.error().text());
  return std::move(opened).value();
}

TraceReader open(const std::string& path) {
  auto reader = TraceReader::open(path);
  CHECK(reader.ok(), reader.error().text());
  return std::move(reader).value();
}

TEST(RingBuffer, IsAQueueOfItsCapacity) {
  RingBuffer<int> ring(5);
  EXPECT_EQ(ring.capacity(), 8u);
  int value = 0;
  EXPECT_FALSE(ring.pop(value));
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 8; ++i) EXPECT_TRUE(ring.push(round * 10 + i));
    EXPECT_FALSE(ring.push(99));
    for (int i = 0; i < 8; ++i) {
      ASSERT_TRUE(ring.pop(value));
      EXPECT_EQ(value, round * 10 + i);
    }
    EXPECT_FALSE(ring.pop(value));
  }
}

TEST(RingBuffer, TwoThreadsSeeEveryValueInOrder) {
  RingBuffer<std::uint64_t> ring(64);
  constexpr std::uint64_t kCount = 200'000;
  std::thread writer([&] {
    for (std::uint64_t i = 0; i < kCount;) {
      if (ring.push(i)) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  std::uint64_t value = 0;
  for (std::uint64_t i = 0; i < kCount;) {
    if (!ring.pop(value)) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(value, i);
    ++i;
  }
  writer.join();
}

TEST(Recorder, WhatThreadsRecordIsInThePart) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  const auto recorder = start(dir.file("run.db"), 1, program);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      TraceProducer& producer = recorder->producer();
      for (int i = 0; i < 1000; ++i) producer.record(SpanEvent{1, t, i % 7, i, i + 1, i + 2});
      producer.record(CollectiveEvent{1, t, 0, 0, t, 1, 2, 3, 4, 5});
      producer.record(AllocEvent{1, t, 0, 2, 9, 64});
      producer.record(PeakEvent{1, t, -1, 640});
    });
  }
  for (std::thread& thread : threads) thread.join();
  recorder->record_binding({1, 0, {1, 2, 3, 4, 5}});
  recorder->record(CounterEvent{1, 5, "power_w", 300});
  recorder->record(NoteEvent{1, 6, "note", "text"});
  recorder->end_step({1, 0, 0, 10, 2.5, 0, 1, 8});
  recorder->set_clock(77, 3);
  ASSERT_TRUE(recorder->close(RunStatus::kOk).ok());
  EXPECT_EQ(recorder->dropped(), 0);
  EXPECT_EQ(recorder->committed(), 3 * 1003 + 4);

  TraceReader reader = open(part_path(dir.file("run.db"), 1));
  EXPECT_EQ(reader.run().status, RunStatus::kOk);
  EXPECT_EQ(reader.run().program_hash, program.hash());
  EXPECT_EQ(reader.spans().value().size(), 3000u);
  EXPECT_EQ(reader.collectives().value().size(), 3u);
  EXPECT_EQ(reader.allocs().value().size(), 3u);
  EXPECT_EQ(reader.peaks().value().size(), 3u);
  EXPECT_EQ(reader.bindings().value().at(0).values, (std::vector<std::int64_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(reader.counters().value().size(), 1u);
  EXPECT_EQ(reader.notes().value().size(), 1u);
  EXPECT_EQ(reader.steps().value().at(0).loss, 2.5);
  const RankInfo rank = reader.ranks().value().at(0);
  EXPECT_EQ(rank.rank, 1);
  EXPECT_EQ(rank.role, 1);
  EXPECT_EQ(rank.clock_offset_ns, 77);
  EXPECT_EQ(rank.clock_error_ns, 3);
  EXPECT_EQ(reader.ops().value().size(), program.roles[1].ops.size());
}

TEST(Recorder, DropsAreCountedNotWaitedFor) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  Recorder::Options options;
  options.ring_capacity = 16;
  const auto recorder = start(dir.file("run.db"), 0, program, options);
  TraceProducer& producer = recorder->producer();
  constexpr std::int64_t kCount = 100'000;
  for (std::int64_t i = 0; i < kCount; ++i) producer.record(SpanEvent{0, 0, 1, i, i, i + 1});
  ASSERT_TRUE(recorder->close(RunStatus::kOk).ok());
  EXPECT_GT(recorder->dropped(), 0);
  TraceReader reader = open(part_path(dir.file("run.db"), 0));
  const auto kept = static_cast<std::int64_t>(reader.spans().value().size());
  EXPECT_GE(kept, 16);
  EXPECT_EQ(kept + reader.ranks().value().at(0).dropped, kCount);
}

TEST(Recorder, ARecorderThatGoesLeavesAFailedPart) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  start(dir.file("run.db"), 0, program).reset();
  EXPECT_EQ(open(part_path(dir.file("run.db"), 0)).run().status, RunStatus::kFailed);
}

// Runs `body` in a child that is killed as soon as it writes a byte to the pipe it is given.
void run_and_kill(const std::function<void(int)>& body) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    body(pipe[1]);
    ::_exit(1);
  }
  char byte = 0;
  EXPECT_EQ(::read(pipe[0], &byte, 1), 1);
  EXPECT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST(Recorder, FlushedStepsSurviveAKill) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  run_and_kill([&](int signal_fd) {
    const auto recorder = start(dir.file("run.db"), 0, program);
    TraceProducer& producer = recorder->producer();
    for (int step = 0;; ++step) {
      for (int op = 0; op < 7; ++op) producer.record(SpanEvent{0, step, op, 0, op, op + 1});
      recorder->end_step({0, step, 0, 100, 1, 0, 1, 1});
      if (step < 20) (void)recorder->flush();
      if (step == 20 && ::write(signal_fd, "x", 1) != 1) return;
    }
  });
  MergeOptions options;
  options.out = dir.file("run.db");
  options.world = 2;
  options.run = testing::run_info(program);
  const auto merged = merge_parts(options);
  ASSERT_TRUE(merged.ok()) << merged.error().text();
  EXPECT_EQ(merged.value().status, RunStatus::kFailed);
  EXPECT_EQ(merged.value().missing, std::vector<std::int32_t>{1});
  EXPECT_TRUE(merged.value().torn.empty());
  TraceReader reader = open(dir.file("run.db"));
  const auto steps = reader.steps().value();
  ASSERT_GE(steps.size(), 20u);
  for (std::size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(steps[i].step, static_cast<int>(i));
  const Table whole = reader.query("SELECT count(*) FROM span WHERE step < 20").value();
  EXPECT_EQ(to_text(whole.rows[0][0]), "140");
}

TEST(Recorder, RecordsAreCommittedWithoutBeingAskedFor) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  run_and_kill([&](int signal_fd) {
    const auto recorder = start(dir.file("run.db"), 0, program);
    TraceProducer& producer = recorder->producer();
    for (int op = 0; op < 7; ++op) producer.record(SpanEvent{0, 0, op, 0, op, op + 1});
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (recorder->committed() < 7 && std::chrono::steady_clock::now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    if (recorder->committed() < 7 || ::write(signal_fd, "x", 1) != 1) return;
    for (;;) ::pause();
  });
  TraceReader reader = open(part_path(dir.file("run.db"), 0));
  EXPECT_EQ(reader.run().status, RunStatus::kRunning);
  EXPECT_EQ(reader.spans().value().size(), 7u);
}

}  // namespace
}  // namespace orrery
