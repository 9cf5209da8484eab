// Small models, parameters and batches for parity tests.
#include "tests/parity/cases.h"

#include <algorithm>
#include <random>
#include <string>
#include <utility>

namespace orrery::reference {

Model tiny_dense() {
  Model model;
  model.name = "tiny-dense";
  model.model_type = "qwen3";
  model.vocab = 13;
  model.hidden = 10;
  model.layers = 2;
  model.heads = 4;
  model.kv_heads = 2;
  model.head_dim = 4;
  model.ffn = 6;
  model.moe_layer.assign(2, false);
  model.rope_theta = 50;
  model.max_positions = 64;
  return model;
}

Model tiny_moe(bool first_dense) {
  Model model = tiny_dense();
  model.name = "tiny-moe";
  model.model_type = "qwen3_moe";
  model.experts = 4;
  model.top_k = 2;
  model.moe_ffn = 3;
  model.norm_topk = true;
  model.balance_coefficient = 0.5;
  model.moe_layer = {!first_dense, true};
  return model;
}

Model tiny_dots() {
  Model model = tiny_moe(true);
  model.name = "tiny-dots";
  model.model_type = "dots1";
  model.experts = 8;
  model.top_k = 3;
  model.sigmoid_router = model.router_bias = true;
  model.expert_groups = 4;
  model.top_groups = 2;
  model.routed_scale = 2.5;
  model.shared_ffn = 2 * model.moe_ffn;
  return model;
}

Parameters random_biases(const Model& model, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal(-0.4, 0.4);
  Parameters biases;
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    if (!model.moe_layer[static_cast<std::size_t>(layer)]) continue;
    std::vector<double>& bias = biases["layers." + std::to_string(layer) + ".router_bias"];
    for (std::int64_t e = 0; e < model.experts; ++e) bias.push_back(normal(generator));
  }
  return biases;
}

Parameters random_parameters(const Model& model, std::uint64_t seed, double scale) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal(0, scale);
  Parameters parameters;
  for (const auto& [name, shape] : shapes(model)) {
    std::size_t size = 1;
    for (const std::int64_t extent : shape) size *= static_cast<std::size_t>(extent);
    const double centre = name.find("norm") == std::string::npos ? 0 : 1;
    std::vector<double>& values = parameters[name];
    for (std::size_t i = 0; i < size; ++i) values.push_back(centre + normal(generator));
  }
  return parameters;
}

Batch random_batch(const Model& model, std::int64_t sequences, std::int64_t tokens,
                   std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::uniform_int_distribution<std::int64_t> token(0, model.vocab - 1), fifth(0, 4),
      cut(0, tokens);
  Batch batch{sequences, tokens, {}, {}, {}};
  for (std::int64_t i = 0; i < sequences * tokens; ++i) {
    batch.ids.push_back(token(generator));
    batch.labels.push_back(fifth(generator) == 0 ? kIgnored : token(generator));
  }
  for (std::int64_t s = 0; s < sequences; ++s) {
    std::int64_t first = cut(generator), second = cut(generator);
    if (first > second) std::swap(first, second);
    std::vector<std::int64_t> lengths{first, second - first, tokens - second};
    lengths.erase(std::remove(lengths.begin(), lengths.end(), 0), lengths.end());
    batch.documents.push_back(lengths);
  }
  return batch;
}

}  // namespace orrery::reference
