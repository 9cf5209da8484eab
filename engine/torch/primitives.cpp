// The table of primitive bodies, one row a kind, and the helpers they share.
#include "engine/torch/primitives.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>

#include <algorithm>

#include "engine/torch/compat.h"
#include "engine/torch/metered_allocator.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

struct Row {
  PrimKind kind;
  PrimBody body;
};

constexpr Row kTable[] = {
    {PrimKind::kEmbedding, {embedding_forward, embedding_backward}},
    {PrimKind::kRmsNorm, {rms_norm_forward, rms_norm_backward}},
    {PrimKind::kLinear, {linear_forward, linear_backward}},
    {PrimKind::kRope, {rope_forward, rope_backward}},
    {PrimKind::kAttention, {attention_forward, attention_backward}},
    {PrimKind::kAdd, {add_forward, nullptr}},
    {PrimKind::kSwiGlu, {swiglu_forward, swiglu_backward}},
    {PrimKind::kTopK, {top_k_forward, top_k_backward}},
    {PrimKind::kTopKReplay, {top_k_replay_forward, top_k_backward}},
    {PrimKind::kSortByExpert, {sort_forward, nullptr}},
    {PrimKind::kPermute, {permute_forward, permute_backward}},
    {PrimKind::kToExpertMajor, {to_expert_major_forward, to_expert_major_backward}},
    {PrimKind::kToSourceMajor, {to_source_major_forward, to_source_major_backward}},
    {PrimKind::kGroupedLinear, {grouped_linear_forward, grouped_linear_backward}},
    {PrimKind::kUnpermute, {unpermute_forward, unpermute_backward}},
    {PrimKind::kBalanceLoss, {balance_loss_forward, balance_loss_backward}},
    {PrimKind::kCrossEntropy, {cross_entropy_forward, cross_entropy_backward}},
    {PrimKind::kZLoss, {z_loss_forward, z_loss_backward}},
    {PrimKind::kSelectSort, {select_sort_forward, nullptr}},
    {PrimKind::kSelectRows, {permute_forward, select_rows_backward}},
    {PrimKind::kSpreadRows, {spread_rows_forward, spread_rows_backward}},
    {PrimKind::kPackHeads, {pack_heads_forward, pack_heads_backward}},
    {PrimKind::kUnpackSequence, {unpack_sequence_forward, unpack_sequence_backward}},
    {PrimKind::kPackSequence, {pack_sequence_forward, pack_sequence_backward}},
    {PrimKind::kUnpackHeads, {unpack_heads_forward, unpack_heads_backward}},
};

}  // namespace

const PrimBody& body_of(PrimKind kind) {
  const auto index = static_cast<std::size_t>(kind);
  CHECK(index < std::size(kTable) && kTable[index].kind == kind, "the table is out of order");
  return kTable[index].body;
}

bool backward_reads_weight(PrimKind kind) {
  return kind == PrimKind::kRmsNorm || kind == PrimKind::kLinear ||
         kind == PrimKind::kGroupedLinear;
}

bool is_host_output(PrimKind kind, std::size_t index) {
  return kind == PrimKind::kSortByExpert && index == 1;
}

at::Tensor scratch(const at::Tensor& like, at::IntArrayRef shape, at::ScalarType dtype) {
  return at::empty(shape, like.options().dtype(dtype));
}

at::ScalarType stat_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

std::int64_t slice_of(const Block& block, ValueId id) {
  const Value& value = block.values[static_cast<std::size_t>(id)];
  return slice_rows(value.rows, value.cols);
}

at::Tensor carve(const at::Tensor& flat, at::IntArrayRef shape) {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) count *= extent;
  return flat.narrow(0, 0, count).view(shape);
}

ValidRows::ValidRows(const Prim& prim, const BlockContext& context, std::int64_t rows)
    : sequence(prim.sequence_tokens > 0 ? prim.sequence_tokens : rows / prim.sequences),
      valid(sequence) {
  CHECK(rows % sequence == 0, "the rows are not whole parts of sequences");
  if (prim.valid_tokens == 0) return;
  valid = std::clamp<std::int64_t>(prim.valid_tokens - context.first_position, 0, sequence);
}

void mm_to(at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
  const LibraryScope scope;
  at::mm_out(out, a, b);
}

void bmm_to(at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
  const LibraryScope scope;
  at::bmm_out(out, a, b);
}

void add_mm_to(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) {
  const LibraryScope scope;
  at::addmm_out(sum, sum, a, b);
}

void add_bmm_to(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) {
  const LibraryScope scope;
  sum.baddbmm_(a, b);
}

void mul_to(at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
  at::mul_out(out, a, b);
}

void sum_to(at::Tensor out, const at::Tensor& a, std::int64_t dim, bool keepdim) {
  at::sum_out(out, a, at::IntArrayRef(dim), keepdim);
}

void amax_to(at::Tensor out, const at::Tensor& a, std::int64_t dim, bool keepdim) {
  at::amax_out(out, a, at::IntArrayRef(dim), keepdim);
}

void select_rows_to(at::Tensor out, const at::Tensor& x, const at::Tensor& index) {
  at::index_select_out(out, x, 0, index);
}

}  // namespace orrery::engine
