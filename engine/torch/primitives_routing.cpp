// Routing: which experts a token goes to, with what weight, and in what order rows travel.
#include <ATen/ops/_softmax.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/max.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/sum.h>

#include <limits>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr double kTiny = 1e-20;  // keeps sums of sigmoids from zero

// softmax(logits) or sigmoid(logits) in the statistics' dtype.
void score(const Prim& prim, const at::Tensor& logits, at::Tensor out) {
  if (prim.sigmoid) {
    out.copy_(logits).sigmoid_();
    return;
  }
  if (logits.scalar_type() == out.scalar_type()) {
    at::_softmax_out(out, logits, 1, false);
    return;
  }
  const at::Tensor wide = logits.to(out.scalar_type());
  at::_softmax_out(out, wide, 1, false);
}

// What weights are multiplied by.
double scale_of(const Prim& prim) {
  return prim.scalar == 0 ? 1 : prim.scalar;
}

void gather_to(at::Tensor out, const at::Tensor& x, const at::Tensor& index) {
  at::gather_out(out, x, 1, index);
}

// The highest of each row of [rows, n] and where it is; of equals the first.
struct Highest {
  at::Tensor value, index;
  explicit Highest(const at::Tensor& x)
      : value(scratch(x, {x.size(0), 1}, x.scalar_type())),
        index(scratch(x, {x.size(0), 1}, at::kLong)) {}
  void of(const at::Tensor& x) { at::max_out(value, index, x, 1, true); }
};

// Choices outside the best groups are never taken. A group's score is the sum of its two best
// choices: DeepSeek-V3 (2412.19437), section 2.1.2.
void limit_groups(const Prim& prim, const at::Tensor& choice) {
  const std::int64_t rows = choice.size(0), groups = prim.groups, n = prim.experts / groups;
  const at::Tensor by_group = choice.view({rows * groups, n});
  Highest first(by_group);
  first.of(by_group);
  const at::Tensor scores = first.value.clone();
  {
    const at::Tensor second = scratch(choice, {rows * groups, 1}, choice.scalar_type());
    by_group.scatter_(1, first.index, kNever);
    amax_to(second, by_group, 1, true);
    by_group.scatter_(1, first.index, first.value);
    scores.add_(second);
  }
  const at::Tensor out = at::ones({rows, groups}, choice.options().dtype(at::kBool));
  const at::Tensor left = scores.view({rows, groups});
  Highest best(left);
  for (std::int64_t i = 0; i < prim.top_groups; ++i) {
    best.of(left);
    out.scatter_(1, best.index, false);
    left.scatter_(1, best.index, kNever);
  }
  choice.view({rows, groups, n}).masked_fill_(out.unsqueeze(2), kNever);
}

// The k best choices of each row, best first; of equals the lower expert first: k passes of max(),
// which names the first of equals, each removing what it found.
void choose(const Prim& prim, const at::Tensor& scores, const at::Tensor& bias,
            const at::Tensor& ids) {
  const at::Tensor left = scratch(scores, scores.sizes(), scores.scalar_type());
  left.copy_(scores);
  if (bias.defined()) left.add_(bias);
  if (prim.groups > 1) limit_groups(prim, left);
  Highest best(left);
  for (std::int64_t slot = 0; slot < prim.top_k; ++slot) {
    best.of(left);
    ids.narrow(1, slot, 1).copy_(best.index);
    left.scatter_(1, best.index, kNever);
  }
}

// Scores of the chosen experts [T,k], which sum to one when `normalize`; `sum` [T,1] takes what
// they are divided by.
void chosen_to(const Prim& prim, const at::Tensor& scores, const at::Tensor& ids,
               const at::Tensor& chosen, const at::Tensor& sum) {
  gather_to(chosen, scores, ids);
  if (!prim.normalize) return;
  sum_to(sum, chosen, 1, true);
  if (prim.sigmoid) sum.add_(kTiny);
  chosen.div_(sum);
}

void weigh(const Prim& prim, const at::Tensor& scores, const at::Tensor& ids,
           const at::Tensor& weights) {
  const at::Tensor chosen = scratch(scores, ids.sizes(), scores.scalar_type());
  const at::Tensor sum = scratch(scores, {ids.size(0), 1}, scores.scalar_type());
  chosen_to(prim, scores, ids, chosen, sum);
  if (scale_of(prim) != 1) chosen.mul_(scale_of(prim));
  weights.copy_(chosen);
}

// The valid rows of x [T, cols] as [S, sequences of each, rows, cols].
at::Tensor valid_rows(const Prim& prim, const BlockContext& context, const at::Tensor& x) {
  const ValidRows rows(prim, context, x.size(0));
  const std::int64_t each = x.size(0) / prim.sequences / rows.sequence;
  return x.view({prim.sequences, each, rows.sequence, x.size(1)}).narrow(2, 0, rows.valid);
}

// Sums of the probabilities: the scores of a softmax, a sigmoid's over their sum.
void sum_by_sequence(const Prim& prim, const BlockContext& context, const at::Tensor& scores,
                     at::Tensor out) {
  at::Tensor probabilities = scores;
  if (prim.sigmoid) {
    probabilities = scratch(scores, scores.sizes(), scores.scalar_type());
    const at::Tensor sum = scratch(scores, {scores.size(0), 1}, scores.scalar_type());
    sum_to(sum, scores, 1, true);
    at::div_out(probabilities, scores, sum.add_(kTiny));
  }
  at::sum_out(out, valid_rows(prim, context, probabilities), {1, 2}, false);
}

// How often each expert was chosen in each sequence.
void count(const Prim& prim, const BlockContext& context, const at::Tensor& ids,
           const at::Tensor& counts) {
  const at::Tensor valid = valid_rows(prim, context, ids);
  at::Tensor flat = scratch(ids, valid.sizes(), at::kLong);
  at::add_out(flat, valid,
              at::arange(prim.sequences, ids.options()).mul_(prim.experts).view({-1, 1, 1, 1}));
  counts.zero_();
  counts.view(-1).index_add_(0, flat.view(-1), at::ones({flat.numel()}, counts.options()));
}

// Gradient of the scores from that of the sums. Of a sigmoid, with p = s / sum(s):
// (g - sum(g * p)) / sum(s). `product` is scratch like g, `row_sum` [T,1].
void sums_backward(const BackwardCall& call, const at::Tensor& g, const at::Tensor& product,
                   const at::Tensor& row_sum) {
  const Prim& prim = call.prim;
  g.zero_();
  if (!call.grad_out[1].defined()) return;
  valid_rows(prim, call.context, g)
      .copy_(call.grad_out[1].view({prim.sequences, 1, 1, prim.experts}));
  if (!prim.sigmoid) return;
  const at::Tensor total = scratch(g, row_sum.sizes(), g.scalar_type());
  sum_to(total, call.statistic, 1, true);
  total.add_(kTiny);
  mul_to(product, g, call.statistic);
  sum_to(row_sum, product, 1, true);
  g.sub_(row_sum.div_(total)).div_(total);
}

// Adds the gradient of the scores from that of the weights scale * w, with w = c / s of the chosen
// scores c: scale * (dw - sum(dw * w)) / s at the chosen experts.
void weights_backward(const BackwardCall& call, const at::Tensor& ids, const at::Tensor& g,
                      const at::Tensor& row_sum) {
  const Prim& prim = call.prim;
  if (!call.grad_out[0].defined()) return;
  const at::ScalarType stat = g.scalar_type();
  const at::Tensor dw = scratch(g, ids.sizes(), stat), w = scratch(g, ids.sizes(), stat),
                   dot = scratch(g, ids.sizes(), stat), sum = scratch(g, row_sum.sizes(), stat);
  dw.copy_(call.grad_out[0]);
  if (scale_of(prim) != 1) dw.mul_(scale_of(prim));
  if (prim.normalize) {
    chosen_to(prim, call.statistic, ids, w, sum);
    mul_to(dot, dw, w);
    sum_to(row_sum, dot, 1, true);
    dw.sub_(row_sum).div_(sum);
  }
  g.scatter_add_(1, ids, dw);
}

// Numbers the experts in the order in which rows travel: by (part, peer, expert of the part).
at::Tensor travel_order(const Prim& prim, const at::Tensor& like) {
  const std::int64_t local = prim.experts / prim.peers, each = local / prim.parts;
  const at::Tensor table = at::empty({prim.experts}, at::TensorOptions().dtype(at::kLong));
  for (std::int64_t e = 0; e < prim.experts; ++e) {
    const std::int64_t peer = e / local, part = e % local / each;
    table.data_ptr<std::int64_t>()[e] = (part * prim.peers + peer) * each + e % each;
  }
  return table.to(like.device());
}

}  // namespace

void top_k_forward(ForwardCall& call) {
  const at::Tensor& ids = call.out[2];
  score(call.prim, call.in[0], call.statistic);
  choose(call.prim, call.statistic, call.in.size() > 1 ? call.in[1] : at::Tensor(), ids);
  weigh(call.prim, call.statistic, ids, call.out[0]);
  sum_by_sequence(call.prim, call.context, call.statistic, call.out[1]);
  count(call.prim, call.context, ids, call.out[3]);
}

void top_k_replay_forward(ForwardCall& call) {
  score(call.prim, call.in[0], call.statistic);
  weigh(call.prim, call.statistic, call.in[1], call.out[0]);
  sum_by_sequence(call.prim, call.context, call.statistic, call.out[1]);
}

// With g the gradient of the scores s: of a softmax d logits = s * (g - sum(g * s)), of a sigmoid
// g * s * (1 - s).
void top_k_backward(BackwardCall& call) {
  const at::Tensor& s = call.statistic;
  const at::Tensor& ids = call.prim.kind == PrimKind::kTopK ? call.out[2] : call.in[1];
  const at::Tensor g = scratch(s, s.sizes(), s.scalar_type());
  const at::Tensor product = scratch(s, s.sizes(), s.scalar_type());
  const at::Tensor row_sum = scratch(s, {s.size(0), 1}, s.scalar_type());
  sums_backward(call, g, product, row_sum);
  weights_backward(call, ids, g, row_sum);
  if (call.prim.sigmoid) {
    product.fill_(1).sub_(s).mul_(s);
    g.mul_(product);
  } else {
    mul_to(product, g, s);
    sum_to(row_sum, product, 1, true);
    g.sub_(row_sum).mul_(s);
  }
  call.grad_in[0].copy_(g);
}

void sort_forward(ForwardCall& call) {
  const at::Tensor ids = call.in[0].view(-1);
  at::Tensor order = call.out[0].view(-1);
  at::Tensor sorted = scratch(ids, ids.sizes(), at::kLong);
  at::Tensor keys = ids;
  if (call.prim.parts > 1) {
    keys = scratch(ids, ids.sizes(), at::kLong);
    select_rows_to(keys, travel_order(call.prim, ids), ids);
  }
  at::sort_out(sorted, order, keys, true, 0, false);
  call.out[1].view(-1).copy_(at::bincount(ids, {}, call.prim.experts));
}

}  // namespace orrery::engine
