// Every mechanism of the layout, alone and together, on ranks that run: in fp64 the result is that
// of one rank that uses none (losses, norms, routing, router biases, weights); in fp32 the run is
// the program that was simulated (ops and their order, bytes, peaks); and no op can be left out.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "core/program/lower.h"
#include "core/program/verify.h"
#include "simulator/simulator.h"
#include "tests/parity/cases.h"
#include "tests/parity/checks.h"
#include "tests/parity/harness.h"
#include "tests/support/plans.h"

namespace orrery::parity {
namespace {

constexpr std::int64_t kTokens = 11, kSequences = 8;  // no multiple of 2 or 4: rows are padded

// A dense layer, then three of 8 experts with router biases that the loads move.
Model mechanisms_model() {
  Model model = reference::tiny_moe();
  model.layers = 4;
  model.moe_layer = {false, true, true, true};
  model.experts = 8;
  model.router_bias = true;
  return model;
}

struct Case {
  std::string name;
  Layout layout;
  Chunks chunks;
  MemoryPolicy policy;
  bool operator<(const Case& other) const { return name < other.name; }
};

Case make(const std::string& name, Layout layout, const Chunks& chunks = {},
          const MemoryPolicy& policy = {}, std::int64_t sp = 1, bool gathers = false) {
  layout.sp = sp;
  if (gathers) layout.dispatcher = "all_gather";
  return {name, layout, chunks, policy};
}

std::vector<Case> cases() {
  const Layout fsdp = layout_of(1, 4, 1, 4), ep2 = layout_of(1, 4, 2, 2),
               ep4 = layout_of(2, 2, 4, 1, 1, "replicate");
  MemoryPolicy host, all{2, 3, 3, 4, 2, 1, 1, true};
  host.host_optimizer = true;
  return {
      make("sp 2", fsdp, {}, {}, 2),
      make("sp 4, more than key heads", fsdp, {2, 3, 1}, {1}, 4),
      make("sp 2, ep 2", ep2, {}, {1}, 2),
      make("two parts", ep2, {0, 0, 1, 1, 1, 2}),
      make("four parts, recompute", ep2, {0, 0, 1, 1, 1, 4}, {4}),
      make("two parts of two, ep 4", ep4, {0, 0, 1, 1, 1, 2}, {0, 0, 0, 4}),
      make("all-gather, ep 2", ep2, {}, {}, 1, true),
      make("all-gather, ep 4, recompute", ep4, {}, {2, 0, 3}, 1, true),
      make("domino", ep2, {0, 0, 1, 1, 2}),
      make("domino, parts, sp, recompute", ep2, {4, 0, 1, 1, 2, 2}, {2}, 2),
      make("buckets of two layers", fsdp, {0, 0, 1, 2}),
      make("buckets of three layers, prefetch 2", ep2, {0, 0, 2, 3}, {1}),
      make("recompute attention", fsdp, {}, {0, 3}),
      make("recompute ffn", ep2, {}, {0, 0, 3}),
      make("recompute experts", ep2, {}, {0, 0, 0, 4}),
      make("swap", fsdp, {}, {3, 0, 0, 0, 3, 2}),
      make("keep", fsdp, {}, {0, 0, 0, 0, 0, 1, 2}),
      make("optimizer on the host", ep2, {}, host),
      make("everything", ep2, {4, 3, 1, 2, 2, 2}, all, 2),
      make("everything, all-gather", ep4, {4, 3, 2, 2, 2}, all, 2, true),
  };
}

Plan plan_of(const Case& c, DType dtype) {
  Plan plan =
      make_plan(mechanisms_model(), c.layout, c.chunks, c.policy, dtype, kTokens, kSequences);
  plan.workload.z_loss = 0.02;
  plan.workload.bias_speed = 0.05;
  seal(plan);
  return plan;
}

Run run_plan(const Plan& plan, std::int32_t skip_op = -1) {
  const Program program = lower(plan);
  const auto findings = verify(program);
  CHECK(findings.empty(), findings[0].rule + ": " + findings[0].message);
  RunOptions options;
  options.steps = 2;
  options.skip_op = skip_op;
  options.optimizer.schedule = {ScheduleKind::kLinear, 0, 4, 1e-3};
  const auto batch = reference::random_batch(plan.model, kSequences, kTokens, 23);
  auto run = run_in_process(plan, program, batch, options);
  CHECK(run.ok(), run.error().text());
  return std::move(run).value();
}

class Mechanisms : public testing::TestWithParam<Case> {};

TEST_P(Mechanisms, TrainWhatOneRankTrains) {
  static const parity::Run one =
      run_plan(plan_of(make("one rank", layout_of(1, 1, 1, 1, 8)), DType::kFloat64));
  const parity::Run run = run_plan(plan_of(GetParam(), DType::kFloat64));
  ASSERT_EQ(run.steps.size(), one.steps.size());
  for (std::size_t s = 0; s < run.steps.size(); ++s) {
    const auto &a = run.steps[s], &b = one.steps[s];
    EXPECT_NEAR(a.loss, b.loss, 1e-11 * b.loss);
    EXPECT_NEAR(a.balance_loss, b.balance_loss, 1e-11 * b.balance_loss);
    EXPECT_NEAR(a.z_loss, b.z_loss, 1e-11 * b.z_loss);
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-9 * b.grad_norm);
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_GT(b.z_loss, 0);
  }
  EXPECT_NE(one.steps[0].lr, one.steps[1].lr);
  EXPECT_EQ(run.routing, one.routing);
  EXPECT_EQ(run.biases, one.biases);
  ASSERT_EQ(one.biases.size(), 3U);
  EXPECT_NE(one.biases[0], std::vector<double>(8, 0.0));
  EXPECT_LE(worst_difference(run.initial, one.initial), 0);
  EXPECT_LE(worst_difference(run.gradients, one.gradients), 1e-9);
  EXPECT_LE(worst_difference(run.updated, one.updated), 1e-9);
}

TEST_P(Mechanisms, AreWhatIsSimulated) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Plan plan = plan_of(GetParam(), dtype);
    const Program program = lower(plan);
    const Role& role = program.roles[0];
    const parity::Run run = run_plan(plan);
    simulator::Options bound;
    for (const TraceEvents& events : run.events) bound.bindings.push_back(events.bindings.at(1));
    const auto simulated = simulator::simulate(plan, program, bound);
    ASSERT_TRUE(simulated.ok()) << simulated.error().text();
    std::int64_t state = 0;
    for (const Buffer& b : role.buffers) state += b.taken_by < 0 ? b.bytes.c0 : 0;
    for (std::int32_t rank = 0; rank < program.world; ++rank) {
      SCOPED_TRACE("rank " + std::to_string(rank));
      const auto r = static_cast<std::size_t>(rank);
      const TraceEvents second = of_step(run.events[r], program, rank, 1);
      expect_same_structure(second, simulated.value().events, rank, role);
      expect_same_bytes(second, simulated.value().events, rank, role);
      expect_same_peaks(second, simulated.value().events, rank);
      EXPECT_EQ(run.live_after[r], state);
    }
  }
}

// Without any one op the run fails, or what it trains differs.
TEST_P(Mechanisms, HaveNoIdleOp) {
  const std::string& name = GetParam().name;
  if (name.rfind("everything", 0) != 0 && name.rfind("domino, parts", 0) != 0) return;
  const Plan plan = plan_of(GetParam(), DType::kFloat64);
  const Program program = lower(plan);
  const parity::Run whole = run_plan(plan);
  RunOptions options;
  options.steps = 2;
  options.optimizer.schedule = {ScheduleKind::kLinear, 0, 4, 1e-3};
  const auto batch = reference::random_batch(plan.model, kSequences, kTokens, 23);
  for (std::size_t i = 0; i < program.roles[0].ops.size(); ++i) {
    options.skip_op = static_cast<std::int32_t>(i);
    const auto run = run_in_process(plan, program, batch, options);
    if (!run.ok()) continue;
    const auto &a = run.value().steps[1], &b = whole.steps[1];
    const bool moved = a.loss != b.loss || a.balance_loss != b.balance_loss ||
                       a.z_loss != b.z_loss || a.grad_norm != b.grad_norm ||
                       run.value().updated != whole.updated || run.value().biases != whole.biases;
    EXPECT_TRUE(moved) << program.roles[0].ops[i].path << " ("
                       << name_of(program.roles[0].ops[i].kind) << ") does nothing";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Plans, Mechanisms, testing::ValuesIn(cases()), [](const testing::TestParamInfo<Case>& test) {
      std::string name = test.param.name;
      std::replace_if(
          name.begin(), name.end(),
          [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
      return name;
    });

}  // namespace
}  // namespace orrery::parity
