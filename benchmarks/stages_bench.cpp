// The clock of layouts of several stages: replays of a pipeline, whole predictions, and one of a
// hundred thousand devices.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <numeric>

#include "simulator/stages/pipeline.h"
#include "simulator/stages/step.h"

namespace orrery {
namespace {

using simulator::CellTimes;
using simulator::Pipeline;

// 16 stages, 64 micro-batches: 2,048 cells.
void replay(benchmark::State& state) {
  const auto chunks = static_cast<std::int32_t>(state.range(0));
  const auto schedule =
      chunks > 1 ? PipelineSchedule::kInterleaved : PipelineSchedule::kOneForwardOneBackward;
  const Pipeline pipeline(schedule, 16, chunks, 64);
  CellTimes times;
  times.forward.assign(static_cast<std::size_t>(16 * chunks), 1);
  times.backward.assign(static_cast<std::size_t>(16 * chunks), 2);
  times.send = 0.1;
  for (auto _ : state) {
    benchmark::DoNotOptimize(pipeline.replay(times).end.data());
    times.forward[3] += 1e-9;
  }
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["replays"] = benchmark::Counter(1, rate);
  state.counters["cells"] = benchmark::Counter(2 * 16 * 64 * chunks, rate);
}
BENCHMARK(replay)->Name("pipeline_16x64")->ArgName("chunks")->Arg(1)->Arg(4);

Job job_of(std::int64_t devices, std::int64_t tp, std::int64_t pp, std::int64_t ep) {
  Job job;
  job.model = load_model("qwen3-235b-a22b").value();
  job.cluster = load_cluster("h100x" + std::to_string(devices)).value();
  Layout& l = job.layout;
  l.tp = tp;
  l.pp = pp;
  l.ep = ep;
  l.dp = l.fsdp_d = devices / tp / pp;
  job.sequence_parallel = tp > 1;
  job.sequence_tokens = 4096;
  job.global_sequences = l.dp * 4 * pp;
  return job;
}

void predict(benchmark::State& state) {
  const Job job = job_of(state.range(0), 4, 8, 8);
  for (auto _ : state) benchmark::DoNotOptimize(simulator::predict(job).step);
  state.counters["predictions"] =
      benchmark::Counter(1, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(predict)->Name("predict")->ArgName("devices")->Arg(1024)->Arg(102400);

}  // namespace
}  // namespace orrery

BENCHMARK_MAIN();
