// What the interpreter promises beside numbers: seeds are added and not written, absent gradients
// are zero, frozen parameters are skipped, parameters are resolved when needed, recomputation
// replays the routing, and failures are errors.
#include <ATen/Parallel.h>
#include <ATen/ops/add.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/torch/compat.h"
#include "tests/engine/primitives_reference.h"

namespace orrery::engine {
namespace {

std::vector<at::Tensor> outputs_of(const Case& c) {
  const auto inputs = input_tensors(c), params = param_tensors(c);
  return run_forward(c.block, {inputs, resolver(c.block, params), &c.context}).value();
}

TEST(Interpreter, SeedsAreAddedAndNotWritten) {
  for (const std::string name : {"add", "attention_block", "random_block", "merge_block"}) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      const Case c = make_case(name, DType::kFloat64, seed);
      const auto grads = random_grads(c.block, outputs_of(c), seed);
      std::vector<at::Tensor> seeds, before;
      for (std::size_t i = 0; i < c.inputs.size(); ++i) {
        const bool real = has_grad(c.block.values[static_cast<std::size_t>(c.block.inputs[i])]);
        seeds.push_back(real ? to_tensor(c.inputs[i], DType::kFloat64) : at::Tensor());
        before.push_back(real ? seeds.back().clone() : at::Tensor());
      }
      const auto grads_before = grads[0].clone();
      const BackwardResult without = run_both(c, grads), with = run_both(c, grads, seeds);
      for (std::size_t i = 0; i < seeds.size(); ++i) {
        if (!seeds[i].defined()) continue;
        EXPECT_TRUE(at::equal(seeds[i], before[i]));
        EXPECT_TRUE(at::allclose(with.grads[i], without.grads[i].add(seeds[i]), 1e-12, 1e-12));
      }
      EXPECT_TRUE(at::equal(grads[0], grads_before));
    }
  }
}

TEST(Interpreter, AbsentGradientsAreZero) {
  const Case c = make_case("router_block", DType::kFloat64, 4);
  auto grads = random_grads(c.block, outputs_of(c), 1);
  auto zero = grads;
  zero[0] = at::zeros(grads[0].sizes(), grads[0].options());
  grads[0].reset();
  const BackwardResult absent = run_both(c, grads), given = run_both(c, zero);
  EXPECT_TRUE(at::allclose(absent.grads[0], given.grads[0], 1e-13, 1e-13));
  // Nothing reaches a block without a loss: its inputs' gradients are zeros, not missing.
  const Case linear = make_case("linear", DType::kFloat64, 4);
  const BackwardResult none = run_both(linear, {at::Tensor()});
  EXPECT_EQ(none.grads[0].abs().sum().item<double>(), 0);
  EXPECT_EQ(none.param_grads[0].abs().sum().item<double>(), 0);
}

TEST(Interpreter, LossIsARootWhoseGradientIsOne) {
  for (const std::string name : {"head_block", "balance_loss", "cross_entropy", "z_loss"}) {
    const Case c = make_case(name, DType::kFloat64, 6);
    const auto outputs = outputs_of(c);
    const BackwardResult implicit = run_both(c, {at::Tensor()});
    const BackwardResult one = run_both(c, {at::ones_like(outputs[0])});
    EXPECT_TRUE(at::equal(implicit.grads[0], one.grads[0]));
  }
}

TEST(Interpreter, WeightGradientsAccumulateAndFrozenOnesAreSkipped) {
  const Case c = make_case("mlp_block", DType::kFloat64, 2);
  const auto inputs = input_tensors(c), params = param_tensors(c);
  const auto buffers = grad_buffers(c.block);
  const auto grads = random_grads(c.block, outputs_of(c), 1);
  const BackwardResult once = run_both(c, grads);
  const std::int32_t frozen = 1;
  for (int round = 0; round < 2; ++round) {
    Tape tape;
    const auto outputs =
        run_forward(c.block, {inputs, resolver(c.block, params), &c.context, &tape}).value();
    const ParamResolver sink = [&](std::int32_t p) {
      return p == frozen ? at::Tensor() : buffers[static_cast<std::size_t>(p)];
    };
    ASSERT_TRUE(run_backward(c.block, {std::move(tape),
                                       inputs,
                                       outputs,
                                       grads,
                                       {},
                                       resolver(c.block, params),
                                       sink,
                                       &c.context})
                    .ok());
  }
  for (std::size_t p = 0; p < buffers.size(); ++p) {
    const double factor = static_cast<std::int32_t>(p) == frozen ? 0 : 2;
    EXPECT_TRUE(at::allclose(buffers[p], once.param_grads[p].mul(factor), 1e-12, 1e-12)) << p;
  }
}

TEST(Interpreter, EmbeddingBackwardNeedsNoParameter) {
  const Case c = make_case("embedding", DType::kFloat64, 1);
  const auto inputs = input_tensors(c);
  const auto buffers = grad_buffers(c.block);
  const auto grads = random_grads(c.block, outputs_of(c), 1);
  const ParamResolver none = [](std::int32_t) -> at::Tensor {
    ADD_FAILURE() << "the parameter was asked for";
    return {};
  };
  ASSERT_TRUE(
      run_backward(c.block,
                   {{}, inputs, {}, grads, {}, none, resolver(c.block, buffers), &c.context})
          .ok());
}

TEST(Interpreter, TiesGoToTheLowerExpert) {
  Case c = make_case("top_k", DType::kFloat64, 3);
  for (double& x : c.inputs[0].data) x = std::round(x);  // many equal logits
  const auto want = reference_forward(c.block, c.context, c.inputs, c.params);
  EXPECT_EQ(to_matrix(outputs_of(c)[2], want[2].cols).data, want[2].data);
}

TEST(Interpreter, InputOfSeveralDimensionsIsTakenAsRows) {
  const Case c = make_case("linear", DType::kFloat64, 3);
  const auto params = param_tensors(c);
  const at::Tensor x = input_tensors(c)[0];
  const auto got =
      run_forward(c.block,
                  {{x.view({1, x.size(0), x.size(1)})}, resolver(c.block, params), &c.context})
          .value();
  EXPECT_TRUE(at::equal(got[0], outputs_of(c)[0]));
}

TEST(Interpreter, FailuresOfTheLibraryAreErrors) {
  Case c = make_case("cross_entropy", DType::kFloat32, 3);
  for (double& label : c.inputs[1].data) label = 1000;  // beyond the vocabulary
  const auto inputs = input_tensors(c), params = param_tensors(c);
  const auto got = run_forward(c.block, {inputs, resolver(c.block, params), &c.context});
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, ErrorCode::kRun);
}

}  // namespace
}  // namespace orrery::engine
