// Qwen3, dense and mixture-of-experts: pre-norm decoder layers with grouped-query attention, RMS
// norm of each query and key head before rotary embedding, SwiGLU, and a softmax top-k router.
// Semantics as in the published configs and weights of Qwen3 (arXiv 2505.09388).
#include "core/models/qwen3.h"

#include <utility>

namespace orrery {
namespace {

SizeExpr rows_of(std::int64_t n) {
  return SizeExpr::constant(n);
}

// The statistics of the router are kept in fp32 (fp64 when the model computes in fp64).
DType stats_dtype(DType compute) {
  return compute == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// Small helpers so that a block reads like the formula.
class Builder {
 public:
  Builder(std::string name, SizeExpr rows, DType dtype, DType grad_dtype)
      : rows_(rows), dtype_(dtype), grad_dtype_(grad_dtype) {
    block.name = std::move(name);
  }
  Builder(std::string name, SizeExpr rows, DType dtype)
      : Builder(std::move(name), rows, dtype, dtype) {}
  ValueId input(const char* name, std::int64_t cols) {
    const ValueId id = block.add(name, rows_, cols, dtype_);
    block.inputs.push_back(id);
    return id;
  }
  ValueId integer_input(const char* name, SizeExpr rows, std::int64_t cols) {
    const ValueId id = block.add(name, rows, cols, DType::kInt64, false);
    block.inputs.push_back(id);
    return id;
  }
  ValueId value(const char* name, std::int64_t cols) {
    return block.add(name, rows_, cols, dtype_);
  }
  Prim& prim(PrimKind kind, std::vector<ValueId> in, std::vector<ValueId> out) {
    Prim p;
    p.kind = kind;
    p.in = std::move(in);
    p.out = std::move(out);
    block.prims.push_back(std::move(p));
    return block.prims.back();
  }
  ValueId norm(const char* out, ValueId x, const char* weight, std::int64_t cols,
               std::int64_t group, double eps) {
    const ValueId y = value(out, cols);
    const std::int32_t w = block.param(weight, {group}, grad_dtype_);
    Prim& p = prim(PrimKind::kRmsNorm, {x}, {y});
    p.param = w;
    p.head_dim = group;
    p.scalar = eps;
    return y;
  }
  ValueId linear(const char* out, ValueId x, const char* weight, std::int64_t n, std::int64_t k) {
    const ValueId y = value(out, n);
    const std::int32_t w = block.param(weight, {n, k}, grad_dtype_);
    prim(PrimKind::kLinear, {x}, {y}).param = w;
    return y;
  }
  ValueId grouped(const char* out, ValueId x, const char* weight, std::int64_t experts,
                  std::int64_t n, std::int64_t k) {
    const ValueId y = value(out, n);
    const std::int32_t w = block.param(weight, {experts, n, k}, grad_dtype_);
    Prim& p = prim(PrimKind::kGroupedLinear, {x}, {y});
    p.param = w;
    p.experts = experts;
    return y;
  }
  ValueId rope(const char* out, ValueId x, std::int64_t heads, const Model& model) {
    const ValueId y = value(out, heads * model.head_dim);
    Prim& p = prim(PrimKind::kRope, {x}, {y});
    p.heads = heads;
    p.head_dim = model.head_dim;
    p.scalar = model.rope_theta;
    return y;
  }
  ValueId add(const char* out, ValueId a, ValueId b, std::int64_t cols) {
    const ValueId y = value(out, cols);
    prim(PrimKind::kAdd, {a, b}, {y});
    return y;
  }
  Block finish(std::vector<ValueId> outputs) {
    block.outputs = std::move(outputs);
    block.finish();
    return std::move(block);
  }

  Block block;

 private:
  SizeExpr rows_;
  DType dtype_, grad_dtype_;  // of the block's values; of its parameters' gradient buffers
};

Block embed_block(const Model& m, const BlockShape& s) {
  const DType grads = gradient_dtype(m, s, "embed");
  Builder b("embed", rows_of(s.tokens()), s.compute, grads);
  const ValueId ids = b.integer_input("ids", rows_of(s.tokens()), 1);
  const ValueId x = b.value("x", m.hidden);
  const std::int32_t w = b.block.param("embed_tokens", {m.vocab, m.hidden}, grads);
  b.prim(PrimKind::kEmbedding, {ids}, {x}).param = w;
  return b.finish({x});
}

Block attention_block(const Model& m, const BlockShape& s) {
  Builder b("attention", rows_of(s.tokens()), s.compute);
  const std::int64_t q_cols = m.heads * m.head_dim, kv_cols = m.kv_heads * m.head_dim;
  const ValueId x = b.input("x", m.hidden);
  const ValueId n = b.norm("normed", x, "input_norm", m.hidden, m.hidden, m.rms_eps);
  const ValueId q = b.linear("q", n, "q_proj", q_cols, m.hidden);
  const ValueId k = b.linear("k", n, "k_proj", kv_cols, m.hidden);
  const ValueId v = b.linear("v", n, "v_proj", kv_cols, m.hidden);
  const ValueId qn = b.norm("q_normed", q, "q_norm", q_cols, m.head_dim, m.rms_eps);
  const ValueId kn = b.norm("k_normed", k, "k_norm", kv_cols, m.head_dim, m.rms_eps);
  const ValueId qr = b.rope("q_rotated", qn, m.heads, m);
  const ValueId kr = b.rope("k_rotated", kn, m.kv_heads, m);
  const ValueId o = b.value("attended", q_cols);
  Prim& p = b.prim(PrimKind::kAttention, {qr, kr, v}, {o});
  p.heads = m.heads;
  p.kv_heads = m.kv_heads;
  p.head_dim = m.head_dim;
  p.sequences = s.sequences;
  p.sequence_tokens = s.sequence_tokens;
  p.chunk = s.attention_query;
  const ValueId y = b.linear("projected", o, "o_proj", m.hidden, q_cols);
  return b.finish({b.add("x1", x, y, m.hidden)});
}

Block mlp_block(const Model& m, const BlockShape& s) {
  Builder b("mlp", rows_of(s.tokens()), s.compute);
  const ValueId x1 = b.input("x1", m.hidden);
  const ValueId n = b.norm("normed", x1, "post_norm", m.hidden, m.hidden, m.rms_eps);
  const ValueId gate = b.linear("gate", n, "gate_proj", m.ffn, m.hidden);
  const ValueId up = b.linear("up", n, "up_proj", m.ffn, m.hidden);
  const ValueId a = b.value("activated", m.ffn);
  b.prim(PrimKind::kSwiGlu, {gate, up}, {a});
  const ValueId y = b.linear("down", a, "down_proj", m.hidden, m.ffn);
  return b.finish({b.add("x2", x1, y, m.hidden)});
}

// Sequences over which the balancing loss sums expert counts.
std::int64_t balance_rows(const BlockShape& s) {
  return s.balance_scope == BalanceScope::kSequence ? s.sequences : 1;
}

// With `replay` the choice of experts (ids, order) is an input: routing is never recomputed.
Block router_block(const Model& m, const BlockShape& s, bool replay) {
  const std::int64_t slots = s.tokens() * m.top_k;
  const DType stats = stats_dtype(s.compute);
  Builder b(replay ? "router_replay" : "router", rows_of(s.tokens()), s.compute);
  const ValueId x1 = b.input("x1", m.hidden);
  ValueId ids = -1, order = -1;
  if (replay) {
    ids = b.integer_input("ids", rows_of(s.tokens()), m.top_k);
    order = b.integer_input("order", rows_of(slots), 1);
  }
  const ValueId n = b.norm("normed", x1, "post_norm", m.hidden, m.hidden, m.rms_eps);
  const ValueId logits = b.linear("logits", n, "router", m.experts, m.hidden);
  const ValueId weights = b.value("weights", m.top_k);
  const ValueId prob_sum = b.block.add("prob_sum", rows_of(balance_rows(s)), m.experts, stats);
  std::vector<ValueId> outputs;
  ValueId counts = -1, expert_counts = -1;
  if (!replay) {
    counts = b.block.add("counts", rows_of(balance_rows(s)), m.experts, stats, false);
    ids = b.block.add("ids", rows_of(s.tokens()), m.top_k, DType::kInt64, false);
    order = b.block.add("order", rows_of(slots), 1, DType::kInt64, false);
    expert_counts = b.block.add("expert_counts", rows_of(m.experts), 1, DType::kInt64, false);
  }
  Prim& top = replay ? b.prim(PrimKind::kTopKReplay, {logits, ids}, {weights, prob_sum})
                     : b.prim(PrimKind::kTopK, {logits}, {weights, prob_sum, ids, counts});
  top.top_k = m.top_k;
  top.experts = m.experts;
  top.sequences = balance_rows(s);
  top.normalize = m.norm_topk;
  if (!replay) {
    Prim& sort = b.prim(PrimKind::kSortByExpert, {ids}, {order, expert_counts});
    sort.experts = m.experts;
    sort.top_k = m.top_k;
  }
  const ValueId rows = b.block.add("rows", rows_of(slots), m.hidden, s.compute);
  b.prim(PrimKind::kPermute, {n, order}, {rows}).top_k = m.top_k;
  if (replay) return b.finish({rows, weights, prob_sum});
  return b.finish({rows, weights, prob_sum, counts, ids, order, expert_counts});
}

Block experts_block(const Model& m, const BlockShape& s) {
  const std::int64_t local = m.experts / s.ep;
  // Without expert parallelism every row stays here; with it, how many come depends on routing.
  const SizeExpr rows = s.ep == 1 ? rows_of(s.tokens() * m.top_k)
                                  : SizeExpr{0, 1, VarScope::kRoute, RouteVars::rows()};
  Builder b("experts", rows, s.compute);
  ValueId x = b.input("rows", m.hidden);
  if (s.ep > 1) {
    const ValueId sorted = b.value("by_expert", m.hidden);
    b.prim(PrimKind::kToExpertMajor, {x}, {sorted}).experts = local;
    x = sorted;
  }
  const ValueId gate = b.grouped("gate", x, "experts.gate_proj", local, m.moe_ffn, m.hidden);
  const ValueId up = b.grouped("up", x, "experts.up_proj", local, m.moe_ffn, m.hidden);
  const ValueId a = b.value("activated", m.moe_ffn);
  b.prim(PrimKind::kSwiGlu, {gate, up}, {a});
  ValueId y = b.grouped("down", a, "experts.down_proj", local, m.hidden, m.moe_ffn);
  if (s.ep > 1) {
    const ValueId back = b.value("by_source", m.hidden);
    b.prim(PrimKind::kToSourceMajor, {y}, {back}).experts = local;
    y = back;
  }
  return b.finish({y});
}

Block merge_block(const Model& m, const BlockShape& s) {
  const std::int64_t slots = s.tokens() * m.top_k;
  Builder b("merge", rows_of(s.tokens()), s.compute);
  const ValueId x1 = b.input("x1", m.hidden);
  const ValueId rows = b.block.add("rows", rows_of(slots), m.hidden, s.compute);
  b.block.inputs.push_back(rows);
  const ValueId weights = b.input("weights", m.top_k);
  const ValueId order = b.integer_input("order", rows_of(slots), 1);
  const ValueId y = b.value("merged", m.hidden);
  b.prim(PrimKind::kUnpermute, {rows, weights, order}, {y}).top_k = m.top_k;
  return b.finish({b.add("x2", x1, y, m.hidden)});
}

// Mean over sequences (or micro-batches of the world) of coef * E * sum_e f_e P_e, with f_e the
// share of (token, slot) picks and P_e the mean probability; summed over layers.
Block balance_block(const Model& m, const BlockShape& s) {
  const DType stats = stats_dtype(s.compute);
  Builder b("balance", rows_of(balance_rows(s)), stats);
  const ValueId prob_sum = b.input("prob_sum", m.experts);
  const ValueId counts = b.block.add("counts", rows_of(balance_rows(s)), m.experts, stats, false);
  b.block.inputs.push_back(counts);
  const bool by_sequence = s.balance_scope == BalanceScope::kSequence;
  const auto group_tokens =
      static_cast<double>(by_sequence ? s.valid_tokens : s.sequences * s.valid_tokens * s.dp);
  const auto groups = static_cast<double>(by_sequence ? s.global_sequences : s.micro_batches);
  const ValueId loss = b.block.add("loss", rows_of(1), 1, stats);
  Prim& p = b.prim(PrimKind::kBalanceLoss, {prob_sum, counts}, {loss});
  p.scalar = m.balance_coefficient * static_cast<double>(m.experts) /
             (static_cast<double>(m.top_k) * group_tokens * group_tokens * groups);
  p.sequences = balance_rows(s);
  p.experts = m.experts;
  return b.finish({loss});
}

Block loss_block(const Model& m, const BlockShape& s, std::int64_t rows) {
  Builder b("loss", rows_of(rows), s.compute, gradient_dtype(m, s, "head"));
  const ValueId x = b.input("x", m.hidden);
  const ValueId labels = b.integer_input("labels", rows_of(rows), 1);
  const ValueId n = b.norm("normed", x, "final_norm", m.hidden, m.hidden, m.rms_eps);
  const ValueId logits =
      b.linear("logits", n, m.tied_head ? "embed_tokens" : "lm_head", m.vocab, m.hidden);
  if (m.tied_head) b.block.params.back().grad_dtype = gradient_dtype(m, s, "embed");
  const ValueId loss = b.block.add("loss", rows_of(1), 1, stats_dtype(s.compute));
  b.prim(PrimKind::kCrossEntropy, {logits, labels}, {loss});
  return b.finish({loss});
}

void add_param(Unit& unit, const std::string& prefix, const char* name,
               std::vector<std::int64_t> shape, bool is_norm = false) {
  Param p;
  p.name = prefix + name;
  p.short_name = name;
  p.shape = std::move(shape);
  p.is_norm = is_norm;
  p.is_expert = unit.is_expert;
  unit.numel += p.numel();
  unit.params.push_back(std::move(p));
}

Unit layer_unit(const Model& m, std::int64_t layer) {
  Unit u;
  u.name = "layer." + std::to_string(layer);
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  const std::int64_t q_cols = m.heads * m.head_dim, kv_cols = m.kv_heads * m.head_dim;
  add_param(u, prefix, "input_norm", {m.hidden}, true);
  add_param(u, prefix, "q_proj", {q_cols, m.hidden});
  add_param(u, prefix, "k_proj", {kv_cols, m.hidden});
  add_param(u, prefix, "v_proj", {kv_cols, m.hidden});
  add_param(u, prefix, "o_proj", {m.hidden, q_cols});
  add_param(u, prefix, "q_norm", {m.head_dim}, true);
  add_param(u, prefix, "k_norm", {m.head_dim}, true);
  add_param(u, prefix, "post_norm", {m.hidden}, true);
  if (m.moe_layer[static_cast<std::size_t>(layer)]) {
    add_param(u, prefix, "router", {m.experts, m.hidden});
  } else {
    add_param(u, prefix, "gate_proj", {m.ffn, m.hidden});
    add_param(u, prefix, "up_proj", {m.ffn, m.hidden});
    add_param(u, prefix, "down_proj", {m.hidden, m.ffn});
  }
  return u;
}

Unit expert_unit(const Model& m, std::int64_t layer, std::int64_t ep) {
  Unit u;
  u.name = "layer." + std::to_string(layer) + "/experts";
  u.is_expert = true;
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  const std::int64_t local = m.experts / ep;
  add_param(u, prefix, "experts.gate_proj", {local, m.moe_ffn, m.hidden});
  add_param(u, prefix, "experts.up_proj", {local, m.moe_ffn, m.hidden});
  add_param(u, prefix, "experts.down_proj", {local, m.hidden, m.moe_ffn});
  return u;
}

}  // namespace

ModelBlocks qwen3_blocks(const Model& m, const BlockShape& s) {
  ModelBlocks blocks;
  blocks.embed = embed_block(m, s);
  blocks.attention = attention_block(m, s);
  bool any_dense = false;
  for (const bool moe : m.moe_layer) any_dense = any_dense || !moe;
  if (any_dense) blocks.mlp = mlp_block(m, s);
  if (m.is_moe()) {
    blocks.router = router_block(m, s, false);
    blocks.router_replay = router_block(m, s, true);
    blocks.experts = experts_block(m, s);
    blocks.merge = merge_block(m, s);
    if (m.balance_coefficient > 0) blocks.balance = balance_block(m, s);
  }
  const std::int64_t chunk = loss_chunk_rows(s);
  blocks.loss = loss_block(m, s, chunk);
  if (s.tokens() % chunk != 0) blocks.loss_tail = loss_block(m, s, s.tokens() % chunk);
  return blocks;
}

std::vector<Unit> qwen3_units(const Model& m, std::int64_t ep) {
  std::vector<Unit> units;
  Unit embed;
  embed.name = "embed";
  add_param(embed, "", "embed_tokens", {m.vocab, m.hidden});
  units.push_back(std::move(embed));
  for (std::int64_t i = 0; i < m.layers; ++i) {
    units.push_back(layer_unit(m, i));
    if (m.moe_layer[static_cast<std::size_t>(i)]) units.push_back(expert_unit(m, i, ep));
  }
  Unit head;
  head.name = "head";
  add_param(head, "", "final_norm", {m.hidden}, true);
  if (!m.tied_head) add_param(head, "", "lm_head", {m.vocab, m.hidden});
  units.push_back(std::move(head));
  return units;
}

}  // namespace orrery
