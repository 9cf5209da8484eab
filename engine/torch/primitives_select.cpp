// The rows of this rank's experts among the gathered tokens of its expert group. Sums over a
// token's local rows go slot by slot over rows sorted by (slot, token): a slot has a token at most
// once, so that additions never meet, the order of a sum is fixed and bf16 is summed in fp32; the
// work is that of the rows, however few of the slots are local.
#include <ATen/ops/empty.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

at::Tensor indices(const at::Tensor& like, std::int64_t count) {
  return scratch(like, {count}, at::kLong);
}

// The rows sorted by (slot, token), and where each slice of `step` tokens begins in each slot.
class Rows {
 public:
  Rows(const at::Tensor& order, std::int64_t tokens, std::int64_t k, std::int64_t step)
      : step_(step), slices_((tokens + step - 1) / step) {
    at::Tensor sorted = indices(order, order.numel());
    source_ = indices(order, order.numel());
    const at::Tensor key = at::remainder(order.view(-1), k).mul_(tokens);
    {
      const at::Tensor token = tokens_of(order, k);
      key.add_(token);
    }
    at::sort_out(sorted, source_, key, true, 0, false);
    mark(sorted, tokens, k);
    token_ = sorted.remainder_(tokens).remainder_(step);
  }
  // At each place of the sorted order: the row of the operand, and its token in its slice.
  at::Tensor source(std::int64_t first, std::int64_t n) const {
    return source_.narrow(0, first, n);
  }
  at::Tensor token(std::int64_t first, std::int64_t n) const { return token_.narrow(0, first, n); }

  // Calls body(first place, rows) for the rows of a slot that belong to a slice of tokens.
  template <class Body>
  void for_slots(std::int64_t slice, std::int64_t k, Body&& body) const {
    for (std::int64_t slot = 0; slot < k; ++slot) {
      const auto at = static_cast<std::size_t>(slot * slices_ + slice);
      if (first_[at + 1] > first_[at]) body(first_[at], first_[at + 1] - first_[at]);
    }
  }

 private:
  void mark(const at::Tensor& sorted, std::int64_t tokens, std::int64_t k) {
    const std::int64_t count = k * slices_;
    const at::Tensor edges = at::empty({count}, at::TensorOptions().dtype(at::kLong));
    for (std::int64_t i = 0; i < count; ++i) {
      edges.data_ptr<std::int64_t>()[i] = i / slices_ * tokens + i % slices_ * step_;
    }
    const at::Tensor found = at::searchsorted(sorted, edges.to(sorted.device())).to(at::kCPU);
    first_.assign(found.data_ptr<std::int64_t>(), found.data_ptr<std::int64_t>() + count);
    first_.push_back(sorted.numel());
  }

  std::int64_t step_, slices_;
  at::Tensor source_, token_;
  std::vector<std::int64_t> first_;
};

// y[token] = sum over its local slots of weight * row; weights undefined: one.
void combine(const at::Tensor& rows, const at::Tensor& weights, const at::Tensor& order,
             const at::Tensor& y, std::int64_t k, std::int64_t step) {
  const at::ScalarType stat = stat_type(rows);
  const bool mixed = stat != rows.scalar_type();
  const std::int64_t cols = rows.size(1);
  const Rows sorted(order, y.size(0), k, step);
  at::Tensor weight;
  if (weights.defined()) {
    at::Tensor pair = indices(order, order.numel());
    select_rows_to(pair, order.view(-1), sorted.source(0, order.numel()));
    weight = scratch(weights, {order.numel()}, weights.scalar_type());
    select_rows_to(weight, weights.view(-1), pair);
  }
  const at::Tensor low = scratch(rows, {step * cols}, rows.scalar_type());
  const at::Tensor sums = mixed ? scratch(rows, {step * cols}, stat) : at::Tensor();
  const at::Tensor wide = mixed ? scratch(rows, {step * cols}, stat) : at::Tensor();
  for_slices(y.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    const at::Tensor out = y.narrow(0, begin, n);
    const at::Tensor sum = mixed ? carve(sums, {n, cols}) : out;
    sum.zero_();
    sorted.for_slots(begin / step, k, [&](std::int64_t first, std::int64_t m) {
      at::Tensor row = carve(low, {m, cols});
      select_rows_to(row, rows, sorted.source(first, m));
      if (mixed) row = carve(wide, {m, cols}).copy_(row);
      if (weight.defined()) row.mul_(weight.narrow(0, first, m).to(stat).unsqueeze(1));
      sum.index_add_(0, sorted.token(first, m), row);
    });
    if (mixed) out.copy_(sum);
  });
}

// d weight = <dy of the token, row>, zero where the slot is not local.
void weight_gradient(const at::Tensor& rows, const at::Tensor& dy, const at::Tensor& order,
                     const at::Tensor& tokens, const at::Tensor& grad, std::int64_t step) {
  const at::ScalarType stat = stat_type(rows);
  const bool mixed = stat != rows.scalar_type();
  const std::int64_t cols = rows.size(1);
  const at::Tensor low = scratch(rows, {step * cols}, rows.scalar_type());
  const at::Tensor wide = mixed ? scratch(rows, {step * cols}, stat) : at::Tensor();
  const at::Tensor wide_dy = mixed ? scratch(rows, {step * cols}, stat) : at::Tensor();
  const at::Tensor dots = scratch(rows, {step}, stat);
  const at::Tensor flat = grad.view(-1);
  flat.zero_();
  for_slices(rows.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    at::Tensor g = carve(low, {n, cols}), row = rows.narrow(0, begin, n);
    select_rows_to(g, dy, tokens.narrow(0, begin, n));
    if (mixed) {
      g = carve(wide_dy, {n, cols}).copy_(g);
      row = carve(wide, {n, cols}).copy_(row);
    }
    g.mul_(row);
    const at::Tensor dot = carve(dots, {n, 1});
    sum_to(dot, g, 1, true);
    flat.index_copy_(0, order.view(-1).narrow(0, begin, n), dot.view(-1).to(grad.scalar_type()));
  });
}

}  // namespace

// The local slots in order, then sorted by expert; equal experts keep that order.
void select_sort_forward(ForwardCall& call) {
  const at::Tensor ids = call.in[0].view(-1), order = call.out[0].view(-1);
  const std::int64_t first = call.context.first_expert, end = first + call.prim.experts;
  at::Tensor slots;
  {
    at::Tensor local = scratch(ids, ids.sizes(), at::kBool);
    at::Tensor below = scratch(ids, ids.sizes(), at::kBool);
    at::ge_out(local, ids, first);
    at::lt_out(below, ids, end);
    local.mul_(below);
    slots = at::nonzero(local).view(-1);
  }
  CHECK(slots.numel() == order.numel(), "the local slots are not the rows of the local experts");
  at::Tensor experts = indices(ids, slots.numel());
  select_rows_to(experts, ids, slots);
  at::Tensor sorted = indices(ids, slots.numel()), source = indices(ids, slots.numel());
  at::sort_out(sorted, source, experts, true, 0, false);
  select_rows_to(order, slots, source);
}

void select_rows_backward(BackwardCall& call) {
  combine(call.grad_out[0], {}, call.in[1], call.grad_in[0], call.prim.top_k,
          slice_of(call.block, call.prim.in[0]));
}

void spread_rows_forward(ForwardCall& call) {
  combine(call.in[0], call.in[1], call.in[2], call.out[0], call.prim.top_k,
          slice_of(call.block, call.prim.out[0]));
}

// d row = weight * dy of its token.
void spread_rows_backward(BackwardCall& call) {
  const at::Tensor &rows = call.in[0], &weights = call.in[1], &order = call.in[2];
  const at::Tensor& dy = call.grad_out[0];
  const at::Tensor tokens = tokens_of(order, call.prim.top_k);
  if (call.grad_in[0].defined()) {
    const at::Tensor weight = scratch(weights, {order.numel()}, weights.scalar_type());
    select_rows_to(weight, weights.view(-1), order.view(-1));
    select_rows_to(call.grad_in[0], dy, tokens);
    call.grad_in[0].mul_(weight.unsqueeze(1));
  }
  if (!call.grad_in[1].defined()) return;
  weight_gradient(rows, dy, order, tokens, call.grad_in[1], slice_of(call.block, call.prim.out[0]));
}

}  // namespace orrery::engine
