// The dense parts of a decoder: ends, attention (whole, or cut for a sequence over several ranks),
// MLP; and the units of all parameters. See the header.
#include "core/models/decoder.h"

#include <algorithm>
#include <utility>

#include "core/models/builder.h"
#include "core/models/moe.h"

namespace orrery {
namespace {

constexpr const char* kUnit = "layer";

Block embed_block(const Model& m, const BlockShape& s) {
  const DType grads = gradient_dtype(m, s, "embed");
  Builder b("embed", rows_of(s.tokens()), s.compute, grads);
  const ValueId ids = b.integer_input("ids", rows_of(s.tokens()), 1);
  const ValueId x = b.value("x", m.hidden);
  const std::int32_t w = b.block.param("embed_tokens", {m.vocab, m.hidden}, grads);
  b.prim(PrimKind::kEmbedding, {ids}, {x}).param = w;
  return b.finish({x});
}

// q, k and v of local rows, normed by head and turned by position.
std::vector<ValueId> projections(Builder& b, const Model& m, const BlockShape& s, ValueId x) {
  const std::int64_t q_cols = m.heads * m.head_dim, kv_cols = m.kv_heads * m.head_dim;
  const ValueId n = b.norm("normed", x, "input_norm", m.hidden, m.hidden, m.rms_eps);
  const ValueId q = b.linear("q", n, "q_proj", q_cols, m.hidden);
  const ValueId k = b.linear("k", n, "k_proj", kv_cols, m.hidden);
  const ValueId v = b.linear("v", n, "v_proj", kv_cols, m.hidden);
  const ValueId qn = b.norm("q_normed", q, "q_norm", q_cols, m.head_dim, m.rms_eps);
  const ValueId kn = b.norm("k_normed", k, "k_norm", kv_cols, m.head_dim, m.rms_eps);
  const auto rope = [&](const char* out, ValueId in, std::int64_t heads) {
    const ValueId y = b.value(out, heads * m.head_dim);
    Prim& p = b.prim(PrimKind::kRope, {in}, {y});
    p.heads = heads;
    p.head_dim = m.head_dim;
    p.scalar = m.rope_theta;
    if (s.sp > 1) p.sequence_tokens = s.sequence_tokens / s.sp;
    return y;
  };
  const ValueId qr = rope("q_rotated", qn, m.heads);
  return {qr, rope("k_rotated", kn, m.kv_heads), v};
}

// Attention of this rank's heads over whole sequences.
ValueId attend(Builder& b, const Model& m, const BlockShape& s, std::vector<ValueId> qkv) {
  const std::int64_t heads = m.heads / s.sp;
  const ValueId o = b.value("attended", heads * m.head_dim);
  Prim& p = b.prim(PrimKind::kAttention, std::move(qkv), {o});
  p.heads = heads;
  p.kv_heads = std::max<std::int64_t>(1, m.kv_heads / s.sp);
  p.head_dim = m.head_dim;
  p.sequences = s.sequences;
  p.sequence_tokens = s.sequence_tokens;
  p.chunk = s.attention_query;
  return o;
}

ValueId project_out(Builder& b, const Model& m, ValueId x, ValueId o) {
  const ValueId y = b.linear("projected", o, "o_proj", m.hidden, m.heads * m.head_dim);
  return b.add("x1", x, y, m.hidden);
}

Block attention_block(const Model& m, const BlockShape& s) {
  Builder b("attention", rows_of(s.tokens()), s.compute, gradient_dtype(m, s, kUnit));
  const ValueId x = b.input("x", m.hidden);
  const ValueId o = attend(b, m, s, projections(b, m, s, x));
  return b.finish({project_out(b, m, x, o)});
}

// Columns of what one peer gets of a row: its query heads, key heads, value heads.
std::int64_t packed_cols(const Model& m, const BlockShape& s) {
  return (m.heads + 2 * std::max(m.kv_heads, s.sp)) / s.sp * m.head_dim;
}

void heads_of(const Model& m, const BlockShape& s, Prim& p) {
  p.heads = m.heads;
  p.kv_heads = m.kv_heads;
  p.head_dim = m.head_dim;
  p.parts = s.sp;
  p.sequences = s.sequences;
}

Block qkv_block(const Model& m, const BlockShape& s) {
  Builder b("qkv", rows_of(s.tokens()), s.compute, gradient_dtype(m, s, kUnit));
  const ValueId x = b.input("x", m.hidden);
  const std::vector<ValueId> qkv = projections(b, m, s, x);
  const ValueId packed = b.value("packed", rows_of(s.sp * s.tokens()), packed_cols(m, s));
  heads_of(m, s, b.prim(PrimKind::kPackHeads, qkv, {packed}));
  return b.finish({packed});
}

Block core_block(const Model& m, const BlockShape& s) {
  Builder b("core", rows_of(s.sp * s.tokens()), s.compute, s.compute);
  const ValueId packed = b.input("packed", packed_cols(m, s));
  const std::int64_t kv_cols = std::max<std::int64_t>(1, m.kv_heads / s.sp) * m.head_dim;
  const ValueId q = b.value("q", m.heads / s.sp * m.head_dim);
  const ValueId k = b.value("k", kv_cols), v = b.value("v", kv_cols);
  heads_of(m, s, b.prim(PrimKind::kUnpackSequence, {packed}, {q, k, v}));
  const ValueId o = attend(b, m, s, {q, k, v});
  const ValueId y = b.value("by_peer", m.heads / s.sp * m.head_dim);
  Prim& p = b.prim(PrimKind::kPackSequence, {o}, {y});
  p.parts = s.sp;
  p.sequences = s.sequences;
  return b.finish({y});
}

Block out_block(const Model& m, const BlockShape& s) {
  Builder b("out", rows_of(s.tokens()), s.compute, gradient_dtype(m, s, kUnit));
  const ValueId x = b.input("x", m.hidden);
  const ValueId attended =
      b.input("attended", rows_of(s.sp * s.tokens()), m.heads / s.sp * m.head_dim);
  const ValueId o = b.value("all_heads", m.heads * m.head_dim);
  b.prim(PrimKind::kUnpackHeads, {attended}, {o}).parts = s.sp;
  return b.finish({project_out(b, m, x, o)});
}

Block mlp_block(const Model& m, const BlockShape& s) {
  Builder b("mlp", rows_of(s.tokens()), s.compute, gradient_dtype(m, s, kUnit));
  const ValueId x1 = b.input("x1", m.hidden);
  const ValueId n = b.norm("normed", x1, "post_norm", m.hidden, m.hidden, m.rms_eps);
  const ValueId gate = b.linear("gate", n, "gate_proj", m.ffn, m.hidden);
  const ValueId up = b.linear("up", n, "up_proj", m.ffn, m.hidden);
  const ValueId a = b.swiglu(gate, up, m.ffn);
  const ValueId y = b.linear("down", a, "down_proj", m.hidden, m.ffn);
  return b.finish({b.add("x2", x1, y, m.hidden)});
}

Block loss_block(const Model& m, const BlockShape& s, std::int64_t rows) {
  Builder b("loss", rows_of(rows), s.compute, gradient_dtype(m, s, "head"));
  const ValueId x = b.input("x", m.hidden);
  const ValueId labels = b.integer_input("labels", rows_of(rows), 1);
  const ValueId n = b.norm("normed", x, "final_norm", m.hidden, m.hidden, m.rms_eps);
  const ValueId logits =
      b.linear("logits", n, m.tied_head ? "embed_tokens" : "lm_head", m.vocab, m.hidden);
  if (m.tied_head) b.block.params.back().grad_dtype = gradient_dtype(m, s, "embed");
  const ValueId loss = b.statistic("loss", rows_of(1), 1, true);
  b.prim(PrimKind::kCrossEntropy, {logits, labels}, {loss});
  return b.finish({loss});
}

void add_param(Unit& unit, const std::string& prefix, const char* name,
               std::vector<std::int64_t> shape, std::int64_t layer = -1, bool is_norm = false) {
  Param p;
  p.name = prefix + name;
  p.short_name = name;
  p.layer = static_cast<std::int32_t>(layer);
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
  add_param(u, prefix, "input_norm", {m.hidden}, layer, true);
  add_param(u, prefix, "q_proj", {q_cols, m.hidden}, layer);
  add_param(u, prefix, "k_proj", {kv_cols, m.hidden}, layer);
  add_param(u, prefix, "v_proj", {kv_cols, m.hidden}, layer);
  add_param(u, prefix, "o_proj", {m.hidden, q_cols}, layer);
  add_param(u, prefix, "q_norm", {m.head_dim}, layer, true);
  add_param(u, prefix, "k_norm", {m.head_dim}, layer, true);
  add_param(u, prefix, "post_norm", {m.hidden}, layer, true);
  if (!m.moe_layer[static_cast<std::size_t>(layer)]) {
    add_param(u, prefix, "gate_proj", {m.ffn, m.hidden}, layer);
    add_param(u, prefix, "up_proj", {m.ffn, m.hidden}, layer);
    add_param(u, prefix, "down_proj", {m.hidden, m.ffn}, layer);
    return u;
  }
  add_param(u, prefix, "router", {m.experts, m.hidden}, layer);
  if (m.shared_ffn == 0) return u;
  add_param(u, prefix, "shared.gate_proj", {m.shared_ffn, m.hidden}, layer);
  add_param(u, prefix, "shared.up_proj", {m.shared_ffn, m.hidden}, layer);
  add_param(u, prefix, "shared.down_proj", {m.hidden, m.shared_ffn}, layer);
  return u;
}

Unit expert_unit(const Model& m, std::int64_t layer, std::int64_t ep) {
  Unit u;
  u.name = "layer." + std::to_string(layer) + "/experts";
  u.is_expert = true;
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  const std::int64_t local = m.experts / ep;
  add_param(u, prefix, "experts.gate_proj", {local, m.moe_ffn, m.hidden}, layer);
  add_param(u, prefix, "experts.up_proj", {local, m.moe_ffn, m.hidden}, layer);
  add_param(u, prefix, "experts.down_proj", {local, m.hidden, m.moe_ffn}, layer);
  return u;
}

}  // namespace

ModelBlocks decoder_blocks(const Model& m, const BlockShape& s) {
  ModelBlocks blocks;
  blocks.embed = embed_block(m, s);
  if (s.sp == 1) {
    blocks.attention = attention_block(m, s);
  } else {
    blocks.qkv = qkv_block(m, s);
    blocks.core = core_block(m, s);
    blocks.out = out_block(m, s);
  }
  const bool any_dense =
      std::find(m.moe_layer.begin(), m.moe_layer.end(), false) != m.moe_layer.end();
  if (any_dense) blocks.mlp = mlp_block(m, s);
  if (m.is_moe()) fill_moe_blocks(m, s, blocks);
  const std::int64_t chunk = loss_chunk_rows(s);
  blocks.loss = loss_block(m, s, chunk);
  if (s.tokens() % chunk != 0) blocks.loss_tail = loss_block(m, s, s.tokens() % chunk);
  return blocks;
}

std::vector<Unit> decoder_units(const Model& m, std::int64_t ep) {
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
  add_param(head, "", "final_norm", {m.hidden}, -1, true);
  if (!m.tied_head) add_param(head, "", "lm_head", {m.vocab, m.hidden});
  units.push_back(std::move(head));
  return units;
}

}  // namespace orrery
