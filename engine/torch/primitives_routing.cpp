// Routing: which experts a token goes to, with what weight, and in what order rows travel.
#include <ATen/ops/_softmax.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/max.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sort.h>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

void softmax_rows(at::Tensor out, const at::Tensor& logits) {
  if (logits.scalar_type() == out.scalar_type()) {
    at::_softmax_out(out, logits, 1, false);
    return;
  }
  const at::Tensor wide = logits.to(out.scalar_type());
  at::_softmax_out(out, wide, 1, false);
}

void gather_to(at::Tensor out, const at::Tensor& x, const at::Tensor& index) {
  at::gather_out(out, x, 1, index);
}

// The k highest probabilities of each row, highest first; of equals the lower expert first: k
// passes of max(), which names the first of equals, each removing what it found.
void choose(const at::Tensor& probabilities, std::int64_t k, const at::Tensor& ids) {
  const std::int64_t rows = probabilities.size(0);
  const at::Tensor left =
      scratch(probabilities, probabilities.sizes(), probabilities.scalar_type());
  left.copy_(probabilities);
  at::Tensor most = scratch(probabilities, {rows, 1}, probabilities.scalar_type());
  at::Tensor which = scratch(probabilities, {rows, 1}, at::kLong);
  for (std::int64_t slot = 0; slot < k; ++slot) {
    at::max_out(most, which, left, 1, true);
    ids.narrow(1, slot, 1).copy_(which);
    left.scatter_(1, which, -1);
  }
}

// Probabilities of the chosen experts [T,k], which sum to one when `normalize`.
void weigh(const Prim& prim, const at::Tensor& probabilities, const at::Tensor& ids,
           const at::Tensor& weights) {
  const at::Tensor chosen = scratch(ids, ids.sizes(), probabilities.scalar_type());
  gather_to(chosen, probabilities, ids);
  const at::Tensor sum = scratch(ids, {ids.size(0), 1}, probabilities.scalar_type());
  if (prim.normalize) {
    sum_to(sum, chosen, 1, true);
    chosen.div_(sum);
  }
  weights.copy_(chosen);
}

void sum_by_sequence(const Prim& prim, const at::Tensor& probabilities, const at::Tensor& out) {
  const std::int64_t tokens = probabilities.size(0) / prim.sequences;
  sum_to(out, probabilities.view({prim.sequences, tokens, prim.experts}), 1, false);
}

// How often each expert was chosen in each sequence.
void count(const Prim& prim, const at::Tensor& ids, const at::Tensor& counts) {
  const at::Tensor flat = scratch(ids, {prim.sequences, ids.numel() / prim.sequences}, at::kLong);
  at::Tensor out = flat;
  at::add_out(out, ids.view(flat.sizes()),
              at::arange(prim.sequences, ids.options()).mul_(prim.experts).unsqueeze(1));
  counts.zero_();
  counts.view(-1).index_add_(0, flat.view(-1), at::ones({ids.numel()}, counts.options()));
}

}  // namespace

// probabilities = softmax(logits) in the statistics' dtype.
void top_k_forward(ForwardCall& call) {
  const at::Tensor& ids = call.out[2];
  softmax_rows(call.statistic, call.in[0]);
  choose(call.statistic, call.prim.top_k, ids);
  weigh(call.prim, call.statistic, ids, call.out[0]);
  sum_by_sequence(call.prim, call.statistic, call.out[1]);
  count(call.prim, ids, call.out[3]);
}

void top_k_replay_forward(ForwardCall& call) {
  softmax_rows(call.statistic, call.in[0]);
  weigh(call.prim, call.statistic, call.in[1], call.out[0]);
  sum_by_sequence(call.prim, call.statistic, call.out[1]);
}

// With p the probabilities and g their gradient: d logits = p * (g - sum(g * p)). Through the
// normalised weights w = p / s: g = (dw - sum(dw * w)) / s at the chosen experts.
void top_k_backward(BackwardCall& call) {
  const Prim& prim = call.prim;
  const at::Tensor& p = call.statistic;
  const at::Tensor& ids = prim.kind == PrimKind::kTopK ? call.out[2] : call.in[1];
  const at::ScalarType stat = p.scalar_type();
  const std::int64_t rows = p.size(0);
  const at::Tensor g = scratch(p, p.sizes(), stat), product = scratch(p, p.sizes(), stat);
  const at::Tensor row_sum = scratch(p, {rows, 1}, stat);
  if (call.grad_out[1].defined()) {
    g.view({prim.sequences, rows / prim.sequences, prim.experts})
        .copy_(call.grad_out[1].unsqueeze(1));
  } else {
    g.zero_();
  }
  if (call.grad_out[0].defined()) {
    const at::Tensor dw = scratch(p, ids.sizes(), stat), w = scratch(p, ids.sizes(), stat),
                     dot = scratch(p, ids.sizes(), stat), sum = scratch(p, {rows, 1}, stat);
    dw.copy_(call.grad_out[0]);
    if (prim.normalize) {
      gather_to(w, p, ids);
      sum_to(sum, w, 1, true);
      w.div_(sum);
      mul_to(dot, dw, w);
      sum_to(row_sum, dot, 1, true);
      dw.sub_(row_sum).div_(sum);
    }
    g.scatter_add_(1, ids, dw);
  }
  mul_to(product, g, p);
  sum_to(row_sum, product, 1, true);
  g.sub_(row_sum).mul_(p);
  call.grad_in[0].copy_(g);
}

void sort_forward(ForwardCall& call) {
  const at::Tensor ids = call.in[0].view(-1);
  at::Tensor order = call.out[0].view(-1);
  at::Tensor sorted = scratch(ids, ids.sizes(), at::kLong);
  at::sort_out(sorted, order, ids, true, 0, false);
  call.out[1].view(-1).copy_(at::bincount(ids, {}, call.prim.experts));
}

}  // namespace orrery::engine
