// A trace may come from anywhere: flipped bytes, lost tails and mixed pages give rows or an error,
// never a crash. Deterministic; the seeds are the cases.
#include <gtest/gtest.h>

#include <random>

#include "tests/tracer/trace_fixture.h"
#include "tracer/analysis.h"
#include "tracer/compare.h"
#include "tracer/merge.h"
#include "tracer/recorder.h"
#include "ui-export/chrome.h"
#include "ui-export/html/report.h"

namespace orrery {
namespace {

using testing::TempDir;

std::string valid_trace(const TempDir& dir) {
  const Program program = testing::small_program(4);
  auto writer = TraceWriter::create(dir.file("valid.db"), testing::run_info(program));
  CHECK(writer.ok(), writer.error().text());
  TraceWriter trace = std::move(writer).value();
  CHECK(trace.write_program(program).ok(), "cannot write");
  CHECK(trace.write(testing::random_events(program, 1, 8)).ok(), "cannot write");
  CHECK(trace.finish(RunStatus::kOk).ok(), "cannot finish");
  return testing::read_file(dir.file("valid.db"));
}

std::string mutated(std::string bytes, std::mt19937& random) {
  const auto place = [&] { return static_cast<std::size_t>(random()) % bytes.size(); };
  switch (random() % 4) {
    case 0:  // single bytes anywhere
      for (auto n = 1 + random() % 40; n > 0; --n) bytes[place()] = static_cast<char>(random());
      break;
    case 1:  // in the first page: header and schema
      for (auto n = 1 + random() % 8; n > 0; --n) {
        bytes[100 + random() % 3996] = static_cast<char>(random());
      }
      break;
    case 2:
      bytes.resize(place());
      break;
    default: {  // a page over another
      const std::size_t pages = bytes.size() / 4096;
      const std::size_t from = random() % pages, to = random() % pages;
      bytes.replace(to * 4096, 4096, bytes.substr(from * 4096, 4096));
    }
  }
  return bytes;
}

// True when everything could be read.
bool read_everything(const std::string& path, const std::string& out) {
  auto opened = TraceReader::open(path);
  if (!opened.ok()) return false;
  TraceReader reader = std::move(opened).value();
  bool all = reader.events().ok() && reader.ops().ok() && reader.ranks().ok();
  for (const AnalysisInfo& info : list_analyses()) all &= run_analysis(reader, info.name).ok();
  all &= compare_runs(reader, reader).ok();
  all &= export_chrome(reader, out).ok();
  HtmlInput report;
  report.measured = report.predicted = &reader;
  all &= html_report(report).ok();
  return all;
}

class ReaderFuzz : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(ReaderFuzz, DamageIsAnErrorNotACrash) {
  const TempDir dir;
  const std::string valid = valid_trace(dir);
  ASSERT_TRUE(read_everything(dir.file("valid.db"), dir.file("out.json")));
  std::mt19937 random(GetParam());
  int unread = 0;
  for (int round = 0; round < 40; ++round) {
    testing::write_file(dir.file("damaged.db"), mutated(valid, random));
    unread += !read_everything(dir.file("damaged.db"), dir.file("out.json"));
  }
  EXPECT_GT(unread, 0) << "no damage did any harm: the test does not test";
}

TEST_P(ReaderFuzz, DamagedPartsMergeOrFailCleanly) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  const std::string part = part_path(dir.file("run.db"), 0);
  {
    auto recorder = Recorder::open(dir.file("run.db"), {}, testing::run_info(program), program);
    ASSERT_TRUE(recorder.ok());
    TraceProducer& producer = recorder.value()->producer();
    for (const SpanEvent& e : testing::random_events(program, 2, 100).spans) producer.record(e);
    ASSERT_TRUE(recorder.value()->close(RunStatus::kOk).ok());
  }
  const std::string valid = testing::read_file(part);
  std::mt19937 random(GetParam() + 1000);
  for (int round = 0; round < 10; ++round) {
    testing::write_file(part, mutated(valid, random));
    MergeOptions options;
    options.out = dir.file("run.db");
    options.run = testing::run_info(program);
    options.keep_parts = true;
    const auto report = merge_parts(options);
    if (!report.ok()) continue;
    EXPECT_TRUE(TraceReader::open(options.out).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ReaderFuzz, ::testing::Range(0u, 6u));

}  // namespace
}  // namespace orrery
