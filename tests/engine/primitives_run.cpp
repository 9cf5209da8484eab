// Tensors of a case, and running it.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <random>

#include "engine/torch/compat.h"
#include "tests/engine/primitives_reference.h"

namespace orrery::engine {

at::Tensor to_tensor(const Matrix& m, DType dtype) {
  std::vector<double> copy = m.data;
  const at::Tensor host = at::from_blob(copy.data(), {m.rows, m.cols}, at::kDouble);
  at::Tensor out = at::empty({m.rows, m.cols}, at::TensorOptions().dtype(scalar_type(dtype)));
  return out.copy_(host);
}

Matrix to_matrix(const at::Tensor& tensor, std::int64_t cols) {
  const at::Tensor wide = tensor.to(at::kDouble).contiguous();
  Matrix m(wide.numel() / cols, cols);
  const double* data = wide.data_ptr<double>();
  m.data.assign(data, data + wide.numel());
  return m;
}

std::vector<at::Tensor> input_tensors(const Case& c) {
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const Value& value = c.block.values[static_cast<std::size_t>(c.block.inputs[i])];
    out.push_back(to_tensor(c.inputs[i], value.dtype));
  }
  return out;
}

// Parameters have the dtype of the block's first real value.
std::vector<at::Tensor> param_tensors(const Case& c) {
  DType dtype = DType::kInt64;
  for (const Value& value : c.block.values) {
    if (dtype == DType::kInt64) dtype = value.dtype;
  }
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i < c.params.size(); ++i) {
    out.push_back(to_tensor(c.params[i], dtype).view(c.block.params[i].shape));
  }
  return out;
}

std::vector<at::Tensor> grad_buffers(const Block& block) {
  std::vector<at::Tensor> out;
  for (const BlockParam& param : block.params) {
    out.push_back(at::zeros(param.shape, at::TensorOptions().dtype(scalar_type(param.grad_dtype))));
  }
  return out;
}

ParamResolver resolver(const Block& block, const std::vector<at::Tensor>& tensors) {
  CHECK(tensors.size() == block.params.size(), "one tensor a parameter");
  return [&tensors](std::int32_t param) { return tensors[static_cast<std::size_t>(param)]; };
}

std::vector<at::Tensor> random_grads(const Block& block, const std::vector<at::Tensor>& outputs,
                                     std::uint64_t seed) {
  std::mt19937_64 rng(seed + 99);
  std::normal_distribution<double> normal;
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Value& value = block.values[static_cast<std::size_t>(block.outputs[i])];
    if (!has_grad(value)) {
      out.emplace_back();
      continue;
    }
    Matrix m(outputs[i].size(0), outputs[i].size(1));
    for (double& x : m.data) x = normal(rng);
    out.push_back(to_tensor(m, value.dtype));
  }
  return out;
}

BackwardResult run_both(const Case& c, const std::vector<at::Tensor>& grad_outputs,
                        const std::vector<at::Tensor>& seeds) {
  const std::vector<at::Tensor> inputs = input_tensors(c), params = param_tensors(c);
  BackwardResult result;
  result.param_grads = grad_buffers(c.block);
  Tape tape;
  result.outputs =
      run_forward(c.block, {inputs, resolver(c.block, params), &c.context, &tape}).value();
  result.grads = run_backward(c.block, {std::move(tape), inputs, result.outputs, grad_outputs,
                                        seeds, resolver(c.block, params),
                                        resolver(c.block, result.param_grads), &c.context})
                     .value();
  return result;
}

}  // namespace orrery::engine
