// The Chrome export: strict JSON, one event a span, exact times, a process a rank, a thread a lane.
#include "ui-export/chrome.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "core/json.h"
#include "tests/tracer/trace_fixture.h"

namespace orrery {
namespace {

using testing::TempDir;

TraceReader write_trace(const std::string& path, const Program& program,
                        const TraceEvents& events) {
  auto writer = TraceWriter::create(path, testing::run_info(program));
  CHECK(writer.ok(), writer.error().text());
  TraceWriter trace = std::move(writer).value();
  CHECK(trace.write_program(program).ok() && trace.write(events).ok(), "cannot write");
  CHECK(trace.finish(RunStatus::kOk).ok(), "cannot finish");
  auto reader = TraceReader::open(path);
  CHECK(reader.ok(), reader.error().text());
  return std::move(reader).value();
}

std::string text(const Json& event, const char* key) {
  const Json* value = event.find(key);
  return value && value->is_string() ? value->as_string() : "";
}

std::int64_t integer(const Json& event, const char* key) {
  return event.find(key)->as_integer();
}

TEST(Chrome, EverySpanIsAnEventOfItsRankAndLane) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  const TraceEvents events = testing::random_events(program, 3, 2);
  TraceReader reader = write_trace(dir.file("a.db"), program, events);
  ASSERT_TRUE(export_chrome(reader, dir.file("a.json")).ok());
  const auto parsed = Json::load(dir.file("a.json"));
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  std::map<std::pair<std::int64_t, std::int64_t>, std::string> threads;
  std::set<std::int64_t> processes;
  std::size_t spans = 0, steps = 0;
  for (const Json& event : parsed.value().find("traceEvents")->items()) {
    const std::pair thread(integer(event, "pid"), integer(event, "tid"));
    if (text(event, "ph") == "M") {
      if (text(event, "name") == "thread_name") threads[thread] = text(*event.find("args"), "name");
      if (text(event, "name") == "process_name") processes.insert(thread.first);
      continue;
    }
    ASSERT_EQ(text(event, "ph"), "X");
    EXPECT_GE(event.find("ts")->as_double(), 0);
    if (threads.at(thread) == "steps") {
      ++steps;
      continue;
    }
    ++spans;
    const Json& args = *event.find("args");
    const Op& op = program.role_of(static_cast<std::int32_t>(thread.first))
                       .ops[static_cast<std::size_t>(integer(args, "op"))];
    EXPECT_EQ(text(event, "name"), op.path);
    EXPECT_EQ(threads.at(thread), name_of(op.lane));
    EXPECT_EQ(text(args, "phase"), name_of(op.phase));
    EXPECT_EQ(integer(args, "micro_batch"), op.micro_batch);
    EXPECT_EQ(args.find("bytes_sent") != nullptr, is_collective(op.kind));
  }
  EXPECT_EQ(spans, events.spans.size());
  EXPECT_EQ(steps, events.steps.size());
  EXPECT_EQ(processes.size(), 4u);
}

TEST(Chrome, TimesAreExactToTheNanosecond) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  TraceEvents events;
  const std::int64_t origin = 1'700'000'000'000'000'000;
  events.spans = {{0, 0, 1, 0, origin, origin + 5},
                  {0, 0, 3, 0, origin + 1'234'567'001, origin + 1'234'569'000}};
  TraceReader reader = write_trace(dir.file("a.db"), program, events);
  ASSERT_TRUE(export_chrome(reader, dir.file("a.json")).ok());
  const std::string json = testing::read_file(dir.file("a.json"));
  EXPECT_NE(json.find("\"ts\":0.000,\"dur\":0.005"), std::string::npos);
  EXPECT_NE(json.find("\"ts\":1234567.001,\"dur\":1.999"), std::string::npos);
}

TEST(Chrome, NamesAreEscaped) {
  const TempDir dir;
  Program program = testing::small_program(2);
  const std::string odd = "a\"b\\c\n\x01";
  program.roles[0].ops[1].path = odd;
  TraceReader reader =
      write_trace(dir.file("a.db"), program, testing::random_events(program, 3, 1));
  ASSERT_TRUE(export_chrome(reader, dir.file("a.json")).ok());
  const auto parsed = Json::load(dir.file("a.json"));
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  bool found = false;
  for (const Json& event : parsed.value().find("traceEvents")->items()) {
    found |= text(event, "name") == odd;
  }
  EXPECT_TRUE(found);
}

TEST(Chrome, AppearsWholeOrNotAtAll) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  TraceReader reader =
      write_trace(dir.file("a.db"), program, testing::random_events(program, 3, 1));
  std::filesystem::create_directory(dir.file("a.json"));
  const Status status = export_chrome(reader, dir.file("a.json"));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  const Status nowhere = export_chrome(reader, dir.file("no/such/a.json"));
  ASSERT_FALSE(nowhere.ok());
  EXPECT_EQ(nowhere.error().code, ErrorCode::kIo);
  EXPECT_EQ(dir.entries(), (std::vector<std::string>{"a.db", "a.json"}));
}

TEST(Chrome, AnEmptyTraceIsStillATrace) {
  const TempDir dir;
  TraceReader reader = write_trace(dir.file("a.db"), testing::small_program(2), {});
  ASSERT_TRUE(export_chrome(reader, dir.file("a.json")).ok());
  EXPECT_TRUE(Json::load(dir.file("a.json")).ok());
}

}  // namespace
}  // namespace orrery
