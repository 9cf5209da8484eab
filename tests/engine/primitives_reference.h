// An independent statement of what each primitive means: plain loops in double precision over plain
// vectors, written from the definitions. Also cases to feed both it and the engine.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/program/block.h"
#include "engine/torch/interpreter.h"

namespace orrery::engine {

struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> data;
  Matrix() = default;
  Matrix(std::int64_t r, std::int64_t c)
      : rows(r), cols(c), data(static_cast<std::size_t>(r * c), 0.0) {}
  double& at(std::int64_t r, std::int64_t c) {
    return data[static_cast<std::size_t>(r * cols + c)];
  }
  double at(std::int64_t r, std::int64_t c) const {
    return data[static_cast<std::size_t>(r * cols + c)];
  }
};

// The outputs of a whole block.
std::vector<Matrix> reference_forward(const Block& block, const BlockContext& context,
                                      const std::vector<Matrix>& inputs,
                                      const std::vector<Matrix>& params);

// A block with everything it needs to run.
struct Case {
  Block block;
  BlockContext context;
  std::vector<Matrix> inputs;
  std::vector<Matrix> params;
  // The values of the block's route variables, with the base at which they start.
  std::vector<std::int64_t> values;
  VarBase base;
};

at::Tensor to_tensor(const Matrix& m, DType dtype);
Matrix to_matrix(const at::Tensor& tensor, std::int64_t cols);
std::vector<at::Tensor> input_tensors(const Case& c);
std::vector<at::Tensor> param_tensors(const Case& c);
std::vector<at::Tensor> grad_buffers(const Block& block);
ParamResolver resolver(const Block& block, const std::vector<at::Tensor>& tensors);

struct BackwardResult {
  std::vector<at::Tensor> outputs, grads, param_grads;
};
// Forward with a tape, then backward from `grad_outputs` (and `seeds`).
BackwardResult run_both(const Case& c, const std::vector<at::Tensor>& grad_outputs,
                        const std::vector<at::Tensor>& seeds = {});
// A random gradient for every output that carries one, losses left out.
std::vector<at::Tensor> random_grads(const Block& block, const std::vector<at::Tensor>& outputs,
                                     std::uint64_t seed);

// Named cases; `dtype` is the compute dtype and `seed` draws the numbers and some of the sizes.
std::vector<std::string> case_names();
Case make_case(const std::string& name, DType dtype, std::uint64_t seed);

// Blocks of a layer at a size where bytes matter, for the memory contract.
Case make_contract_case(const std::string& name, DType dtype, std::uint64_t seed);

// Cases so wide that the bodies go through them in several slices.
std::vector<std::string> wide_case_names();
Case make_wide_case(const std::string& name, DType dtype);

}  // namespace orrery::engine
