// Rows between token order, expert order and source order. Sums over a token's slots go slot by
// slot through the inverse order, so that they are deterministic on every device and bf16 is summed
// in fp32.
#include <ATen/ops/arange.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <numeric>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

// inverse[slot, token] is the row of pair (token, slot). Two buffers of T*k indices.
struct Inverse {
  at::Tensor rows, inverse;

  Inverse(const at::Tensor& order, std::int64_t k)
      : rows(scratch(order, {order.numel()}, at::kLong)) {
    {
      const at::Tensor iota = at::arange(order.numel(), order.options());
      rows.index_copy_(0, order.view(-1), iota);
    }
    inverse = scratch(order, {k, order.numel() / k}, at::kLong);
    inverse.copy_(rows.view({order.numel() / k, k}).t());
  }
  at::Tensor of(std::int64_t slot, std::int64_t begin, std::int64_t n) const {
    return inverse.select(0, slot).narrow(0, begin, n);
  }
};

// y[token] = sum over slots of weight * row; weights undefined: one.
void combine(const at::Tensor& rows, const at::Tensor& weights, const at::Tensor& order,
             const at::Tensor& y, std::int64_t k, std::int64_t step) {
  const at::ScalarType stat = stat_type(rows);
  const bool mixed = stat != rows.scalar_type();
  const std::int64_t cols = rows.size(1);
  const Inverse inverse(order, k);
  const at::Tensor low = scratch(rows, {step * cols}, rows.scalar_type());
  const at::Tensor sums = mixed ? scratch(rows, {step * cols}, stat) : at::Tensor();
  const at::Tensor wide = mixed ? scratch(rows, {step * cols}, stat) : at::Tensor();
  for_slices(y.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    const at::Tensor out = y.narrow(0, begin, n);
    const at::Tensor sum = mixed ? carve(sums, {n, cols}) : out;
    sum.zero_();
    for (std::int64_t slot = 0; slot < k; ++slot) {
      at::Tensor row = carve(low, {n, cols});
      select_rows_to(row, rows, inverse.of(slot, begin, n));
      if (mixed) row = carve(wide, {n, cols}).copy_(row);
      if (weights.defined()) row.mul_(weights.narrow(0, begin, n).narrow(1, slot, 1).to(stat));
      sum.add_(row);
    }
    if (mixed) out.copy_(sum);
  });
}

// The row of the source-major order that each row of the expert-major order comes from.
at::Tensor source_rows(const BlockContext& context, const at::Tensor& like) {
  const std::int64_t rows = like.size(0);
  at::Tensor index = at::empty({rows}, at::TensorOptions().dtype(at::kLong));
  std::vector<std::int64_t> next;  // of each peer, the next row to take
  std::int64_t total = 0;
  for (const auto& counts : context.received) {
    next.push_back(total);
    total = std::accumulate(counts.begin(), counts.end(), total);
  }
  CHECK(total == rows, "the received counts do not sum to the rows");
  std::int64_t* out = index.data_ptr<std::int64_t>();
  const std::size_t experts = context.received.empty() ? 0 : context.received[0].size();
  for (std::size_t e = 0; e < experts; ++e) {
    for (std::size_t peer = 0; peer < next.size(); ++peer) {
      const std::int64_t n = context.received[peer][e];
      std::iota(out, out + n, next[peer]);
      out += n;
      next[peer] += n;
    }
  }
  return index.to(like.device());
}

void to_expert_major(const BlockContext& context, const at::Tensor& x, const at::Tensor& y) {
  select_rows_to(y, x, source_rows(context, x));
}

void to_source_major(const BlockContext& context, const at::Tensor& x, const at::Tensor& y) {
  y.index_copy_(0, source_rows(context, x), x);
}

}  // namespace

at::Tensor tokens_of(const at::Tensor& order, std::int64_t k) {
  at::Tensor out = scratch(order, {order.numel()}, at::kLong);
  out.copy_(order.view(-1));
  out.div_(k, "floor");
  return out;
}

void permute_forward(ForwardCall& call) {
  select_rows_to(call.out[0], call.in[0], tokens_of(call.in[1], call.prim.top_k));
}

void permute_backward(BackwardCall& call) {
  combine(call.grad_out[0], {}, call.in[1], call.grad_in[0], call.prim.top_k,
          slice_of(call.block, call.prim.in[0]));
}

void to_expert_major_forward(ForwardCall& call) {
  to_expert_major(call.context, call.in[0], call.out[0]);
}

void to_expert_major_backward(BackwardCall& call) {
  to_source_major(call.context, call.grad_out[0], call.grad_in[0]);
}

void to_source_major_forward(ForwardCall& call) {
  to_source_major(call.context, call.in[0], call.out[0]);
}

void to_source_major_backward(BackwardCall& call) {
  to_expert_major(call.context, call.grad_out[0], call.grad_in[0]);
}

void unpermute_forward(ForwardCall& call) {
  combine(call.in[0], call.in[1], call.in[2], call.out[0], call.prim.top_k,
          slice_of(call.block, call.prim.out[0]));
}

// d row = weight * dy of its token; d weight = <dy, row>.
void unpermute_backward(BackwardCall& call) {
  const at::Tensor &rows = call.in[0], &weights = call.in[1], &order = call.in[2];
  const at::Tensor& dy = call.grad_out[0];
  const at::ScalarType stat = stat_type(rows);
  const bool mixed = stat != rows.scalar_type();
  const std::int64_t k = call.prim.top_k, cols = rows.size(1);
  const std::int64_t step = slice_of(call.block, call.prim.out[0]);
  const at::Tensor tokens = tokens_of(order, k);
  const at::Tensor weight = scratch(rows, {order.numel()}, weights.scalar_type());
  select_rows_to(weight, weights.view(-1), order.view(-1));
  if (call.grad_in[0].defined()) {
    select_rows_to(call.grad_in[0], dy, tokens);
    call.grad_in[0].mul_(weight.unsqueeze(1));
  }
  if (!call.grad_in[1].defined()) return;
  const Inverse inverse(order, k);
  const at::Tensor low = scratch(rows, {step * cols}, rows.scalar_type());
  const at::Tensor wide = mixed ? scratch(rows, {step * cols}, stat) : at::Tensor();
  const at::Tensor wide_dy = mixed ? scratch(rows, {step * cols}, stat) : at::Tensor();
  const at::Tensor dots = scratch(rows, {step}, stat);
  for_slices(dy.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    at::Tensor g = dy.narrow(0, begin, n);
    if (mixed) g = carve(wide_dy, {n, cols}).copy_(g);
    for (std::int64_t slot = 0; slot < k; ++slot) {
      at::Tensor row = carve(low, {n, cols});
      select_rows_to(row, rows, inverse.of(slot, begin, n));
      if (mixed) row = carve(wide, {n, cols}).copy_(row);
      row.mul_(g);
      const at::Tensor dot = carve(dots, {n, 1});
      sum_to(dot, row, 1, true);
      call.grad_in[1].narrow(0, begin, n).narrow(1, slot, 1).copy_(dot);
    }
  });
}

}  // namespace orrery::engine
