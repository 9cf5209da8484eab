// A disk that fills up: the run ends as failed, with what was flushed, under its own name. The
// limit on file sizes of a child process stands in for the disk.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "tests/tracer/trace_fixture.h"
#include "tracer/merge.h"
#include "tracer/recorder.h"

namespace orrery {
namespace {

using testing::TempDir;

// The exit code of `body`, run in a process whose files may not grow beyond `bytes`.
int run_limited(rlim_t bytes, const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::_exit(body());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

TEST(DiskFull, TheWriterKeepsWhatWasFlushedAndSaysWhy) {
  const TempDir dir;
  const std::string path = dir.file("a.db");
  const int flushed = run_limited(400'000, [&] {
    const Program program = testing::small_program(4);
    auto writer = TraceWriter::create(path, testing::run_info(program));
    if (!writer.ok()) return 255;
    TraceWriter trace = std::move(writer).value();
    if (!trace.write_program(program).ok()) return 255;
    for (int batch = 0; batch < 200; ++batch) {
      const Status status = trace.write(testing::random_events(program, 1, 3));
      if (status.ok()) continue;
      if (status.error().code != ErrorCode::kIo) return 254;
      (void)trace.finish(RunStatus::kFailed, "the disk is full");
      return batch;
    }
    return 253;
  });
  ASSERT_GT(flushed, 0);
  ASSERT_LT(flushed, 200);
  EXPECT_EQ(dir.entries(), std::vector<std::string>{"a.db"});
  auto reader = TraceReader::open(path);
  ASSERT_TRUE(reader.ok()) << reader.error().text();
  TraceReader trace = std::move(reader).value();
  EXPECT_EQ(trace.run().status, RunStatus::kFailed);
  EXPECT_EQ(trace.run().reason, "the disk is full");
  EXPECT_EQ(trace.steps().value().size(), static_cast<std::size_t>(flushed) * 4 * 3);
}

TEST(DiskFull, AFileThatCannotEvenStartLeavesNothing) {
  const TempDir dir;
  EXPECT_EQ(run_limited(20'000,
                        [&] {
                          const auto writer = TraceWriter::create(dir.file("a.db"), {});
                          return !writer.ok() && writer.error().code == ErrorCode::kIo ? 0 : 1;
                        }),
            0);
  EXPECT_TRUE(dir.entries().empty());
}

TEST(DiskFull, TheRecorderNeverStopsTheRunAndReportsIt) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  EXPECT_EQ(run_limited(600'000,
                        [&] {
                          auto opened = Recorder::open(dir.file("a.db"), {},
                                                       testing::run_info(program), program);
                          if (!opened.ok()) return 1;
                          Recorder& recorder = *opened.value();
                          TraceProducer& producer = recorder.producer();
                          Status status = Ok{};
                          for (int step = 0; step < 200 && status.ok(); ++step) {
                            for (int i = 0; i < 500; ++i)
                              producer.record(SpanEvent{0, step, 1, 0, i, i + 1});
                            recorder.end_step({0, step, 0, 500, 1, 0, 1, 1});
                            status = recorder.flush();
                          }
                          if (status.ok() || status.error().code != ErrorCode::kIo) return 2;
                          if (recorder.dropped() == 0) return 3;
                          return recorder.close(RunStatus::kOk).ok() ? 4 : 0;
                        }),
            0);
  MergeOptions options;
  options.out = dir.file("a.db");
  options.world = 1;
  options.run = testing::run_info(program);
  const auto merged = merge_parts(options);
  ASSERT_TRUE(merged.ok()) << merged.error().text();
  EXPECT_EQ(merged.value().status, RunStatus::kFailed);
  auto reader = TraceReader::open(dir.file("a.db"));
  ASSERT_TRUE(reader.ok());
  TraceReader trace = std::move(reader).value();
  const std::size_t steps = trace.steps().value().size();
  EXPECT_GT(steps, 0u);
  EXPECT_EQ(trace.spans().value().size(), steps * 500);
}

}  // namespace
}  // namespace orrery
