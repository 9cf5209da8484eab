// Losses: cross-entropy over the vocabulary and the router's balance loss. Their gradient is one
// unless the caller gives another.
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>

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

}  // namespace

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
