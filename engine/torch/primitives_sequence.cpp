// Rows and heads between the ranks that share a sequence: every rank holds L rows of each sequence,
// attention sees whole sequences of some heads. These primitives only move: what goes to or comes
// from peer p is block p of T = sequences * L rows, and backward is the transpose. Copies go from
// view to view, without a temporary.
#include <ATen/ops/add.h>

#include <algorithm>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

// Heads as they are split over the ranks of a sequence. With fewer key heads than ranks, `shared`
// ranks in a row hold the same one.
struct Split {
  std::int64_t ranks, d, q, kv, shared;

  explicit Split(const Prim& prim)
      : ranks(prim.parts),
        d(prim.head_dim),
        q(prim.heads / prim.parts),
        kv(std::max<std::int64_t>(1, prim.kv_heads / prim.parts)),
        shared(std::max<std::int64_t>(1, prim.parts / prim.kv_heads)) {}

  // Columns of operand i (q, k, v): in a block of the packed rows, and of rank p in the whole.
  std::int64_t cols(std::size_t i) const { return (i == 0 ? q : kv) * d; }
  std::int64_t packed_begin(std::size_t i) const {
    return i == 0 ? 0 : cols(0) + static_cast<std::int64_t>(i - 1) * cols(1);
  }
  std::int64_t begin(std::size_t i, std::int64_t p) const {
    return (i == 0 ? p : p / shared) * cols(i);
  }
};

// Block p of the packed rows, the columns of operand i.
at::Tensor block_of(const Split& s, const at::Tensor& packed, std::size_t i, std::int64_t p) {
  const std::int64_t rows = packed.size(0) / s.ranks;
  return packed.narrow(0, p * rows, rows).narrow(1, s.packed_begin(i), s.cols(i));
}

// The gradient of a key or value head is the sum over the ranks that hold it.
void sum_shared(const Split& s, const at::Tensor& packed, std::size_t i, const at::Tensor& grad,
                std::int64_t step) {
  const at::ScalarType stat = stat_type(grad);
  const bool mixed = stat != grad.scalar_type();
  const std::int64_t cols = s.cols(i);
  const at::Tensor sums = mixed ? scratch(grad, {step * cols}, stat) : at::Tensor();
  const at::Tensor wide = mixed ? scratch(grad, {step * cols}, stat) : at::Tensor();
  for (std::int64_t head = 0; head < s.ranks; head += s.shared) {
    const at::Tensor out = grad.narrow(1, s.begin(i, head), cols);
    for_slices(grad.size(0), step, [&](std::int64_t begin, std::int64_t n) {
      const at::Tensor to = out.narrow(0, begin, n), sum = mixed ? carve(sums, {n, cols}) : to;
      sum.copy_(block_of(s, packed, i, head).narrow(0, begin, n));
      for (std::int64_t p = head + 1; p < head + s.shared; ++p) {
        at::Tensor part = block_of(s, packed, i, p).narrow(0, begin, n);
        if (mixed) part = carve(wide, {n, cols}).copy_(part);
        sum.add_(part);
      }
      if (mixed) to.copy_(sum);
    });
  }
}

// Rows by (rank, sequence, position) seen by (sequence, rank, position), as [S, ranks, L, cols].
at::Tensor by_sequence(const Prim& prim, const at::Tensor& x) {
  const std::int64_t rows = x.size(0) / prim.parts / prim.sequences;
  return x.view({prim.parts, prim.sequences, rows, x.size(1)}).transpose(0, 1);
}

// Whole sequences as the same.
at::Tensor whole(const Prim& prim, const at::Tensor& x) {
  const std::int64_t rows = x.size(0) / prim.parts / prim.sequences;
  return x.view({prim.sequences, prim.parts, rows, x.size(1)});
}

// Row t of rank p's block seen as columns of rank p in row t: [T, ranks, c].
at::Tensor by_row(const Prim& prim, const at::Tensor& x) {
  return x.view({prim.parts, x.size(0) / prim.parts, x.size(1)}).transpose(0, 1);
}

at::Tensor columns(const Prim& prim, const at::Tensor& y) {
  return y.view({y.size(0), prim.parts, y.size(1) / prim.parts});
}

}  // namespace

void pack_heads_forward(ForwardCall& call) {
  const Split s(call.prim);
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::int64_t p = 0; p < s.ranks; ++p) {
      block_of(s, call.out[0], i, p).copy_(call.in[i].narrow(1, s.begin(i, p), s.cols(i)));
    }
  }
}

void pack_heads_backward(BackwardCall& call) {
  const Split s(call.prim);
  const at::Tensor& packed = call.grad_out[0];
  for (std::size_t i = 0; i < 3; ++i) {
    const at::Tensor& grad = call.grad_in[i];
    if (!grad.defined()) continue;
    if (i > 0 && s.shared > 1) {
      const ValueId id = call.prim.in[i];
      const SizeExpr& rows = call.block.values[static_cast<std::size_t>(id)].rows;
      sum_shared(s, packed, i, grad, slice_rows(rows, s.d));
      continue;
    }
    for (std::int64_t p = 0; p < s.ranks; ++p) {
      grad.narrow(1, s.begin(i, p), s.cols(i)).copy_(block_of(s, packed, i, p));
    }
  }
}

void unpack_sequence_forward(ForwardCall& call) {
  const at::Tensor packed = by_sequence(call.prim, call.in[0]);
  std::int64_t begin = 0;
  for (const at::Tensor& out : call.out) {
    whole(call.prim, out).copy_(packed.narrow(3, begin, out.size(1)));
    begin += out.size(1);
  }
}

void unpack_sequence_backward(BackwardCall& call) {
  const at::Tensor packed = by_sequence(call.prim, call.grad_in[0]);
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < call.grad_out.size(); ++i) {
    const ValueId id = call.prim.out[i];
    const std::int64_t cols = call.block.values[static_cast<std::size_t>(id)].cols;
    const at::Tensor to = packed.narrow(3, begin, cols);
    if (call.grad_out[i].defined()) {
      to.copy_(whole(call.prim, call.grad_out[i]));
    } else {
      to.zero_();
    }
    begin += cols;
  }
}

void pack_sequence_forward(ForwardCall& call) {
  by_sequence(call.prim, call.out[0]).copy_(whole(call.prim, call.in[0]));
}

void pack_sequence_backward(BackwardCall& call) {
  whole(call.prim, call.grad_in[0]).copy_(by_sequence(call.prim, call.grad_out[0]));
}

void unpack_heads_forward(ForwardCall& call) {
  columns(call.prim, call.out[0]).copy_(by_row(call.prim, call.in[0]));
}

void unpack_heads_backward(BackwardCall& call) {
  by_row(call.prim, call.grad_in[0]).copy_(columns(call.prim, call.grad_out[0]));
}

}  // namespace orrery::engine
