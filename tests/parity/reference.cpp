// The reference model as a whole: shapes, checks, forward, backward, AdamW.
#include "tests/parity/reference.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "core/check.h"
#include "tests/parity/reference_layer.h"
#include "tests/parity/reference_math.h"

namespace orrery::reference {
namespace {

bool is_moe_layer(const Model& model, std::int64_t layer) {
  return model.moe_layer[layer];
}

std::string head_name(const Model& model) {
  return model.tied_head ? "embed_tokens" : "lm_head";
}

void check_model(const Model& model) {
  CHECK(model.moe_layer.size() == static_cast<std::size_t>(model.layers), "moe_layer");
  CHECK(model.kv_heads > 0 && model.heads % model.kv_heads == 0, "heads over kv_heads");
  CHECK(model.head_dim % 2 == 0, "odd head_dim");
  CHECK(model.top_k <= model.experts, "top_k above experts");
  CHECK(model.experts % model.expert_groups == 0, "experts over groups");
}

void check_parameters(const Model& model, const Parameters& parameters) {
  const auto expected = shapes(model);
  for (const auto& [name, shape] : expected) {
    const auto found = parameters.find(name);
    CHECK(found != parameters.end(), "missing parameter " + name);
    const auto size = std::accumulate(shape.begin(), shape.end(), std::int64_t{1},
                                      std::multiplies<std::int64_t>());
    CHECK(static_cast<std::int64_t>(found->second.size()) == size, "wrong size of " + name);
  }
  CHECK(parameters.size() == expected.size(), "unknown parameters");
}

void check_batch(const Model& model, const Batch& batch) {
  const auto rows = static_cast<std::size_t>(batch.sequences * batch.tokens);
  CHECK(batch.ids.size() == rows && batch.labels.size() == rows, "ids or labels of wrong size");
  for (std::size_t i = 0; i < rows; ++i) {
    CHECK(batch.ids[i] >= 0 && batch.ids[i] < model.vocab, std::to_string(batch.ids[i]));
    CHECK(batch.labels[i] == kIgnored || (batch.labels[i] >= 0 && batch.labels[i] < model.vocab),
          std::to_string(batch.labels[i]));
  }
  CHECK(batch.documents.size() == static_cast<std::size_t>(batch.sequences), "documents");
  for (const auto& lengths : batch.documents) {
    const auto sum = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    CHECK(sum == batch.tokens, "document lengths sum to " + std::to_string(sum));
  }
}

Rows make_rows(const Model& model, const Batch& batch, const Options& options) {
  Rows rows;
  rows.attention = {model.heads, model.kv_heads, model.head_dim, {}};
  rows.balance_coefficient = options.balance ? model.balance_coefficient : 0;
  rows.z_loss = options.z_loss;
  rows.biases = &options.biases;
  for (std::int64_t s = 0; s < batch.sequences; ++s) {
    std::int64_t group = s;
    if (options.scope == BalanceScope::kMicrobatchGlobal) {
      CHECK(s < static_cast<std::int64_t>(options.micro_batch_of_sequence.size()),
            "no micro-batch of sequence " + std::to_string(s));
      group = options.micro_batch_of_sequence[s];
      CHECK(group >= 0, "negative micro-batch of sequence " + std::to_string(s));
    }
    if (group >= static_cast<std::int64_t>(rows.group_tokens.size())) {
      rows.group_tokens.resize(static_cast<std::size_t>(group) + 1, 0);
    }
    rows.group_tokens[group] += batch.tokens;
    for (const std::int64_t length : batch.documents[s]) {
      const auto begin = static_cast<std::int64_t>(rows.positions.size());
      rows.attention.documents.emplace_back(begin, begin + length);
      for (std::int64_t position = 0; position < length; ++position) {
        rows.positions.push_back(position);
        rows.group.push_back(group);
      }
    }
  }
  for (const std::int64_t tokens : rows.group_tokens) CHECK(tokens > 0, "an empty micro-batch");
  return rows;
}

}  // namespace

std::map<std::string, std::vector<std::int64_t>> shapes(const Model& model) {
  check_model(model);
  const std::int64_t hidden = model.hidden, d = model.head_dim;
  std::map<std::string, std::vector<std::int64_t>> result;
  result["embed_tokens"] = {model.vocab, hidden};
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    result[prefix + "input_norm"] = {hidden};
    result[prefix + "q_proj"] = {model.heads * d, hidden};
    result[prefix + "k_proj"] = {model.kv_heads * d, hidden};
    result[prefix + "v_proj"] = {model.kv_heads * d, hidden};
    result[prefix + "o_proj"] = {hidden, model.heads * d};
    result[prefix + "q_norm"] = {d};
    result[prefix + "k_norm"] = {d};
    result[prefix + "post_norm"] = {hidden};
    if (is_moe_layer(model, layer)) {
      result[prefix + "router"] = {model.experts, hidden};
      result[prefix + "experts.gate_proj"] = {model.experts, model.moe_ffn, hidden};
      result[prefix + "experts.up_proj"] = {model.experts, model.moe_ffn, hidden};
      result[prefix + "experts.down_proj"] = {model.experts, hidden, model.moe_ffn};
      if (model.shared_ffn > 0) {
        result[prefix + "shared.gate_proj"] = {model.shared_ffn, hidden};
        result[prefix + "shared.up_proj"] = {model.shared_ffn, hidden};
        result[prefix + "shared.down_proj"] = {hidden, model.shared_ffn};
      }
    } else {
      result[prefix + "gate_proj"] = {model.ffn, hidden};
      result[prefix + "up_proj"] = {model.ffn, hidden};
      result[prefix + "down_proj"] = {hidden, model.ffn};
    }
  }
  result["final_norm"] = {hidden};
  if (!model.tied_head) result["lm_head"] = {model.vocab, hidden};
  return result;
}

Output run(const Model& model, const Parameters& parameters, const Batch& batch,
           const Options& options) {
  check_parameters(model, parameters);
  check_batch(model, batch);
  const Rows rows = make_rows(model, batch, options);
  const std::int64_t hidden = model.hidden;
  const Vector& embedding = parameters.at("embed_tokens");
  const Vector& head = parameters.at(head_name(model));
  Output out;
  for (const auto& [name, values] : parameters) out.grads[name].assign(values.size(), 0);

  Vector x;
  for (const std::int64_t id : batch.ids) {
    x.insert(x.end(), embedding.begin() + id * hidden, embedding.begin() + (id + 1) * hidden);
  }
  std::vector<LayerState> states;
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    states.push_back(layer_forward({model, parameters, layer}, rows, x));
    x = states.back().y;
    out.balance_loss += states.back().balance_loss;
    out.z_loss += states.back().z_loss;
    if (!is_moe_layer(model, layer)) continue;
    out.routing.emplace_back();
    for (const Route& route : states.back().routes) {
      out.routing.back().insert(out.routing.back().end(), route.experts.begin(),
                                route.experts.end());
    }
  }
  const Vector normed = rms_norm(x, parameters.at("final_norm"), model.rms_eps);
  out.logits = linear(normed, head, hidden);
  const CrossEntropy entropy = cross_entropy(out.logits, batch.labels, model.vocab);
  out.loss = entropy.loss;

  const Vector dnormed =
      linear_backward(normed, head, hidden, entropy.dlogits, out.grads.at(head_name(model)));
  Vector dx = rms_norm_backward(x, parameters.at("final_norm"), model.rms_eps, dnormed,
                                out.grads.at("final_norm"));
  for (std::int64_t layer = model.layers - 1; layer >= 0; --layer) {
    dx = layer_backward({model, parameters, layer}, rows, states[layer], dx, out.grads);
  }
  Vector& dembedding = out.grads.at("embed_tokens");
  for (std::size_t n = 0; n < batch.ids.size(); ++n) {
    for (std::int64_t i = 0; i < hidden; ++i) {
      dembedding[batch.ids[n] * hidden + i] += dx[static_cast<std::int64_t>(n) * hidden + i];
    }
  }
  double squares = 0;
  for (const auto& [name, values] : out.grads) {
    for (const double value : values) squares += value * value;
  }
  out.grad_norm = std::sqrt(squares);
  return out;
}

void update_biases(const Model& model, const std::vector<std::vector<std::int64_t>>& routing,
                   double speed, Parameters& biases) {
  std::size_t sparse = 0;
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    if (!is_moe_layer(model, layer)) continue;
    const std::vector<std::int64_t>& picks = routing[sparse++];
    Vector& bias = biases["layers." + std::to_string(layer) + ".router_bias"];
    bias.resize(static_cast<std::size_t>(model.experts), 0);
    const double mean = static_cast<double>(picks.size()) / static_cast<double>(model.experts);
    for (std::int64_t e = 0; e < model.experts; ++e) {
      const auto load = static_cast<double>(std::count(picks.begin(), picks.end(), e));
      if (load < mean) bias[e] += speed;
      if (load > mean) bias[e] -= speed;
    }
  }
}

void adamw(Parameters& parameters, AdamState& state, const Parameters& grads, const AdamW& hyper,
           double grad_norm, std::int64_t step) {
  CHECK(step >= 1, "steps count from 1");
  const double clip = std::min(1.0, hyper.clip_norm / (grad_norm + 1e-6));
  const double bias1 = 1 - std::pow(hyper.beta1, static_cast<double>(step));
  const double bias2 = 1 - std::pow(hyper.beta2, static_cast<double>(step));
  for (auto& [name, values] : parameters) {
    const double decay = name.find("norm") == std::string::npos ? hyper.weight_decay : 0;
    const Vector& grad = grads.at(name);
    Vector& m = state.m[name];
    Vector& v = state.v[name];
    m.resize(values.size(), 0);
    v.resize(values.size(), 0);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double g = clip * grad[i];
      m[i] = hyper.beta1 * m[i] + (1 - hyper.beta1) * g;
      v[i] = hyper.beta2 * v[i] + (1 - hyper.beta2) * g * g;
      const double update = (m[i] / bias1) / (std::sqrt(v[i] / bias2) + hyper.eps);
      values[i] -= hyper.lr * (decay * values[i] + update);
    }
  }
}

}  // namespace orrery::reference
