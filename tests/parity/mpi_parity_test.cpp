// Program parity of real runs: orrery-engine under mpirun, its parts merged into one trace, held
// against the program, against the bytes that MPI was handed (a layer between the engine and MPI
// counts them), against the simulator under the recorded bindings, and against the same run in one
// process. The text repeats a few bytes, so that some experts get no row.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/program/lower.h"
#include "engine/data.h"
#include "simulator/simulator.h"
#include "tests/engine/launch.h"
#include "tests/parity/cases.h"
#include "tests/parity/checks.h"
#include "tests/parity/harness.h"
#include "tracer/merge.h"
#include "tracer/trace_db.h"

namespace orrery::parity {
namespace {

constexpr std::int32_t kSteps = 3;
constexpr std::int64_t kTokens = 32, kSequences = 8;

struct Case {
  std::string name;
  Plan plan;
};

Model bytes_moe() {
  Model model = reference::tiny_moe();
  model.vocab = 256;
  model.hidden = 64;
  model.moe_ffn = 48;
  model.experts = 8;
  return model;
}

Model bytes_dense() {
  Model model = reference::tiny_dense();
  model.vocab = 256;
  model.hidden = 64;
  model.ffn = 80;
  return model;
}

std::vector<Case> cases() {
  constexpr DType f32 = DType::kFloat32, bf16 = DType::kBFloat16;
  const auto make = [](const Model& m, const Layout& l, Chunks c, std::int64_t recompute, DType d,
                       BalanceScope scope = BalanceScope::kSequence) {
    return make_plan(m, l, c, {recompute}, d, kTokens, kSequences, scope);
  };
  const Model moe = bytes_moe(), dense = bytes_dense();
  Layout dense2 = layout_of(1, 2, 1, 1, 2), dense4 = layout_of(1, 4, 1, 1, 1);
  dense2.replicate_e = dense4.replicate_e = 1;
  return {
      {"two ranks, dense, fsdp", make(dense, dense2, {0, 0, 1}, 0, f32)},
      {"two ranks, ep, replicated", make(moe, layout_of(2, 1, 2, 1, 4), {0, 0, 1}, 0, f32)},
      {"four ranks, dense, fsdp", make(dense, dense4, {20, 0, 2}, 1, bf16)},
      {"four ranks, fsdp", make(moe, layout_of(1, 4, 1, 4, 2), {0, 0, 1}, 0, f32)},
      {"four ranks, ep 4, global balance",
       make(moe, layout_of(1, 4, 4, 1, 1), {0, 0, 1}, 0, f32, BalanceScope::kMicrobatchGlobal)},
      {"four ranks, ep 2 x fsdp 2, recompute, chunks",
       make(moe, layout_of(2, 2, 2, 2, 1), {24, 8, 1}, 2, bf16)},
  };
}

// Rows of one repeated byte each; their number and that of the step's rows have no common factor,
// so that every step sees others.
std::string skewed_text() {
  std::string text;
  for (int row = 0; row < 27; ++row) text += std::string(kTokens, "abcaab"[row % 6]);
  return text + "a";
}

// Bytes sent and received by channel, "<lane>/<group>".
using Channels = std::map<std::string, std::pair<std::int64_t, std::int64_t>>;

Channels counted_by_mpi(const std::string& path) {
  Channels channels;
  std::ifstream in(path);
  std::string name;
  for (std::int64_t sent = 0, received = 0; in >> name >> sent >> received;) {
    channels[name] = {sent, received};
  }
  return channels;
}

// The same steps with a thread a rank: what each reports.
std::vector<engine::StepResult> run_threads(const Plan& plan, const Program& program,
                                            const engine::TextSource& source) {
  auto communicators = engine::make_in_process(program.groups, program.world);
  std::vector<engine::StepResult> results;
  const auto rank_main = [&](std::int32_t rank) {
    engine::Communicator& communicator = *communicators[static_cast<std::size_t>(rank)];
    engine::NoTrace trace;
    engine::ExecutorOptions options;
    options.optimizer = plan.workload.optimizer;
    options.seed = 7;
    auto executor = engine::Executor::create(program, rank, communicator, trace, options);
    ASSERT_TRUE(executor.ok()) << executor.error().text();
    for (std::int32_t step = 0; step < kSteps; ++step) {
      std::vector<engine::MicroBatch> batch(static_cast<std::size_t>(program.step.micro_batches));
      const std::int64_t sp = plan.layout.sp, dp = program.world / sp;
      for (std::size_t m = 0; m < batch.size(); ++m) {
        for (std::int64_t j = 0; j < plan.layout.micro_batch; ++j) {
          const auto row =
              (static_cast<std::int64_t>(m) * dp + rank / sp) * plan.layout.micro_batch + j;
          source.append_row(step * kSequences + row, batch[m].ids, batch[m].labels);
          batch[m].documents.push_back({kTokens});
        }
      }
      const auto result = executor.value()->run_step(step, batch);
      ASSERT_TRUE(result.ok()) << result.error().text();
      if (rank == 0) results.push_back(result.value());
    }
  };
  std::vector<std::thread> threads;
  for (std::int32_t rank = 0; rank < program.world; ++rank) threads.emplace_back(rank_main, rank);
  for (std::thread& thread : threads) thread.join();
  return results;
}

class MpiParity : public testing::TestWithParam<Case> {
 protected:
  // Trains under mpirun and merges the parts; the trace.
  void train() {
    const std::string out = folder_.file("run.db");
    engine::Launch launch(
        engine::mpirun(program_.world,
                       {ORRERY_BINARY_DIR "/orrery-engine", "run",
                        folder_.write("plan.json", to_json(plan_).dump()), "--data", text_, "--out",
                        out, "--steps", std::to_string(kSteps), "--seed", "7"},
                       {"-x", "LD_PRELOAD=" ORRERY_BINARY_DIR "/tests/libpmpi_count.so", "-x",
                        "PMPI_COUNT_OUT=" + folder_.file("counts")}),
        folder_);
    ASSERT_EQ(launch.wait(), 0) << launch.err();
    MergeOptions merge;
    merge.out = out;
    merge.world = program_.world;
    merge.run.kind = RunKind::kMeasured;
    merge.run.program_hash = program_.hash();
    const auto merged = merge_parts(merge);
    ASSERT_TRUE(merged.ok()) << merged.error().text();
    EXPECT_EQ(merged.value().status, RunStatus::kOk) << merged.value().reason;
    EXPECT_EQ(merged.value().dropped, 0);
    auto opened = TraceReader::open(out);
    ASSERT_TRUE(opened.ok()) << opened.error().text();
    TraceReader reader = std::move(opened).value();
    auto events = reader.events();
    ASSERT_TRUE(events.ok()) << events.error().text();
    events_ = std::move(events).value();
  }

  // (a) All ops of the step, in issue order.
  void expect_issue_order(const TraceEvents& step) {
    std::vector<std::pair<std::int64_t, std::int32_t>> issued;
    for (const SpanEvent& s : step.spans) issued.emplace_back(s.enqueue_ns, s.op);
    std::stable_sort(issued.begin(), issued.end());
    std::vector<std::int32_t> ops, all(role_.ops.size());
    for (const auto& [at, op] : issued) ops.push_back(op);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(ops, all);
  }

  // (b) Every collective moved what the program says of it under the recorded sizes. Adds them up.
  void expect_wire_bytes(const TraceEvents& step, std::int32_t rank, Channels& sums) {
    ASSERT_EQ(step.bindings.size(), 1U);
    const auto collectives = std::count_if(role_.ops.begin(), role_.ops.end(), [](const Op& op) {
      return is_collective(op.kind) && op.lane != Lane::kCompute;
    });
    EXPECT_EQ(std::ssize(step.collectives), collectives);
    ASSERT_GT(collectives, 0);
    for (const CollectiveEvent& c : step.collectives) {
      const Op& op = role_.ops[static_cast<std::size_t>(c.op)];
      const WireBytes wire = wire_bytes(program_, role_, op, rank, step.bindings[0].values);
      EXPECT_EQ(c.bytes_sent, wire.sent) << op.path;
      EXPECT_EQ(c.bytes_received, wire.received) << op.path;
      const Group& group = program_.groups[static_cast<std::size_t>(c.group)];
      const std::string name = std::string(name_of(op.lane)) + "/" + group.name;
      sums[name].first += c.bytes_sent;
      sums[name].second += c.bytes_received;
      sums[name + ":rendezvous"].first += 8 * (group.size - 1);  // each one's op key
      sums[name + ":rendezvous"].second += 8 * (group.size - 1);
    }
  }

  const Plan& plan_ = GetParam().plan;
  const Program program_ = lower(plan_);
  const Role& role_ = program_.roles[0];
  engine::Folder folder_;
  const std::string text_ = folder_.write("text", skewed_text());
  TraceEvents events_;
};

TEST_P(MpiParity, WhatRanIsTheProgram) {
  ASSERT_NO_FATAL_FAILURE(train());
  int empty = 0;
  for (std::int32_t rank = 0; rank < program_.world; ++rank) {
    SCOPED_TRACE("rank " + std::to_string(rank));
    Channels sums;
    for (std::int32_t s = 0; s < kSteps; ++s) {
      SCOPED_TRACE("step " + std::to_string(s));
      const TraceEvents step = of_step(events_, program_, rank, s);
      expect_issue_order(step);
      expect_wire_bytes(step, rank, sums);
      for (const Binding& b : step.bindings) empty += empty_experts(b, role_);
    }
    EXPECT_EQ(sums, counted_by_mpi(folder_.file("counts." + std::to_string(rank))));
  }
  if (plan_.model.is_moe()) {
    EXPECT_GT(empty, 0) << "routing was meant to be skewed";
  }

  for (std::int32_t s = 0; s < kSteps; ++s) {
    SCOPED_TRACE("step " + std::to_string(s));
    simulator::Options bound;
    for (std::int32_t rank = 0; rank < program_.world; ++rank) {
      bound.bindings.push_back(of_step(events_, program_, rank, s).bindings.at(0));
    }
    const auto simulated = simulator::simulate(plan_, program_, bound);
    ASSERT_TRUE(simulated.ok()) << simulated.error().text();
    for (std::int32_t rank = 0; rank < program_.world; ++rank) {
      SCOPED_TRACE("rank " + std::to_string(rank));
      const TraceEvents step = of_step(events_, program_, rank, s);
      expect_same_structure(step, simulated.value().events, rank, role_);
      expect_same_bytes(step, simulated.value().events, rank, role_);
      expect_same_peaks(step, simulated.value().events, rank);
    }
  }

  // Bit for bit what threads compute, on every rank.
  const auto source = engine::TextSource::open(text_, kTokens);
  ASSERT_TRUE(source.ok()) << source.error().text();
  const auto threads = run_threads(plan_, program_, source.value());
  ASSERT_EQ(threads.size(), static_cast<std::size_t>(kSteps));
  ASSERT_EQ(events_.steps.size(), static_cast<std::size_t>(kSteps * program_.world));
  for (const StepEvent& step : events_.steps) {
    const engine::StepResult& expected = threads[static_cast<std::size_t>(step.step)];
    EXPECT_EQ(step.loss, expected.loss);
    EXPECT_EQ(step.balance_loss, expected.balance_loss);
    EXPECT_EQ(step.grad_norm, expected.grad_norm);
    EXPECT_EQ(step.tokens, kSequences * kTokens);
  }
  EXPECT_NE(threads[0].loss, threads[2].loss);
}

std::string name_of_case(const testing::TestParamInfo<Case>& test) {
  std::string name = test.param.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Plans, MpiParity, testing::ValuesIn(cases()), name_of_case);

}  // namespace
}  // namespace orrery::parity
