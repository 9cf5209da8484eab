// What planning rests on: lowering, verifying, pricing and replaying a program, by the op.
//
// "ops" are those of one role (lowering, verifier, costs, memory) or of all replayed ranks (replay,
// simulation, which has all of it but lowering and verifier). The large plan is the 235B model
// on 256 devices, of which one expert group of 8 is replayed.
#include <benchmark/benchmark.h>

#include <string>
#include <utility>
#include <vector>

#include "core/clock/clock.h"
#include "core/program/lower.h"
#include "core/program/verify.h"
#include "simulator/op_cost.h"
#include "simulator/simulator.h"

namespace orrery {
namespace {

struct Case {
  Plan plan;
  Program program;
  std::vector<Binding> bindings;
  std::vector<RankDurations> durations;

  explicit Case(Plan p) : plan(std::move(p)), program(lower(plan)) {
    bindings = simulator::simulate(plan, program, {}).value().events.bindings;
    for (const Binding& b : bindings) {
      durations.push_back(
          {b.rank, simulator::op_durations(plan.cluster, program, role(), b.rank, b.values)});
    }
  }
  const Role& role() const { return program.roles[0]; }
  std::int64_t ops() const { return static_cast<std::int64_t>(role().ops.size()); }
};

Plan plan_of(const char* model, const char* cluster, const char* workload, std::int64_t world,
             std::int64_t ep, std::int64_t accumulation) {
  Plan plan;
  plan.model = load_model(model).value();
  plan.cluster = load_cluster(cluster).value();
  plan.workload = load_workload(workload).value();
  plan.layout.dp = plan.layout.fsdp_d = world;
  plan.layout.ep = ep;
  plan.layout.fsdp_e = world / ep;
  plan.layout.accumulation = accumulation;
  plan.policy.recompute_layers = plan.model.layers;
  plan.sha256 = plan_sha256(plan);
  return plan;
}

// 10 million parameters, 4 ranks.
const Case& small() {
  static const Case c(plan_of("qwen3-moe-10m", "local-cpu", "demo-local", 4, 4, 2));
  return c;
}

// 235 billion parameters, 8 of 256 ranks.
const Case& large() {
  static const Case c(plan_of("qwen3-235b-a22b", "h800x256", "pretrain-4k", 256, 8, 4));
  return c;
}

using CaseOf = const Case& (*)();

void count(benchmark::State& state, std::int64_t ops) {
  const auto items = static_cast<double>(ops);
  state.counters["ops"] = items;
  state.counters["ops_per_s"] =
      benchmark::Counter(items, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["per_op"] = benchmark::Counter(
      items, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void lowering(benchmark::State& state, CaseOf of) {
  const Case& c = of();
  for (auto _ : state) benchmark::DoNotOptimize(lower(c.plan));
  count(state, c.ops());
}

void verifying(benchmark::State& state, CaseOf of) {
  const Case& c = of();
  for (auto _ : state) benchmark::DoNotOptimize(verify(c.program));
  count(state, c.ops());
}

void costs(benchmark::State& state, CaseOf of) {
  const Case& c = of();
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        simulator::op_durations(c.plan.cluster, c.program, c.role(), 0, c.bindings[0].values));
  }
  count(state, c.ops());
}

void memory(benchmark::State& state, CaseOf of) {
  const Case& c = of();
  for (auto _ : state) {
    benchmark::DoNotOptimize(simulator::memory_timeline(c.role(), c.bindings[0].values));
  }
  count(state, c.ops());
}

void replaying(benchmark::State& state, CaseOf of) {
  const Case& c = of();
  const ClockRates rates{c.plan.cluster.compute_slowdown, c.plan.cluster.link_slowdown};
  for (auto _ : state) benchmark::DoNotOptimize(replay(c.program, c.durations, rates));
  count(state, c.ops() * static_cast<std::int64_t>(c.durations.size()));
}

void simulating(benchmark::State& state, CaseOf of) {
  const Case& c = of();
  for (auto _ : state) {
    benchmark::DoNotOptimize(simulator::simulate(c.plan, c.program, {{}, 0, false, false}));
  }
  count(state, c.ops() * static_cast<std::int64_t>(c.durations.size()));
}

#define ORRERY_BENCH(function)                                              \
  BENCHMARK_CAPTURE(function, small, small)->Unit(benchmark::kMillisecond); \
  BENCHMARK_CAPTURE(function, large, large)->Unit(benchmark::kMillisecond)

ORRERY_BENCH(lowering);
ORRERY_BENCH(verifying);
ORRERY_BENCH(costs);
ORRERY_BENCH(memory);
ORRERY_BENCH(replaying);
ORRERY_BENCH(simulating);

}  // namespace
}  // namespace orrery

BENCHMARK_MAIN();
