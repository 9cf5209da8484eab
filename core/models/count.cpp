// Parameters and training FLOPs of a model, from what its config.json says.
#include "core/models/count.h"

#include <algorithm>

namespace orrery {
namespace {

// The products of attention: weights, in int64 for counts and in double for bounds.
template <class Number>
Number attention_weights(const Model& m) {
  const auto n = [](std::int64_t x) { return static_cast<Number>(x); };
  if (!m.is_latent()) return n(m.hidden) * n(m.head_dim) * n(2 * m.heads + 2 * m.kv_heads);
  const LatentAttention& l = m.latent;
  const Number q = n(m.heads) * n(l.nope_dim + l.rope_dim);
  const Number queries = l.q_rank > 0 ? n(l.q_rank) * (n(m.hidden) + q) : n(m.hidden) * q;
  const Number keys =
      n(m.hidden) * n(l.kv_rank + l.rope_dim) + n(l.kv_rank) * n(m.heads) * n(l.nope_dim + l.v_dim);
  return queries + keys + n(m.heads) * n(l.v_dim) * n(m.hidden);
}

// Columns of queries and of values of all heads: what the attention square costs a key.
std::int64_t square_columns(const Model& m) {
  return m.heads *
         (m.is_latent() ? m.latent.nope_dim + m.latent.rope_dim + m.latent.v_dim : 2 * m.head_dim);
}

std::int64_t mlp_matrices(const Model& m) {
  return m.gated ? 3 : 2;
}

std::int64_t norm_parameters(const Model& m) {
  return m.hidden * (m.norm_bias ? 2 : 1);
}

// Biases, sinks and the norms inside attention.
std::int64_t attention_vectors(const Model& m) {
  std::int64_t sum = m.is_latent() ? m.latent.q_rank + m.latent.kv_rank : 0;
  if (m.qk_norm) sum += 2 * m.head_dim;
  if (m.qkv_bias) sum += m.head_dim * (m.heads + 2 * m.kv_heads);
  if (m.output_bias || m.linear_bias) sum += m.hidden;
  if (m.attention_sinks) sum += m.heads;
  return sum;
}

std::int64_t mlp_parameters(const Model& m, std::int64_t ffn) {
  const std::int64_t bias = m.linear_bias ? (mlp_matrices(m) - 1) * ffn + m.hidden : 0;
  return mlp_matrices(m) * m.hidden * ffn + bias;
}

std::int64_t layer_parameters(const Model& m, bool moe, std::int64_t experts_counted) {
  const std::int64_t attention = attention_weights<std::int64_t>(m) + attention_vectors(m);
  const std::int64_t shared = attention + 2 * norm_parameters(m);
  if (!moe) return shared + mlp_parameters(m, m.ffn);
  const std::int64_t router = m.experts * (m.hidden + (m.linear_bias ? 1 : 0));
  const std::int64_t always = m.shared_ffn > 0 ? mlp_parameters(m, m.shared_ffn) : 0;
  return shared + router + always + experts_counted * mlp_parameters(m, m.moe_ffn);
}

// A further token (DeepSeek-V3, arXiv 2412.19437): norms of the hidden row and of the next token's
// embedding, their projection to one row, a layer, a norm; embedding and head are the model's own.
std::int64_t mtp_parameters(const Model& m, std::int64_t experts_counted) {
  return 2 * m.hidden * m.hidden + 3 * norm_parameters(m) +
         layer_parameters(m, m.moe_layer.back(), experts_counted);
}

std::int64_t count(const Model& m, std::int64_t experts_counted) {
  std::int64_t total = m.vocab * m.hidden * (m.tied_head ? 1 : 2) + norm_parameters(m);
  if (m.embedding_norm) total += norm_parameters(m);
  if (m.positions == Positions::kLearned) total += m.max_positions * m.hidden;
  for (const bool moe : m.moe_layer) total += layer_parameters(m, moe, experts_counted);
  if (m.mtp_layers > 0) total += m.mtp_layers * mtp_parameters(m, experts_counted);
  return total;
}

}  // namespace

double rough_parameter_count(const Model& m) {
  const auto d = [](std::int64_t x) { return static_cast<double>(x); };
  const double hidden = d(m.hidden), layers = d(m.layers + m.mtp_layers);
  const double mlps = d(m.ffn) + d(m.experts) * d(m.moe_ffn + 1) + d(m.shared_ffn);
  const double layer = attention_weights<double>(m) + 3 * hidden * (mlps + 4);
  const double positions = m.positions == Positions::kLearned ? d(m.max_positions) : 0;
  return hidden * (2 * d(m.vocab) + positions) + layers * layer +
         2 * d(m.mtp_layers) * hidden * hidden;
}

std::int64_t parameter_count(const Model& model) {
  return count(model, model.experts);
}

std::int64_t active_parameter_count(const Model& model) {
  return count(model, model.top_k);
}

// 6 [sum over layers (attention projections + 3 h f, or 3 h (k f_e + f_s)) + V h] is three times
// two FLOPs a multiply-add; scores and values are 6 n_h (d_qk + d_v) a key that is attended to.
// A layer for a further token adds its own, 2 h^2 and V h.
double training_flops_per_token(const Model& m, double mean_attended) {
  const double head = static_cast<double>(m.vocab) * static_cast<double>(m.hidden);
  double weights = head;
  std::int64_t full = 0;  // layers without a window
  double windows = 0;     // keys that all windows together leave to a token
  const auto add = [&](std::size_t layer) {
    const std::int64_t ffn = m.moe_layer[layer] ? m.top_k * m.moe_ffn + m.shared_ffn : m.ffn;
    weights +=
        static_cast<double>(attention_weights<std::int64_t>(m) + mlp_matrices(m) * m.hidden * ffn);
    const std::int64_t window = m.window.empty() ? 0 : m.window[layer];
    if (window == 0) ++full;
    if (window > 0) windows += std::min(mean_attended, static_cast<double>(window) / 2);
  };
  for (std::size_t i = 0; i < m.moe_layer.size(); ++i) add(i);
  for (std::int64_t i = 0; i < m.mtp_layers; ++i) {
    add(m.moe_layer.size() - 1);
    weights += head + 2 * static_cast<double>(m.hidden) * static_cast<double>(m.hidden);
  }
  const std::int64_t columns = square_columns(m);
  return 6 * weights + static_cast<double>(6 * full * columns) * mean_attended +
         static_cast<double>(6 * columns) * windows;
}

}  // namespace orrery
