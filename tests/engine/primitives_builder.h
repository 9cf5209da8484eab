// Builds cases: draws inputs, parameters, documents and routed rows, and adds primitives by name.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/primitives_reference.h"

namespace orrery::engine {

struct Sizes {
  std::int64_t sequences, sequence_tokens, hidden, heads, kv_heads, head_dim, ffn, vocab, experts,
      top_k, peers, local_experts, chunk;
  std::int64_t sp = 1, groups = 1;  // ranks of a sequence, of which sequence_tokens is one's part
  std::int64_t tokens() const { return sequences * sequence_tokens; }
};

class Builder {
 public:
  Builder(const Sizes& sizes, DType dtype, std::uint64_t seed, bool one_document)
      : z(sizes), dtype_(dtype), stat_(stat_dtype(dtype)), rng_(seed) {
    for (std::int64_t s = 0; s < z.sequences; ++s) draw_documents(one_document);
    c.context.first_position = pick(0, z.sp - 1) * z.sequence_tokens;
    c.context.received.assign(static_cast<std::size_t>(z.peers), {});
    c.context.expert_rows.assign(static_cast<std::size_t>(z.local_experts), 0);
    for (auto& peer : c.context.received) {
      for (auto& rows : c.context.expert_rows) {
        // Some experts get nothing from some peers.
        peer.push_back(pick(0, 2) == 0 ? 0 : pick(0, 2 * z.tokens() / z.local_experts));
        rows += peer.back();
        routed_ += peer.back();
      }
    }
    c.context.loss_scale = 1.0 / 7;
    c.values = {routed_};
    c.base.route = 0;
  }

  std::int64_t pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(rng_);
  }
  SizeExpr tokens() const { return SizeExpr::constant(z.tokens()); }
  SizeExpr whole_rows() const { return tokens() * z.sp; }        // of the ranks of a sequence
  SizeExpr gathered_rows() const { return tokens() * z.peers; }  // of the ranks of an expert group
  // Says how many rows each local expert has.
  void route(std::vector<std::int64_t> expert_rows) {
    routed_ = 0;
    for (std::int64_t rows : expert_rows) routed_ += rows;
    c.context.expert_rows = std::move(expert_rows);
    c.values = {routed_};
  }
  static SizeExpr routed() { return {0, 1, VarScope::kRoute, RouteVars::rows()}; }
  std::int64_t count(const SizeExpr& rows) const { return rows.eval(c.values, c.base); }

  ValueId input(const std::string& name, SizeExpr rows, std::int64_t cols) {
    std::normal_distribution<double> normal;
    Matrix m(count(rows), cols);
    for (double& x : m.data) x = normal(rng_);
    return give(name, rows, m, dtype_);
  }
  // Integers in [low, high]; `ignore`: every third row is the label without a loss.
  ValueId integers(const std::string& name, std::int64_t high, bool ignore = false) {
    Matrix m(z.tokens(), 1);
    for (std::int64_t t = 0; t < m.rows; ++t) {
      m.at(t, 0) = ignore && t % 3 == 1 ? -100.0 : static_cast<double>(pick(0, high));
    }
    return give(name, tokens(), m, DType::kInt64);
  }
  ValueId given(const std::string& name, SizeExpr rows, const Matrix& m, DType dtype) {
    return give(name, rows, m, dtype);
  }
  std::int32_t weight(const std::string& name, std::vector<std::int64_t> shape, double mean = 0) {
    std::int64_t rows = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
    Matrix m(rows, shape.back());
    std::normal_distribution<double> normal(
        mean, mean > 0 ? 0.2 : 1 / std::sqrt(static_cast<double>(shape.back())));
    for (double& x : m.data) x = normal(rng_);
    c.params.push_back(m);
    return c.block.param(name, std::move(shape),
                         dtype_ == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
  }
  // A primitive with one output shaped like its first operand unless said.
  ValueId op(Prim prim, const std::string& name, std::int64_t cols = 0) {
    const Value first = c.block.values[static_cast<std::size_t>(prim.in[0])];
    return op_rows(std::move(prim), name, first.rows, cols == 0 ? first.cols : cols);
  }
  ValueId op_rows(Prim prim, const std::string& name, SizeExpr rows, std::int64_t cols) {
    const ValueId v = c.block.add(name, rows, cols, dtype_);
    prim.out = {v};
    c.block.prims.push_back(std::move(prim));
    return v;
  }
  ValueId norm(ValueId x, const std::string& name, std::int64_t d) {
    return op({.kind = PrimKind::kRmsNorm,
               .in = {x},
               .param = weight(name, {d}, 1),
               .head_dim = d,
               .scalar = 1e-5},
              name);
  }
  ValueId linear(ValueId x, const std::string& name, std::int64_t n) {
    const std::int64_t k = c.block.values[static_cast<std::size_t>(x)].cols;
    return op({.kind = PrimKind::kLinear, .in = {x}, .param = weight(name, {n, k})}, name, n);
  }
  ValueId grouped(ValueId x, const std::string& name, std::int64_t n) {
    const std::int64_t k = c.block.values[static_cast<std::size_t>(x)].cols;
    return op({.kind = PrimKind::kGroupedLinear,
               .in = {x},
               .param = weight(name, {z.local_experts, n, k})},
              name, n);
  }
  ValueId pair(PrimKind kind, ValueId a, ValueId b, const std::string& name) {
    return op({.kind = kind, .in = {a, b}}, name);
  }
  ValueId rope(ValueId x, std::int64_t heads) {
    return op(
        {.kind = PrimKind::kRope, .in = {x}, .heads = heads, .head_dim = z.head_dim, .scalar = 100},
        "rope");
  }
  ValueId attention(ValueId q, ValueId k, ValueId v) {
    return op({.kind = PrimKind::kAttention,
               .in = {q, k, v},
               .heads = z.heads,
               .kv_heads = z.kv_heads,
               .head_dim = z.head_dim,
               .sequences = z.sequences,
               .sequence_tokens = z.sequence_tokens,
               .chunk = z.chunk},
              "attention");
  }
  // weights, prob_sum, ids, counts.
  std::vector<ValueId> top_k(ValueId logits, bool normalize) {
    Block& b = c.block;
    const SizeExpr sequences = SizeExpr::constant(z.sequences);
    const std::vector<ValueId> out = {b.add("weights", tokens(), z.top_k, dtype_),
                                      b.add("prob_sum", sequences, z.experts, stat_),
                                      b.add("ids", tokens(), z.top_k, DType::kInt64, false),
                                      b.add("counts", sequences, z.experts, stat_, false)};
    b.prims.push_back({.kind = PrimKind::kTopK,
                       .in = {logits},
                       .out = out,
                       .top_k = z.top_k,
                       .experts = z.experts,
                       .sequences = z.sequences,
                       .normalize = normalize});
    return out;
  }
  // order, expert_counts.
  std::vector<ValueId> sort(ValueId ids) {
    Block& b = c.block;
    const std::vector<ValueId> out = {
        b.add("order", tokens() * z.top_k, 1, DType::kInt64, false),
        b.add("expert_counts", SizeExpr::constant(z.experts), 1, DType::kInt64, false)};
    b.prims.push_back(
        {.kind = PrimKind::kSortByExpert, .in = {ids}, .out = out, .experts = z.experts});
    return out;
  }
  ValueId permute(ValueId x, ValueId order) {
    return op_rows({.kind = PrimKind::kPermute, .in = {x, order}, .top_k = z.top_k}, "rows",
                   tokens() * z.top_k, z.hidden);
  }
  ValueId unpermute(ValueId rows, ValueId weights, ValueId order) {
    return op_rows({.kind = PrimKind::kUnpermute, .in = {rows, weights, order}, .top_k = z.top_k},
                   "merged", tokens(), z.hidden);
  }
  ValueId balance(ValueId sums, ValueId counts) {
    const ValueId loss = c.block.add("balance", SizeExpr::constant(1), 1, stat_);
    c.block.prims.push_back(
        {.kind = PrimKind::kBalanceLoss, .in = {sums, counts}, .out = {loss}, .scalar = 0.03});
    return loss;
  }
  ValueId cross_entropy(ValueId logits, ValueId labels) {
    const ValueId loss = c.block.add("loss", SizeExpr::constant(1), 1, stat_);
    c.block.prims.push_back(
        {.kind = PrimKind::kCrossEntropy, .in = {logits, labels}, .out = {loss}});
    return loss;
  }
  Case finish(const std::string& name, std::vector<ValueId> outputs) {
    c.block.name = name;
    c.block.outputs = std::move(outputs);
    c.block.finish();
    return std::move(c);
  }
  DType stat() const { return stat_; }
  std::mt19937_64& rng() { return rng_; }

  const Sizes z;
  Case c;

 private:
  ValueId give(const std::string& name, SizeExpr rows, const Matrix& m, DType dtype) {
    const ValueId v = c.block.add(name, rows, m.cols, dtype);
    c.block.inputs.push_back(v);
    c.inputs.push_back(m);
    return v;
  }
  void draw_documents(bool one) {
    std::vector<std::int64_t> lengths;
    std::int64_t left = z.sequence_tokens * z.sp;
    while (left > 0) {
      lengths.push_back(one ? left : pick(1, left));
      left -= lengths.back();
    }
    c.context.documents.push_back(lengths);
  }

  DType dtype_, stat_;
  std::mt19937_64 rng_;
  std::int64_t routed_ = 0;
};

using Maker = std::vector<ValueId> (*)(Builder&);

// Cases of what ranks that share sequences or experts do; see makers() for the others.
const std::map<std::string, Maker>& parallel_makers();
// Changes the sizes to what such a case asks for.
void fit_sizes(const std::string& name, Sizes& sizes);
// k different experts of `experts` for each of `rows` tokens.
Matrix random_ids(Builder& b, std::int64_t rows);

}  // namespace orrery::engine
