// What each kind of primitive asks of its operands; see the header.
#include "core/program/block_check.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/check.h"

namespace orrery {
namespace {

struct Arity {
  std::size_t in, out;
  bool param;
};

Arity arity_of(const Prim& prim) {
  switch (prim.kind) {
    case PrimKind::kEmbedding:
    case PrimKind::kRmsNorm:
    case PrimKind::kLinear:
    case PrimKind::kGroupedLinear:
      return {1, 1, true};
    case PrimKind::kRope:
    case PrimKind::kToExpertMajor:
    case PrimKind::kToSourceMajor:
    case PrimKind::kZLoss:
    case PrimKind::kSelectSort:
    case PrimKind::kPackSequence:
    case PrimKind::kUnpackHeads:
      return {1, 1, false};
    case PrimKind::kUnpackSequence:
      return {1, 3, false};
    case PrimKind::kAttention:
    case PrimKind::kUnpermute:
    case PrimKind::kSpreadRows:
    case PrimKind::kPackHeads:
      return {3, 1, false};
    case PrimKind::kAdd:
    case PrimKind::kSwiGlu:
    case PrimKind::kPermute:
    case PrimKind::kBalanceLoss:
    case PrimKind::kCrossEntropy:
    case PrimKind::kSelectRows:
      return {2, 1, false};
    case PrimKind::kTopK:  // the bias may be left out
      return {prim.in.size() == 1 ? 1u : 2u, 4, false};
    case PrimKind::kTopKReplay:
      return {2, 2, false};
    case PrimKind::kSortByExpert:
      return {1, 2, false};
  }
  CHECK(false, "unknown primitive");
}

// Checks one primitive; every message names the block and the primitive.
class PrimCheck {
 public:
  PrimCheck(const Block& block, const Prim& prim)
      : block_(block), prim_(prim), where_(block.name + "/" + name_of(prim.kind)) {}

  void run() const {
    switch (prim_.kind) {
      case PrimKind::kEmbedding:
        return embedding();
      case PrimKind::kRmsNorm:
        return rms_norm();
      case PrimKind::kLinear:
        return linear();
      case PrimKind::kRope:
        return rope();
      case PrimKind::kAttention:
        return attention();
      case PrimKind::kAdd:
      case PrimKind::kSwiGlu:
        same(in(0), in(1));
        return same(in(0), out(0));
      case PrimKind::kTopK:
      case PrimKind::kTopKReplay:
        return top_k();
      case PrimKind::kSortByExpert:
        return sort();
      case PrimKind::kPermute:
        need(prim_.top_k > 0, "top_k is positive");
        shape(in(1), in(0).rows * prim_.top_k, 1, DType::kInt64);
        return shape(out(0), in(0).rows * prim_.top_k, in(0).cols, in(0).dtype);
      case PrimKind::kToExpertMajor:
      case PrimKind::kToSourceMajor:
        return same(in(0), out(0));
      case PrimKind::kGroupedLinear:
        return grouped_linear();
      case PrimKind::kUnpermute:
        return unpermute();
      case PrimKind::kBalanceLoss:
        same(in(0), in(1));
        return loss(in(0).dtype);
      case PrimKind::kCrossEntropy:
        shape(in(1), in(0).rows, 1, DType::kInt64);
        return loss(stat_dtype(in(0).dtype));
      case PrimKind::kZLoss:
        valid_rows();
        return loss(stat_dtype(in(0).dtype));
      case PrimKind::kSelectSort:
        need(prim_.experts > 0 && prim_.top_k == in(0).cols && in(0).dtype == DType::kInt64,
             "ids are int64 [G,top_k], experts the local ones");
        need(!out(0).needs_grad, "an order carries no gradient");
        return shape(out(0), out(0).rows, 1, DType::kInt64);
      case PrimKind::kSelectRows:
        need(prim_.top_k > 0, "top_k is positive");
        shape(in(1), out(0).rows, 1, DType::kInt64);
        return shape(out(0), out(0).rows, in(0).cols, in(0).dtype);
      case PrimKind::kSpreadRows:
        return spread();
      case PrimKind::kPackHeads:
        return pack_heads();
      case PrimKind::kUnpackSequence:
        return unpack_sequence();
      case PrimKind::kPackSequence:
        sequence_rows(in(0));
        return same(in(0), out(0));
      case PrimKind::kUnpackHeads:
        sequence_rows(in(0));
        return shape(out(0), SizeExpr::constant(in(0).rows.c0 / prim_.parts),
                     in(0).cols * prim_.parts, in(0).dtype);
    }
  }

 private:
  const Value& value(ValueId id) const { return block_.values[static_cast<std::size_t>(id)]; }
  const Value& in(std::size_t i) const { return value(prim_.in[i]); }
  const Value& out(std::size_t i) const { return value(prim_.out[i]); }
  const std::vector<std::int64_t>& weight() const {
    return block_.params[static_cast<std::size_t>(prim_.param)].shape;
  }
  void need(bool condition, const char* rule) const { CHECK(condition, where_ + ": " + rule); }

  void shape(const Value& v, SizeExpr rows, std::int64_t cols, DType dtype) const {
    CHECK(v.rows == rows && v.cols == cols && v.dtype == dtype,
          where_ + ": value " + v.name + " has another shape or dtype than its primitive asks");
  }
  void same(const Value& a, const Value& b) const { shape(b, a.rows, a.cols, a.dtype); }

  void embedding() const {
    need(in(0).dtype == DType::kInt64 && in(0).cols == 1, "ids are int64 [T,1]");
    need(weight().size() == 2 && out(0).cols == weight()[1], "the weight is [V,H]");
    need(out(0).rows == in(0).rows, "one row a token");
  }

  void rms_norm() const {
    same(in(0), out(0));
    need(weight().size() == 1 && prim_.head_dim == weight()[0] && prim_.head_dim > 0 &&
             in(0).cols % prim_.head_dim == 0,
         "head_dim is the length of the weight and divides the columns");
  }

  void linear() const {
    need(weight().size() == 2 && in(0).cols == weight()[1], "the weight is [n,k], x is [T,k]");
    shape(out(0), in(0).rows, weight()[0], in(0).dtype);
  }

  void grouped_linear() const {
    need(weight().size() == 3 && in(0).cols == weight()[2], "the weight is [experts,n,k]");
    shape(out(0), in(0).rows, weight()[1], in(0).dtype);
  }

  void attention() const {
    need(prim_.heads > 0 && prim_.kv_heads > 0 && prim_.heads % prim_.kv_heads == 0 &&
             in(0).cols == prim_.heads * prim_.head_dim &&
             in(1).cols == prim_.kv_heads * prim_.head_dim,
         "q is [T, heads x head_dim], k and v [T, kv_heads x head_dim]");
    same(in(1), in(2));
    shape(in(1), in(0).rows, in(1).cols, in(0).dtype);
    same(in(0), out(0));
    need(prim_.sequence_tokens > 0 && in(0).rows.is_constant() &&
             in(0).rows.c0 % prim_.sequence_tokens == 0,
         "rows are whole sequences of sequence_tokens");
  }

  void rope() const {
    same(in(0), out(0));
    need(prim_.heads * prim_.head_dim == in(0).cols && prim_.head_dim % 2 == 0 && prim_.scalar > 0,
         "heads x head_dim are the columns, head_dim is even, theta is positive");
    need(prim_.sequence_tokens == 0 ||
             (in(0).rows.is_constant() && in(0).rows.c0 % prim_.sequence_tokens == 0),
         "rows are parts of sequences, sequence_tokens each");
  }

  void sort() const {
    shape(out(0), in(0).rows * in(0).cols, 1, DType::kInt64);
    need(prim_.parts > 0 && prim_.peers > 0 && prim_.experts % (prim_.parts * prim_.peers) == 0,
         "parts x peers divide the experts");
    shape(out(1), SizeExpr::constant(prim_.experts), 1, DType::kInt64);
  }

  // Which rows count is known only where rows are whole local parts of sequences.
  void valid_rows() const {
    const SizeExpr& rows = in(0).rows;
    need(prim_.valid_tokens >= 0 &&
             (prim_.valid_tokens == 0 || (prim_.sequence_tokens > 0 && rows.is_constant() &&
                                          rows.c0 % prim_.sequence_tokens == 0)),
         "valid_tokens needs the rows of a sequence, which divide the rows");
  }

  void groups() const {
    need(prim_.groups > 0 && prim_.experts % prim_.groups == 0 && prim_.top_groups > 0 &&
             prim_.top_groups <= prim_.groups,
         "groups divide the experts, 0 < top_groups <= groups");
    // Two best of each group; and enough experts in the best groups.
    need(prim_.groups == 1 || (prim_.experts / prim_.groups > 1 &&
                               prim_.top_k <= prim_.top_groups * (prim_.experts / prim_.groups)),
         "a group has two experts, the best groups have top_k");
  }

  void top_k() const {
    const Value& logits = in(0);
    need(prim_.experts == logits.cols && prim_.top_k > 0 && prim_.top_k <= prim_.experts,
         "logits are [T,experts], 0 < top_k <= experts");
    need(prim_.sequences > 0 && logits.rows.is_constant() && logits.rows.c0 % prim_.sequences == 0,
         "rows divide evenly over the sequences");
    valid_rows();
    groups();
    const SizeExpr sequences = SizeExpr::constant(prim_.sequences);
    const DType stat = stat_dtype(logits.dtype);
    shape(out(0), logits.rows, prim_.top_k, logits.dtype);
    shape(out(1), sequences, prim_.experts, stat);
    if (prim_.kind == PrimKind::kTopKReplay) {
      return shape(in(1), logits.rows, prim_.top_k, DType::kInt64);
    }
    if (prim_.in.size() > 1) {
      shape(in(1), SizeExpr::constant(1), prim_.experts, stat);
      need(!in(1).needs_grad, "the bias carries no gradient");
    }
    shape(out(2), logits.rows, prim_.top_k, DType::kInt64);
    shape(out(3), sequences, prim_.experts, stat);
    need(!out(3).needs_grad, "counts carry no gradient");
  }

  void unpermute() const {
    need(prim_.top_k > 0, "top_k is positive");
    const SizeExpr rows = in(1).rows * prim_.top_k;
    shape(in(0), rows, out(0).cols, out(0).dtype);
    shape(in(1), out(0).rows, prim_.top_k, out(0).dtype);
    shape(in(2), rows, 1, DType::kInt64);
  }

  void spread() const {
    need(prim_.top_k > 0, "top_k is positive");
    shape(in(0), in(2).rows, out(0).cols, out(0).dtype);
    shape(in(1), out(0).rows, prim_.top_k, out(0).dtype);
    shape(in(2), in(0).rows, 1, DType::kInt64);
  }

  // Rows of `parts` ranks that share sequences.
  void sequence_rows(const Value& v) const {
    need(prim_.parts > 0 && prim_.sequences > 0 && v.rows.is_constant() &&
             v.rows.c0 % (prim_.parts * prim_.sequences) == 0,
         "parts x sequences divide the rows");
  }

  // Columns of the key (or value) heads that one peer gets.
  std::int64_t kv_cols() const {
    need(prim_.parts > 0 && prim_.heads > 0 && prim_.kv_heads > 0 && prim_.head_dim > 0 &&
             prim_.heads % prim_.parts == 0 &&
             (prim_.kv_heads % prim_.parts == 0 || prim_.parts % prim_.kv_heads == 0),
         "parts divide the heads; the kv heads, or these divide the parts");
    return std::max<std::int64_t>(1, prim_.kv_heads / prim_.parts) * prim_.head_dim;
  }

  void pack_heads() const {
    const std::int64_t kv = kv_cols(), q = prim_.heads * prim_.head_dim;
    need(in(0).cols == q && in(1).cols == prim_.kv_heads * prim_.head_dim,
         "q is [T, heads x head_dim], k and v [T, kv_heads x head_dim]");
    same(in(1), in(2));
    shape(in(1), in(0).rows, in(1).cols, in(0).dtype);
    shape(out(0), in(0).rows * prim_.parts, q / prim_.parts + 2 * kv, in(0).dtype);
  }

  void unpack_sequence() const {
    sequence_rows(in(0));
    const std::int64_t kv = kv_cols(), q = prim_.heads * prim_.head_dim / prim_.parts;
    need(in(0).cols == q + 2 * kv, "columns are q, k and v heads of this rank");
    shape(out(0), in(0).rows, q, in(0).dtype);
    shape(out(1), in(0).rows, kv, in(0).dtype);
    shape(out(2), in(0).rows, kv, in(0).dtype);
  }

  void loss(DType dtype) const {
    shape(out(0), SizeExpr::constant(1), 1, dtype);
    const auto& outs = block_.outputs;
    need(std::find(outs.begin(), outs.end(), prim_.out[0]) != outs.end(),
         "a loss is an output of its block");
    for (const Prim& other : block_.prims) {
      need(std::find(other.in.begin(), other.in.end(), prim_.out[0]) == other.in.end(),
           "a loss is not read by another primitive");
    }
  }

  const Block& block_;
  const Prim& prim_;
  std::string where_;
};

void define(const Block& block, std::vector<bool>& defined, ValueId v) {
  CHECK(v >= 0 && static_cast<std::size_t>(v) < defined.size(), block.name + ": no such value");
  CHECK(!defined[static_cast<std::size_t>(v)],
        block.name + ": assigned twice: " + block.values[static_cast<std::size_t>(v)].name);
  defined[static_cast<std::size_t>(v)] = true;
}

void check_defined(const Block& block, const std::vector<bool>& defined, ValueId v) {
  CHECK(v >= 0 && static_cast<std::size_t>(v) < defined.size(), block.name + ": no such value");
  CHECK(defined[static_cast<std::size_t>(v)],
        block.name + ": read before assignment: " + block.values[static_cast<std::size_t>(v)].name);
}

}  // namespace

void check_block(const Block& block) {
  std::vector<bool> defined(block.values.size());
  for (ValueId v : block.inputs) define(block, defined, v);
  for (const Prim& prim : block.prims) {
    const Arity arity = arity_of(prim);
    const std::string where = block.name + "/" + name_of(prim.kind);
    CHECK(prim.in.size() == arity.in && prim.out.size() == arity.out,
          where + ": wrong number of operands");
    CHECK(arity.param == (prim.param >= 0) &&
              prim.param < static_cast<std::int32_t>(block.params.size()),
          where + ": parameter missing, or given where none is used");
    for (ValueId v : prim.in) check_defined(block, defined, v);
    for (ValueId v : prim.out) define(block, defined, v);
    PrimCheck(block, prim).run();
  }
  std::vector<bool> seen(block.values.size());
  for (ValueId v : block.outputs) {
    check_defined(block, defined, v);
    define(block, seen, v);  // an output is listed once
    CHECK(std::find(block.inputs.begin(), block.inputs.end(), v) == block.inputs.end(),
          block.name + ": an input cannot be an output");
  }
}

}  // namespace orrery
