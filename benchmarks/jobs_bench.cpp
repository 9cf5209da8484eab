// The planner over all axes: bounds of jobs a second and core, prices of their layers among them.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>

#include "planner/jobs/bound.h"

namespace orrery::planner::jobs {
namespace {

// Every member of blocks that are spread over the space.
void bounds(benchmark::State& state, const std::string& model, const std::string& cluster) {
  Request request;
  request.model = load_model(model).value();
  request.cluster = load_cluster(cluster).value();
  request.workload = load_workload("pretrain-4k").value();
  request.stack = load_stack("megatron-bridge-2026").value();
  const Job base = base_job(request);
  const Space space = make_space(base, choices_of(base, Pins()));
  const UnitNumbers units(base);
  const Shapes shapes(base, space, units);
  Bound bound(base, space, units, shapes);
  const Choices& c = space.choices;
  constexpr std::size_t kStride = 10007;  // a prime
  std::size_t at = 0;
  std::int64_t count = 0;
  for (auto _ : state) {
    const Block& block = space.blocks[at % space.blocks.size()];
    at += kStride;
    bound.enter(block);
    for (const std::int64_t v : virtual_stages_of(base, c, block.pp, bound.micro_batches())) {
      for (std::size_t r = 0; r < c.recompute.size(); ++r) {
        for (const std::int64_t depth : depths_of(c, r, base.model.layers, block.pp * v)) {
          const std::vector<Deal> deals = deals_of(c.deal, base.model.layers, block.pp * v);
          const Line line = bound.line(v, r, depth, deals[at % deals.size()]);
          for (const PipelineSchedule schedule : schedules_of(c, block.pp, v, block.ep)) {
            for (std::size_t s = 0; s < bound.shardings().size(); ++s, ++count) {
              benchmark::DoNotOptimize(bound.bytes(line, schedule, s));
              benchmark::DoNotOptimize(bound.seconds(line, schedule, s));
            }
          }
        }
      }
    }
  }
  state.counters["bounds"] =
      benchmark::Counter(static_cast<double>(count), benchmark::Counter::kIsRate);
}
BENCHMARK_CAPTURE(bounds, deepseek_v3_2048, "deepseek-v3", "h800x2048");
BENCHMARK_CAPTURE(bounds, kimi_k2_16384, "kimi-k2", "h800x16384");

}  // namespace
}  // namespace orrery::planner::jobs

BENCHMARK_MAIN();
