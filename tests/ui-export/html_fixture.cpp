// See html_fixture.h.
#include "tests/ui-export/html_fixture.h"

#include <algorithm>

#include "core/program/lower.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::testing {

TraceReader write_trace(const std::string& path, const RunInfo& info, const Program& program,
                        const TraceEvents& events, RunStatus status, const std::string& reason) {
  auto writer = TraceWriter::create(path, info);
  CHECK(writer.ok(), writer.error().text());
  TraceWriter trace = std::move(writer).value();
  CHECK(trace.write_program(program).ok() && trace.write(events).ok(), "cannot write");
  CHECK(trace.finish(status, reason).ok(), "cannot finish");
  auto reader = TraceReader::open(path);
  CHECK(reader.ok(), reader.error().text());
  return std::move(reader).value();
}

Pair simulated_pair(std::int64_t world) {
  Pair pair;
  pair.plan = small_moe_plan(world, 2, 2);
  pair.program = lower(pair.plan);
  simulator::Options options;
  options.events = true;
  auto simulated = simulator::simulate(pair.plan, pair.program, options);
  CHECK(simulated.ok(), simulated.error().text());
  pair.plan.predicted = simulated.value().prediction;
  pair.predicted = simulated.value().events;
  for (std::int32_t step = 0; step < 3; ++step) {
    const std::int64_t origin = 5'000'000'000 + step * std::int64_t{1'000'000'000};
    const auto late = [&](std::int64_t ns, std::int32_t op) {
      return origin + ns * (step + 2) / 2 + op % 7 * 11;
    };
    for (SpanEvent span : pair.predicted.spans) {
      span.step = step;
      span.enqueue_ns = span.start_ns = late(span.start_ns, 0);
      span.end_ns = std::max(span.start_ns, late(span.end_ns, span.op));
      pair.measured.spans.push_back(span);
    }
    for (StepEvent event : pair.predicted.steps) {
      event.step = step;
      event.start_ns = origin;
      event.end_ns = late(event.end_ns, 6) + event.rank;
      event.loss = 4.0 - step * 0.5;
      event.grad_norm = 1.0 + step;
      pair.measured.steps.push_back(event);
    }
    for (AllocEvent alloc : pair.predicted.allocs) {
      alloc.step = step;
      alloc.time_ns = late(alloc.time_ns, 0);
      pair.measured.allocs.push_back(alloc);
    }
    for (PeakEvent peak : pair.predicted.peaks) {
      peak.step = step;
      pair.measured.peaks.push_back(peak);
    }
    for (Binding binding : pair.predicted.bindings) {
      binding.step = step;
      pair.measured.bindings.push_back(binding);
    }
  }
  return pair;
}

RunInfo info_of(const Pair& pair, RunKind kind) {
  RunInfo info;
  info.kind = kind;
  info.program_hash = pair.program.hash();
  info.stack = "orrery";
  info.plan_json = to_json(pair.plan).dump(-1);
  return info;
}

Json document_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">", close = "</script>";
  const std::size_t begin = page.find(open);
  CHECK(begin != std::string::npos && page.find(open, begin + 1) == std::string::npos,
        "not one document");
  const std::size_t from = begin + open.size(), end = page.find(close, from);
  auto json = Json::parse(page.substr(from, end - from), "the page");
  CHECK(json.ok(), json.error().text());
  return std::move(json).value();
}

std::string page_of(TraceReader* predicted, TraceReader* measured) {
  HtmlInput input;
  input.predicted = predicted;
  input.measured = measured;
  const auto page = html_report(input);
  CHECK(page.ok(), page.error().text());
  return page.value();
}

}  // namespace orrery::testing
