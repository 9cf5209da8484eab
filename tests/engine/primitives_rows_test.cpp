// What the rules of routing and of moving rows promise beside their derivatives: nothing local,
// sums of bf16 in fp32, choices below zero, ranks with nothing but padding.
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/torch/compat.h"
#include "tests/engine/primitives_reference.h"

namespace orrery::engine {
namespace {

std::vector<at::Tensor> outputs_of(const Case& c) {
  const auto inputs = input_tensors(c), params = param_tensors(c);
  return run_forward(c.block, {inputs, resolver(c.block, params), &c.context}).value();
}

// The ids of every expert that is chosen in a case of kTopK, held against the loops.
void expect_same_ids(const Case& c) {
  const auto want = reference_forward(c.block, c.context, c.inputs, c.params);
  EXPECT_EQ(to_matrix(outputs_of(c)[2], want[2].cols).data, want[2].data);
}

// A bias moves every choice below minus one: neither what was taken before nor what is outside the
// best groups may come before the rest.
TEST(Routing, ChoicesBelowZeroStayChoices) {
  for (const std::string name : {"top_k_sigmoid", "top_k_groups"}) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      Case c = make_case(name, DType::kFloat64, seed);
      for (double& x : c.inputs[1].data) x -= 5;
      expect_same_ids(c);
    }
  }
}

// Many equal logits: of equal choices, and of equal groups, the first.
TEST(Routing, TiesGoToTheLowerGroupAndExpert) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    Case c = make_case("top_k_groups", DType::kFloat64, seed);
    for (double& x : c.inputs[0].data) x = std::round(x);
    for (double& x : c.inputs[1].data) x = std::round(x);
    expect_same_ids(c);
  }
}

// Beyond the valid tokens there is only padding: chosen and weighed like any, but no statistic.
TEST(Routing, ARankOfPaddingCountsNothing) {
  Case c = make_case("top_k_groups", DType::kFloat64, 1);
  c.block.prims[0].valid_tokens = 3;
  c.context.first_position = 3;
  const auto outputs = outputs_of(c);
  EXPECT_GT(outputs[0].abs().min().item<double>(), 0);
  EXPECT_EQ(outputs[1].abs().max().item<double>(), 0);
  EXPECT_EQ(outputs[3].abs().max().item<double>(), 0);
  Case z = make_case("z_loss_padded", DType::kFloat64, 1);
  z.block.prims[0].valid_tokens = 3;
  z.context.first_position = 3;
  EXPECT_EQ(outputs_of(z)[0].item<double>(), 0);
  EXPECT_EQ(run_both(z, {at::Tensor()}).grads[0].abs().max().item<double>(), 0);
}

// The z-loss of a router is a root beside outputs with gradients, given or absent.
TEST(Routing, ZLossIsARootAmongOutputs) {
  const Case c = make_case("router_v3_block", DType::kFloat64, 4);
  const auto outputs = outputs_of(c);
  auto grads = random_grads(c.block, outputs, 1);
  grads.back() = at::ones_like(outputs.back());
  const BackwardResult given = run_both(c, grads);
  grads.back().reset();
  const BackwardResult root = run_both(c, grads);
  EXPECT_TRUE(at::equal(root.grads[0], given.grads[0]));
  const BackwardResult alone = run_both(c, std::vector<at::Tensor>(grads.size()));
  EXPECT_GT(alone.grads[0].abs().max().item<double>(), 0);
  EXPECT_FALSE(at::equal(alone.grads[0], root.grads[0]));
}

// No slot is local: no rows, sums of zero, gradients of zero.
TEST(SelectedRows, MayBeNone) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Case c = make_case("gathered_experts_block", dtype, 3);
    std::fill(c.inputs.back().data.begin(), c.inputs.back().data.end(), 1000.0);  // the ids
    std::fill(c.context.expert_rows.begin(), c.context.expert_rows.end(), 0);
    const auto outputs = outputs_of(c);
    EXPECT_EQ(outputs[0].abs().max().item<double>(), 0);
    const BackwardResult got = run_both(c, {at::ones_like(outputs[0])});
    for (const at::Tensor& grad : {got.grads[0], got.grads[1], got.param_grads[0]}) {
      EXPECT_EQ(grad.abs().max().item<double>(), 0);
    }
    Case select = make_case("select_block", dtype, 3);
    std::fill(select.inputs.back().data.begin(), select.inputs.back().data.end(), 1000.0);
    std::fill(select.context.expert_rows.begin(), select.context.expert_rows.end(), 0);
    const auto none = outputs_of(select);
    EXPECT_EQ(none[0].size(0), 0);
    EXPECT_EQ(none[1].size(0), 0);
    const BackwardResult back = run_both(select, {none[0], at::Tensor()});
    EXPECT_EQ(back.grads[0].abs().max().item<double>(), 0);
  }
}

// The rows that the context promises are the rows that are found.
TEST(SelectedRows, AreCheckedAgainstTheirCount) {
  Case c = make_case("select_sort", DType::kFloat32, 2);
  ++c.context.expert_rows[0];
  EXPECT_DEATH(outputs_of(c), "local slots");
}

// Numbers of eight bits whose sums and products are exact in fp32, so that the one rounding to bf16
// is that of the exact sum.
void make_exact(Case& c) {
  std::mt19937_64 rng(7);
  std::uniform_int_distribution<int> numerator(-255, 255);
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    if (c.block.values[static_cast<std::size_t>(c.block.inputs[i])].dtype == DType::kInt64) {
      continue;
    }
    for (double& x : c.inputs[i].data) x = numerator(rng) / 64.0;
  }
}

at::Tensor exact_gradient(const at::Tensor& like) {
  std::mt19937_64 rng(8);
  std::uniform_int_distribution<int> numerator(-255, 255);
  Matrix m(like.size(0), like.size(1));
  for (double& x : m.data) x = numerator(rng) / 64.0;
  return to_tensor(m, DType::kBFloat16);
}

TEST(RowSums, OfBFloat16AreRoundedOnce) {
  for (const std::string name : {"select_rows", "spread_rows", "permute", "pack_heads_shared"}) {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      Case low = make_case(name, DType::kBFloat16, seed);
      Case high = make_case(name, DType::kFloat64, seed);
      make_exact(low);
      make_exact(high);
      const at::Tensor dy = exact_gradient(outputs_of(low)[0]);
      const BackwardResult got = run_both(low, {dy}), want = run_both(high, {dy.to(at::kDouble)});
      EXPECT_TRUE(at::equal(got.outputs[0], want.outputs[0].to(at::kBFloat16))) << name << seed;
      for (std::size_t i = 0; i < got.grads.size(); ++i) {
        if (!got.grads[i].defined()) continue;
        EXPECT_TRUE(at::equal(got.grads[i], want.grads[i].to(at::kBFloat16))) << name << seed;
      }
    }
  }
}

// A rank's rows have the positions that they have in whole sequences.
TEST(Rope, OfAPartIsThatPartOfTheWhole) {
  Case part = make_case("rope_local", DType::kFloat64, 5);
  const std::int64_t rows = part.block.prims[0].sequence_tokens, ranks = 3;
  const std::int64_t sequences = part.inputs[0].rows / rows, cols = part.inputs[0].cols;
  Block whole;
  whole.name = "whole";
  const ValueId x =
      whole.add("x", SizeExpr::constant(sequences * rows * ranks), cols, DType::kFloat64);
  const ValueId y = whole.add("y", whole.values[0].rows, cols, DType::kFloat64);
  Prim prim = part.block.prims[0];
  prim.in = {x};
  prim.out = {y};
  prim.sequence_tokens = 0;
  whole.inputs = {x};
  whole.outputs = {y};
  whole.prims = {prim};
  whole.finish();
  const at::Tensor input =
      at::ones({sequences * ranks * rows, cols}, at::TensorOptions().dtype(at::kDouble));
  const at::Tensor want = run_forward(whole, {{input}, {}, &part.context}).value()[0];
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    part.context.first_position = rank * rows;
    const at::Tensor got =
        run_forward(part.block, {{input.narrow(0, 0, sequences * rows)}, {}, &part.context})
            .value()[0];
    const at::Tensor own = want.view({sequences, ranks, rows, cols}).select(1, rank);
    EXPECT_TRUE(at::equal(got.view({sequences, rows, cols}), own)) << rank;
  }
}

}  // namespace
}  // namespace orrery::engine
