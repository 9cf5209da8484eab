// One transformer layer of the reference, forward and backward.
#include "tests/parity/reference_layer.h"

namespace orrery::reference {
namespace {

SwiGlu dense_weights(const LayerWeights& w) {
  return {w("gate_proj"), w("up_proj"), w("down_proj")};
}

SwiGlu shared_weights(const LayerWeights& w) {
  return {w("shared.gate_proj"), w("shared.up_proj"), w("shared.down_proj")};
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

void route(const LayerWeights& w, const Rows& rows, LayerState& s) {
  const std::int64_t experts = w.model.experts;
  const Vector logits = linear(s.n2, w("router"), w.model.hidden);
  const auto bias = rows.biases->find(w.name("router_bias"));
  const Vector none(static_cast<std::size_t>(experts), 0);
  for (std::size_t at = 0; at < logits.size(); at += static_cast<std::size_t>(experts)) {
    s.routes.push_back(route_token(w.model, Values(logits).subspan(at, experts),
                                   bias == rows.biases->end() ? none : bias->second));
  }
  for (const Route& r : s.routes) {
    s.z_loss += rows.z_loss * r.log_sum * r.log_sum / static_cast<double>(s.routes.size());
  }
}

void balance(const Model& model, const Rows& rows, LayerState& s) {
  const std::int64_t experts = model.experts;
  s.picks.assign(rows.group_tokens.size() * static_cast<std::size_t>(experts), 0);
  Vector sums(s.picks.size());
  for (std::size_t n = 0; n < rows.group.size(); ++n) {
    const std::int64_t first = rows.group[n] * experts;
    for (const std::int64_t e : s.routes[n].experts) s.picks[first + e] += 1;
    for (std::int64_t e = 0; e < experts; ++e) sums[first + e] += s.routes[n].probs[e];
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const auto group = static_cast<std::int64_t>(i) / experts;
    s.balance_loss += balance_factor(model, rows, group) * s.picks[i] * sums[i];
  }
}

Vector moe_forward(const LayerWeights& w, const Rows& rows, LayerState& s) {
  const std::int64_t hidden = w.model.hidden;
  route(w, rows, s);
  balance(w.model, rows, s);
  Vector y(s.n2.size());
  if (w.model.shared_ffn > 0) y = swiglu(s.n2, shared_weights(w), hidden);
  for (std::size_t r = 0; r < s.routes.size(); ++r) {
    const Route& route = s.routes[r];
    const std::int64_t first = static_cast<std::int64_t>(r) * hidden;
    const Values x = Values(s.n2).subspan(first, hidden);
    for (std::size_t j = 0; j < route.experts.size(); ++j) {
      const Vector out = swiglu(x, expert_weights(w, route.experts[j]), hidden);
      for (std::int64_t i = 0; i < hidden; ++i) y[first + i] += route.weights[j] * out[i];
    }
  }
  return y;
}

// Of one token: adds to its row of dn2 and to the experts' gradients; returns those of its weights.
Vector experts_backward(const LayerWeights& w, const Route& route, Values x, Values dy, Gradient dx,
                        Parameters& grads) {
  const std::int64_t hidden = w.model.hidden;
  Vector dweights(route.experts.size());
  for (std::size_t j = 0; j < route.experts.size(); ++j) {
    const std::int64_t expert = route.experts[j];
    const Vector out = swiglu(x, expert_weights(w, expert), hidden);
    Vector dout(hidden);
    for (std::int64_t i = 0; i < hidden; ++i) {
      dweights[j] += dy[i] * out[i];
      dout[i] = dy[i] * route.weights[j];
    }
    const Vector d = swiglu_backward(x, expert_weights(w, expert), hidden, dout,
                                     expert_gradient(w, grads, expert));
    for (std::int64_t i = 0; i < hidden; ++i) dx[i] += d[i];
  }
  return dweights;
}

Vector moe_backward(const LayerWeights& w, const Rows& rows, const LayerState& s, const Vector& dy,
                    Parameters& grads) {
  const std::int64_t hidden = w.model.hidden, experts = w.model.experts;
  const auto tokens = static_cast<double>(s.routes.size());
  Vector dn2(s.n2.size()), dlogits;
  for (std::size_t r = 0; r < s.routes.size(); ++r) {
    const Route& route = s.routes[r];
    const std::int64_t first = static_cast<std::int64_t>(r) * hidden;
    const Vector dweights = experts_backward(w, route, Values(s.n2).subspan(first, hidden),
                                             Values(dy).subspan(first, hidden),
                                             Gradient(dn2).subspan(first, hidden), grads);
    const double factor = balance_factor(w.model, rows, rows.group[r]);
    Vector dprobs(route.probs.size());
    for (std::int64_t e = 0; e < experts; ++e) {
      dprobs[e] = factor * s.picks[rows.group[r] * experts + e];
    }
    const double dlog_sum = 2 * rows.z_loss * route.log_sum / tokens;
    const Vector drow = route_token_backward(w.model, route, dweights, dprobs, dlog_sum);
    dlogits.insert(dlogits.end(), drow.begin(), drow.end());
  }
  add(dn2, linear_backward(s.n2, w("router"), hidden, dlogits, grads.at(w.name("router"))));
  if (w.model.shared_ffn > 0) {
    const SwiGluGradient shared{grads.at(w.name("shared.gate_proj")),
                                grads.at(w.name("shared.up_proj")),
                                grads.at(w.name("shared.down_proj"))};
    add(dn2, swiglu_backward(s.n2, shared_weights(w), hidden, dy, shared));
  }
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
