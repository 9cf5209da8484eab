// What overlap is worth on a slow link: the executor trains one model in this process, a thread a
// rank, over an emulated link, in turns with a mechanism off and on. Both turns train on the same
// rows.
//   overlap_bench [--link "200 Mbit/s,0.2 ms"] [--ranks 2] [--pairs 9] [--case NAME] [--json]
//                 [--trace FOLDER]
// Cases: prefetch (gather a layer ahead, or when it is needed), domino (two micro-batches
// interleaved, or one of twice the rows), parts (an expert exchange in two parts, or whole), both
// (prefetch and domino). Of each pair of steps:
//   hideable  off - ideal, where `ideal` is the replay (core/clock) of the program with the
//             mechanism on over the durations that the step without it measured: nothing but
//             dependencies, lanes and rendezvous holds an op up;
//   share     (off - on) / hideable, target 0.6;
//   of bound  the same gain over off - bound, where `bound` is the busiest of compute and the
//             lanes: what no order could go below;
//   one step  the share within the step with the mechanism on: its measured time between the
//             replays of both programs over its own durations. Where a busy machine makes one step
//             slower than the next, this one stands.
// Figures are medians over the pairs. A turn is one step, so that a busy machine disturbs both
// alike. With --trace, the last step of each turn becomes FOLDER/CASE-off.db and -on.db, for
// `orrery analyze FOLDER/CASE-on.db hidden`. Exit code 1 where a share is below the target.
#include <algorithm>
#include <array>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/overlap_ideal.h"
#include "core/check.h"
#include "core/hash.h"
#include "core/plan.h"
#include "core/program/lower.h"
#include "engine/comm/communicator.h"
#include "engine/comm/emulated.h"
#include "engine/torch/executor.h"
#include "engine/trace_sink.h"
#include "tracer/trace_db.h"

namespace orrery {
namespace {

constexpr double kTarget = 0.6;
struct Arguments {
  std::string link = "200 Mbit/s,0.2 ms", only, trace;
  std::int64_t ranks = 2, pairs = 9;
  bool json = false;
};

// Compute takes about as long as the busiest lane of the link does at 200 Mbit/s.
struct Shape {
  bool
      expert_parallel;  // experts over all ranks; else they are sharded and gathered as the rest is
  std::int64_t experts, moe_ffn, rows;  // rows: of a rank and step
};
constexpr Shape kSharded = {false, 4, 128, 8};
constexpr Shape kExpertParallel = {true, 8, 1024, 2};

struct Case {
  const char* name;
  Shape shape;
  Chunks off, on;
};

std::vector<Case> cases() {
  Chunks none, ahead, domino, parts;
  none.prefetch_depth = 0;
  domino.domino = 2;
  parts.exchange_parts = 2;
  return {{"prefetch", kSharded, none, ahead},
          {"domino", kExpertParallel, ahead, domino},
          {"parts", kExpertParallel, ahead, parts},
          {"both", kExpertParallel, none, domino}};
}

Plan plan_of(std::int64_t ranks, const Shape& shape, const Chunks& chunks) {
  Plan plan;
  plan.model = load_model("qwen3-moe-10m").value();
  plan.model.layers = 4;
  plan.model.moe_layer.assign(4, true);
  plan.model.experts = shape.experts;
  plan.model.moe_ffn = shape.moe_ffn;
  plan.model.sha256 = sha256_hex(to_json(plan.model).dump(-1));
  plan.cluster = load_cluster("local-cpu").value();
  plan.cluster.devices = plan.cluster.devices_per_node = ranks;
  plan.cluster.tiers.back().domain = ranks;
  plan.workload = load_workload("demo-local").value();
  plan.workload.sequence_tokens = 256;
  plan.workload.document_tokens = {256};
  plan.workload.global_sequences = shape.rows * ranks;
  plan.layout.dp = plan.layout.fsdp_d = ranks;
  (shape.expert_parallel ? plan.layout.ep : plan.layout.fsdp_e) = ranks;
  plan.layout.micro_batch = shape.rows / chunks.domino;
  plan.chunks = chunks;
  const std::vector<Violation> found =
      violations(plan.model, plan.cluster, plan.workload, plan.layout, plan.chunks, plan.policy);
  CHECK(found.empty(), found.empty() ? "" : found[0].rule + ": " + found[0].reason);
  plan.sha256 = plan_sha256(plan);
  return plan;
}

std::vector<engine::MicroBatch> batch_of(const Plan& plan, std::int64_t rank) {
  std::vector<engine::MicroBatch> batch(static_cast<std::size_t>(plan.chunks.domino));
  std::uint64_t state = static_cast<std::uint64_t>(rank) + 1;
  for (engine::MicroBatch& m : batch) {
    for (std::int64_t j = 0; j < plan.layout.micro_batch; ++j) {
      for (std::int64_t i = 0; i < plan.workload.sequence_tokens; ++i) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        m.ids.push_back(static_cast<std::int64_t>(state >> 40) % plan.model.vocab);
        m.labels.push_back((m.ids.back() * 7 + 1) % plan.model.vocab);
      }
      m.documents.push_back(plan.workload.document_tokens);
    }
  }
  return batch;
}

// One of the two programs that take turns, on all ranks.
struct Side {
  Plan plan;
  Program program;
  std::vector<std::unique_ptr<engine::Communicator>> fast, slow;
  std::vector<engine::MemoryTrace> traces;

  Side(const Arguments& a, const Shape& shape, const Chunks& chunks,
       const engine::LinkOptions& link)
      : plan(plan_of(a.ranks, shape, chunks)),
        program(lower(plan)),
        fast(engine::make_in_process(program.groups, static_cast<std::int32_t>(a.ranks))),
        traces(static_cast<std::size_t>(a.ranks)) {
    for (auto& communicator : fast) {
      slow.push_back(engine::make_emulated(*communicator, program.groups, link));
    }
  }
  std::vector<TraceEvents> events() const {
    std::vector<TraceEvents> out;
    for (const engine::MemoryTrace& trace : traces) out.push_back(trace.events);
    return out;
  }
};

struct Pair {
  double off_s = 0, on_s = 0;
  double ideal_s = 0;  // `on` replayed over what `off` measured
  double floor_s = 0;  // the busiest of compute and the lanes, as `off` measured them
  double compute_s = 0, lane_s = 0;
  double off_replay_s = 0;  // over its own durations: how well a replay tells a step
  double on_replay_s = 0;   // the same of `on`
  double without_s = 0;     // `off` replayed over what `on` measured
  double hideable_s() const { return off_s - ideal_s; }
  double share() const { return (off_s - on_s) / hideable_s(); }
  double share_in_step() const { return (without_s - on_s) / (without_s - on_replay_s); }
  double share_of_bound() const { return (off_s - on_s) / (off_s - floor_s); }
};

struct Bench {
  const Arguments& arguments;
  std::array<Side, 2> sides;  // off, on
  std::barrier<> meet;
  std::vector<Pair> pairs;

  Bench(const Arguments& a, const Case& c, const engine::LinkOptions& link)
      : arguments(a),
        sides{Side(a, c.shape, c.off, link), Side(a, c.shape, c.on, link)},
        meet(a.ranks) {}

  // What the pair of steps just done says.
  Pair judge(double off_s, double on_s) const {
    const Side &off = sides[0], &on = sides[1];
    Pair p{.off_s = off_s, .on_s = on_s};
    const auto off_events = off.events(), on_events = on.events();
    p.ideal_s = replayed_s(on.program, durations_of(on.program, off.program, off_events));
    const auto own = durations_of(off.program, off.program, off_events);
    const Totals totals = totals_of(off.program, own);
    p.compute_s = totals.compute_s;
    p.lane_s = totals.lane_s;
    p.floor_s = std::max(totals.compute_s, totals.lane_s);
    p.off_replay_s = replayed_s(off.program, own);
    p.on_replay_s = replayed_s(on.program, durations_of(on.program, on.program, on_events));
    p.without_s = replayed_s(off.program, durations_of(off.program, on.program, on_events));
    return p;
  }
};

// One rank's part in all turns. Rank 0 holds the watch.
void run_rank(Bench& bench, std::int32_t rank) {
  const auto r = static_cast<std::size_t>(rank);
  std::array<std::unique_ptr<engine::Executor>, 2> executors;
  std::array<std::vector<engine::MicroBatch>, 2> batches;
  for (std::size_t s = 0; s < 2; ++s) {
    Side& side = bench.sides[s];
    auto made = engine::Executor::create(side.program, rank, *side.slow[r], side.traces[r], {});
    CHECK(made.ok(), made.error().text());
    executors[s] = std::move(made).value();
    batches[s] = batch_of(side.plan, rank);
  }
  std::int32_t step = 0;
  const auto turn = [&](std::size_t s) {
    bench.sides[s].traces[r].events = {};
    bench.meet.arrive_and_wait();
    const std::int64_t from = engine::now_ns();
    const auto result = executors[s]->run_step(step, batches[s]);
    CHECK(result.ok(), result.error().text());
    bench.meet.arrive_and_wait();
    return static_cast<double>(engine::now_ns() - from) * 1e-9;
  };
  turn(0);  // warms caches and allocator
  turn(1);
  for (std::int64_t pair = 0; pair < bench.arguments.pairs; ++pair) {
    ++step;
    const std::size_t first = pair % 2 == 0 ? 0 : 1;
    std::array<double, 2> took{};
    took[first] = turn(first);
    took[1 - first] = turn(1 - first);
    if (rank == 0) bench.pairs.push_back(bench.judge(took[0], took[1]));
    bench.meet.arrive_and_wait();
  }
}

template <class Figure>
double median(const std::vector<Pair>& pairs, Figure figure) {
  std::vector<double> x;
  for (const Pair& p : pairs) x.push_back(figure(p));
  std::sort(x.begin(), x.end());
  const std::size_t half = x.size() / 2;
  return x.size() % 2 == 1 ? x[half] : (x[half - 1] + x[half]) / 2;
}

Json report(const std::string& name, const std::vector<Pair>& pairs) {
  const auto of = [&](auto figure) { return median(pairs, figure); };
  Json shares = Json::array();
  for (const Pair& p : pairs) shares.push(p.share());
  Json json = Json::object();
  json.set("case", name)
      .set("off_s", of([](const Pair& p) { return p.off_s; }))
      .set("on_s", of([](const Pair& p) { return p.on_s; }))
      .set("ideal_s", of([](const Pair& p) { return p.ideal_s; }))
      .set("hideable_s", of([](const Pair& p) { return p.hideable_s(); }))
      .set("share", of([](const Pair& p) { return p.share(); }))
      .set("share_in_step", of([](const Pair& p) { return p.share_in_step(); }))
      .set("without_s", of([](const Pair& p) { return p.without_s; }))
      .set("bound_s", of([](const Pair& p) { return p.floor_s; }))
      .set("share_of_bound", of([](const Pair& p) { return p.share_of_bound(); }))
      .set("compute_s", of([](const Pair& p) { return p.compute_s; }))
      .set("busiest_lane_s", of([](const Pair& p) { return p.lane_s; }))
      .set("off_replayed_s", of([](const Pair& p) { return p.off_replay_s; }))
      .set("on_replayed_s", of([](const Pair& p) { return p.on_replay_s; }))
      .set("shares", std::move(shares));
  return json;
}

void write_trace(const Side& side, const std::string& path) {
  RunInfo info;
  info.kind = RunKind::kMeasured;
  info.program_hash = side.program.hash();
  auto made = TraceWriter::create(path, info);
  CHECK(made.ok(), made.error().text());
  TraceWriter writer = std::move(made).value();
  Status status = writer.write_program(side.program);
  for (const TraceEvents& events : side.events()) {
    if (status.ok()) status = writer.write(events);
  }
  if (status.ok()) status = writer.finish(RunStatus::kOk);
  CHECK(status.ok(), status.error().text());
}

void print_row(const Json& row) {
  const auto ms = [&](const char* key) { return row.find(key)->as_double() * 1e3; };
  const auto percent = [&](const char* key) { return 100 * row.find(key)->as_double(); };
  std::printf("%-9s %7.0f %7.0f %7.0f %9.0f %6.0f %% %7.0f %% %7.0f %% %8.0f %7.0f\n",
              row.find("case")->as_string().c_str(), ms("off_s"), ms("on_s"), ms("ideal_s"),
              ms("hideable_s"), percent("share"), percent("share_in_step"),
              percent("share_of_bound"), ms("compute_s"), ms("busiest_lane_s"));
  std::fflush(stdout);
}

int run(const Arguments& arguments, const engine::LinkOptions& link) {
  if (!arguments.json) {
    std::printf("%s, %d ranks, %d pairs; milliseconds, medians\n", arguments.link.c_str(),
                static_cast<int>(arguments.ranks), static_cast<int>(arguments.pairs));
    std::printf("%-9s %7s %7s %7s %9s %8s %9s %9s %8s %7s\n", "case", "off", "on", "ideal",
                "hideable", "share", "one step", "of bound", "compute", "lane");
  }
  bool reached = true;
  Json rows = Json::array();
  for (const Case& c : cases()) {
    if (!arguments.only.empty() && arguments.only != c.name) continue;
    Bench bench(arguments, c, link);
    std::vector<std::thread> threads;
    for (std::int32_t r = 0; r < static_cast<std::int32_t>(arguments.ranks); ++r) {
      threads.emplace_back([&bench, r] { run_rank(bench, r); });
    }
    for (std::thread& thread : threads) thread.join();
    Json row = report(c.name, bench.pairs);
    reached = reached && row.find("share")->as_double() >= kTarget;
    if (!arguments.json) print_row(row);
    rows.push(std::move(row));
    if (arguments.trace.empty()) continue;
    write_trace(bench.sides[0], arguments.trace + "/" + c.name + "-off.db");
    write_trace(bench.sides[1], arguments.trace + "/" + c.name + "-on.db");
  }
  if (arguments.json) {
    Json json = Json::object();
    json.set("schema_version", 1)
        .set("link", arguments.link)
        .set("ranks", arguments.ranks)
        .set("pairs", arguments.pairs)
        .set("target", kTarget)
        .set("cases", std::move(rows));
    std::puts(json.dump().c_str());
  }
  return reached ? 0 : 1;
}

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--json") {
      arguments.json = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const std::string value = argv[++i];
    if (word == "--link") {
      arguments.link = value;
    } else if (word == "--case") {
      arguments.only = value;
    } else if (word == "--trace") {
      arguments.trace = value;
    } else if (word == "--ranks") {
      arguments.ranks = std::strtol(value.c_str(), nullptr, 10);
    } else if (word == "--pairs") {
      arguments.pairs = std::strtol(value.c_str(), nullptr, 10);
    } else {
      return false;
    }
  }
  const std::int64_t r = arguments.ranks;
  const auto all = cases();
  return (r == 2 || r == 4) && arguments.pairs >= 1 &&
         (arguments.only.empty() || std::any_of(all.begin(), all.end(), [&](const Case& c) {
            return arguments.only == c.name;
          }));
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  orrery::Arguments arguments;
  if (!orrery::parse(argc, argv, arguments)) {
    std::fputs(
        "usage: overlap_bench [--link \"200 Mbit/s,0.2 ms\"] [--ranks 2|4] [--pairs N]\n"
        "                     [--case prefetch|domino|parts|both] [--trace FOLDER] [--json]\n",
        stderr);
    return 2;
  }
  const auto link = orrery::engine::parse_link(arguments.link, "--link");
  if (!link.ok()) {
    std::fputs((link.error().text() + "\n").c_str(), stderr);
    return 2;
  }
  return orrery::run(arguments, link.value());
}
