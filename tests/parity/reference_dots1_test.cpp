// The engine against the independent double-precision reference where routing has all its parts:
// dots.llm1 (sigmoid scores, groups, biases that loads move, shared experts) and Qwen3-MoE, both
// with balance and z losses, on one, two and four ranks in-process; and the engine itself against
// the figures of transformers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "core/program/lower.h"
#include "core/program/verify.h"
#include "tests/parity/cases.h"
#include "tests/parity/fixture.h"
#include "tests/parity/harness.h"
#include "tests/support/plans.h"

namespace orrery::parity {
namespace {

constexpr std::int64_t kSequences = 8;
constexpr std::int32_t kSteps = 3;
constexpr double kZLoss = 0.02, kBiasSpeed = 0.05;

struct Case {
  std::string name;
  Layout layout;
  Chunks chunks;
  MemoryPolicy policy;
  std::int64_t tokens;  // of a sequence
};

Case make(const std::string& name, Layout layout, const Chunks& chunks = {},
          const MemoryPolicy& policy = {}, std::int64_t sp = 1, std::int64_t tokens = 11,
          bool gathers = false) {
  layout.sp = sp;
  if (gathers) layout.dispatcher = "all_gather";
  return {name, layout, chunks, policy, tokens};
}

std::vector<Case> cases() {
  const Layout one = layout_of(1, 1, 1, 1, 4), two = layout_of(1, 2, 2, 1, 2),
               fsdp2 = layout_of(1, 2, 1, 2), ep2 = layout_of(1, 4, 2, 2),
               ep4 = layout_of(2, 2, 4, 1, 2, "replicate");
  return {
      make("one rank", one),
      make("one rank, chunks, recompute", one, {4, 3}, {2}),
      make("two ranks, fsdp", fsdp2, {4, 3}),
      make("two ranks, ep 2", two),
      make("two ranks, ep 2, two parts", two, {0, 0, 1, 1, 1, 2}, {0, 0, 0, 2}),
      make("two ranks, ep 2, all-gather", two, {}, {}, 1, 11, true),
      make("two ranks, sp 2", fsdp2, {}, {}, 2, 12),
      make("two ranks, sp 2, padded", fsdp2, {}, {1}, 2),
      make("four ranks, ep 4", ep4),
      make("four ranks, ep 2, four parts", ep2, {0, 0, 1, 1, 1, 4}),
      make("four ranks, ep 2, sp 2, padded", ep2, {3, 4}, {}, 2),
      make("four ranks, sp 4, padded, domino", ep2, {0, 0, 1, 1, 2}, {0, 2, 2}, 4),
      make("four ranks, all-gather, ep 4, sp 2", ep4, {}, {2}, 2, 12, true),
      make("four ranks, all-gather, domino", ep2, {0, 0, 1, 2, 2}, {}, 1, 11, true),
  };
}

struct Tolerance {
  DType dtype;
  double value;  // of everything, relative
  double eps;    // of AdamW
};

constexpr Tolerance kDouble{DType::kFloat64, 1e-9, 1e-8};
// A large eps: with a small one the first update is nearly the gradient's sign, and where that
// gradient is all rounding, fp32 has another.
constexpr Tolerance kSingle{DType::kFloat32, 1e-4, 1e-2};

struct Start {
  reference::Parameters parameters, biases;
  reference::Batch batch;
};

Start start_of(const Model& model, std::int64_t tokens) {
  Start start{reference::random_parameters(model, 31),
              {},
              reference::random_batch(model, kSequences, tokens, 32)};
  if (model.router_bias) start.biases = reference::random_biases(model, 33);
  return start;
}

Plan plan_of(const Model& model, const Case& c, DType dtype) {
  Plan plan = make_plan(model, c.layout, c.chunks, c.policy, dtype, c.tokens, kSequences);
  plan.workload.z_loss = kZLoss;
  plan.workload.bias_speed = model.router_bias ? kBiasSpeed : 0;
  seal(plan);
  return plan;
}

RunOptions options_of(const Start& start, const Tolerance& tolerance, std::int32_t steps) {
  RunOptions options;
  options.steps = steps;
  options.optimizer.lr = 0.02;
  options.optimizer.weight_decay = 0.3;
  options.optimizer.eps = tolerance.eps;
  options.optimizer.clip_norm = 0.05;
  options.parameters = start.parameters;
  options.biases = start.biases;
  return options;
}

Run run_plan(const Plan& plan, const reference::Batch& batch, const RunOptions& options) {
  const Program program = lower(plan);
  const auto findings = verify(program);
  CHECK(findings.empty(), findings[0].rule + ": " + findings[0].message);
  auto run = run_in_process(plan, program, batch, options);
  CHECK(run.ok(), run.error().text());
  return std::move(run).value();
}

reference::Options reference_options(const reference::Parameters& biases) {
  reference::Options options;
  options.balance = true;
  options.z_loss = kZLoss;
  options.biases = biases;
  return options;
}

void expect_step(const engine::StepResult& got, const reference::Output& expected,
                 double tolerance) {
  EXPECT_NEAR(got.loss, expected.loss, tolerance * expected.loss);
  EXPECT_NEAR(got.balance_loss, expected.balance_loss, tolerance * expected.balance_loss);
  EXPECT_NEAR(got.z_loss, expected.z_loss, tolerance * expected.z_loss);
  EXPECT_NEAR(got.grad_norm, expected.grad_norm, tolerance * expected.grad_norm);
  EXPECT_GT(expected.balance_loss, 1e-3);
  EXPECT_GT(expected.z_loss, 1e-3);
}

// One step: everything that a forward and a backward make.
void check_step(const Model& model, const Case& c, const Tolerance& tolerance) {
  const Start start = start_of(model, c.tokens);
  const Run run =
      run_plan(plan_of(model, c, tolerance.dtype), start.batch, options_of(start, tolerance, 1));
  const auto expected =
      reference::run(model, start.parameters, start.batch, reference_options(start.biases));
  const double rounding = tolerance.dtype == DType::kFloat64 ? 0 : 1e-6;
  EXPECT_LE(worst_difference(run.initial, start.parameters), rounding);
  expect_step(run.steps[0], expected, tolerance.value);
  EXPECT_LE(reference::worst_difference(run.logits, expected.logits), tolerance.value);
  EXPECT_LE(worst_difference(run.gradients, expected.grads), tolerance.value);
  EXPECT_EQ(run.routing, expected.routing);
}

// Steps: clipping in force, decay, and biases that move; the last step's gradients are those of
// weights and biases that the steps before have made.
void check_steps(const Model& model, const Case& c, const Tolerance& tolerance) {
  Start start = start_of(model, c.tokens);
  const RunOptions options = options_of(start, tolerance, kSteps);
  const Run run = run_plan(plan_of(model, c, tolerance.dtype), start.batch, options);
  reference::Parameters parameters = start.parameters, biases = start.biases;
  reference::AdamState state;
  for (std::int32_t step = 0; step < kSteps; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const auto expected = reference::run(model, parameters, start.batch, reference_options(biases));
    expect_step(run.steps[static_cast<std::size_t>(step)], expected, tolerance.value);
    EXPECT_GT(expected.grad_norm, 2 * options.optimizer.clip_norm) << "nothing to clip";
    if (step + 1 == kSteps) {
      EXPECT_LE(worst_difference(run.gradients, expected.grads), 10 * tolerance.value);
      EXPECT_EQ(run.routing, expected.routing);
    }
    reference::adamw(parameters, state, expected.grads, options.optimizer, expected.grad_norm,
                     step + 1);
    if (model.router_bias) reference::update_biases(model, expected.routing, kBiasSpeed, biases);
  }
  EXPECT_LE(worst_difference(run.updated, parameters), 10 * tolerance.value);
  EXPECT_GT(worst_difference(start.parameters, parameters), 1e-2);
  if (!model.router_bias) return;
  ASSERT_EQ(run.biases.size(), biases.size());
  EXPECT_GT(worst_difference(start.biases, biases), 0.04) << "biases do not move";
  std::size_t layer = 0;
  for (const auto& [name, bias] : biases) {
    EXPECT_LE(reference::worst_difference(run.biases[layer++], bias), tolerance.value) << name;
  }
}

class ReferenceRouting : public testing::TestWithParam<Case> {};

TEST_P(ReferenceRouting, DotsFloat64) {
  check_step(reference::tiny_dots(), GetParam(), kDouble);
  check_steps(reference::tiny_dots(), GetParam(), kDouble);
}
TEST_P(ReferenceRouting, DotsFloat32) {
  check_step(reference::tiny_dots(), GetParam(), kSingle);
  check_steps(reference::tiny_dots(), GetParam(), kSingle);
}
TEST_P(ReferenceRouting, QwenMoeFloat64) {
  Model model = reference::tiny_moe();
  model.experts = 8;  // four parts of the local ones
  check_step(model, GetParam(), kDouble);
  check_steps(model, GetParam(), kDouble);
}
TEST_P(ReferenceRouting, QwenMoeFloat32) {
  Model model = reference::tiny_moe();
  model.experts = 8;
  check_step(model, GetParam(), kSingle);
  check_steps(model, GetParam(), kSingle);
}

INSTANTIATE_TEST_SUITE_P(Plans, ReferenceRouting, testing::ValuesIn(cases()),
                         [](const testing::TestParamInfo<Case>& test) {
                           std::string name = test.param.name;
                           std::replace_if(
                               name.begin(), name.end(),
                               [](char c) {
                                 return std::isalnum(static_cast<unsigned char>(c)) == 0;
                               },
                               '_');
                           return name;
                         });

// The engine with the weights of transformers' models, on one rank and on two that share sequences
// and experts. The tolerance is that of the reference: the fixtures hold 14 digits.
void check_fixture(const reference::Fixture& f, const Layout& layout) {
  Model model = f.model;
  model.balance_coefficient = 0;
  Plan plan = make_plan(model, layout, {}, {}, DType::kFloat64, f.batch.tokens, f.batch.sequences);
  plan.workload.bias_speed = kBiasSpeed;
  seal(plan);
  RunOptions options;
  options.parameters = f.parameters;
  options.biases = f.biases;
  const Run run = run_plan(plan, f.batch, options);
  EXPECT_NEAR(run.steps[0].loss, f.loss, 1e-12);
  EXPECT_LE(reference::worst_difference(run.logits, f.logits), 1e-11);
  ASSERT_EQ(run.gradients.size(), f.gradients.size());
  for (const auto& [name, grad] : f.gradients) {
    EXPECT_LE(reference::worst_difference(run.gradients.at(name), grad), 1e-11) << name;
  }
  ASSERT_EQ(run.routing.size(), f.routing.size());
  for (std::size_t layer = 0; layer < f.routing.size(); ++layer) {
    EXPECT_EQ(reference::sorted_rows(run.routing[layer], model.top_k), f.routing[layer]) << layer;
  }
}

TEST(FixtureParity, EngineEqualsTransformersOnDots1) {
  const auto fixtures = reference::dots1_fixtures();
  ASSERT_TRUE(fixtures.ok()) << fixtures.error().text();
  ASSERT_EQ(fixtures.value().size(), 2U);
  Layout shared = layout_of(1, 2, 2, 1, 2);
  shared.sp = 2;
  for (const reference::Fixture& f : fixtures.value()) {
    SCOPED_TRACE(f.name);
    check_fixture(f, layout_of(1, 1, 1, 1, 2));
    check_fixture(f, layout_of(1, 2, 2, 1, 1));
    check_fixture(f, shared);
  }
}

}  // namespace
}  // namespace orrery::parity
