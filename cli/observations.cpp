// See observations.h.
#include "cli/observations.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "cli/inputs.h"
#include "cli/simulation.h"
#include "core/clock/implied.h"

namespace orrery::cli {
namespace {

struct Step {
  std::int32_t step = 0;
  double seconds = 0;                             // mean over ranks
  std::map<std::int32_t, std::int64_t> begin_ns;  // by rank
};

// By duration, warm-up left out where there are three or more.
std::vector<Step> steps_of(const std::vector<StepEvent>& events) {
  std::map<std::int32_t, Step> by_step;
  for (const StepEvent& e : events) {
    Step& step = by_step[e.step];
    step.step = e.step;
    step.seconds += static_cast<double>(e.end_ns - e.start_ns) * 1e-9;
    step.begin_ns[e.rank] = e.start_ns;
  }
  if (by_step.size() >= 3) by_step.erase(by_step.begin());
  std::vector<Step> steps;
  for (auto& [number, step] : by_step) {
    step.seconds /= static_cast<double>(step.begin_ns.size());
    steps.push_back(std::move(step));
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& a, const Step& b) { return a.seconds < b.seconds; });
  return steps;
}

double median_of(const std::vector<Step>& sorted) {
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half].seconds
                                : (sorted[half - 1].seconds + sorted[half].seconds) / 2;
}

// The `most` that lie nearest to the middle.
std::vector<Step> middle(std::vector<Step> sorted, std::size_t most) {
  while (sorted.size() > most) {
    sorted.erase(sorted.size() % 2 == 0 ? sorted.end() - 1 : sorted.begin());
  }
  return sorted;
}

Error no_run(const std::string& path, const std::string& what, const std::string& fix) {
  return Error::of(ErrorCode::kInvalid, path, what, fix);
}

Result<simulator::Observation> observe(const MeasuredRun& run, const Step& step,
                                       const std::vector<SpanEvent>& spans,
                                       std::vector<Binding> bindings) {
  const Program& program = *run.program;
  std::vector<MeasuredRank> ranks;
  std::map<std::int32_t, std::size_t> index;
  for (const Binding& b : bindings) {
    const std::size_t ops = program.role_of(b.rank).ops.size();
    index[b.rank] = ranks.size();
    ranks.push_back({b.rank, step.begin_ns.at(b.rank), std::vector<std::int64_t>(ops, -1)});
  }
  for (const SpanEvent& span : spans) {
    if (span.step != step.step) continue;
    ranks[index.at(span.rank)].end_ns[static_cast<std::size_t>(span.op)] = span.end_ns;
  }
  for (const MeasuredRank& rank : ranks) {
    if (std::count(rank.end_ns.begin(), rank.end_ns.end(), -1) == 0) continue;
    return no_run(run.path,
                  fmt::format("step {} of rank {} lacks spans of some ops", step.step, rank.rank),
                  "give a run whose trace is whole");
  }
  simulator::Observation o{run.path, run.plan.get(), run.program.get(), std::move(bindings),
                           {},       step.seconds};
  const bool on_host = run.plan->cluster.cores_per_node > 0;
  for (const auto& durations : implied_durations(program, ranks, on_host)) {
    std::vector<double>& seconds = o.seconds.emplace_back();
    for (const std::int64_t ns : durations) seconds.push_back(static_cast<double>(ns) * 1e-9);
  }
  return o;
}

}  // namespace

Result<MeasuredRun> read_run(const std::string& path, std::size_t most) {
  TRY(TraceReader trace, open_trace(path));
  if (trace.run().kind != RunKind::kMeasured || trace.run().status != RunStatus::kOk) {
    return no_run(path, "is no whole measured run", "give what `orrery train -o` wrote");
  }
  MeasuredRun run;
  run.path = path;
  TRY(Plan plan, parse_plan(trace.run().plan_json, path + " (its plan)"));
  run.plan = std::make_unique<Plan>(std::move(plan));
  run.program = std::make_unique<Program>(lower_verified(*run.plan));
  if (run.program->hash() != trace.run().program_hash) {
    return no_run(path, "ran another program than its plan gives today",
                  "run it again with this version");
  }
  TRY(const std::vector<StepEvent> events, trace.steps());
  const std::vector<Step> steps = steps_of(events);
  if (steps.empty()) return no_run(path, "holds no step", "train for a few steps");
  run.step_s = median_of(steps);
  TRY(const std::vector<SpanEvent> spans, trace.spans());
  for (const Step& step : middle(steps, most)) {
    TRY(std::vector<Binding> bindings, read_bindings(path, *run.program, step.step));
    std::sort(bindings.begin(), bindings.end(),
              [](const Binding& a, const Binding& b) { return a.rank < b.rank; });
    TRY(simulator::Observation o, observe(run, step, spans, std::move(bindings)));
    run.observations.push_back(std::move(o));
  }
  return run;
}

std::vector<simulator::Observation> observations_of(const std::vector<MeasuredRun>& runs) {
  std::vector<simulator::Observation> all;
  for (const MeasuredRun& run : runs) {
    all.insert(all.end(), run.observations.begin(), run.observations.end());
  }
  return all;
}

}  // namespace orrery::cli
