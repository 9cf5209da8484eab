// Ranks of a group simulated in one thread: the blocks of a family, one tape a call, parameters by
// name, and exchanges by hand.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/models/family.h"
#include "engine/torch/interpreter.h"

namespace orrery::engine {

using Tensors = std::vector<at::Tensor>;

// Parameters drawn when first asked for, by name alone, and their gradients, summed over ranks.
// Those of experts are kept for all experts of the model.
class SharedParams {
 public:
  explicit SharedParams(const Model& model) : model_(model) {}
  // Those of a block; `first_expert` is where its experts begin.
  ParamResolver values(const Block& block, std::int64_t first_expert = 0);
  ParamResolver grads(const Block& block, std::int64_t first_expert = 0);
  const std::map<std::string, at::Tensor>& all_grads() const { return grads_; }

 private:
  at::Tensor part(const BlockParam& param, std::int64_t first_expert, bool grad);

  const Model& model_;
  std::map<std::string, at::Tensor> values_, grads_;
};

// One run of a block on one rank.
class Call {
 public:
  Call(const Block& block, SharedParams& params, BlockContext context,
       std::int64_t first_expert = 0)
      : block_(&block),
        params_(&params),
        context_(std::move(context)),
        first_expert_(first_expert) {}
  const Tensors& forward(Tensors inputs);
  Tensors backward(Tensors grad_outputs, Tensors seeds = {});
  const at::Tensor& out(const std::string& name) const;
  // Gradients of the outputs by name; those not named are absent.
  Tensors grads(const std::map<std::string, at::Tensor>& named) const;

 private:
  const Block* block_;
  SharedParams* params_;
  BlockContext context_;
  std::int64_t first_expert_;
  Tensors inputs_, outputs_;
  Tape tape_;
};

// Block p of what rank r has is block r of what rank p gets: equal blocks of rows.
Tensors all_to_all(const Tensors& of_ranks);
// counts[r][p] rows go from rank r to rank p.
Tensors all_to_all_v(const Tensors& of_ranks, const std::vector<std::vector<std::int64_t>>& counts);
// What every rank gets.
at::Tensor all_gather(const Tensors& of_ranks);
// The sum over ranks, and rank r's block of it.
Tensors reduce_scatter(const Tensors& of_ranks);
// A random tensor, fp64.
at::Tensor random_tensor(std::int64_t rows, std::int64_t cols, std::uint64_t seed,
                         double scale = 1);
double largest_difference(const at::Tensor& a, const at::Tensor& b);

}  // namespace orrery::engine
