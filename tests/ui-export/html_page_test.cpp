// The page around the document: safe with any text, the same each time, never too large, and still
// a page where a trace is empty, failed or not of this house.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "tests/tracer/trace_fixture.h"
#include "tests/ui-export/html_fixture.h"

namespace orrery {
namespace {

using testing::document_of;
using testing::page_of;
using testing::TempDir;

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

const Json& at(const Json& json, const std::string& key) {
  const Json* found = json.find(key);
  CHECK(found != nullptr, "no " + key);
  return *found;
}

TEST(HtmlPage, HostileTextStaysText) {
  const TempDir dir;
  const std::string odd =
      "</script><script>alert('\"&amp;')</script><!--/*DATA*/*/\\\n\x01\xe2\x80\xa8";
  const std::string broken = "a\xff\xc0\x80\xed\xa0\x80z\xc3";
  Program program = testing::small_program(2);
  program.roles[0].ops[1].path = odd;
  program.roles[0].ops[3].path = broken;
  RunInfo info = testing::run_info(program);
  info.stack = odd;
  info.created = broken;
  const TraceEvents events = testing::random_events(program, 3, 2);
  TraceReader trace = testing::write_trace(dir.file("a.db"), info, program, events);
  HtmlInput input;
  input.measured = &trace;
  input.predicted_by = odd;
  input.remarks = {odd, broken};
  const auto page = html_report(input);
  ASSERT_TRUE(page.ok()) << page.error().text();
  TraceReader plain =
      testing::write_trace(dir.file("b.db"), testing::run_info(testing::small_program(2)),
                           testing::small_program(2), events);
  const std::string other = page_of(nullptr, &plain);
  for (const char* part : {"<script", "</script", "<!--"}) {
    EXPECT_EQ(count_of(page.value(), part), count_of(other, part)) << part;
  }
  const Json document = document_of(page.value());
  std::set<std::string> paths;
  for (const Json& path : at(at(document, "ops"), "path").items()) paths.insert(path.as_string());
  EXPECT_EQ(paths.count(odd), 1U);
  // One replacement a byte that is no text, and no byte of the text around it lost.
  const std::string lost = "\xEF\xBF\xBD";
  std::string mended = "a";
  for (int i = 0; i < 6; ++i) mended += lost;
  EXPECT_EQ(paths.count(mended + "z" + lost), 1U);
  EXPECT_EQ(at(document, "remarks").items()[0].as_string(), odd);
}

TEST(HtmlPage, TheSameTracesGiveTheSameBytes) {
  const TempDir dir;
  const testing::Pair pair = testing::simulated_pair();
  std::string first;
  for (const char* name : {"one", "two"}) {
    std::filesystem::create_directory(dir.file(name));
    TraceReader sim =
        testing::write_trace(dir.file(name) + "/sim.db", testing::info_of(pair, RunKind::kSim),
                             pair.program, pair.predicted);
    TraceReader run =
        testing::write_trace(dir.file(name) + "/run.db", testing::info_of(pair, RunKind::kMeasured),
                             pair.program, pair.measured);
    const std::string page = page_of(&sim, &run);
    if (first.empty()) first = page;
    EXPECT_EQ(page, first);
  }
}

// A run of the size of the demo's: 30 steps, 4 ranks, every op of a plan.
TEST(HtmlPage, ADemoRunIsWellBelowTheLimit) {
  const TempDir dir;
  testing::Pair pair = testing::simulated_pair();
  const TraceEvents of_three = pair.measured;
  for (std::int32_t more = 1; more < 10; ++more) {
    for (SpanEvent span : of_three.spans) {
      span.step += 3 * more;
      pair.measured.spans.push_back(span);
    }
    for (StepEvent step : of_three.steps) {
      step.step += 3 * more;
      pair.measured.steps.push_back(step);
    }
  }
  TraceReader run = testing::write_trace(
      dir.file("run.db"), testing::info_of(pair, RunKind::kMeasured), pair.program, pair.measured);
  const std::string page = page_of(nullptr, &run);
  EXPECT_LT(page.size(), kMaxReportBytes / 3);
  EXPECT_TRUE(at(document_of(page), "omitted").items().empty());
}

// 700 steps of 20 ranks, 50 000 steps without spans, and one step of 100 000 ops: thinned out, and
// the page says so.
TEST(HtmlPage, ALargeTraceIsThinnedOutAndTheReaderTold) {
  const TempDir dir;
  const Program program = testing::small_program(20);
  TraceReader wide = testing::write_trace(dir.file("wide.db"), testing::run_info(program), program,
                                          testing::random_events(program, 5, 700));
  const std::string page = page_of(nullptr, &wide);
  EXPECT_LE(page.size(), kMaxReportBytes);
  const Json document = document_of(page);
  const std::string told = at(document, "omitted").dump(-1);
  EXPECT_NE(told.find("of the 700 measured steps"), std::string::npos) << told;
  EXPECT_NE(told.find("16 of the 20 measured ranks"), std::string::npos) << told;
  EXPECT_EQ(at(at(at(document, "measured"), "steps"), "step").items().size(), 700U);

  TraceEvents many;
  for (std::int32_t step = 0; step < 50'000; ++step) {
    many.steps.push_back({0, step, step * 1000LL, step * 1000LL + 900, 1, 0, 0, 1, 0, 8});
  }
  TraceReader curves =
      testing::write_trace(dir.file("many.db"), testing::run_info(program), program, many);
  const std::string third = page_of(nullptr, &curves);
  EXPECT_LE(third.size(), kMaxReportBytes / 4);
  EXPECT_NE(at(document_of(third), "omitted").dump(-1).find("every 25th of 50000 steps"),
            std::string::npos);

  Program deep = testing::small_program(2);
  const Op op = deep.roles[0].ops[1];
  TraceEvents events;
  events.steps = {{0, 0, 0, 1'000'000'000, 1, 0, 0, 1, 0, 8}};
  for (std::int32_t i = 0; i < 100'000; ++i) {
    Op next = op;
    next.path = "layer." + std::to_string(i) + "/attention";
    next.key = op_key(next.path, op.phase, 0, 0);
    deep.roles[0].ops.push_back(next);
    const auto id = static_cast<std::int32_t>(deep.roles[0].ops.size()) - 1;
    events.spans.push_back({0, 0, id, i * 10'000LL, i * 10'000LL, i * 10'000LL + 9'000});
  }
  TraceReader long_step =
      testing::write_trace(dir.file("deep.db"), testing::run_info(deep), deep, events);
  const std::string second = page_of(nullptr, &long_step);
  EXPECT_LE(second.size(), kMaxReportBytes);
  const Json thinned = document_of(second);
  EXPECT_NE(at(thinned, "omitted").dump(-1).find("drawn as blocks"), std::string::npos);
  // Every op is in a block, and blocks tell how long their ops took.
  const Json& rank =
      at(at(at(at(thinned, "measured"), "timeline"), "steps").items()[0], "ranks").items()[0];
  std::int64_t count = 0, busy = 0;
  for (const Json& value : at(rank, "count").items()) count += value.as_integer();
  for (const Json& value : at(rank, "busy").items()) busy += value.as_integer();
  EXPECT_EQ(count, 100'000);
  EXPECT_EQ(busy, 100'000LL * 9'000);
}

TEST(HtmlPage, WhatIsNotThereIsAbsent) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  TraceReader empty =
      testing::write_trace(dir.file("empty.db"), testing::run_info(program), program, {});
  const Json document = document_of(page_of(nullptr, &empty));
  const Json& side = at(document, "measured");
  EXPECT_TRUE(at(document, "predicted").is_null());
  EXPECT_TRUE(at(document, "plan").is_null());  // the fixture's plan cannot be read
  EXPECT_TRUE(at(side, "memory").is_null());
  EXPECT_TRUE(at(side, "peaks").is_null());
  EXPECT_TRUE(at(side, "experts").is_null());
  EXPECT_TRUE(at(side, "default_step").is_null());
  for (const auto& [name, value] : at(side, "headline").members()) {
    EXPECT_TRUE(value.is_null()) << name;
  }
  EXPECT_TRUE(at(at(side, "timeline"), "steps").items().empty());

  TraceEvents losses;  // steps alone; a simulation's losses are no numbers
  losses.steps = {{0, 0, 0, 100, std::nan(""), 0, 0, 1, 0, 0}};
  TraceReader steps =
      testing::write_trace(dir.file("steps.db"), testing::run_info(program), program, losses);
  const Json second = document_of(page_of(nullptr, &steps));
  EXPECT_TRUE(at(at(at(second, "measured"), "steps"), "loss").items()[0].is_null());
  EXPECT_TRUE(at(at(at(second, "measured"), "headline"), "tokens_per_s").is_null());
}

// A run that ended inside a step has spans of it: they are shown, from their own beginning.
TEST(HtmlPage, AFailedRunTellsWhyAndShowsWhatItHas) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  TraceEvents events;
  events.spans = {{0, 0, 0, 1000, 1000, 1500}, {1, 0, 1, 1200, 1200, 1900}};
  TraceReader trace = testing::write_trace(dir.file("a.db"), testing::run_info(program), program,
                                           events, RunStatus::kFailed, "rank 1 was killed");
  const Json document = document_of(page_of(nullptr, &trace));
  const Json& side = at(document, "measured");
  EXPECT_EQ(at(side, "status").as_string(), "failed");
  EXPECT_EQ(at(side, "reason").as_string(), "rank 1 was killed");
  const auto& ranks = at(at(at(side, "timeline"), "steps").items().at(0), "ranks").items();
  ASSERT_EQ(ranks.size(), 2U);
  EXPECT_EQ(at(ranks[0], "at").items()[0].as_integer(), 0);
  EXPECT_EQ(at(ranks[1], "at").items()[0].as_integer(), 200);
  EXPECT_TRUE(at(ranks[0], "end").is_null());
}

TEST(HtmlPage, DamagedFiguresMakeAPage) {
  const TempDir dir;
  const Program program = testing::small_program(2);
  TraceEvents events = testing::random_events(program, 9, 3);
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  events.spans[3].start_ns = -most;
  events.spans[3].end_ns = most;
  events.steps[1].end_ns = -most;
  events.allocs[5].time_ns = most;
  for (AllocEvent& alloc : events.allocs) alloc.delta = most;
  events.collectives[0].posted_ns = -most;
  events.bindings[0].values.assign(5, most);
  events.peaks[0].rank = -7;
  TraceReader trace =
      testing::write_trace(dir.file("a.db"), testing::run_info(program), program, events);
  EXPECT_FALSE(document_of(page_of(nullptr, &trace)).is_null());
}

}  // namespace
}  // namespace orrery
