// Every primitive and the blocks of a layer: forward against plain loops, backward against central
// differences of the forward, in fp64; fp32 and bf16 against fp64.
#include <ATen/Parallel.h>
#include <ATen/ops/item.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "engine/torch/compat.h"
#include "tests/engine/primitives_reference.h"

namespace orrery::engine {
namespace {

constexpr std::uint64_t kSeeds = 12;

class Primitives : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

std::vector<at::Tensor> forward(const Case& c, const std::vector<at::Tensor>& inputs,
                                const std::vector<at::Tensor>& params) {
  return run_forward(c.block, {inputs, resolver(c.block, params), &c.context}).value();
}

// Largest difference over the larger of one and the largest magnitude.
double distance(const Matrix& a, const Matrix& b) {
  EXPECT_EQ(a.data.size(), b.data.size());
  double most = 1, difference = 0;
  for (std::size_t i = 0; i < a.data.size(); ++i) {
    most = std::max(most, std::abs(a.data[i]));
    difference = std::max(difference, std::abs(a.data[i] - b.data[i]));
    if (std::isnan(a.data[i]) != std::isnan(b.data[i])) return 1e9;
  }
  return difference / most;
}

void expect_near(const at::Tensor& got, const Matrix& want, double tolerance,
                 const std::string& what) {
  EXPECT_LE(distance(to_matrix(got, want.cols), want), tolerance) << what;
}

TEST_P(Primitives, ForwardEqualsPlainLoops) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Case c = make_case(GetParam(), DType::kFloat64, seed);
    const auto want = reference_forward(c.block, c.context, c.inputs, c.params);
    const auto got = forward(c, input_tensors(c), param_tensors(c));
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      expect_near(got[i], want[i], 1e-11, "output " + std::to_string(i));
    }
  }
}

// Sum over the outputs of <gradient, output>; a loss counts with its gradient as well.
double objective(const Case& c, const std::vector<at::Tensor>& inputs,
                 const std::vector<at::Tensor>& params, const std::vector<at::Tensor>& grads) {
  const auto outputs = forward(c, inputs, params);
  double total = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (grads[i].defined()) total += outputs[i].mul(grads[i]).sum().item<double>();
  }
  return total;
}

// The derivative of the objective by each element of `x`, which `inputs` or `params` hold.
Matrix central_differences(const at::Tensor& x, std::int64_t cols,
                           const std::function<double()>& value) {
  constexpr double kStep = 1e-5;
  Matrix out(x.numel() / cols, cols);
  double* data = x.data_ptr<double>();
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double before = data[i];
    data[i] = before + kStep;
    const double high = value();
    data[i] = before - kStep;
    const double low = value();
    data[i] = before;
    out.data[static_cast<std::size_t>(i)] = (high - low) / (2 * kStep);
  }
  return out;
}

TEST_P(Primitives, BackwardEqualsCentralDifferences) {
  std::int64_t checked = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Case c = make_case(GetParam(), DType::kFloat64, seed);
    const auto inputs = input_tensors(c), params = param_tensors(c);
    const auto grads = random_grads(c.block, forward(c, inputs, params), seed);
    const BackwardResult got = run_both(c, grads);
    const auto value = [&] { return objective(c, inputs, params, grads); };
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Value& v = c.block.values[static_cast<std::size_t>(c.block.inputs[i])];
      ASSERT_EQ(got.grads[i].defined(), has_grad(v)) << v.name;
      if (!has_grad(v)) continue;
      expect_near(got.grads[i], central_differences(inputs[i], v.cols, value), 1e-7, v.name);
      ++checked;
    }
    for (std::size_t i = 0; i < params.size(); ++i) {
      const std::int64_t cols = c.block.params[i].shape.back();
      expect_near(got.param_grads[i], central_differences(params[i], cols, value), 1e-7,
                  c.block.params[i].name);
      ++checked;
    }
  }
  const bool integers = GetParam().find("sort") != std::string::npos;
  EXPECT_EQ(checked == 0, integers);
}

// Where a body goes slice by slice: forward as above; backward along one random direction, since
// there are too many elements for one difference each.
class Sliced : public testing::TestWithParam<std::string> {};

at::Tensor direction_of(const at::Tensor& x, std::int64_t cols, std::uint64_t seed) {
  Matrix m(x.numel() / cols, cols);
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> normal;
  for (double& v : m.data) v = normal(rng);
  return to_tensor(m, DType::kFloat64).view(x.sizes());
}

void expect_directional(const at::Tensor& x, const at::Tensor& grad, std::int64_t cols,
                        const std::function<double()>& value) {
  constexpr double kStep = 1e-5;
  const at::Tensor direction = direction_of(x, cols, 11);
  const at::Tensor before = x.clone();
  x.add_(direction, kStep);
  const double high = value();
  x.copy_(before).sub_(direction, kStep);
  const double low = value();
  x.copy_(before);
  const double want = (high - low) / (2 * kStep);
  const double got = grad.view(x.sizes()).mul(direction).sum().item<double>();
  EXPECT_NEAR(got, want, 1e-6 * std::max(1.0, std::abs(want)));
}

TEST_P(Sliced, IsTheSameFunction) {
  const Case c = make_wide_case(GetParam(), DType::kFloat64);
  const auto inputs = input_tensors(c), params = param_tensors(c);
  const auto want = reference_forward(c.block, c.context, c.inputs, c.params);
  const auto outputs = forward(c, inputs, params);
  expect_near(outputs[0], want[0], 1e-11, "output");
  const auto grads = random_grads(c.block, outputs, 3);
  const BackwardResult got = run_both(c, grads);
  const auto value = [&] { return objective(c, inputs, params, grads); };
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (got.grads[i].defined()) {
      expect_directional(inputs[i], got.grads[i], inputs[i].size(1), value);
    }
  }
  for (std::size_t i = 0; i < params.size(); ++i) {
    expect_directional(params[i], got.param_grads[i], c.block.params[i].shape.back(), value);
  }
}

// The case in another dtype, with numbers that this dtype holds exactly.
std::pair<Case, Case> rounded(Case low, Case high, DType dtype) {
  for (Case* c : {&low, &high}) {
    for (std::size_t i = 0; i < c->inputs.size(); ++i) {
      const Value& v = low.block.values[static_cast<std::size_t>(low.block.inputs[i])];
      c->inputs[i] = to_matrix(to_tensor(c->inputs[i], v.dtype), c->inputs[i].cols);
    }
    for (Matrix& m : c->params) m = to_matrix(to_tensor(m, dtype), m.cols);
  }
  return {low, high};
}

// Outputs and gradients of a low-precision case against the same case in fp64.
void expect_near_double(const Case& low, const Case& high, std::uint64_t seed, double tolerance) {
  const auto grads =
      random_grads(low.block, forward(low, input_tensors(low), param_tensors(low)), seed);
  std::vector<at::Tensor> wide;
  for (const at::Tensor& g : grads) wide.push_back(g.defined() ? g.to(at::kDouble) : g);
  const BackwardResult got = run_both(low, grads), want = run_both(high, wide);
  for (std::size_t i = 0; i < got.outputs.size(); ++i) {
    const std::int64_t cols = got.outputs[i].size(1);
    expect_near(got.outputs[i], to_matrix(want.outputs[i], cols), tolerance, "output");
  }
  for (std::size_t i = 0; i < got.grads.size(); ++i) {
    if (!got.grads[i].defined()) continue;
    const std::int64_t cols = got.grads[i].size(1);
    expect_near(got.grads[i], to_matrix(want.grads[i], cols), tolerance,
                "gradient of an input " + std::to_string(seed));
  }
  for (std::size_t i = 0; i < got.param_grads.size(); ++i) {
    const std::int64_t cols = low.block.params[i].shape.back();
    expect_near(got.param_grads[i], to_matrix(want.param_grads[i], cols), tolerance,
                "gradient of a parameter " + low.block.params[i].name);
  }
}

class LowPrecision : public testing::TestWithParam<std::tuple<std::string, DType>> {};

TEST_P(LowPrecision, IsNearDouble) {
  const auto& [name, dtype] = GetParam();
  // Eight bits of mantissa, through up to ten primitives in a block.
  const double low_tolerance = name.find("block") == std::string::npos ? 0.06 : 0.2;
  const double tolerance = dtype == DType::kFloat32 ? 2e-5 : low_tolerance;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    // Routing by rounded logits may choose otherwise: another function, not a rounding error.
    if (dtype == DType::kBFloat16 && name.find("router") == 0) continue;
    const auto [low, high] =
        rounded(make_case(name, dtype, seed), make_case(name, DType::kFloat64, seed), dtype);
    expect_near_double(low, high, seed, tolerance);
  }
}
TEST_P(Sliced, IsNearDoubleInBFloat16) {
  const auto [low, high] = rounded(make_wide_case(GetParam(), DType::kBFloat16),
                                   make_wide_case(GetParam(), DType::kFloat64), DType::kBFloat16);
  expect_near_double(low, high, 3, 0.06);
}

std::string name_of_param(const testing::TestParamInfo<std::tuple<std::string, DType>>& info) {
  return std::get<0>(info.param) + "_" + orrery::name_of(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, Primitives, testing::ValuesIn(case_names()),
                         [](const auto& named) { return named.param; });
INSTANTIATE_TEST_SUITE_P(All, Sliced, testing::ValuesIn(wide_case_names()),
                         [](const auto& named) { return named.param; });
INSTANTIATE_TEST_SUITE_P(All, LowPrecision,
                         testing::Combine(testing::ValuesIn(case_names()),
                                          testing::Values(DType::kFloat32, DType::kBFloat16)),
                         name_of_param);

}  // namespace
}  // namespace orrery::engine
