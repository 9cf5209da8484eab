// Work of each primitive, forward and backward: the FLOPs of its products and the bytes that it
// cannot avoid to move. Backward of a product is two products: the input's and the weight's.
#include "core/program/work.h"

#include "core/check.h"

namespace orrery {
namespace {

const Value& value(const Block& block, ValueId v) {
  return block.values[static_cast<std::size_t>(v)];
}

SizeExpr sum(const SizeExpr& a, const SizeExpr& b) {
  if (b.is_constant()) return a.plus(b.c0);
  if (a.is_constant()) return b.plus(a.c0);
  CHECK(a.scope == b.scope && a.offset == b.offset, "a sum over two size variables");
  return {a.c0 + b.c0, a.c1 + b.c1, a.scope, a.offset};
}

// A weight [groups,n,k] applied to rows x[m,k].
struct Product {
  SizeExpr m;
  std::int64_t n, k, groups;
  DType dtype, grad_dtype;
  bool grouped, input_grad;
};

Product product_of(const Block& block, const Prim& prim) {
  const BlockParam& param = block.params[static_cast<std::size_t>(prim.param)];
  const std::vector<std::int64_t>& shape = param.shape;
  const Value& x = value(block, prim.in[0]);
  const bool grouped = prim.kind == PrimKind::kGroupedLinear;
  return {x.rows,  shape[shape.size() - 2], shape.back(), grouped ? shape[0] : 1,
          x.dtype, param.grad_dtype,        grouped,      has_grad(x)};
}

// m is the row count in all three; of the weight's gradient it is the length of the reduction.
Work product_work(const Product& p) {
  Work work;
  work.kind = p.grouped ? WorkKind::kGroupedGemm : WorkKind::kGemm;
  work.dtype = p.dtype;
  work.m = p.m;
  work.n = p.n;
  work.k = p.k;
  work.groups = p.groups;
  work.flops = p.m * (2 * p.n * p.k);
  work.kernels = static_cast<std::int32_t>(p.groups);
  const std::int64_t weight = p.groups * p.n * p.k * size_of(p.dtype);
  work.bytes = (p.m * ((p.n + p.k) * size_of(p.dtype))).plus(weight);
  return work;
}

void product_backward(const Product& p, std::vector<Work>& out) {
  if (p.input_grad) {
    Work dx = product_work(p);
    dx.n = p.k;
    dx.k = p.n;
    out.push_back(dx);
  }
  Work dw = product_work(p);  // the buffer is read and written
  const std::int64_t buffer = 2 * p.groups * p.n * p.k * size_of(p.grad_dtype);
  dw.bytes = (p.m * ((p.n + p.k) * size_of(p.dtype))).plus(buffer);
  out.push_back(dw);
}

// 4 FLOPs a pair and head dimension forward; 10 backward, which recomputes the scores.
Work attention_work(const Block& block, const Prim& prim, bool backward) {
  const Value& q = value(block, prim.in[0]);
  const std::int64_t per_pair = (backward ? 10 : 4) * prim.heads * prim.head_dim;
  Work work;
  work.kind = WorkKind::kAttention;
  work.dtype = q.dtype;
  work.m = q.rows;
  work.n = prim.heads;
  work.k = prim.head_dim;
  work.flops = {0, per_pair, VarScope::kBatch, BatchVars::pairs()};
  const std::int64_t columns = 2 * (prim.heads + prim.kv_heads) * prim.head_dim;  // q, k, v, o
  work.bytes = q.rows * ((backward ? 2 : 1) * columns * size_of(q.dtype));
  const std::int64_t chunks = (prim.sequence_tokens + chunk_rows(prim) - 1) / chunk_rows(prim);
  const std::int64_t sequences = q.rows.c0 / prim.sequence_tokens;
  work.kernels = static_cast<std::int32_t>(sequences * chunks * (backward ? 20 : 10));
  return work;
}

PassKind pass_of(PrimKind kind) {
  switch (kind) {
    case PrimKind::kRmsNorm:
      return PassKind::kNorm;
    case PrimKind::kRope:
      return PassKind::kRope;
    case PrimKind::kSwiGlu:
      return PassKind::kActivation;
    case PrimKind::kTopK:
    case PrimKind::kTopKReplay:
    case PrimKind::kSortByExpert:
    case PrimKind::kSelectSort:
      return PassKind::kRouting;
    case PrimKind::kCrossEntropy:
    case PrimKind::kZLoss:
    case PrimKind::kBalanceLoss:
      return PassKind::kLoss;
    case PrimKind::kAdd:
      return PassKind::kStream;
    default:
      return PassKind::kRows;
  }
}

Work memory_work(PrimKind prim, DType dtype, SizeExpr bytes, std::int32_t kernels) {
  Work work;
  work.kind = WorkKind::kMemory;
  work.pass = pass_of(prim);
  work.dtype = dtype;
  work.bytes = bytes;
  work.kernels = kernels;
  return work;
}

// Small host-bound kernels of the table: launches of one slice.
std::int32_t kernels_of(PrimKind kind, bool backward) {
  switch (kind) {
    case PrimKind::kRmsNorm:
      return backward ? 12 : 7;
    case PrimKind::kRope:
      return 9;
    case PrimKind::kSwiGlu:
      return backward ? 14 : 6;
    case PrimKind::kTopK:
    case PrimKind::kTopKReplay:
      return 12;
    case PrimKind::kUnpermute:
    case PrimKind::kPermute:
    case PrimKind::kSelectRows:
    case PrimKind::kSpreadRows:
    case PrimKind::kSelectSort:
      return 6;
    case PrimKind::kZLoss:
      return backward ? 4 : 8;
    case PrimKind::kPackHeads:
    case PrimKind::kUnpackSequence:
      return 3;
    case PrimKind::kCrossEntropy:
      return backward ? 6 : 10;
    default:
      return 1;
  }
}

SizeExpr total_bytes(const Block& block, const std::vector<ValueId>& ids, SizeExpr total) {
  for (ValueId v : ids) total = sum(total, value(block, v).bytes());
  return total;
}

void forward_of(const Block& block, const Prim& prim, std::vector<Work>& out) {
  const DType dtype = value(block, prim.out[0]).dtype;
  switch (prim.kind) {
    case PrimKind::kLinear:
    case PrimKind::kGroupedLinear:
      out.push_back(product_work(product_of(block, prim)));
      return;
    case PrimKind::kAttention:
      out.push_back(attention_work(block, prim, false));
      return;
    case PrimKind::kEmbedding: {  // reads one row of the table for each row written
      const Value& y = value(block, prim.out[0]);
      out.push_back(
          memory_work(prim.kind, dtype, sum(y.bytes() * 2, value(block, prim.in[0]).bytes()), 1));
      return;
    }
    case PrimKind::kSelectRows: {  // reads a row for each row written
      const SizeExpr rows = value(block, prim.out[0]).bytes() * 2;
      const SizeExpr all = sum(rows, value(block, prim.in[1]).bytes());
      out.push_back(memory_work(prim.kind, dtype, all, kernels_of(prim.kind, false)));
      return;
    }
    default: {
      const SizeExpr read = total_bytes(block, prim.in, {});
      const SizeExpr all = total_bytes(block, prim.out, read);
      out.push_back(memory_work(prim.kind, dtype, all, kernels_of(prim.kind, false)));
    }
  }
}

void backward_of(const Block& block, const Prim& prim, std::vector<Work>& out) {
  const Value& y = value(block, prim.out[0]);
  switch (prim.kind) {
    case PrimKind::kLinear:
    case PrimKind::kGroupedLinear:
      product_backward(product_of(block, prim), out);
      return;
    case PrimKind::kAttention:
      out.push_back(attention_work(block, prim, true));
      return;
    case PrimKind::kSortByExpert:
    case PrimKind::kSelectSort:
    case PrimKind::kAdd:  // the gradient passes through
      return;
    case PrimKind::kEmbedding:  // reads and writes the rows of the gradient that it touches
      out.push_back(memory_work(prim.kind, y.dtype, y.bytes() * 3, 1));
      return;
    default: {
      // Reads the output's gradient and what was saved, writes the inputs' gradients.
      SizeExpr bytes = is_loss(prim.kind) ? SizeExpr{} : y.bytes();
      if (prim.kind == PrimKind::kUnpackSequence) bytes = total_bytes(block, prim.out, {});
      for (ValueId v : saved_by(prim)) bytes = sum(bytes, value(block, v).bytes());
      for (ValueId v : prim.in) {
        if (has_grad(value(block, v))) bytes = sum(bytes, value(block, v).bytes());
      }
      bytes = sum(bytes, memory_of(block, prim).saved_extra);
      out.push_back(memory_work(prim.kind, y.dtype, bytes, kernels_of(prim.kind, true)));
    }
  }
}

}  // namespace

const char* name_of(PassKind kind) {
  constexpr const char* kNames[] = {"stream", "norm",    "rope", "activation",
                                    "rows",   "routing", "loss", "optimizer"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::vector<Work> forward_work(const Block& block) {
  std::vector<Work> out;
  for (const Prim& prim : block.prims) forward_of(block, prim, out);
  return out;
}

std::vector<Work> backward_work(const Block& block) {
  std::vector<Work> out;
  for (std::size_t i = block.prims.size(); i-- > 0;) backward_of(block, block.prims[i], out);
  return out;
}

}  // namespace orrery
