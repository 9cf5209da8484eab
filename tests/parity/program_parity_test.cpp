// Program parity: what is simulated is what is run. For each plan the engine runs the program and
// the simulator replays it under the binding that the run recorded; then
//   (a) the ops and their issue order are equal, lane by lane;
//   (b) the bytes of ops without size variables are equal;
//   (c) so are the bytes that depend on routing, and the peak of every memory class.
// Batches of one repeated token skew the routing, so that some experts get no row.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/program/lower.h"
#include "core/program/verify.h"
#include "simulator/simulator.h"
#include "tests/parity/cases.h"
#include "tests/parity/checks.h"
#include "tests/parity/harness.h"
#include "tests/support/plans.h"

namespace orrery::parity {
namespace {

struct Case {
  std::string name;
  Plan plan;
};

Model wide_moe() {
  Model model = reference::tiny_moe();
  model.hidden = 64;  // buffers large enough that a wrong class would show
  model.moe_ffn = 48;
  model.vocab = 96;
  model.experts = 8;
  model.layers = 3;
  model.moe_layer.assign(3, true);
  return model;
}

std::vector<Case> cases() {
  const Model moe = wide_moe();
  Model dense = reference::tiny_dense();
  dense.hidden = 64;
  dense.ffn = 80;
  Layout dense4 = layout_of(1, 4, 1, 4, 2), dense2 = layout_of(2, 1, 1, 2, 2);
  dense4.fsdp_e = dense2.fsdp_e = dense4.replicate_e = dense2.replicate_e = 1;
  const auto make = [](const Model& m, const Layout& l, Chunks c, std::int64_t recompute,
                       DType dtype, BalanceScope scope = BalanceScope::kSequence) {
    return make_plan(m, l, c, {recompute}, dtype, 32, 16, scope);
  };
  constexpr DType f32 = DType::kFloat32, f64 = DType::kFloat64, bf16 = DType::kBFloat16;
  constexpr BalanceScope global = BalanceScope::kMicrobatchGlobal;
  return {
      {"one rank", make(moe, layout_of(1, 1, 1, 1, 4), {0, 0, 1}, 0, f32)},
      {"one rank, recompute, chunks", make(moe, layout_of(1, 1, 1, 1, 8), {40, 8, 0}, 2, f32)},
      {"one rank, bf16", make(moe, layout_of(1, 1, 1, 1, 8), {64, 16, 1}, 0, bf16)},
      {"two ranks, fsdp", make(moe, layout_of(1, 2, 1, 2, 4), {0, 0, 1}, 0, f32)},
      {"two ranks, ep", make(moe, layout_of(1, 2, 2, 1, 2), {30, 0, 2}, 1, f32)},
      {"two ranks, ep, replicated", make(moe, layout_of(2, 1, 2, 1, 8), {0, 0, 1}, 0, f64)},
      {"two ranks, dense", make(dense, dense2, {0, 8, 1}, 1, f32)},
      {"four ranks, fsdp", make(moe, layout_of(1, 4, 1, 4, 2), {0, 0, 0}, 0, f32)},
      {"four ranks, fsdp, bf16", make(moe, layout_of(1, 4, 1, 4, 2), {20, 0, 1}, 3, bf16)},
      {"four ranks, ep 2 x fsdp 2", make(moe, layout_of(2, 2, 2, 2, 1), {0, 0, 1}, 1, f32)},
      {"four ranks, ep 4", make(moe, layout_of(1, 4, 4, 1, 4), {0, 0, 2}, 0, f32)},
      {"four ranks, ep 4, bf16", make(moe, layout_of(4, 1, 4, 1, 2), {0, 4, 1}, 2, bf16)},
      {"four ranks, ep 4, global balance",
       make(moe, layout_of(1, 4, 4, 1, 1), {0, 0, 1}, 1, f32, global)},
      {"four ranks, replicate 2, global balance",
       make(moe, layout_of(2, 2, 1, 2, 2), {0, 0, 1}, 0, f32, global)},
      {"four ranks, dense", make(dense, dense4, {0, 0, 2}, 1, f32)},
  };
}

// Rows of one repeated token each: all tokens of a row choose the same experts.
reference::Batch skewed_batch(const Model& model) {
  reference::Batch batch = reference::random_batch(model, 16, 32, 5);
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    batch.ids[i] = static_cast<std::int64_t>(i / 32) % 3;
  }
  return batch;
}

class ProgramParity : public testing::TestWithParam<Case> {};

TEST_P(ProgramParity, SimulatedIsRun) {
  const Plan& plan = GetParam().plan;
  const Program program = lower(plan);
  ASSERT_TRUE(verify(program).empty()) << verify(program)[0].message;
  RunOptions options;
  options.steps = 2;
  auto result = run_in_process(plan, program, skewed_batch(plan.model), options);
  ASSERT_TRUE(result.ok()) << result.error().text();
  const parity::Run run = std::move(result).value();

  simulator::Options bound;
  for (const TraceEvents& events : run.events) bound.bindings.push_back(events.bindings.at(1));
  const auto simulated = simulator::simulate(plan, program, bound);
  ASSERT_TRUE(simulated.ok()) << simulated.error().text();
  const TraceEvents& sim = simulated.value().events;

  const Role& role = program.roles[0];
  int empty = 0, routed = 0;
  for (std::int32_t rank = 0; rank < program.world; ++rank) {
    SCOPED_TRACE("rank " + std::to_string(rank));
    // The second step: everything that lives across steps is there by then.
    const TraceEvents second =
        of_step(run.events[static_cast<std::size_t>(rank)], program, rank, 1);
    expect_same_structure(second, sim, rank, role);
    routed += expect_same_bytes(second, sim, rank, role);
    expect_same_peaks(second, sim, rank);
    empty += empty_experts(bound.bindings[static_cast<std::size_t>(rank)], role);
    // Nothing leaks: after a step the persistent state is all that lives.
    std::int64_t state = 0;
    for (const Buffer& b : role.buffers) state += b.taken_by < 0 ? b.bytes.c0 : 0;
    EXPECT_EQ(run.live_after[static_cast<std::size_t>(rank)], state);
  }
  if (plan.model.is_moe()) {
    EXPECT_GT(empty, 0) << "routing was meant to be skewed";
  }
  if (plan.layout.ep > 1) {
    EXPECT_GT(routed, 0);
  }
}

std::string name_of_case(const testing::TestParamInfo<Case>& test) {
  std::string name = test.param.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Plans, ProgramParity, testing::ValuesIn(cases()), name_of_case);

// Every op matters: without it a run fails, or its losses, norms or weights move.
void expect_every_op_matters(const Plan& plan) {
  const Program program = lower(plan);
  const auto batch = reference::random_batch(plan.model, plan.workload.global_sequences, 32, 7);
  RunOptions options;
  options.steps = 2;
  auto whole = run_in_process(plan, program, batch, options);
  ASSERT_TRUE(whole.ok()) << whole.error().text();
  for (std::size_t i = 0; i < program.roles[0].ops.size(); ++i) {
    options.skip_op = static_cast<std::int32_t>(i);
    const auto without = run_in_process(plan, program, batch, options);
    if (!without.ok()) continue;
    const Run &a = without.value(), &b = whole.value();
    const bool moved =
        a.steps[1].loss != b.steps[1].loss || a.steps[1].balance_loss != b.steps[1].balance_loss ||
        a.steps[1].z_loss != b.steps[1].z_loss || a.steps[1].grad_norm != b.steps[1].grad_norm ||
        a.updated != b.updated || a.biases != b.biases;
    EXPECT_TRUE(moved) << program.roles[0].ops[i].path << " ("
                       << name_of(program.roles[0].ops[i].phase) << ") does nothing";
  }
}

TEST(EveryOpMatters, ExpertParallel) {
  Model model = reference::tiny_moe();
  Layout layout = layout_of(2, 1, 2, 1, 1);
  expect_every_op_matters(make_plan(model, layout, {16, 8, 1}, {1}, DType::kFloat64, 32, 4));
}

TEST(EveryOpMatters, ShardedGlobalBalance) {
  Model model = reference::tiny_moe();
  expect_every_op_matters(make_plan(model, layout_of(1, 2, 1, 2, 1), {0, 0, 1}, {0},
                                    DType::kFloat64, 32, 2, BalanceScope::kMicrobatchGlobal));
}

TEST(EveryOpMatters, Dense) {
  Model model = reference::tiny_dense();
  Layout layout = layout_of(1, 2, 1, 1, 2);
  layout.replicate_e = 1;
  expect_every_op_matters(make_plan(model, layout, {0, 0, 0}, {1}, DType::kFloat64, 32, 4));
}

}  // namespace
}  // namespace orrery::parity
