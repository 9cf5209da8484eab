// What balancing packed documents is worth: rows of long-tailed documents, dealt naively (first fit
// in the order of arrival) and in balance (core/packing.h), seen by the simulator and by the
// engine.
//   balance_bench predicted [SEEDS]        8, 32 and 256 devices; the simulator's costs of every op
//   balance_bench measured [STEPS] [SEED]  4 ranks of this process, a thread each
// "ranks" is the slowest rank's compute over the mean rank's, over all micro-batches of a step;
// "lockstep" takes the slowest rank of each micro-batch, where collectives make ranks wait for each
// other. "step" is the simulated step, communication included, naive over balanced. Measured
// figures are medians over steps, of blocks alone; "wall" sums their spans, "cpu" is processor time
// of the walking thread, which stands where ranks share cores; "pairs" is what the rows promise.
// Naive and balanced steps take turns on the same documents. Prints one JSON document.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "core/check.h"
#include "core/packing.h"
#include "core/plan.h"
#include "core/program/lower.h"
#include "engine/comm/communicator.h"
#include "engine/torch/executor.h"
#include "engine/trace_sink.h"
#include "simulator/document_cost.h"
#include "simulator/simulator.h"

namespace orrery {
namespace {

// Seconds by rank, of each micro-batch.
using Times = std::vector<std::vector<double>>;

struct Ratios {
  double ranks = 0, lockstep = 0;
};

Ratios ratios(const Times& by_micro_batch) {
  std::vector<double> total(by_micro_batch[0].size());
  double lockstep = 0, sum = 0;
  for (const std::vector<double>& times : by_micro_batch) {
    lockstep += *std::max_element(times.begin(), times.end());
    for (std::size_t r = 0; r < times.size(); ++r) {
      total[r] += times[r];
      sum += times[r];
    }
  }
  const double mean = sum / static_cast<double>(total.size());
  return {*std::max_element(total.begin(), total.end()) / mean, lockstep / mean};
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  const std::size_t half = x.size() / 2;
  return x.size() % 2 == 1 ? x[half] : (x[half - 1] + x[half]) / 2;
}

// Enough documents for the rows of a step, of a stream of their own.
std::vector<std::int64_t> documents_of(const Workload& workload, std::int64_t stream) {
  std::vector<std::int64_t> out;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; tokens < workload.global_tokens() * 98 / 100; ++i) {
    out.push_back(draw_length(*workload.document_lengths, stream, i));
    tokens += out.back();
  }
  return out;
}

Deal deal_of(const Plan& plan) {
  return {plan.layout.dp, plan.layout.accumulation, plan.layout.micro_batch};
}

std::vector<PackedRow> rows_of(const Plan& plan, std::int64_t stream, Balance balance) {
  return pack(documents_of(plan.workload, stream), plan.workload.sequence_tokens, deal_of(plan),
              plan.workload.packing, balance)
      .rows;
}

void seal(Plan& plan) {
  const std::vector<Violation> found =
      violations(plan.model, plan.cluster, plan.workload, plan.layout, plan.chunks, plan.policy);
  CHECK(found.empty(), found.empty() ? "" : found[0].rule + ": " + found[0].reason);
  plan.sha256 = plan_sha256(plan);
}

Plan long_rows(const std::string& model, std::int64_t devices, std::int64_t max_tokens) {
  Plan plan;
  plan.model = load_model(model).value();
  plan.cluster = load_cluster("h800x" + std::to_string(devices)).value();
  plan.workload = load_workload("documents-64k").value();
  plan.workload.document_lengths->max_tokens = max_tokens;
  plan.workload.expert_load_cv = 0;  // documents alone shall differ
  plan.layout.dp = plan.layout.fsdp_d = devices;
  plan.layout.accumulation = 4;
  plan.workload.global_sequences = 4 * devices;
  if (plan.model.is_moe()) {
    plan.layout.ep = 8;
    plan.layout.fsdp_e = devices / 8;
  }
  plan.policy.recompute_layers = plan.model.layers;
  plan.chunks.loss_tokens = 4096;
  seal(plan);
  return plan;
}

struct Predicted {
  Ratios compute;
  double step_s = 0;
};

Predicted predict(const Plan& plan, const Program& program, const std::vector<PackedRow>& rows) {
  simulator::Options options;
  options.events = options.document_cost = false;
  Times times(static_cast<std::size_t>(plan.layout.accumulation));
  for (std::int32_t rank = 0; rank < program.world; ++rank) {
    Binding binding = simulator::draw_binding(plan, program, rank, 0);
    const Role& role = program.role_of(rank);
    std::int64_t m = 0;
    for (std::size_t base = 0; base < role.var_names.size(); ++base) {
      if (role.var_names[base].rfind("batch/", 0) != 0) continue;
      std::int64_t pairs = 0;
      for (std::int64_t j = 0; j < plan.layout.micro_batch; ++j) {
        const std::int64_t row =
            engine::global_row(plan.layout.dp, plan.layout.micro_batch, rank, m, j);
        pairs += row_pairs(rows[static_cast<std::size_t>(row)]);
      }
      binding.values[base + BatchVars::pairs()] = pairs;
      ++m;
    }
    CHECK(m == plan.layout.accumulation, "a record a micro-batch");
    for (std::int32_t i = 0; i < m; ++i) {
      times[static_cast<std::size_t>(i)].push_back(
          simulator::micro_batch_compute(plan.cluster, program, rank, i, binding.values).value());
    }
    options.bindings.push_back(std::move(binding));
  }
  const auto simulated = simulator::simulate(plan, program, options);
  CHECK(simulated.ok(), simulated.error().text());
  return {ratios(times), to_seconds(simulated.value().step).value()};
}

Json ratio_json(const std::vector<Ratios>& all) {
  std::vector<double> ranks, lockstep;
  for (const Ratios& r : all) {
    ranks.push_back(r.ranks);
    lockstep.push_back(r.lockstep);
  }
  return Json::object()
      .set("ranks", median(ranks))
      .set("lockstep", median(lockstep))
      .set("worst_lockstep", *std::max_element(lockstep.begin(), lockstep.end()));
}

Json predicted_row(const std::string& model, std::int64_t devices, std::int64_t max_tokens,
                   std::int64_t seeds) {
  const Plan plan = long_rows(model, devices, max_tokens);
  const Program program = lower(plan);
  std::vector<Ratios> naive, levels;
  std::vector<double> steps;
  for (std::int64_t seed = 1; seed <= seeds; ++seed) {
    const Predicted a = predict(plan, program, rows_of(plan, seed, Balance::kNaive));
    const Predicted b = predict(plan, program, rows_of(plan, seed, Balance::kLevels));
    naive.push_back(a.compute);
    levels.push_back(b.compute);
    steps.push_back(a.step_s / b.step_s);
  }
  const DocumentCost cost = simulator::document_cost(plan);
  const double pairs = cost.of(0, plan.workload.pairs_per_sequence());
  return Json::object()
      .set("model", model)
      .set("devices", devices)
      .set("longest", max_tokens)
      .set("attention_share", pairs / (pairs + cost.of(plan.workload.sequence_tokens, 0)))
      .set("naive", ratio_json(naive))
      .set("balanced", ratio_json(levels))
      .set("step_naive_over_balanced", median(steps));
}

// Documents of at most half a row; and, with the larger model, of up to a whole one: nothing that
// runs beside such a row is as heavy.
int predicted(std::int64_t seeds) {
  Json rows = Json::array();
  for (const std::int64_t devices : {8, 32, 256}) {
    rows.push(predicted_row("qwen3-8b", devices, 32768, seeds));
    rows.push(predicted_row("qwen3-30b-a3b", devices, 32768, seeds));
    rows.push(predicted_row("qwen3-30b-a3b", devices, 65536, seeds));
  }
  std::puts(Json::object()
                .set("schema_version", 1)
                .set("lengths", "lognormal, median 1500, sigma 1.5, at most `longest` tokens")
                .set("row_tokens", 65536)
                .set("micro_batches", 4)
                .set("seeds", seeds)
                .set("rows", std::move(rows))
                .dump()
                .c_str());
  return 0;
}

constexpr std::int64_t kRanks = 4;

// Long rows through a narrow model: attention is most of the work.
Plan narrow_model() {
  Plan plan;
  plan.model = parse_model(
                   R"({"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2,
                       "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                       "intermediate_size": 128, "vocab_size": 256, "rms_norm_eps": 1e-6,
                       "rope_theta": 10000, "tie_word_embeddings": false})",
                   "narrow")
                   .value();
  plan.cluster = load_cluster("local-cpu").value();
  plan.workload = load_workload("demo-local").value();
  plan.workload.sequence_tokens = 4096;
  plan.workload.global_sequences = 2 * kRanks;
  plan.workload.document_tokens.clear();
  plan.workload.document_lengths = DocumentLengths{100, 1.5, 2048, 1};
  plan.workload.packing = Packing::kSoft;
  plan.layout.dp = plan.layout.fsdp_d = kRanks;
  plan.layout.accumulation = 2;
  plan.chunks.attention_query = 256;
  seal(plan);
  return plan;
}

double thread_cpu_s() {
  timespec t{};
  CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0, "no clock of the thread");
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

engine::MicroBatch batch_of(const PackedRow& row) {
  engine::MicroBatch micro;
  auto& documents = micro.documents.emplace_back();
  std::uint64_t state = 1;
  for (const Piece& piece : row) {
    documents.push_back(piece.tokens);
    for (std::int64_t t = 0; t < piece.tokens; ++t) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      micro.ids.push_back(static_cast<std::int64_t>(state >> 56));
      const bool last = piece.document < 0 || t + 1 == piece.tokens;
      micro.labels.push_back(last ? -100 : static_cast<std::int64_t>(state >> 48) % 256);
    }
  }
  return micro;
}

// Seconds of the blocks of each step: [step][micro-batch].
struct BusyTrace final : public engine::TraceSink {
  explicit BusyTrace(const Program& p, std::int64_t steps)
      : program(p),
        wall(static_cast<std::size_t>(steps),
             std::vector<double>(static_cast<std::size_t>(p.step.micro_batches))),
        cpu(wall) {}
  void record(Lane lane, const TraceRecord& record) override {
    const auto* span = std::get_if<SpanEvent>(&record);
    if (lane != Lane::kCompute || span == nullptr) return;
    // Recorded by the walking thread when the op has run: what it spent since the op before.
    const double now = thread_cpu_s();
    const Op& op = program.role_of(span->rank).ops[static_cast<std::size_t>(span->op)];
    if (op.block >= 0) {
      const auto step = static_cast<std::size_t>(span->step);
      const auto m = static_cast<std::size_t>(op.micro_batch);
      wall[step][m] += static_cast<double>(span->end_ns - span->start_ns) * 1e-9;
      cpu[step][m] += now - last;
    }
    last = now;
  }
  void binding(Binding) override {}
  void step(const StepEvent&) override {}

  const Program& program;
  Times wall, cpu;
  double last = 0;
};

// What the ranks of one run did: steps in both deals, in turns, on the same documents.
struct Bench {
  Plan plan = narrow_model();
  Program program = lower(plan);
  std::vector<std::unique_ptr<engine::Communicator>> communicators =
      engine::make_in_process(program.groups, kRanks);
  std::int64_t steps = 0, seed = 0;
  std::vector<std::unique_ptr<BusyTrace>> traces{kRanks};
};

Balance balance_of(std::int32_t step) {
  return step % 2 == 0 ? Balance::kNaive : Balance::kLevels;
}

void run_rank(Bench& bench, std::int32_t rank) {
  const auto r = static_cast<std::size_t>(rank);
  bench.traces[r] = std::make_unique<BusyTrace>(bench.program, 2 * bench.steps);
  auto executor =
      engine::Executor::create(bench.program, rank, *bench.communicators[r], *bench.traces[r], {});
  CHECK(executor.ok(), executor.error().text());
  for (std::int32_t step = 0; step < 2 * bench.steps; ++step) {
    const auto rows = rows_of(bench.plan, 1000 * bench.seed + step / 2, balance_of(step));
    std::vector<engine::MicroBatch> batch;
    for (std::int64_t m = 0; m < bench.plan.layout.accumulation; ++m) {
      batch.push_back(batch_of(rows[static_cast<std::size_t>(m * kRanks + rank)]));
    }
    bench.traces[r]->last = thread_cpu_s();
    const auto result = executor.value()->run_step(step, batch);
    CHECK(result.ok(), result.error().text());
  }
}

// [micro-batch][rank] of a step.
Times times_of(const Bench& bench, std::int32_t step, Times BusyTrace::*clock) {
  Times times(static_cast<std::size_t>(bench.plan.layout.accumulation));
  for (const auto& trace : bench.traces) {
    const std::vector<double>& mine = ((*trace).*clock)[static_cast<std::size_t>(step)];
    for (std::size_t m = 0; m < times.size(); ++m) times[m].push_back(mine[m]);
  }
  return times;
}

// The same of what the rows say: pairs instead of seconds.
Times pairs_of(const Bench& bench, std::int32_t step) {
  const auto rows = rows_of(bench.plan, 1000 * bench.seed + step / 2, balance_of(step));
  Times times(static_cast<std::size_t>(bench.plan.layout.accumulation));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    times[i / static_cast<std::size_t>(kRanks)].push_back(static_cast<double>(row_pairs(rows[i])));
  }
  return times;
}

Json measured_json(const Bench& bench, Balance balance) {
  std::vector<Ratios> wall, cpu, pairs;
  for (std::int32_t step = 2; step < 2 * bench.steps; ++step) {  // the first two warm caches
    if (balance_of(step) != balance) continue;
    wall.push_back(ratios(times_of(bench, step, &BusyTrace::wall)));
    cpu.push_back(ratios(times_of(bench, step, &BusyTrace::cpu)));
    pairs.push_back(ratios(pairs_of(bench, step)));
  }
  return Json::object()
      .set("wall", ratio_json(wall))
      .set("cpu", ratio_json(cpu))
      .set("pairs", ratio_json(pairs));
}

int measured(std::int64_t steps, std::int64_t seed) {
  Bench bench;
  bench.steps = steps + 1;
  bench.seed = seed;
  std::vector<std::thread> threads;
  for (std::int32_t r = 0; r < static_cast<std::int32_t>(kRanks); ++r) {
    threads.emplace_back([&bench, r] { run_rank(bench, r); });
  }
  for (std::thread& thread : threads) thread.join();
  std::puts(Json::object()
                .set("schema_version", 1)
                .set("model", "2 layers of 64 columns, rows of 4096 tokens, fp32")
                .set("lengths", "lognormal, median 100, sigma 1.5, at most 2048 tokens")
                .set("ranks", kRanks)
                .set("micro_batches", bench.plan.layout.accumulation)
                .set("steps", steps)
                .set("seed", seed)
                .set("naive", measured_json(bench, Balance::kNaive))
                .set("balanced", measured_json(bench, Balance::kLevels))
                .dump()
                .c_str());
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const std::int64_t count = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 5;
  const std::int64_t seed = argc > 3 ? std::strtol(argv[3], nullptr, 10) : 1;
  if (what == "predicted" && argc <= 3 && count >= 1) return orrery::predicted(count);
  if (what == "measured" && argc <= 4 && count >= 1) return orrery::measured(count, seed);
  std::fputs("usage: balance_bench predicted [SEEDS] | measured [STEPS] [SEED]\n", stderr);
  return 2;
}
