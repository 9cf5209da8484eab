// The engine on one rank against the independent double-precision reference.
#include <gtest/gtest.h>

#include <cmath>

#include "core/program/lower.h"
#include "tests/parity/cases.h"
#include "tests/parity/harness.h"

namespace orrery::parity {
namespace {

constexpr std::int64_t kSequences = 3, kTokens = 10;

struct Tolerance {
  DType dtype;
  double loss, gradient;
};

void check(const Model& model, BalanceScope scope, Tolerance tolerance, std::uint64_t seed) {
  Layout layout;
  layout.micro_batch = scope == BalanceScope::kSequence ? 3 : 1;
  const Plan plan =
      make_plan(model, layout, {4, 3, 1}, {}, tolerance.dtype, kTokens, kSequences, scope);
  const auto batch = reference::random_batch(model, kSequences, kTokens, seed);
  RunOptions options;
  options.optimizer.clip_norm = 1e9;
  options.seed = seed;
  auto result = run_in_process(plan, lower(plan), batch, options);
  ASSERT_TRUE(result.ok()) << result.error().text();
  const Run run = std::move(result).value();

  reference::Options reference_options;
  reference_options.balance = model.balance_coefficient > 0 && model.is_moe();
  reference_options.scope = scope;
  if (scope == BalanceScope::kMicrobatchGlobal) {
    reference_options.micro_batch_of_sequence = {0, 1, 2};
  }
  const reference::Output expected = reference::run(model, run.initial, batch, reference_options);
  EXPECT_NEAR(run.steps[0].loss, expected.loss, tolerance.loss * expected.loss);
  EXPECT_NEAR(run.steps[0].balance_loss, expected.balance_loss,
              tolerance.loss * std::max(1e-6, expected.balance_loss));
  EXPECT_NEAR(run.steps[0].grad_norm, expected.grad_norm, tolerance.gradient * expected.grad_norm);
  EXPECT_LE(worst_difference(run.gradients, expected.grads), tolerance.gradient);
  ASSERT_EQ(run.logits.size(), expected.logits.size());
  double worst = 0, scale = 0;
  for (std::size_t i = 0; i < run.logits.size(); ++i) {
    worst = std::max(worst, std::abs(run.logits[i] - expected.logits[i]));
    scale = std::max(scale, std::abs(expected.logits[i]));
  }
  EXPECT_LE(worst, tolerance.gradient * scale);
  EXPECT_EQ(run.routing, expected.routing);

  reference::Parameters updated = run.initial;
  reference::AdamState state;
  reference::adamw(updated, state, expected.grads, options.optimizer, expected.grad_norm, 1);
  EXPECT_LE(worst_difference(run.updated, updated), 20 * tolerance.gradient);
}

constexpr Tolerance kDouble{DType::kFloat64, 1e-9, 1e-9};
constexpr Tolerance kSingle{DType::kFloat32, 1e-5, 1e-4};

TEST(ReferenceParity, DenseFloat64) {
  check(reference::tiny_dense(), BalanceScope::kSequence, kDouble, 3);
}
TEST(ReferenceParity, DenseTiedFloat64) {
  Model model = reference::tiny_dense();
  model.tied_head = !model.tied_head;
  check(model, BalanceScope::kSequence, kDouble, 4);
}
TEST(ReferenceParity, DenseFloat32) {
  check(reference::tiny_dense(), BalanceScope::kSequence, kSingle, 3);
}
TEST(ReferenceParity, MoeFloat64) {
  check(reference::tiny_moe(), BalanceScope::kSequence, kDouble, 5);
}
TEST(ReferenceParity, MoeWithADenseLayerFloat64) {
  check(reference::tiny_moe(true), BalanceScope::kSequence, kDouble, 6);
}
TEST(ReferenceParity, MoeGlobalBalanceFloat64) {
  check(reference::tiny_moe(), BalanceScope::kMicrobatchGlobal, kDouble, 7);
}
TEST(ReferenceParity, MoeFloat32) {
  check(reference::tiny_moe(), BalanceScope::kSequence, kSingle, 5);
}

// Several steps: moments and their corrections, decay of all but norms, clipping in force. The
// shards' borders fall inside parameters, whose ranks must agree on what they are.
void check_optimizer(const Model& model, const Layout& layout) {
  constexpr std::int32_t kSteps = 3;
  const Plan plan = make_plan(model, layout, {}, {}, DType::kFloat64, kTokens, 4);
  const auto batch = reference::random_batch(model, 4, kTokens, 9);
  RunOptions options;
  options.steps = kSteps;
  options.optimizer.lr = 0.02;
  options.optimizer.weight_decay = 0.3;
  options.optimizer.clip_norm = 0.05;
  auto result = run_in_process(plan, lower(plan), batch, options);
  ASSERT_TRUE(result.ok()) << result.error().text();
  const Run run = std::move(result).value();

  reference::Options reference_options;
  reference_options.balance = model.is_moe();
  reference::Parameters parameters = run.initial;
  reference::AdamState state;
  for (std::int32_t step = 0; step < kSteps; ++step) {
    const auto expected = reference::run(model, parameters, batch, reference_options);
    const auto& got = run.steps[static_cast<std::size_t>(step)];
    EXPECT_NEAR(got.loss, expected.loss, 1e-9 * expected.loss) << "step " << step;
    EXPECT_NEAR(got.grad_norm, expected.grad_norm, 1e-9 * expected.grad_norm) << "step " << step;
    EXPECT_GT(expected.grad_norm, 2 * options.optimizer.clip_norm) << "nothing to clip";
    reference::adamw(parameters, state, expected.grads, options.optimizer, expected.grad_norm,
                     step + 1);
  }
  EXPECT_LE(worst_difference(run.updated, parameters), 1e-8);
  EXPECT_GT(worst_difference(run.initial, parameters), 1e-2);
}

TEST(Optimizer, DenseOnOneRank) {
  check_optimizer(reference::tiny_dense(), {});
}
TEST(Optimizer, MoeOnOneRank) {
  check_optimizer(reference::tiny_moe(), {});
}
TEST(Optimizer, MoeOnFourRanks) {
  Layout layout;
  layout.replicate_d = layout.fsdp_d = layout.ep = layout.fsdp_e = 2;
  check_optimizer(reference::tiny_moe(), layout);
}

}  // namespace
}  // namespace orrery::parity
