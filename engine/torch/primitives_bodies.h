// The bodies by name, for the table in primitives.cpp, and what they share.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "engine/torch/primitives.h"

namespace orrery::engine {

void embedding_forward(ForwardCall& call);
void embedding_backward(BackwardCall& call);
void linear_forward(ForwardCall& call);
void linear_backward(BackwardCall& call);
void grouped_linear_forward(ForwardCall& call);
void grouped_linear_backward(BackwardCall& call);
void rms_norm_forward(ForwardCall& call);
void rms_norm_backward(BackwardCall& call);
void rope_forward(ForwardCall& call);
void rope_backward(BackwardCall& call);
void add_forward(ForwardCall& call);
void swiglu_forward(ForwardCall& call);
void swiglu_backward(BackwardCall& call);
void attention_forward(ForwardCall& call);
void attention_backward(BackwardCall& call);
void top_k_forward(ForwardCall& call);
void top_k_replay_forward(ForwardCall& call);
void top_k_backward(BackwardCall& call);
void sort_forward(ForwardCall& call);
void permute_forward(ForwardCall& call);
void permute_backward(BackwardCall& call);
void to_expert_major_forward(ForwardCall& call);
void to_expert_major_backward(BackwardCall& call);
void to_source_major_forward(ForwardCall& call);
void to_source_major_backward(BackwardCall& call);
void unpermute_forward(ForwardCall& call);
void unpermute_backward(BackwardCall& call);
void select_sort_forward(ForwardCall& call);
void select_rows_backward(BackwardCall& call);
void spread_rows_forward(ForwardCall& call);
void spread_rows_backward(BackwardCall& call);
void pack_heads_forward(ForwardCall& call);
void pack_heads_backward(BackwardCall& call);
void unpack_sequence_forward(ForwardCall& call);
void unpack_sequence_backward(BackwardCall& call);
void pack_sequence_forward(ForwardCall& call);
void pack_sequence_backward(BackwardCall& call);
void unpack_heads_forward(ForwardCall& call);
void unpack_heads_backward(BackwardCall& call);
void balance_loss_forward(ForwardCall& call);
void balance_loss_backward(BackwardCall& call);
void z_loss_forward(ForwardCall& call);
void z_loss_backward(BackwardCall& call);
void cross_entropy_forward(ForwardCall& call);
void cross_entropy_backward(BackwardCall& call);

// Uninitialised tensor of a dtype on the device of `like`.
at::Tensor scratch(const at::Tensor& like, at::IntArrayRef shape, at::ScalarType dtype);
// The dtype of statistics for a compute dtype: fp64 for fp64, else fp32.
at::ScalarType stat_type(const at::Tensor& x);
// Rows of a slice of operand `id`; see slice_rows() of core.
std::int64_t slice_of(const Block& block, ValueId id);
// token[row] = order[row] / k.
at::Tensor tokens_of(const at::Tensor& order, std::int64_t k);
// Rows of one sequence among `rows` rows of a routing primitive, and how many of them count: those
// beyond valid_tokens of the whole sequence are padding. They come last.
struct ValidRows {
  std::int64_t sequence, valid;
  ValidRows(const Prim& prim, const BlockContext& context, std::int64_t rows);
};
// The first elements of a flat buffer as a contiguous tensor of `shape`.
at::Tensor carve(const at::Tensor& flat, at::IntArrayRef shape);

// out-of-place results into `out`, which may be a temporary view. Operands of products are such
// that libtorch copies none of them: contiguous, or the transpose of contiguous.
void mm_to(at::Tensor out, const at::Tensor& a, const at::Tensor& b);
void bmm_to(at::Tensor out, const at::Tensor& a, const at::Tensor& b);
// sum += a b.
void add_mm_to(at::Tensor sum, const at::Tensor& a, const at::Tensor& b);
void add_bmm_to(at::Tensor sum, const at::Tensor& a, const at::Tensor& b);
void mul_to(at::Tensor out, const at::Tensor& a, const at::Tensor& b);
void sum_to(at::Tensor out, const at::Tensor& a, std::int64_t dim, bool keepdim);
void amax_to(at::Tensor out, const at::Tensor& a, std::int64_t dim, bool keepdim);
void select_rows_to(at::Tensor out, const at::Tensor& x, const at::Tensor& index);

// Calls body(begin, count) for slices of `step` rows.
template <class Body>
void for_slices(std::int64_t rows, std::int64_t step, Body&& body) {
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    body(begin, begin + step < rows ? step : rows - begin);
  }
}

}  // namespace orrery::engine
