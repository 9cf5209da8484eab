// Attention: projections (plain or latent), positions, the core in its context group, the output.
#include <algorithm>

#include "core/outline/builder.h"

namespace orrery::outline {
namespace {

// Keys that a query attends to in the mean: causal, within the window and its document.
double attended(const Job& job, std::int64_t layer) {
  const auto s = static_cast<double>(job.sequence_tokens);
  const double window = window_of(job, layer);
  const double share = fullest_share(job, layer);
  if (!job.documents.empty()) return pairs_before(job, layer, s) / s * share;
  if (window <= 0 || window >= s) return (s + 1) / 2;
  return (window - window * (window - 1) / (2 * s)) * share;
}

// Of the query that sees most.
double most_attended(const Job& job, std::int64_t layer) {
  std::int64_t longest = job.documents.empty() ? job.sequence_tokens : 0;
  for (const std::int64_t document : job.documents) longest = std::max(longest, document);
  const double window = window_of(job, layer), most = static_cast<double>(longest);
  return window > 0 ? std::min(window, most) : most;
}

Heads heads_of(const Job& job) {
  const Model& m = job.model;
  const auto tp = static_cast<double>(job.layout.tp), sp = static_cast<double>(job.layout.sp);
  const auto q = static_cast<double>(m.heads), kv = static_cast<double>(m.kv_heads);
  Heads h;
  h.q = q / (tp * sp);
  h.made_q = q / tp;
  // Fewer heads of keys than ranks are repeated.
  h.kv = m.is_latent() ? h.q : std::max(1.0, kv / (tp * sp));
  h.made_kv = m.is_latent() ? h.made_q : std::max(1.0, kv / tp);
  h.qk_cols =
      static_cast<double>(m.is_latent() ? m.latent.nope_dim + m.latent.rope_dim : m.head_dim);
  h.v_cols = static_cast<double>(m.is_latent() ? m.latent.v_dim : m.head_dim);
  return h;
}

// Latent rows are made by every tensor rank, heads out of them by theirs.
void latent_projections(const Job& job, Builder& b, const Heads& h, Parameters& p) {
  const Model& m = job.model;
  const LatentAttention& l = m.latent;
  const double rows = rows_of(job), hidden = static_cast<double>(m.hidden);
  const auto q_rank = static_cast<double>(l.q_rank), kv_rank = static_cast<double>(l.kv_rank);
  const auto rope = static_cast<double>(l.rope_dim), nope = static_cast<double>(l.nope_dim);
  const double kv_down = kv_rank + rope;
  b.in(Module::kProjections);
  if (q_rank > 0) {
    b.product("q_down", rows, q_rank, hidden, false);
    b.product("kv_down", rows, kv_down, hidden);
    p.dense += hidden * q_rank + q_rank;
    p.replicated += hidden * q_rank + q_rank;
    b.pass("latent_norm", PassKind::kNorm, rows * q_rank, rows * q_rank, rows * q_rank);
    b.in(Module::kLatentUp);
    b.product("q_up", rows, h.made_q * h.qk_cols, q_rank);
    p.dense += q_rank * h.made_q * h.qk_cols;
  } else {
    b.product("q_proj", rows, h.made_q * h.qk_cols, hidden);
    b.product("kv_down", rows, kv_down, hidden, false);
    p.dense += hidden * h.made_q * h.qk_cols;
  }
  b.in(Module::kLatentUp);
  b.pass("kv_norm", PassKind::kNorm, rows * kv_rank, rows * kv_rank, rows * kv_rank);
  b.product("kv_up", rows, h.made_kv * (nope + h.v_cols), kv_rank);
  p.dense += hidden * kv_down + kv_rank + kv_rank * h.made_kv * (nope + h.v_cols);
  p.replicated += hidden * kv_down + kv_rank;
  // Turns the rope columns and joins them with the others.
  const double heads = rows * h.made_q * h.qk_cols;
  b.pass("rope", PassKind::kRope, 2 * heads, 2 * heads);
}

void plain_projections(const Job& job, Builder& b, const Heads& h, Parameters& p) {
  const Model& m = job.model;
  const double rows = rows_of(job), hidden = static_cast<double>(m.hidden);
  const double q = h.made_q * h.qk_cols, kv = h.made_kv * h.qk_cols;
  b.in(Module::kProjections);
  b.product("qkv", rows, q + 2 * kv, hidden);
  p.dense += hidden * (q + 2 * kv) + (m.qkv_bias ? q + 2 * kv : 0);
  if (m.qk_norm) {
    b.pass("qk_norm", PassKind::kNorm, rows * (q + kv), rows * (q + kv), rows * (q + kv));
    p.dense += 2 * h.qk_cols;
    p.replicated += 2 * h.qk_cols;
  }
  if (m.positions == Positions::kRotary) {
    b.pass("rope", PassKind::kRope, rows * (q + kv), rows * (q + kv));
  }
}

// Scores in memory: two batched products and passes over [heads, queries, keys].
void unfused_core(const Job& job, Builder& b, const Heads& h) {
  const double s = static_cast<double>(job.sequence_tokens);
  const auto sequences =
      static_cast<double>(job.layout.micro_batch) / static_cast<double>(job.layout.cp);
  const double scores = sequences * h.q * s * s;
  Task& qk = b.product("scores", sequences * s, s, h.qk_cols, true, false);
  qk.kind = TaskKind::kGrouped;
  qk.groups = sequences * h.q;
  qk.m *= h.q;
  qk.flops = 2 * scores * h.qk_cols;
  qk.bytes = width(job) * (scores + 2 * sequences * h.q * s * h.qk_cols);
  qk.saves = width(job) * sequences * s * (h.q + h.kv) * h.qk_cols;
  const bool fused = job.stack.attention != AttentionKernel::kUnfused;
  Task& softmax = b.pass("softmax", PassKind::kActivation, scores, scores, scores);
  softmax.kernels = fused ? 1 : 4;
  if (!fused) softmax.bytes *= 3;  // scale, mask and cast of their own
  // Dropout of the probabilities, with its mask of a byte: models with gated MLPs have none.
  if (!job.model.gated) {
    Task& dropout = b.pass("dropout", PassKind::kStream, scores, scores, scores * 1.5);
    dropout.bytes += scores;
  }
  Task& pv = b.product("attended", sequences * s, h.v_cols, s, true, false);
  pv.kind = TaskKind::kGrouped;
  pv.groups = sequences * h.q;
  pv.m *= h.q;
  pv.flops = 2 * scores * h.v_cols;
  pv.bytes = width(job) * (scores + 2 * sequences * h.q * s * h.v_cols);
  pv.saves = width(job) * sequences * s * h.kv * h.v_cols;
}

void flash_core(const Job& job, std::int64_t layer, Builder& b, const Heads& h) {
  const auto sp = static_cast<double>(job.layout.sp);
  const double queries = rows_of(job) * sp;  // of fewer heads
  Task& t = b.add(TaskKind::kAttention, "core");
  t.m = queries;
  t.n = h.q;
  t.k = h.qk_cols;
  // Of a context group each rank has as many pairs as another, where documents allow it: heads and
  // tails of sequences.
  t.flops = 2 * queries * h.q * (h.qk_cols + h.v_cols) * attended(job, layer);
  const double qo = queries * h.q * (h.qk_cols + h.v_cols);
  const double kv = queries * h.kv * (h.qk_cols + h.v_cols);
  t.bytes = width(job) * (qo + kv * static_cast<double>(job.layout.cp));
  t.saves = width(job) * (qo + kv) + 4 * queries * h.q;
  if (job.layout.cp == 1 || job.context != ContextExchange::kRing) {
    t.longest = most_attended(job, layer) / attended(job, layer);
    return;
  }
  // A ring sees the keys of one rank after the other: a kernel for each, and one that joins its
  // rows with those before (Transformer Engine's AttnFuncWithCPAndKVP2P).
  t.parts = static_cast<double>(job.layout.cp);
  t.kernels = 2 * static_cast<std::int32_t>(job.layout.cp) - 1;
}

// Is there one kernel for all of attention? A sink in the softmax takes one that knows it.
bool scores_stay_inside(const Job& job) {
  return is_flash(job.stack.attention) && (!job.model.attention_sinks || job.stack.fuses_sinks);
}

void core(const Job& job, std::int64_t layer, Builder& b, const Heads& h) {
  b.in(Module::kCoreAttention);
  share_keys(job, b, h);
  if (scores_stay_inside(job)) {
    flash_core(job, layer, b, h);
  } else {
    unfused_core(job, b, h);
  }
  return_heads(job, b, h);
}

}  // namespace

void attention(const Job& job, std::int64_t layer, Builder& b, Parameters& p) {
  const Model& m = job.model;
  const Heads h = heads_of(job);
  norm(job, b, "input_norm", p);
  enter(job, b, "gather_rows");
  if (m.is_latent()) {
    latent_projections(job, b, h, p);
  } else {
    plain_projections(job, b, h, p);
  }
  core(job, layer, b, h);
  b.in(Module::kOutput);
  const double out = h.made_q * h.v_cols;
  const auto hidden = static_cast<double>(m.hidden);
  // Flash keeps its own output: the same rows.
  const bool kept = scores_stay_inside(job);
  b.product("output", rows_of(job), hidden, out, !kept);
  const double bias = m.linear_bias || m.output_bias ? hidden : 0;
  p.dense += hidden * out + bias + (m.attention_sinks ? h.made_q : 0);
  p.replicated += bias;
  leave(job, b, "sum_rows");
  const double residual = residual_rows(job) * hidden;
  b.pass("residual", PassKind::kStream, 2 * residual, residual);
}

}  // namespace orrery::outline
