// What tracing costs a step: the executor trains the small model in this process, a thread a rank,
// in turns with and without a trace. Both turns use the same executor, memory and weights, so that
// the trace is all that differs; turns are short, so that a busy machine disturbs both alike.
//   trace_bench FOLDER [RANKS] [PAIRS] [STEPS_A_TURN]
// A traced turn ends when all it recorded is committed: a run does not wait for that, so the ratio
// is an upper bound. The order turns from pair to pair. Prints one JSON document; exit code 1 where
// the ratio of the median turns is beyond the target.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/plan.h"
#include "core/program/lower.h"
#include "engine/comm/communicator.h"
#include "engine/torch/executor.h"
#include "engine/trace_sink.h"
#include "tracer/recorder.h"

namespace orrery {
namespace {

constexpr double kTarget = 1.02;

struct Arguments {
  std::string folder;
  std::int64_t ranks = 2, pairs = 20, steps = 3;
};

// Passes on what happens while it is on.
class SwitchedTrace final : public engine::TraceSink {
 public:
  explicit SwitchedTrace(Recorder& recorder) : trace_(recorder) {}
  void turn(bool on) { on_.store(on); }
  void record(Lane lane, const TraceRecord& record) override {
    if (on_.load(std::memory_order_relaxed)) trace_.record(lane, record);
  }
  void binding(Binding binding) override {
    if (on_.load(std::memory_order_relaxed)) trace_.binding(std::move(binding));
  }
  void step(const StepEvent& step) override {
    if (on_.load(std::memory_order_relaxed)) trace_.step(step);
  }

 private:
  engine::RecorderTrace trace_;
  std::atomic<bool> on_{false};
};

// One row of 512 tokens a rank and step; FSDP and experts over all ranks.
Plan small_plan(std::int64_t ranks) {
  Plan plan;
  plan.model = load_model("qwen3-moe-10m").value();
  plan.cluster = load_cluster("local-cpu").value();
  plan.workload = load_workload("demo-local").value();
  plan.cluster.devices = plan.cluster.devices_per_node = ranks;
  plan.cluster.tiers.back().domain = ranks;
  plan.workload.global_sequences = ranks;
  plan.layout.dp = plan.layout.fsdp_d = plan.layout.ep = ranks;
  const std::vector<Violation> found =
      violations(plan.model, plan.cluster, plan.workload, plan.layout, plan.chunks, plan.policy);
  CHECK(found.empty(), found.empty() ? "" : found[0].rule + ": " + found[0].reason);
  plan.sha256 = plan_sha256(plan);
  return plan;
}

engine::MicroBatch batch_of(const Plan& plan, std::int64_t rank) {
  engine::MicroBatch batch;
  std::uint64_t state = static_cast<std::uint64_t>(rank) + 1;
  for (std::int64_t i = 0; i <= plan.workload.sequence_tokens; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const auto id = static_cast<std::int64_t>(state >> 40) % plan.model.vocab;
    if (i > 0) batch.labels.push_back(id);
    if (i < plan.workload.sequence_tokens) batch.ids.push_back(id);
  }
  batch.documents = {plan.workload.document_tokens};
  return batch;
}

struct Times {
  std::vector<double> wall_s, cpu_s;  // a turn each; of all threads of the process
};

struct Bench {
  const Arguments& arguments;
  const Plan plan;
  const Program program;
  std::vector<std::unique_ptr<engine::Communicator>> communicators;
  std::barrier<> meet;
  Times traced, plain;
  std::int64_t records = 0;

  explicit Bench(const Arguments& a)
      : arguments(a),
        plan(small_plan(a.ranks)),
        program(lower(plan)),
        communicators(engine::make_in_process(program.groups, static_cast<std::int32_t>(a.ranks))),
        meet(a.ranks) {}
};

void check(const Status& status) {
  CHECK(status.ok(), status.error().text());
}

// One rank's part in all turns. Rank 0 holds the watch.
void run_rank(Bench& bench, std::int32_t rank) {
  RankInfo info;
  info.rank = rank;
  RunInfo run;
  run.kind = RunKind::kMeasured;
  run.program_hash = bench.program.hash();
  auto recorder = Recorder::open(bench.arguments.folder + "/run.db", info, run, bench.program);
  CHECK(recorder.ok(), recorder.error().text());
  SwitchedTrace trace(*recorder.value());
  auto executor = engine::Executor::create(
      bench.program, rank, *bench.communicators[static_cast<std::size_t>(rank)], trace, {});
  CHECK(executor.ok(), executor.error().text());
  const std::vector<engine::MicroBatch> batch = {batch_of(bench.plan, rank)};
  std::int32_t step = 0;
  const auto turn = [&](bool on) {
    trace.turn(on);
    bench.meet.arrive_and_wait();
    const std::int64_t from = engine::now_ns();
    const std::clock_t cpu = std::clock();
    for (std::int64_t i = 0; i < bench.arguments.steps; ++i) {
      const auto result = executor.value()->run_step(step++, batch);
      CHECK(result.ok(), result.error().text());
    }
    if (on) check(recorder.value()->flush());
    bench.meet.arrive_and_wait();
    Times& times = on ? bench.traced : bench.plain;
    if (rank == 0) {
      times.wall_s.push_back(static_cast<double>(engine::now_ns() - from) * 1e-9);
      times.cpu_s.push_back(static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC);
    }
  };
  turn(true);  // warms caches, allocator and the trace's file
  turn(false);
  if (rank == 0) bench.traced = bench.plain = {};
  for (std::int64_t pair = 0; pair < bench.arguments.pairs; ++pair) {
    turn(pair % 2 == 0);
    turn(pair % 2 != 0);
  }
  CHECK(recorder.value()->dropped() == 0, "records were lost: less was traced than happened");
  if (rank == 0) bench.records = recorder.value()->committed();
  check(recorder.value()->close(RunStatus::kOk));
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  const std::size_t half = x.size() / 2;
  return x.size() % 2 == 1 ? x[half] : (x[half - 1] + x[half]) / 2;
}

Json listed(const std::vector<double>& x) {
  Json json = Json::array();
  for (const double v : x) json.push(v);
  return json;
}

// The ratio of two halves of the turns without a trace: what one reads where nothing differs.
double noise(const std::vector<double>& x) {
  std::vector<double> halves[2];
  for (std::size_t i = 0; i < x.size(); ++i) halves[i / 2 % 2].push_back(x[i]);
  return median(halves[0]) / median(halves[1]);
}

int report(const Bench& bench) {
  const Times &a = bench.traced, &b = bench.plain;
  std::vector<double> pairs;
  for (std::size_t i = 0; i < a.wall_s.size(); ++i) pairs.push_back(a.wall_s[i] / b.wall_s[i]);
  const double ratio = median(a.wall_s) / median(b.wall_s);
  const auto steps = static_cast<double>(bench.arguments.steps);
  const double turns = static_cast<double>(bench.arguments.pairs + 1);
  Json json = Json::object();
  json.set("schema_version", 1)
      .set("model", "qwen3-moe-10m")
      .set("ranks", bench.arguments.ranks)
      .set("pairs", bench.arguments.pairs)
      .set("steps_a_turn", bench.arguments.steps)
      .set("records_a_rank_and_step", static_cast<double>(bench.records) / (turns * steps))
      .set("median_step_s", Json::object()
                                .set("trace", median(a.wall_s) / steps)
                                .set("no_trace", median(b.wall_s) / steps))
      .set("ratio", ratio)
      .set("target", kTarget)
      .set("median_of_pair_ratios", median(pairs))
      .set("cpu_time_ratio", median(a.cpu_s) / median(b.cpu_s))
      .set("noise", noise(b.wall_s))
      .set("cpu_time_noise", noise(b.cpu_s))
      .set("turns_s",
           Json::object().set("trace", listed(a.wall_s)).set("no_trace", listed(b.wall_s)));
  std::puts(json.dump().c_str());
  return ratio <= kTarget ? 0 : 1;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  using orrery::Arguments;
  if (argc < 2 || argc > 5) {
    std::fputs("usage: trace_bench FOLDER [RANKS] [PAIRS] [STEPS_A_TURN]\n", stderr);
    return 2;
  }
  Arguments arguments;
  arguments.folder = argv[1];
  if (argc > 2) arguments.ranks = std::strtol(argv[2], nullptr, 10);
  if (argc > 3) arguments.pairs = std::strtol(argv[3], nullptr, 10);
  if (argc > 4) arguments.steps = std::strtol(argv[4], nullptr, 10);
  if (arguments.ranks < 1 || arguments.pairs < 4 || arguments.steps < 1) {
    std::fputs("trace_bench: at least 1 rank, 4 pairs and 1 step\n", stderr);
    return 2;
  }
  orrery::Bench bench(arguments);
  std::vector<std::thread> threads;
  for (std::int32_t r = 0; r < static_cast<std::int32_t>(arguments.ranks); ++r) {
    threads.emplace_back([&bench, r] { orrery::run_rank(bench, r); });
  }
  for (std::thread& thread : threads) thread.join();
  return orrery::report(bench);
}
