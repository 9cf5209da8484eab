// The table of primitives: names, what each keeps for backward, and the bytes of its statistics and
// temporaries. The formulas follow the allocations of engine/torch/primitives_*.cpp one by one; the
// block contract test measures them.
#include <algorithm>

#include "core/check.h"
#include "core/program/block.h"

namespace orrery {
namespace {

constexpr std::int64_t kSliceElements = std::int64_t{1} << 21;
constexpr std::int64_t kWeightSliceElements = std::int64_t{1} << 23;

// Byte counts of one primitive's surroundings, shared by the formulas below.
struct Sizes {
  const Block& block;
  const Prim& prim;
  const Value& x;   // operand 0
  std::int64_t es;  // bytes of the compute dtype
  std::int64_t st;  // bytes of a statistic
  bool mixed;       // the two differ
  Sizes(const Block& b, const Prim& p)
      : block(b),
        prim(p),
        x(b.values[static_cast<std::size_t>(p.in[0])]),
        es(size_of(x.dtype)),
        st(size_of(stat_dtype(x.dtype))),
        mixed(es != st) {}
  const Value& out(std::size_t i) const {
    return block.values[static_cast<std::size_t>(prim.out[i])];
  }
  const BlockParam& param() const { return block.params[static_cast<std::size_t>(prim.param)]; }
};

SizeExpr bytes(std::int64_t count) {
  return SizeExpr::constant(count);
}

// Where the buffer's dtype differs, a weight's gradient waits for its conversion: the product and
// its copy, by slices of the weight's rows; the columns of dy that belong to a slice are copied.
SizeExpr weight_grad_temp(const Sizes& s) {
  if (s.param().grad_dtype == s.x.dtype) return {};
  const std::int64_t n = s.param().shape[0], k = s.param().shape[1];
  const std::int64_t rows = weight_slice_rows(n, k);
  const std::int64_t product = rows * k * (s.es + size_of(s.param().grad_dtype));
  return rows == n ? bytes(product) : (s.x.rows * (rows * s.es)).plus(product);
}

// The same, one expert at a time.
std::int64_t expert_grad_temp(const Sizes& s) {
  const DType grad = s.param().grad_dtype;
  return grad == s.x.dtype ? 0 : s.param().shape[1] * s.param().shape[2] * (s.es + size_of(grad));
}

PrimMemory embedding_memory(const Sizes& s) {
  const Value& y = s.out(0);
  const DType grad = s.param().grad_dtype;
  const std::int64_t rows = slice_rows(y.rows, y.cols);
  return {{}, {}, bytes(grad == y.dtype ? 0 : rows * y.cols * size_of(grad))};
}

PrimMemory rms_norm_memory(const Sizes& s) {
  const std::int64_t rows = slice_rows(s.x.rows, s.x.cols);
  const std::int64_t slice = rows * s.x.cols * s.st;
  const std::int64_t groups = s.x.cols / s.prim.head_dim;
  const std::int64_t vectors = 3 * s.prim.head_dim * s.st + rows * groups * s.st;
  return {{}, bytes(2 * slice), bytes(3 * slice + vectors)};
}

PrimMemory rope_memory(const Sizes& s) {
  const std::int64_t rows = slice_rows(s.x.rows, s.x.cols);
  const std::int64_t half = s.prim.head_dim / 2;
  const std::int64_t tables = 2 * rows * half * s.st + (rows + half) * s.st;
  const SizeExpr temp = bytes(2 * rows * s.x.cols * s.st + tables);
  return {{}, temp, temp};
}

PrimMemory swiglu_memory(const Sizes& s) {
  const std::int64_t slice = slice_rows(s.x.rows, s.x.cols) * s.x.cols * s.st;
  return {{}, bytes(2 * slice), bytes(4 * slice)};
}

PrimMemory attention_memory(const Sizes& s) {
  const Prim& p = s.prim;
  const std::int64_t rows = chunk_rows(p);
  const std::int64_t scores = p.heads * rows * p.sequence_tokens;
  const std::int64_t query = rows * p.heads * p.head_dim;
  const std::int64_t keys = p.sequence_tokens * p.kv_heads * p.head_dim;
  const std::int64_t vectors = 2 * rows * p.heads * s.st + rows * rows;  // and the causal mask
  const std::int64_t low = s.mixed ? scores * s.es : 0;
  const std::int64_t forward = 2 * keys * s.es + query * s.es + scores * s.st + low + vectors;
  const std::int64_t product = s.mixed ? keys * (s.es + s.st) : 0;
  const std::int64_t backward = 2 * keys * (s.es + s.st) + product + 2 * query * (s.es + s.st) +
                                2 * scores * s.st + low + vectors;
  return {{}, bytes(forward), bytes(backward)};
}

// Choosing: a working copy of the choices, the running maximum and where it is. In groups also the
// scores of the groups, their second choices, which are taken, and where the best stand.
std::int64_t choice_temp(const Sizes& s) {
  const std::int64_t groups = s.prim.groups > 1 ? s.prim.groups * (3 * s.st + 8) : 0;
  return s.prim.experts * s.st + s.st + 8 + groups;
}

PrimMemory top_k_memory(const Sizes& s) {
  const std::int64_t e = s.prim.experts, k = s.prim.top_k;
  const bool replay = s.prim.kind == PrimKind::kTopKReplay;
  if (s.prim.sigmoid) {
    // After the choice: s / sum(s), and the sum. Backward: as below, and the sum.
    const std::int64_t shares = e * s.st + s.st;
    const std::int64_t first = replay ? shares : std::max(choice_temp(s), shares);
    const std::int64_t rest = k * s.st + s.st + (replay ? 0 : k * (8 + s.st));
    const std::int64_t backward = 2 * e * s.st + 3 * k * s.st + 3 * s.st;
    return {{}, s.x.rows * (first + rest), s.x.rows * backward};
  }
  // The choice (or the logits, widened); the weights and their sum; the indices and ones of the
  // count.
  const std::int64_t choose = replay ? (s.mixed ? e * s.st : 0) : choice_temp(s);
  const std::int64_t weights = k * s.st + s.st;
  const std::int64_t count = replay ? 0 : k * (8 + s.st);
  const std::int64_t backward = 2 * e * s.st + 3 * k * s.st + 2 * s.st;
  return {{}, s.x.rows * (choose + weights + count), s.x.rows * backward};
}

PrimMemory permute_memory(const Sizes& s) {
  const std::int64_t k = s.prim.top_k;
  const std::int64_t slice = slice_rows(s.x.rows, s.x.cols) * s.x.cols;
  const std::int64_t backward = slice * (s.mixed ? s.es + 2 * s.st : s.es);
  return {{}, s.x.rows * (k * 8), (s.x.rows * (2 * k * 8)).plus(backward)};
}

PrimMemory unpermute_memory(const Sizes& s) {
  const Value& y = s.out(0);
  const std::int64_t k = s.prim.top_k;
  const std::int64_t rows = slice_rows(y.rows, y.cols);
  const std::int64_t slice = rows * y.cols * (s.mixed ? s.es + 2 * s.st : s.es) + rows * s.st;
  return {{}, (y.rows * (2 * k * 8)).plus(slice), (y.rows * (3 * k * 8 + k * s.es)).plus(slice)};
}

// Forward: exp(logits - max) of a slice, the maximum and the square. Backward: the softmax of a
// slice, which is the gradient itself where nothing is converted, and its factor.
PrimMemory z_loss_memory(const Sizes& s) {
  const std::int64_t rows = slice_rows(s.x.rows, s.x.cols);
  const std::int64_t scratch = rows * s.x.cols * s.st;
  return {{}, bytes(scratch + 2 * rows * s.st), bytes((s.mixed ? scratch : 0) + rows * s.st)};
}

// Which slots are local (two bytes each); the local ones, their experts, these sorted, and where
// they were.
PrimMemory select_sort_memory(const Sizes& s) {
  return {{}, (s.out(0).rows * 32).plus(s.x.rows.c0 * s.x.cols * 2), {}};
}

// A slice of rows in the compute dtype, and two in the statistics' where that is another.
std::int64_t row_slices(const Sizes& s, const Value& y) {
  return slice_rows(y.rows, y.cols) * y.cols * (s.mixed ? s.es + 2 * s.st : s.es);
}

// Sums over the local slots of a slice of G rows: for each of R rows where it comes from, its token
// and its weight, if any; gathered rows, widened, the sum, and the weights widened.
SizeExpr slot_sum_temp(const Sizes& s, SizeExpr rows, const Value& y, bool weighted) {
  const std::int64_t factors = weighted && s.mixed ? slice_rows(y.rows, y.cols) * s.st : 0;
  return (rows * (16 + (weighted ? s.es : 0))).plus(row_slices(s, y) + factors);
}

// Forward: the token of each row.
PrimMemory select_rows_memory(const Sizes& s) {
  const SizeExpr rows = s.out(0).rows;
  return {{}, rows * 8, slot_sum_temp(s, rows, s.x, false)};
}

// Backward: the token of each row; by slices of rows the gathered gradient, which becomes the
// product with the row (both widened where they must be), and its sums.
PrimMemory spread_rows_memory(const Sizes& s) {
  const Value& y = s.out(0);
  const std::int64_t dots = slice_rows(y.rows, y.cols) * (s.mixed ? s.st + s.es : s.st);
  return {{}, slot_sum_temp(s, s.x.rows, y, true), (s.x.rows * 8).plus(row_slices(s, y) + dots)};
}

// Only repeated key and value heads in another dtype than the statistics' need temporaries: one
// head at a time, by slices of rows, the sum of its copies and the copy that is added.
PrimMemory pack_heads_memory(const Sizes& s) {
  const bool summed = s.mixed && s.prim.parts > s.prim.kv_heads;
  const std::int64_t d = s.prim.head_dim;
  return {{}, {}, bytes(summed ? 2 * slice_rows(s.x.rows, d) * d * s.st : 0)};
}

PrimMemory cross_entropy_memory(const Sizes& s) {
  const std::int64_t rows = slice_rows(s.x.rows, s.x.cols);
  const std::int64_t scratch = rows * s.x.cols * s.st;
  // Which labels are ignored, and indices without them. Forward: the maximum and the picked logit;
  // backward: first the -1 that is scattered, then the scale.
  const std::int64_t labels = rows * 9;
  return {{},
          bytes(scratch + labels + 2 * rows * s.st),
          bytes((s.mixed ? scratch : 0) + labels + rows * s.st)};
}

PrimMemory temporaries(const Sizes& s) {
  switch (s.prim.kind) {
    case PrimKind::kEmbedding:
      return embedding_memory(s);
    case PrimKind::kRmsNorm:
      return rms_norm_memory(s);
    case PrimKind::kLinear:
      return {{}, {}, weight_grad_temp(s)};
    case PrimKind::kGroupedLinear:
      return {{}, {}, bytes(expert_grad_temp(s))};
    case PrimKind::kRope:
      return rope_memory(s);
    case PrimKind::kAttention:
      return attention_memory(s);
    case PrimKind::kSwiGlu:
      return swiglu_memory(s);
    case PrimKind::kTopK:
    case PrimKind::kTopKReplay:
      return top_k_memory(s);
    case PrimKind::kSortByExpert:
      // The sorted keys; with parts the keys too.
      return {{}, s.x.rows * (s.x.cols * (s.prim.parts > 1 ? 16 : 8)), {}};
    case PrimKind::kPermute:
      return permute_memory(s);
    case PrimKind::kToExpertMajor:
    case PrimKind::kToSourceMajor:
      return {{}, s.x.rows * 8, s.x.rows * 8};
    case PrimKind::kUnpermute:
      return unpermute_memory(s);
    case PrimKind::kBalanceLoss:
      return {{}, s.x.rows * (s.x.cols * s.st), {}};
    case PrimKind::kCrossEntropy:
      return cross_entropy_memory(s);
    case PrimKind::kZLoss:
      return z_loss_memory(s);
    case PrimKind::kSelectSort:
      return select_sort_memory(s);
    case PrimKind::kSelectRows:
      return select_rows_memory(s);
    case PrimKind::kSpreadRows:
      return spread_rows_memory(s);
    case PrimKind::kPackHeads:
      return pack_heads_memory(s);
    case PrimKind::kUnpackSequence:
    case PrimKind::kPackSequence:
    case PrimKind::kUnpackHeads:
    case PrimKind::kAdd:
      return {};
  }
  CHECK(false, "unknown primitive");
}

}  // namespace

const char* name_of(PrimKind kind) {
  static constexpr const char* kNames[] = {
      "embedding",    "rms_norm",        "linear",          "rope",           "attention",
      "add",          "swiglu",          "top_k",           "top_k_replay",   "sort",
      "permute",      "to_expert_major", "to_source_major", "grouped_linear", "unpermute",
      "balance_loss", "cross_entropy",   "z_loss",          "select_sort",    "select_rows",
      "spread_rows",  "pack_heads",      "unpack_sequence", "pack_sequence",  "unpack_heads"};
  const auto index = static_cast<std::size_t>(kind);
  CHECK(index < std::size(kNames), "unknown primitive");
  return kNames[index];
}

std::vector<ValueId> saved_by(const Prim& prim) {
  switch (prim.kind) {
    case PrimKind::kRmsNorm:
    case PrimKind::kLinear:
    case PrimKind::kGroupedLinear:
    case PrimKind::kEmbedding:
    case PrimKind::kZLoss:
      return {prim.in[0]};
    case PrimKind::kAttention:
      return {prim.in[0], prim.in[1], prim.in[2], prim.out[0]};
    case PrimKind::kSwiGlu:
    case PrimKind::kCrossEntropy:
      return {prim.in[0], prim.in[1]};
    case PrimKind::kTopK:
      return {prim.out[2]};
    case PrimKind::kTopKReplay:
    case PrimKind::kPermute:
    case PrimKind::kBalanceLoss:
    case PrimKind::kSelectRows:
      return {prim.in[1]};
    case PrimKind::kUnpermute:
    case PrimKind::kSpreadRows:
      return {prim.in[0], prim.in[1], prim.in[2]};
    case PrimKind::kRope:
    case PrimKind::kAdd:
    case PrimKind::kSortByExpert:
    case PrimKind::kToExpertMajor:
    case PrimKind::kToSourceMajor:
    case PrimKind::kSelectSort:
    case PrimKind::kPackHeads:
    case PrimKind::kUnpackSequence:
    case PrimKind::kPackSequence:
    case PrimKind::kUnpackHeads:
      return {};
  }
  CHECK(false, "unknown primitive");
}

bool gradient_is_alias(PrimKind kind) {
  return kind == PrimKind::kAdd;
}

bool gradient_overwrites_saved(PrimKind kind) {
  return kind == PrimKind::kCrossEntropy;
}

bool is_loss(PrimKind kind) {
  return kind == PrimKind::kBalanceLoss || kind == PrimKind::kCrossEntropy ||
         kind == PrimKind::kZLoss;
}

std::int64_t slice_rows(const SizeExpr& rows, std::int64_t cols) {
  const std::int64_t most = std::max<std::int64_t>(1, kSliceElements / cols);
  return rows.is_constant() ? std::min(rows.c0, most) : most;
}

std::int64_t weight_slice_rows(std::int64_t n, std::int64_t k) {
  return std::min(n, std::max<std::int64_t>(1, kWeightSliceElements / k));
}

std::int64_t chunk_rows(const Prim& prim) {
  return prim.chunk > 0 ? std::min(prim.chunk, prim.sequence_tokens) : prim.sequence_tokens;
}

std::int64_t statistic_cols(const Block& block, const Prim& prim) {
  switch (prim.kind) {
    case PrimKind::kRmsNorm:  // 1 / rms of each group
      return block.values[static_cast<std::size_t>(prim.in[0])].cols / prim.head_dim;
    case PrimKind::kAttention:  // log-sum-exp of each head
      return prim.heads;
    case PrimKind::kTopK:  // the scores
    case PrimKind::kTopKReplay:
      return prim.experts;
    case PrimKind::kCrossEntropy:  // log-sum-exp
    case PrimKind::kZLoss:
      return 1;
    default:
      return 0;
  }
}

PrimMemory memory_of(const Block& block, const Prim& prim) {
  const Sizes s(block, prim);
  PrimMemory memory = temporaries(s);
  const std::int64_t cols = statistic_cols(block, prim);
  if (cols > 0) memory.saved_extra = s.x.rows * (cols * s.st);
  return memory;
}

}  // namespace orrery
