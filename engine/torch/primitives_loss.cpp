// Losses: cross-entropy over the vocabulary, the router's balance loss and its z-loss. Their
// gradient is one unless the caller gives another.
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kIgnored = -100;  // label of a row that has no loss

// The labels of a slice: which rows have none, and an index that is safe for those.
struct Labels {
  at::Tensor ignored, index;
  Labels(const at::Tensor& labels, std::int64_t begin, std::int64_t n) {
    const at::Tensor part = labels.narrow(0, begin, n);
    ignored = at::eq(part, kIgnored);
    index = part.masked_fill(ignored, 0);
  }
};

// Calls body(begin, count) for slices of the rows that are no padding.
template <class Body>
void for_valid_slices(const ValidRows& valid, std::int64_t rows, std::int64_t step, Body&& body) {
  for (std::int64_t first = 0; first < rows; first += valid.sequence) {
    for_slices(valid.valid, step,
               [&](std::int64_t begin, std::int64_t n) { body(first + begin, n); });
  }
}

}  // namespace

// loss = scalar * sum over rows of log-sum-exp(logits)^2: Zoph et al. 2022 (ST-MoE), equation 5;
// what normalises it is in the coefficient.
void z_loss_forward(ForwardCall& call) {
  const at::Tensor& logits = call.in[0];
  const at::ScalarType stat = stat_type(logits);
  const std::int64_t rows = logits.size(0), cols = logits.size(1);
  const std::int64_t step = slice_of(call.block, call.prim.in[0]);
  const at::Tensor wide = scratch(logits, {step * cols}, stat);
  const at::Tensor most = scratch(logits, {step}, stat), square = scratch(logits, {step}, stat);
  const auto add = [&](std::int64_t begin, std::int64_t n) {
    const at::Tensor x = carve(wide, {n, cols}), m = carve(most, {n, 1}), z = carve(square, {n, 1}),
                     lse = call.statistic.narrow(0, begin, n);
    x.copy_(logits.narrow(0, begin, n));
    amax_to(m, x, 1, true);
    x.sub_(m).exp_();
    sum_to(lse, x, 1, true);
    lse.log_().add_(m);
    mul_to(z, lse, lse);
    call.out[0].add_(z.sum());
  };
  call.out[0].zero_();
  for_valid_slices({call.prim, call.context, rows}, rows, step, add);
  call.out[0].mul_(call.prim.scalar);
}

// d logits = 2 * scalar * log-sum-exp * softmax.
void z_loss_backward(BackwardCall& call) {
  const at::Tensor &logits = call.in[0], &grad = call.grad_in[0];
  const at::ScalarType stat = stat_type(logits);
  const bool mixed = stat != logits.scalar_type();
  const std::int64_t rows = logits.size(0), cols = logits.size(1);
  const std::int64_t step = slice_of(call.block, call.prim.in[0]);
  const at::Tensor wide = mixed ? scratch(logits, {step * cols}, stat) : at::Tensor();
  const at::Tensor factors = scratch(logits, {step}, stat);
  const auto fill = [&](std::int64_t begin, std::int64_t n) {
    const at::Tensor out = grad.narrow(0, begin, n), lse = call.statistic.narrow(0, begin, n);
    const at::Tensor p = mixed ? carve(wide, {n, cols}) : out, factor = carve(factors, {n, 1});
    p.copy_(logits.narrow(0, begin, n));
    p.sub_(lse).exp_();
    factor.copy_(lse).mul_(2 * call.prim.scalar);
    if (call.grad_out[0].defined()) factor.mul_(call.grad_out[0]);
    p.mul_(factor);
    if (mixed) out.copy_(p);
  };
  grad.zero_();
  for_valid_slices({call.prim, call.context, rows}, rows, step, fill);
}

// loss = scalar * sum(counts * prob_sum): Fedus et al. 2021 (Switch), equation 4; what normalises
// it is in the coefficient.
void balance_loss_forward(ForwardCall& call) {
  const at::Tensor product = at::mul(call.in[0], call.in[1]);
  call.out[0].view(-1).copy_(at::sum(product)).mul_(call.prim.scalar);
}

void balance_loss_backward(BackwardCall& call) {
  at::Tensor& grad = call.grad_in[0];
  if (!grad.defined()) return;
  grad.copy_(call.in[1]).mul_(call.prim.scalar);
  if (call.grad_out[0].defined()) grad.mul_(call.grad_out[0]);
}

// loss = loss_scale * sum over labelled rows of (log-sum-exp(logits) - logits[label]).
void cross_entropy_forward(ForwardCall& call) {
  const at::Tensor& logits = call.in[0];
  const at::ScalarType stat = stat_type(logits);
  const std::int64_t cols = logits.size(1), step = slice_of(call.block, call.prim.in[0]);
  const at::Tensor wide = scratch(logits, {step * cols}, stat);
  const at::Tensor most = scratch(logits, {step}, stat);
  call.out[0].zero_();
  for_slices(logits.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    const Labels labels(call.in[1], begin, n);
    const at::Tensor x = carve(wide, {n, cols}), m = carve(most, {n, 1});
    x.copy_(logits.narrow(0, begin, n));
    const at::Tensor picked = at::gather(x, 1, labels.index);
    amax_to(m, x, 1, true);
    x.sub_(m).exp_();
    const at::Tensor lse = call.statistic.narrow(0, begin, n);
    sum_to(lse, x, 1, true);
    lse.log_().add_(m);
    picked.neg_().add_(lse).masked_fill_(labels.ignored, 0);
    call.out[0].add_(picked.sum());
  });
  call.out[0].mul_(call.context.loss_scale);
}

// d logits = loss_scale * (softmax - one-hot), written over the logits where they are not kept.
void cross_entropy_backward(BackwardCall& call) {
  const at::Tensor &logits = call.in[0], &grad = call.grad_in[0];
  const at::ScalarType stat = stat_type(logits);
  const bool mixed = stat != logits.scalar_type();
  const std::int64_t cols = logits.size(1), step = slice_of(call.block, call.prim.in[0]);
  const at::Tensor wide = mixed ? scratch(logits, {step * cols}, stat) : at::Tensor();
  for_slices(logits.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    const Labels labels(call.in[1], begin, n);
    const at::Tensor x = logits.narrow(0, begin, n), out = grad.narrow(0, begin, n);
    const at::Tensor p = mixed ? carve(wide, {n, cols}) : out;
    if (!p.is_alias_of(x)) p.copy_(x);
    p.sub_(call.statistic.narrow(0, begin, n)).exp_();
    p.scatter_add_(1, labels.index, at::full({n, 1}, -1, p.options()));
    const at::Tensor scale = at::full({n, 1}, call.context.loss_scale, p.options());
    scale.masked_fill_(labels.ignored, 0);
    if (call.grad_out[0].defined()) scale.mul_(call.grad_out[0]);
    p.mul_(scale);
    if (mixed) out.copy_(p);
  });
}

}  // namespace orrery::engine
