// Blocks as data: what is saved, when memory goes, how gradients join, and bytes counted by hand.
#include "core/program/block.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/program/work.h"

namespace orrery {
namespace {

constexpr std::int64_t kTokens = 8, kHidden = 4;

Block named(const std::string& name) {
  Block b;
  b.name = name;
  return b;
}

SizeExpr tokens() {
  return SizeExpr::constant(kTokens);
}

ValueId input(Block& b, const std::string& name, DType dtype = DType::kFloat32) {
  const ValueId v = b.add(name, tokens(), kHidden, dtype);
  b.inputs.push_back(v);
  return v;
}

ValueId add(Block& b, ValueId x, ValueId y) {
  const ValueId v = b.add("sum", tokens(), kHidden, b.values[0].dtype);
  b.prims.push_back({.kind = PrimKind::kAdd, .in = {x, y}, .out = {v}});
  return v;
}

ValueId linear(Block& b, ValueId x, DType grad = DType::kFloat32) {
  const ValueId v = b.add("y", tokens(), kHidden, b.values[0].dtype);
  const std::int32_t w = b.param("w", {kHidden, kHidden}, grad);
  b.prims.push_back({.kind = PrimKind::kLinear, .in = {x}, .out = {v}, .param = w});
  return v;
}

constexpr std::int64_t kBytes = kTokens * kHidden * 4;

// y = x + linear(linear(x)).
Block residual() {
  Block b = named("residual");
  const ValueId x = input(b, "x");
  b.outputs = {add(b, x, linear(b, linear(b, x)))};
  b.finish();
  return b;
}

TEST(Block, SavedAndReleases) {
  const Block b = residual();
  EXPECT_EQ(b.saved, std::vector<ValueId>{1});  // the inner product's output
  EXPECT_EQ(b.saved_inputs, std::vector<ValueId>{0});
  EXPECT_TRUE(b.saved_outputs.empty());
  ASSERT_EQ(b.forward_only.size(), 3u);
  EXPECT_TRUE(b.forward_only[0].release.empty());
  EXPECT_EQ(b.forward_only[1].release, std::vector<ValueId>{1});
  EXPECT_EQ(b.forward_only[2].release, std::vector<ValueId>{2});
  EXPECT_TRUE(b.forward_tape[1].release.empty());
  EXPECT_EQ(b.forward_tape[2].release, std::vector<ValueId>{2});
}

TEST(Block, ForwardBytesByHand) {
  const Block b = residual();
  const BlockBytes only = forward_bytes(b, false, {}, {});
  EXPECT_EQ(only.outputs, kBytes);
  EXPECT_EQ(only.saved, 0);
  EXPECT_EQ(only.peak, 2 * kBytes);
  const BlockBytes tape = forward_bytes(b, true, {}, {});
  EXPECT_EQ(tape.saved, kBytes);
  EXPECT_EQ(tape.peak, 3 * kBytes);
}

TEST(Block, BackwardPlanAndBytesByHand) {
  const Block b = residual();
  const BackwardPlan plan = plan_backward(b);
  ASSERT_EQ(plan.steps.size(), 3u);
  // The sum hands its gradient to both operands; the input's is the caller's for now.
  EXPECT_EQ(plan.steps[0].joins.size(), 2u);
  EXPECT_EQ(plan.steps[1].release, std::vector<ValueId>{1});
  ASSERT_EQ(plan.steps[2].joins.size(), 1u);
  EXPECT_EQ(plan.steps[2].joins[0].mode, GradJoinMode::kIntoFresh);
  EXPECT_TRUE(plan.copies.empty());
  // Outer product: +1; the tape's value goes: -1; inner product: +1, the outer's goes: -1.
  const BlockBytes bytes = backward_bytes(b, {}, {});
  EXPECT_EQ(bytes.outputs, kBytes);
  EXPECT_EQ(bytes.saved, 0);
  EXPECT_EQ(bytes.peak, kBytes);
}

TEST(Block, GradientsThatAreOthersStorageAreCopied) {
  Block b = named("add");
  const ValueId x = input(b, "x"), y = input(b, "y");
  b.outputs = {add(b, x, y)};
  b.finish();
  EXPECT_EQ(plan_backward(b).copies, (std::vector<ValueId>{x, y}));
  EXPECT_EQ(backward_bytes(b, {}, {}).peak, 2 * kBytes);
  // With a seed the sum is new storage already.
  const BackwardPlan seeded = plan_backward(b, {x});
  EXPECT_EQ(seeded.steps[0].joins[0].mode, GradJoinMode::kOutOfPlace);
  EXPECT_EQ(seeded.copies, std::vector<ValueId>{y});
}

TEST(Block, GradientSharedByTwoInputsIsCopiedOnce) {
  Block b = named("shared");
  const ValueId x = input(b, "x"), y = input(b, "y");
  b.outputs = {linear(b, add(b, x, y))};
  b.finish();
  EXPECT_EQ(plan_backward(b).copies, std::vector<ValueId>{x});
}

TEST(Block, AliasIsAddedIntoAnOwnedGradient) {
  Block b = named("fan_out");
  const ValueId x = input(b, "x");
  const ValueId sum = add(b, x, linear(b, x));  // reads x before the outer product does
  b.outputs = {add(b, sum, linear(b, x))};
  b.finish();
  const BackwardPlan plan = plan_backward(b);
  std::vector<GradJoinMode> of_x;
  for (const BackwardStep& step : plan.steps) {
    for (const GradJoin& join : step.joins) {
      const Prim& prim = b.prims[static_cast<std::size_t>(step.prim)];
      if (prim.in[static_cast<std::size_t>(join.operand)] == x) of_x.push_back(join.mode);
    }
  }
  // outer linear: take; inner sum: alias into it; inner linear: into fresh.
  EXPECT_EQ(of_x, (std::vector<GradJoinMode>{GradJoinMode::kTake, GradJoinMode::kIntoOld,
                                             GradJoinMode::kIntoFresh}));
}

TEST(Block, AbsentGradientsSkipPrimitivesAndLeaveZeros) {
  const Block b = residual();
  const BackwardPlan plan = plan_backward(b, {}, {b.outputs[0]});
  for (const BackwardStep& step : plan.steps) EXPECT_TRUE(step.skip);
  EXPECT_EQ(plan.zeros, std::vector<ValueId>{0});
  EXPECT_EQ(plan.steps[1].release, std::vector<ValueId>{1});  // the tape goes all the same
}

TEST(Block, LossWritesItsGradientOverTheLogits) {
  for (const bool kept : {false, true}) {
    Block b = named("head");
    const ValueId x = input(b, "x");
    const ValueId labels = b.add("labels", tokens(), 1, DType::kInt64);
    b.inputs.push_back(labels);
    const ValueId logits = linear(b, x);
    const ValueId loss = b.add("loss", SizeExpr::constant(1), 1, DType::kFloat32);
    b.prims.push_back({.kind = PrimKind::kCrossEntropy, .in = {logits, labels}, .out = {loss}});
    b.outputs = {loss};
    if (kept) b.outputs.push_back(logits);
    b.finish();
    EXPECT_EQ(plan_backward(b).steps[0].reuse_saved, !kept);
    EXPECT_EQ(b.saved_outputs.size(), kept ? 1u : 0u);
  }
}

TEST(Block, MixedGradientBufferCostsATemporary) {
  Block b = named("mixed");
  const ValueId x = input(b, "x", DType::kBFloat16);
  b.outputs = {linear(b, x, DType::kFloat32)};
  b.finish();
  const std::int64_t grad = kTokens * kHidden * 2, product = kHidden * kHidden * (2 + 4);
  EXPECT_EQ(backward_bytes(b, {}, {}).peak, grad + product);
}

TEST(Block, GradientBuffersCountFromTheirFirstUse) {
  // The gradient of each product's input, and the tape's value gone: see above.
  const Block b = residual();
  EXPECT_EQ(backward_bytes(b, {}, {}, {}, {}, {{0, 100}, {0, 100}}).peak, kBytes + 100);
  EXPECT_EQ(backward_bytes(b, {}, {}, {}, {}, {{0, 100}, {1, 1000}}).peak, kBytes + 1100);
  EXPECT_EQ(backward_bytes(b, {}, {}, {}, {}, {{0, 100}, {1, 1000}}).outputs, kBytes);
  // A loss needs its softmax and labels before any weight's gradient; its log-sum-exp is gone when
  // the product's own gradient, its conversion and the buffer come.
  Block head = named("head");
  const ValueId x = input(head, "x", DType::kBFloat16);
  const ValueId labels = head.add("labels", tokens(), 1, DType::kInt64);
  head.inputs.push_back(labels);
  const ValueId logits = linear(head, x, DType::kFloat32);
  const ValueId loss = head.add("loss", SizeExpr::constant(1), 1, DType::kFloat32);
  head.prims.push_back({.kind = PrimKind::kCrossEntropy, .in = {logits, labels}, .out = {loss}});
  head.outputs = {loss};
  head.finish();
  const std::int64_t softmax = kTokens * (kHidden * 4 + 1 + 8 + 4);
  const std::int64_t product = kTokens * (kHidden * 2 - 4) + kHidden * kHidden * (2 + 4);
  EXPECT_EQ(backward_bytes(head, {}, {}, {}, {}, {{0, 10}}).peak, softmax);
  EXPECT_EQ(backward_bytes(head, {}, {}, {}, {}, {{0, 200}}).peak, product + 200);
}

TEST(Block, WorkOfALinear) {
  const Block b = residual();
  const std::int64_t flops = 2 * kTokens * kHidden * kHidden;
  const auto forward = forward_work(b), backward = backward_work(b);
  ASSERT_EQ(forward.size(), 3u);
  EXPECT_EQ(forward[0].kind, WorkKind::kGemm);
  EXPECT_EQ(forward[0].flops, SizeExpr::constant(flops));
  EXPECT_EQ(forward[2].bytes, SizeExpr::constant(3 * kBytes));
  std::int64_t total = 0;
  for (const Work& w : backward) total += w.flops.c0;
  EXPECT_EQ(total, 4 * flops);  // two products each
}

TEST(Block, WorkOfAttentionFollowsThePairs) {
  Block b = named("attention");
  const SizeExpr rows = SizeExpr::constant(16);
  const ValueId q = b.add("q", rows, 32, DType::kBFloat16);
  const ValueId k = b.add("k", rows, 16, DType::kBFloat16);
  const ValueId v = b.add("v", rows, 16, DType::kBFloat16);
  const ValueId o = b.add("o", rows, 32, DType::kBFloat16);
  b.inputs = {q, k, v};
  b.outputs = {o};
  b.prims.push_back({.kind = PrimKind::kAttention,
                     .in = {q, k, v},
                     .out = {o},
                     .heads = 4,
                     .kv_heads = 2,
                     .head_dim = 8,
                     .sequence_tokens = 16});
  b.finish();
  EXPECT_EQ(b.saved_outputs, std::vector<ValueId>{o});
  const VarBase base{-1, 0};
  const std::vector<std::int64_t> pairs = {16 * 17 / 2};
  EXPECT_EQ(forward_work(b)[0].flops.eval(pairs, base), 4 * 136 * 4 * 8);
  EXPECT_EQ(backward_work(b)[0].flops.eval(pairs, base), 10 * 136 * 4 * 8);
  // Statistics: one number a row and head.
  EXPECT_EQ(forward_bytes(b, true, pairs, base).saved, 16 * 4 * 4);
}

TEST(BlockDeathTest, BrokenBlocksAreBugs) {
  const auto finish = [](auto&& build) {
    Block b = named("broken");
    const ValueId x = input(b, "x");
    build(b, x);
    b.finish();
  };
  EXPECT_EXIT(finish([](Block& b, ValueId x) {
                const ValueId later = b.add("later", tokens(), kHidden, DType::kFloat32);
                add(b, x, later);
              }),
              testing::ExitedWithCode(70), "read before assignment: later");
  EXPECT_EXIT(finish([](Block& b, ValueId x) {
                add(b, x, x);
                b.prims.back().out = {x};
              }),
              testing::ExitedWithCode(70), "assigned twice: x");
  EXPECT_EXIT(finish([](Block& b, ValueId x) {
                linear(b, x);
                b.prims.back().param = -1;
              }),
              testing::ExitedWithCode(70), "parameter missing");
  EXPECT_EXIT(finish([](Block& b, ValueId x) {
                linear(b, x);
                b.params[0].shape = {kHidden, kHidden + 1};
              }),
              testing::ExitedWithCode(70), "broken/linear");
  EXPECT_EXIT(finish([](Block& b, ValueId x) {
                add(b, x, x);
                b.values.back().dtype = DType::kFloat64;
              }),
              testing::ExitedWithCode(70), "another shape or dtype");
  EXPECT_EXIT(finish([](Block& b, ValueId x) { b.outputs = {x}; }), testing::ExitedWithCode(70),
              "an input cannot be an output");
}

}  // namespace
}  // namespace orrery
