// See the header.
#include "tests/engine/ranks_harness.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max.h>
#include <ATen/ops/zeros.h>

#include <functional>
#include <random>

#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

at::Tensor random_flat(std::int64_t count, std::uint64_t seed, double mean, double scale) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> normal(mean, scale);
  const at::Tensor out = at::empty({count}, at::TensorOptions().dtype(at::kDouble));
  for (std::int64_t i = 0; i < count; ++i) out.data_ptr<double>()[i] = normal(rng);
  return out;
}

std::size_t at_index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

at::Tensor SharedParams::part(const BlockParam& param, std::int64_t first_expert, bool grad) {
  std::vector<std::int64_t> shape = param.shape;
  const bool expert = shape.size() == 3;
  if (expert) shape[0] = model_.experts;
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  if (values_.count(param.name) == 0) {
    const std::uint64_t seed = std::hash<std::string>{}(param.name);
    const bool norm = shape.size() == 1;
    values_[param.name] = random_flat(count, seed, norm ? 1 : 0, 0.4).view(shape);
    grads_[param.name] = at::zeros(shape, at::TensorOptions().dtype(at::kDouble));
  }
  const at::Tensor whole = grad ? grads_[param.name] : values_[param.name];
  return expert ? whole.narrow(0, first_expert, param.shape[0]) : whole;
}

ParamResolver SharedParams::values(const Block& block, std::int64_t first_expert) {
  return [this, &block, first_expert](std::int32_t p) {
    return part(block.params[at_index(p)], first_expert, false);
  };
}

ParamResolver SharedParams::grads(const Block& block, std::int64_t first_expert) {
  return [this, &block, first_expert](std::int32_t p) {
    return part(block.params[at_index(p)], first_expert, true);
  };
}

const Tensors& Call::forward(Tensors inputs) {
  inputs_ = std::move(inputs);
  outputs_ =
      run_forward(*block_, {inputs_, params_->values(*block_, first_expert_), &context_, &tape_})
          .value();
  return outputs_;
}

Tensors Call::backward(Tensors grad_outputs, Tensors seeds) {
  return run_backward(*block_, {std::move(tape_), inputs_, outputs_, std::move(grad_outputs),
                                std::move(seeds), params_->values(*block_, first_expert_),
                                params_->grads(*block_, first_expert_), &context_})
      .value();
}

const at::Tensor& Call::out(const std::string& name) const {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (block_->values[at_index(block_->outputs[i])].name == name) return outputs_[i];
  }
  CHECK(false, block_->name + " has no output " + name);
}

Tensors Call::grads(const std::map<std::string, at::Tensor>& named) const {
  Tensors out;
  for (const ValueId v : block_->outputs) {
    const auto found = named.find(block_->values[at_index(v)].name);
    out.push_back(found == named.end() ? at::Tensor() : found->second);
  }
  return out;
}

Tensors all_to_all(const Tensors& of_ranks) {
  const auto ranks = static_cast<std::int64_t>(of_ranks.size());
  const std::int64_t rows = of_ranks[0].size(0) / ranks;
  return all_to_all_v(of_ranks,
                      std::vector<std::vector<std::int64_t>>(
                          of_ranks.size(), std::vector<std::int64_t>(of_ranks.size(), rows)));
}

Tensors all_to_all_v(const Tensors& of_ranks,
                     const std::vector<std::vector<std::int64_t>>& counts) {
  std::vector<std::int64_t> next(of_ranks.size(), 0);
  Tensors out;
  for (std::size_t to = 0; to < of_ranks.size(); ++to) {
    Tensors blocks;
    for (std::size_t from = 0; from < of_ranks.size(); ++from) {
      blocks.push_back(of_ranks[from].narrow(0, next[from], counts[from][to]));
      next[from] += counts[from][to];
    }
    out.push_back(at::cat(blocks, 0));
  }
  return out;
}

at::Tensor all_gather(const Tensors& of_ranks) {
  return at::cat(of_ranks, 0);
}

Tensors reduce_scatter(const Tensors& of_ranks) {
  at::Tensor sum = of_ranks[0].clone();
  for (std::size_t r = 1; r < of_ranks.size(); ++r) sum.add_(of_ranks[r]);
  const std::int64_t rows = sum.size(0) / static_cast<std::int64_t>(of_ranks.size());
  Tensors out;
  for (std::size_t r = 0; r < of_ranks.size(); ++r) {
    out.push_back(sum.narrow(0, static_cast<std::int64_t>(r) * rows, rows).clone());
  }
  return out;
}

at::Tensor random_tensor(std::int64_t rows, std::int64_t cols, std::uint64_t seed, double scale) {
  return random_flat(rows * cols, seed, 0, scale).view({rows, cols});
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  CHECK(a.sizes() == b.sizes(), "tensors of different shapes");
  return a.numel() == 0 ? 0 : a.sub(b).abs().max().item<double>();
}

}  // namespace orrery::engine
