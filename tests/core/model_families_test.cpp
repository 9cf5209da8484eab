// Families that are simulated: published counts, FLOPs, dialects, and errors by injection.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/configs.h"
#include "core/model.h"

namespace orrery {
namespace {

Json config(const std::string& name) {
  return Json::load(find_config("models", name).value()).value();
}

Result<Model> parse(const Json& json) {
  return parse_model(json.dump(), "m.json");
}

Model without_mtp(Model model) {
  model.mtp_layers = 0;
  return model;
}

struct Published {
  const char* name;
  std::int64_t total;
  std::int64_t active;
};

// As model cards and the checkpoints' own sums have them; layers for further tokens apart.
TEST(ModelFamilies, CountsEqualThePublishedOnes) {
  for (const Published& p : {Published{"gpt3-175b", 174615846912, 174615846912},
                             {"mpt-7b", 6649286656, 6649286656},
                             {"mpt-30b", 29957200896, 29957200896},
                             {"bloom-176b", 176247271424, 176247271424},
                             {"llama-2-7b", 6738415616, 6738415616},
                             {"llama-2-70b", 68976648192, 68976648192},
                             {"llama-3-8b", 8030261248, 8030261248},
                             {"llama-3-70b", 70553706496, 70553706496},
                             {"llama-3.1-405b", 405853388800, 405853388800},
                             {"internlm-7b", 7321948160, 7321948160},
                             {"mixtral-8x7b", 46702792704, 12879925248},
                             {"mixtral-8x22b", 140620634112, 39152031744},
                             {"qwen2.5-7b", 7615616512, 7615616512},
                             {"qwen2.5-72b", 72706203648, 72706203648},
                             {"qwen3-14b", 14768307200, 14768307200},
                             {"gpt-oss-20b", 20914757184, 4187440704},
                             {"gpt-oss-120b", 116829156672, 5711982912},
                             {"deepseek-v2", 235741434880, 21375800320},
                             {"deepseek-v2-lite", 15706484224, 2661150208},
                             {"deepseek-v3", 671026404352, 37552282624},
                             {"kimi-k2", 1026408209408, 32861477888},
                             {"glm-4.5", 352797814784, 33632251904},
                             {"glm-4.6", 352797814784, 33632251904},
                             {"nemotron-4-15b", 15628775424, 15628775424},
                             {"nemotron-4-340b", 341029195776, 341029195776}}) {
    const Result<Model> model = load_model(p.name);
    ASSERT_TRUE(model.ok()) << model.error().text();
    EXPECT_EQ(parameter_count(without_mtp(model.value())), p.total) << p.name;
    EXPECT_EQ(active_parameter_count(without_mtp(model.value())), p.active) << p.name;
    EXPECT_EQ(executes(model.value()), std::string(p.name) == "qwen3-14b") << p.name;
  }
}

// Sizes that have no file here: other vocabularies, widths and biases of the same families.
TEST(ModelFamilies, CountsFollowTheKeys) {
  Json gpt = config("gpt3-175b");  // GPT-2 small
  gpt.set("n_embd", 768).set("n_layer", 12).set("n_head", 12).set("n_inner", Json());
  gpt.set("n_positions", 1024).set("vocab_size", 50257);
  EXPECT_EQ(parameter_count(parse(gpt).value()), 124439808);
  Json qwen = config("qwen3-8b");
  qwen.set("hidden_size", 2048).set("intermediate_size", 6144).set("num_hidden_layers", 28);
  qwen.set("num_attention_heads", 16).set("tie_word_embeddings", true);
  EXPECT_EQ(parameter_count(parse(qwen).value()), 1720574976);  // Qwen3-1.7B
  qwen.set("hidden_size", 2560).set("intermediate_size", 9728).set("num_hidden_layers", 36);
  EXPECT_EQ(parameter_count(parse(qwen.set("num_attention_heads", 32)).value()), 4022468096);
  Json llama = config("llama-3-8b");
  const std::int64_t plain = parameter_count(parse(llama).value());
  llama.set("attention_bias", true);
  const std::int64_t attention = 32 * (4096 + 2 * 1024 + 4096);
  EXPECT_EQ(parameter_count(parse(llama).value()), plain + attention);
  llama.set("mlp_bias", true);
  EXPECT_EQ(parameter_count(parse(llama).value()), plain + attention + 32 * (2 * 14336 + 4096));
  Json internlm = config("internlm-7b");  // InternLM2-7B
  internlm.set("model_type", "internlm2").set("bias", false).set("vocab_size", 92544);
  internlm.set("intermediate_size", 14336).set("num_key_value_heads", 8);
  EXPECT_EQ(parameter_count(parse(internlm).value()), 7737708544);
  Json mpt = config("mpt-7b");
  const std::int64_t without = parameter_count(parse(mpt).value());
  mpt.set("no_bias", false);
  EXPECT_EQ(parameter_count(parse(mpt).value()), without + 32 * 13 * 4096 - 32 * 2 * 4096 + 4096);
}

TEST(ModelFamilies, ALayerForAFurtherTokenCounts) {
  const Model m = load_model("deepseek-v3").value();
  EXPECT_EQ(m.mtp_layers, 1);
  EXPECT_EQ(parameter_count(m) - parameter_count(without_mtp(m)), 11610067968);
  EXPECT_EQ(active_parameter_count(m) - active_parameter_count(without_mtp(m)), 688100352);
  const Model glm = load_model("glm-4.5").value();
  EXPECT_EQ(parameter_count(glm) - parameter_count(without_mtp(glm)), 3988069632);
}

// What tables of published throughput imply for a token, TFLOP/s over tokens/s.
TEST(ModelFamilies, TrainingFlopsEqualThePublishedConvention) {
  struct Row {
    const char* name;
    double tokens, gflops;
  };
  for (const Row& row : {Row{"kimi-k2", 4096, 204.48},
                         {"gpt-oss-120b", 4096, 32.58},
                         {"llama-3-8b", 8192, 51.47},
                         {"llama-3-70b", 8192, 449.2},
                         {"llama-3.1-405b", 8192, 2524},
                         {"deepseek-v3", 4096, 259.99}}) {
    const double flops = training_flops_per_token(load_model(row.name).value(), row.tokens / 2);
    EXPECT_NEAR(flops / 1e9 / row.gflops, 1, 2e-3) << row.name;
  }
  const Model deepseek = without_mtp(load_model("deepseek-v3").value());
  EXPECT_NEAR(training_flops_per_token(deepseek, 2048) / 249.81e9, 1, 2e-3);
  Model oss = load_model("gpt-oss-120b").value();
  oss.window.clear();
  EXPECT_NEAR(training_flops_per_token(oss, 2048) / 34.33e9, 1, 2e-3);
  // A window that is longer than the sequence is none.
  oss.window.assign(36, 8192);
  EXPECT_EQ(training_flops_per_token(oss, 2048),
            training_flops_per_token(load_model("gpt-oss-120b").value(), 2048) +
                6.0 * 18 * 64 * 128 * (2048 - 64));
}

TEST(ModelFamilies, AGptByHand) {
  const Model m = load_model("gpt3-175b").value();
  EXPECT_EQ(m.norm, NormKind::kLayer);
  EXPECT_EQ(m.positions, Positions::kLearned);
  EXPECT_TRUE(m.norm_bias && m.qkv_bias && m.linear_bias && m.tied_head);
  EXPECT_FALSE(m.gated || m.qk_norm);
  // 72 L h^2 (1 + s / 6h + V / 12 L h), arXiv 2104.04473, with half of the square.
  const double h = 12288, layers = 96, s = 2048, vocab = 51200;
  const double published = 72 * layers * h * h * (1 + s / (12 * h) + vocab / (12 * layers * h));
  EXPECT_NEAR(training_flops_per_token(m, s / 2) / published, 1, 1e-12);
}

TEST(ModelFamilies, FieldsThatTheSimulatorReads) {
  const Model oss = load_model("gpt-oss-20b").value();
  EXPECT_TRUE(oss.attention_sinks && oss.qkv_bias && oss.linear_bias && oss.norm_topk);
  ASSERT_EQ(oss.window.size(), 24U);
  EXPECT_EQ(oss.window[0], 128);
  EXPECT_EQ(oss.window[1], 0);
  const Model v2 = load_model("deepseek-v2").value();
  EXPECT_TRUE(v2.is_latent());
  EXPECT_EQ(v2.latent, (LatentAttention{1536, 512, 128, 64, 128}));
  EXPECT_FALSE(v2.sigmoid_router || v2.router_bias || v2.norm_topk);
  EXPECT_EQ(v2.expert_groups, 8);
  EXPECT_EQ(v2.top_groups, 3);
  EXPECT_EQ(v2.shared_ffn, 2 * 1536);
  EXPECT_EQ(load_model("deepseek-v2-lite").value().latent.q_rank, 0);
  const Model v3 = load_model("deepseek-v3").value();
  EXPECT_TRUE(v3.sigmoid_router && v3.router_bias && v3.norm_topk);
  EXPECT_EQ(std::count(v3.moe_layer.begin(), v3.moe_layer.end(), false), 3);
  const Model qwen = load_model("qwen2.5-7b").value();
  EXPECT_TRUE(qwen.qkv_bias && qwen.window.empty());
  EXPECT_FALSE(qwen.output_bias || qwen.linear_bias || qwen.qk_norm);
  EXPECT_TRUE(load_model("internlm-7b").value().output_bias);
  EXPECT_EQ(load_model("bloom-176b").value().positions, Positions::kAlibi);
  EXPECT_EQ(load_model("nemotron-4-340b").value().head_dim, 192);
  EXPECT_FALSE(load_model("nemotron-4-340b").value().gated);
}

// transformers 5: rope_parameters, dtype, num_local_experts, layer types spelled out.
Json fifth_dialect(const Json& hub) {
  Json out = Json::object();
  Json rope = Json::object();
  rope.set("rope_type", "default");
  for (const auto& [key, value] : hub.members()) {
    if (key == "rope_theta" || key == "partial_rotary_factor") {
      rope.set(key, value);
    } else if (key == "rope_scaling") {
      if (!value.is_object()) continue;
      for (const auto& [name, setting] : value.members()) {
        rope.set(name == "type" ? "rope_type" : name, setting);
      }
    } else if (key == "n_routed_experts") {
      out.set("num_local_experts", value);
    } else if (key == "first_k_dense_replace") {
      Json types = Json::array();
      for (std::int64_t i = 0; i < hub.find("num_hidden_layers")->as_integer(); ++i) {
        types.push(i < value.as_integer() ? "dense" : "sparse");
      }
      out.set("mlp_layer_types", std::move(types));
    } else {
      out.set(key == "torch_dtype" ? "dtype" : key, value);
    }
  }
  if (hub.find("rope_theta") != nullptr) out.set("rope_parameters", std::move(rope));
  return out;
}

TEST(ModelFamilies, ReadsTheDialectsAlike) {
  int simulated = 0;
  for (const std::string& name : list_configs("models")) {
    const Json hub = config(name);
    const Model model = parse(hub).value();
    if (executes(model)) continue;
    ++simulated;
    Json four = Json::object();  // transformers 4.56
    for (const auto& [key, value] : hub.members()) {
      four.set(key == "torch_dtype" ? "dtype" : key, value);
    }
    EXPECT_EQ(parse(four).value(), model) << name;
    const Result<Model> five = parse(fifth_dialect(hub));
    ASSERT_TRUE(five.ok()) << five.error().text();
    EXPECT_EQ(five.value(), model) << name;
  }
  EXPECT_GE(simulated, 24);
}

TEST(ModelFamilies, WindowsFollowTheFamily) {
  Json mistral = config("llama-3-8b");
  mistral.set("model_type", "mistral");
  const auto round_trips = [](const Model& m) { return parse(to_json(m)).value() == m; };
  Model m = parse(mistral).value();
  EXPECT_EQ(m.window, std::vector<std::int64_t>(32, 4096));
  EXPECT_TRUE(round_trips(m));
  m = parse(mistral.set("sliding_window", Json())).value();
  EXPECT_TRUE(m.window.empty() && round_trips(m));
  m = parse(config("mixtral-8x7b").set("sliding_window", 4096)).value();
  EXPECT_EQ(m.window, std::vector<std::int64_t>(32, 4096));
  EXPECT_TRUE(round_trips(m));
  Json qwen = config("qwen2.5-7b");
  m = parse(qwen.set("use_sliding_window", true).set("max_window_layers", 26)).value();
  EXPECT_EQ(m.window[25], 0);
  EXPECT_EQ(m.window[26], 131072);
  EXPECT_TRUE(round_trips(m));
  Json oss = Json::object();  // without layer_types: every other layer
  const Json original = config("gpt-oss-20b");
  for (const auto& [key, value] : original.members()) {
    if (key != "layer_types") oss.set(key, value);
  }
  EXPECT_EQ(parse(oss).value(), parse(original).value());
  m = parse(oss.set("sliding_window", Json())).value();
  EXPECT_TRUE(m.window.empty() && round_trips(m));
}

TEST(ModelFamilies, WithoutSparseLayersTheyAreDense) {
  for (const char* name : {"deepseek-v3", "glm-4.5"}) {
    Json json = config(name);
    json.set("first_k_dense_replace", 1000);
    const Model dense = parse(json).value();
    EXPECT_FALSE(dense.is_moe() || dense.router_bias) << name;
    EXPECT_EQ(parse(to_json(dense)).value(), dense) << name;
    EXPECT_EQ(parse(json.set("n_routed_experts", 0)).value(), dense) << name;
  }
}

TEST(ModelFamilies, SparseLayersInAnyOrder) {
  Json json = config("deepseek-v2-lite");
  Json types = Json::array();
  for (int i = 0; i < 27; ++i) types.push(i % 3 == 1 ? "sparse" : "dense");
  const Model m = parse(json.set("mlp_layer_types", std::move(types))).value();
  EXPECT_EQ(std::count(m.moe_layer.begin(), m.moe_layer.end(), true), 9);
  EXPECT_TRUE(m.moe_layer[1] && !m.moe_layer[2]);
  EXPECT_EQ(parse(to_json(m)).value(), m);
}

TEST(ModelFamilies, WhatCannotBeHonouredIsAnErrorThatNamesTheKey) {
  struct Case {
    const char *name, *key;
    Json value;
    const char* place = nullptr;  // where it is not the key
  };
  const std::vector<Case> cases = {
      {"llama-3-8b", "hidden_size", 0},
      {"llama-3-8b", "num_key_value_heads", 5},
      {"llama-3-8b", "mlp_bias", true},
      {"llama-3-8b", "num_nextn_predict_layers", 1},
      {"llama-3-8b", "rope_scaling", "yarn"},
      {"llama-3-8b", "rope_parameters", Json::object().set("rope_theta", 5.0)},
      {"llama-3-8b", "attention_bias", "yes"},
      {"mixtral-8x7b", "num_experts_per_tok", 9},
      {"mixtral-8x7b", "num_experts", 4},
      {"mixtral-8x7b", "sliding_window", -1},
      {"mixtral-8x7b", "num_local_experts", 0},
      {"qwen2.5-7b", "hidden_size", 3585, "head_dim"},
      {"gpt-oss-20b", "layer_types", Json::array().push("full_attention")},
      {"gpt-oss-20b", "attention_bias", false},
      {"gpt-oss-20b", "sliding_window", Json()},
      {"gpt-oss-20b", "experts_per_token", 5},
      {"gpt3-175b", "n_head", 7},
      {"gpt3-175b", "hidden_size", 1024},
      {"gpt3-175b", "add_cross_attention", true},
      {"bloom-176b", "n_head", 100, "num_attention_heads"},
      {"mpt-7b", "attn_config", Json::object().set("qk_ln", true)},
      {"mpt-7b", "attn_config", Json::object().set("attn_type", "linear")},
      {"mpt-7b", "ffn_config", Json::object().set("ffn_type", "mb_moe")},
      {"mpt-7b", "norm_type", "rmsnorm"},
      {"mpt-7b", "expansion_ratio", 0},
      {"deepseek-v3", "kv_lora_rank", Json()},
      {"deepseek-v3", "q_lora_rank", 0},
      {"deepseek-v3", "attention_bias", true},
      {"deepseek-v3", "index_topk", 2048},
      {"deepseek-v3", "scoring_func", "tanh"},
      {"deepseek-v3", "topk_method", "random"},
      {"deepseek-v3", "moe_layer_freq", 2},
      {"deepseek-v3", "n_group", 7},
      {"deepseek-v3", "topk_group", 9},
      {"deepseek-v3", "num_nextn_predict_layers", -1},
      {"deepseek-v3", "mlp_layer_types", Json::array().push("dense")},
      {"kimi-k2", "n_routed_experts", Json()},
      {"glm-4.5", "num_experts_per_tok", 161},
      {"glm-4.5", "use_qk_norm", 1},
      {"nemotron-4-15b", "norm_eps", -1}};
  for (const Case& c : cases) {
    Json json = config(c.name);
    json.set(c.key, c.value);
    const Result<Model> model = parse(json);
    ASSERT_FALSE(model.ok()) << c.name << " " << c.key << " " << c.value.dump(-1);
    EXPECT_EQ(model.error().code, ErrorCode::kInvalid);
    const std::string place = "m.json:/" + std::string(c.place == nullptr ? c.key : c.place);
    EXPECT_NE(model.error().text().find(place), std::string::npos) << c.name << " " << c.key << "\n"
                                                                   << model.error().text();
  }
}

TEST(ModelFamilies, KindsOfRotaryScalingAreTaken) {
  const Model plain = parse(config("llama-3-8b")).value();
  for (const char* type : {"yarn", "linear", "dynamic", "llama3", "longrope"}) {
    Json json = config("llama-3-8b");
    json.set("rope_scaling", Json::object().set("rope_type", type).set("factor", 4.0));
    EXPECT_EQ(parse(json).value(), plain) << type;
  }
}

TEST(ModelFamilies, AModelBeyondCountingIsAnError) {
  Json json = config("deepseek-v3");
  json.set("num_nextn_predict_layers", 10000).set("num_hidden_layers", 10000);
  json.set("hidden_size", 1 << 24).set("moe_intermediate_size", 1 << 24);
  EXPECT_FALSE(parse(json).ok());
}

}  // namespace
}  // namespace orrery
