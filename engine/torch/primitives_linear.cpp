// Products with a parameter: embedding, linear, grouped linear. A weight's gradient is added to the
// unit's buffer: in place by the product itself where dtypes agree, else through a slice.
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_select.h>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

// grad[n,k] += dy[T,n]^T x[T,k], by slices of n rows of the weight.
void add_weight_grad(const at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x,
                     std::int64_t slice) {
  if (grad.scalar_type() == dy.scalar_type()) {
    add_mm_to(grad, dy.t(), x);
    return;
  }
  const std::int64_t n = grad.size(0), k = grad.size(1), rows = dy.size(0);
  const at::Tensor product = scratch(dy, {slice * k}, dy.scalar_type());
  const at::Tensor wide = scratch(dy, {slice * k}, grad.scalar_type());
  const at::Tensor columns =
      slice < n ? scratch(dy, {slice * rows}, dy.scalar_type()) : at::Tensor();
  for_slices(n, slice, [&](std::int64_t begin, std::int64_t count) {
    at::Tensor part = dy;
    if (slice < n) {
      part = carve(columns, {rows, count});
      part.copy_(dy.narrow(1, begin, count));
    }
    const at::Tensor low = carve(product, {count, k});
    mm_to(low, part.t(), x);
    const at::Tensor high = carve(wide, {count, k});
    high.copy_(low);
    grad.narrow(0, begin, count).add_(high);
  });
}

}  // namespace

void embedding_forward(ForwardCall& call) {
  select_rows_to(call.out[0], call.weight, call.in[0].view(-1));
}

void embedding_backward(BackwardCall& call) {
  if (!call.grad_weight.defined()) return;
  const at::Tensor ids = call.in[0].view(-1);
  const at::Tensor& dy = call.grad_out[0];
  if (dy.scalar_type() == call.grad_weight.scalar_type()) {
    call.grad_weight.index_add_(0, ids, dy);
    return;
  }
  const std::int64_t step = slice_of(call.block, call.prim.out[0]);
  const at::Tensor wide = scratch(dy, {step * dy.size(1)}, call.grad_weight.scalar_type());
  for_slices(dy.size(0), step, [&](std::int64_t begin, std::int64_t count) {
    const at::Tensor part = carve(wide, {count, dy.size(1)});
    part.copy_(dy.narrow(0, begin, count));
    call.grad_weight.index_add_(0, ids.narrow(0, begin, count), part);
  });
}

void linear_forward(ForwardCall& call) {
  mm_to(call.out[0], call.in[0], call.weight.t());
}

void linear_backward(BackwardCall& call) {
  const at::Tensor& dy = call.grad_out[0];
  if (call.grad_in[0].defined()) mm_to(call.grad_in[0], dy, call.weight);
  if (!call.grad_weight.defined()) return;
  const std::int64_t n = call.grad_weight.size(0), k = call.grad_weight.size(1);
  add_weight_grad(call.grad_weight, dy, call.in[0], weight_slice_rows(n, k));
}

void grouped_linear_forward(ForwardCall& call) {
  const std::vector<std::int64_t>& rows = call.context.expert_rows;
  CHECK(static_cast<std::int64_t>(rows.size()) == call.weight.size(0), "one count a local expert");
  std::int64_t begin = 0;
  for (std::size_t e = 0; e < rows.size(); ++e) {
    mm_to(call.out[0].narrow(0, begin, rows[e]), call.in[0].narrow(0, begin, rows[e]),
          call.weight.select(0, static_cast<std::int64_t>(e)).t());
    begin += rows[e];
  }
  CHECK(begin == call.in[0].size(0), "the experts' rows do not sum to the rows");
}

void grouped_linear_backward(BackwardCall& call) {
  const std::vector<std::int64_t>& rows = call.context.expert_rows;
  std::int64_t begin = 0;
  for (std::size_t e = 0; e < rows.size(); ++e) {
    const auto expert = static_cast<std::int64_t>(e);
    const at::Tensor dy = call.grad_out[0].narrow(0, begin, rows[e]);
    if (call.grad_in[0].defined()) {
      mm_to(call.grad_in[0].narrow(0, begin, rows[e]), dy, call.weight.select(0, expert));
    }
    if (call.grad_weight.defined() && rows[e] > 0) {
      const at::Tensor grad = call.grad_weight.select(0, expert);
      add_weight_grad(grad, dy, call.in[0].narrow(0, begin, rows[e]), grad.size(0));
    }
    begin += rows[e];
  }
}

}  // namespace orrery::engine
