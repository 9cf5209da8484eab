// One transformer layer of the reference, forward and backward.
#include "tests/parity/reference_layer.h"

#include <algorithm>
#include <numeric>

namespace orrery::reference {
namespace {

SwiGlu dense_weights(const LayerWeights& w) {
  return {w("gate_proj"), w("up_proj"), w("down_proj")};
}

SwiGlu expert_weights(const LayerWeights& w, std::int64_t expert) {
  const std::int64_t each = w.model.moe_ffn * w.model.hidden;
  return {Values(w("experts.gate_proj")).subspan(expert * each, each),
          Values(w("experts.up_proj")).subspan(expert * each, each),
          Values(w("experts.down_proj")).subspan(expert * each, each)};
}

SwiGluGradient expert_gradient(const LayerWeights& w, Parameters& grads, std::int64_t expert) {
  const std::int64_t each = w.model.moe_ffn * w.model.hidden;
  return {Gradient(grads.at(w.name("experts.gate_proj"))).subspan(expert * each, each),
          Gradient(grads.at(w.name("experts.up_proj"))).subspan(expert * each, each),
          Gradient(grads.at(w.name("experts.down_proj"))).subspan(expert * each, each)};
}

// The factor of n[g,e] * p[g,e] in the balancing loss.
double balance_factor(const Model& model, const Rows& rows, std::int64_t group) {
  const auto tokens = static_cast<double>(rows.group_tokens[group]);
  return rows.balance_coefficient * static_cast<double>(model.experts) /
         (static_cast<double>(model.top_k) * tokens * tokens *
          static_cast<double>(rows.group_tokens.size()));
}

// Fills probs, experts and weights: softmax over all experts, the k most probable (ties go to the
// lower index), and their probabilities, divided by their sum if the model says so.
void route(const LayerWeights& w, LayerState& s) {
  const std::int64_t experts = w.model.experts, k = w.model.top_k;
  const Vector logits = linear(s.n2, w("router"), w.model.hidden);
  for (std::size_t at = 0; at < logits.size(); at += static_cast<std::size_t>(experts)) {
    const Vector p = softmax(Values(logits).subspan(at, experts));
    std::vector<std::int64_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&p](auto a, auto b) { return p[a] > p[b]; });
    double sum = 0;
    for (std::int64_t j = 0; j < k; ++j) sum += p[order[j]];
    for (std::int64_t j = 0; j < k; ++j) {
      s.experts.push_back(order[j]);
      s.weights.push_back(w.model.norm_topk ? p[order[j]] / sum : p[order[j]]);
    }
    s.probs.insert(s.probs.end(), p.begin(), p.end());
  }
}

void balance(const Model& model, const Rows& rows, LayerState& s) {
  const std::int64_t experts = model.experts, k = model.top_k;
  s.picks.assign(rows.group_tokens.size() * static_cast<std::size_t>(experts), 0);
  Vector sums(s.picks.size());
  for (std::size_t r = 0; r < rows.group.size(); ++r) {
    const auto n = static_cast<std::int64_t>(r);
    for (std::int64_t j = 0; j < k; ++j) {
      s.picks[rows.group[n] * experts + s.experts[n * k + j]] += 1;
    }
    for (std::int64_t e = 0; e < experts; ++e) {
      sums[rows.group[n] * experts + e] += s.probs[n * experts + e];
    }
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const auto group = static_cast<std::int64_t>(i) / experts;
    s.balance_loss += balance_factor(model, rows, group) * s.picks[i] * sums[i];
  }
}

Vector moe_forward(const LayerWeights& w, const Rows& rows, LayerState& s) {
  const std::int64_t hidden = w.model.hidden, k = w.model.top_k;
  route(w, s);
  balance(w.model, rows, s);
  Vector y(s.n2.size());
  for (std::size_t slot = 0; slot < s.experts.size(); ++slot) {
    const auto n = static_cast<std::int64_t>(slot) / k;
    const Values x = Values(s.n2).subspan(n * hidden, hidden);
    const Vector out = swiglu(x, expert_weights(w, s.experts[slot]), hidden);
    for (std::int64_t i = 0; i < hidden; ++i) y[n * hidden + i] += s.weights[slot] * out[i];
  }
  return y;
}

// The gradient of one token's router logits, from those of its k weights and of the balancing loss
// (which adds `factor` * picks[e] to the gradient of probs[e]).
Vector router_backward(const Model& model, Values probs, const std::int64_t* chosen,
                       const Vector& dweights, Values picks, double factor) {
  Vector dprobs(probs.size());
  for (std::size_t e = 0; e < probs.size(); ++e) dprobs[e] = factor * picks[e];
  double sum = 1, mean = 0;
  if (model.norm_topk) {  // w_j = p_j / sum: dp_j = (dw_j - sum_i w_i dw_i) / sum
    sum = 0;
    for (std::int64_t j = 0; j < model.top_k; ++j) sum += probs[chosen[j]];
    for (std::int64_t j = 0; j < model.top_k; ++j) mean += dweights[j] * probs[chosen[j]] / sum;
  }
  for (std::int64_t j = 0; j < model.top_k; ++j) dprobs[chosen[j]] += (dweights[j] - mean) / sum;
  double along = 0;  // softmax: dlogit_e = p_e (dp_e - sum_f p_f dp_f)
  for (std::size_t e = 0; e < probs.size(); ++e) along += probs[e] * dprobs[e];
  Vector dlogits(probs.size());
  for (std::size_t e = 0; e < probs.size(); ++e) dlogits[e] = probs[e] * (dprobs[e] - along);
  return dlogits;
}

Vector moe_backward(const LayerWeights& w, const Rows& rows, const LayerState& s, const Vector& dy,
                    Parameters& grads) {
  const std::int64_t hidden = w.model.hidden, k = w.model.top_k, experts = w.model.experts;
  Vector dn2(s.n2.size()), dlogits;
  for (std::size_t r = 0; r < rows.group.size(); ++r) {
    const auto n = static_cast<std::int64_t>(r);
    const Values x = Values(s.n2).subspan(n * hidden, hidden);
    Vector dweights(k);
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int64_t expert = s.experts[n * k + j];
      const Vector out = swiglu(x, expert_weights(w, expert), hidden);
      Vector dout(hidden);
      for (std::int64_t i = 0; i < hidden; ++i) {
        dweights[j] += dy[n * hidden + i] * out[i];
        dout[i] = dy[n * hidden + i] * s.weights[n * k + j];
      }
      const Vector dx = swiglu_backward(x, expert_weights(w, expert), hidden, dout,
                                        expert_gradient(w, grads, expert));
      for (std::int64_t i = 0; i < hidden; ++i) dn2[n * hidden + i] += dx[i];
    }
    const Vector drow =
        router_backward(w.model, Values(s.probs).subspan(n * experts, experts), &s.experts[n * k],
                        dweights, Values(s.picks).subspan(rows.group[n] * experts, experts),
                        balance_factor(w.model, rows, rows.group[n]));
    dlogits.insert(dlogits.end(), drow.begin(), drow.end());
  }
  add(dn2, linear_backward(s.n2, w("router"), hidden, dlogits, grads.at(w.name("router"))));
  return dn2;
}

Vector attention_block(const LayerWeights& w, const Rows& rows, LayerState& s) {
  const Model& m = w.model;
  s.n1 = rms_norm(s.x, w("input_norm"), m.rms_eps);
  s.q_linear = linear(s.n1, w("q_proj"), m.hidden);
  s.k_linear = linear(s.n1, w("k_proj"), m.hidden);
  s.v = linear(s.n1, w("v_proj"), m.hidden);
  s.q_normed = rms_norm(s.q_linear, w("q_norm"), m.rms_eps);  // over each head's columns
  s.k_normed = rms_norm(s.k_linear, w("k_norm"), m.rms_eps);
  s.q = rope(s.q_normed, rows.positions, m.heads, m.head_dim, m.rope_theta);
  s.k = rope(s.k_normed, rows.positions, m.kv_heads, m.head_dim, m.rope_theta);
  s.attended = attention(s.q, s.k, s.v, rows.attention);
  return linear(s.attended, w("o_proj"), m.heads * m.head_dim);
}

Vector attention_block_backward(const LayerWeights& w, const Rows& rows, const LayerState& s,
                                const Vector& dy, Parameters& grads) {
  const Model& m = w.model;
  const auto grad = [&](const char* leaf) -> Gradient { return grads.at(w.name(leaf)); };
  const Vector dattended =
      linear_backward(s.attended, w("o_proj"), m.heads * m.head_dim, dy, grad("o_proj"));
  const AttentionGradient d = attention_backward(s.q, s.k, s.v, rows.attention, dattended);
  const Vector dq_normed = rope(d.q, rows.positions, m.heads, m.head_dim, m.rope_theta, -1);
  const Vector dk_normed = rope(d.k, rows.positions, m.kv_heads, m.head_dim, m.rope_theta, -1);
  const Vector dq_linear =
      rms_norm_backward(s.q_linear, w("q_norm"), m.rms_eps, dq_normed, grad("q_norm"));
  const Vector dk_linear =
      rms_norm_backward(s.k_linear, w("k_norm"), m.rms_eps, dk_normed, grad("k_norm"));
  Vector dn1 = linear_backward(s.n1, w("q_proj"), m.hidden, dq_linear, grad("q_proj"));
  add(dn1, linear_backward(s.n1, w("k_proj"), m.hidden, dk_linear, grad("k_proj")));
  add(dn1, linear_backward(s.n1, w("v_proj"), m.hidden, d.v, grad("v_proj")));
  return rms_norm_backward(s.x, w("input_norm"), m.rms_eps, dn1, grad("input_norm"));
}

}  // namespace

LayerState layer_forward(const LayerWeights& w, const Rows& rows, const Vector& x) {
  LayerState s;
  s.x = x;
  s.x1 = x;
  add(s.x1, attention_block(w, rows, s));
  s.n2 = rms_norm(s.x1, w("post_norm"), w.model.rms_eps);
  s.y = s.x1;
  add(s.y, w.model.moe_layer[w.index] ? moe_forward(w, rows, s)
                                      : swiglu(s.n2, dense_weights(w), w.model.hidden));
  return s;
}

Vector layer_backward(const LayerWeights& w, const Rows& rows, const LayerState& s,
                      const Vector& dy, Parameters& grads) {
  const auto grad = [&](const char* leaf) -> Gradient { return grads.at(w.name(leaf)); };
  Vector dn2;
  if (w.model.moe_layer[w.index]) {
    dn2 = moe_backward(w, rows, s, dy, grads);
  } else {
    const SwiGluGradient dense{grad("gate_proj"), grad("up_proj"), grad("down_proj")};
    dn2 = swiglu_backward(s.n2, dense_weights(w), w.model.hidden, dy, dense);
  }
  Vector dx1 = dy;  // each residual passes its gradient on
  add(dx1, rms_norm_backward(s.x1, w("post_norm"), w.model.rms_eps, dn2, grad("post_norm")));
  Vector dx = dx1;
  add(dx, attention_block_backward(w, rows, s, dx1, grads));
  return dx;
}

}  // namespace orrery::reference
