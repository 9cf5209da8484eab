// Models: published counts, the dialects of config.json, and errors by injection.
#include "core/model.h"

#include <gtest/gtest.h>

#include <tuple>

#include "core/configs.h"

namespace orrery {
namespace {

struct Published {
  const char* name;
  std::int64_t total;
  std::int64_t active;
};

TEST(Model, CountsEqualThePublishedOnes) {
  for (const Published& p : {Published{"qwen3-0.6b", 596049920, 596049920},
                             {"qwen3-8b", 8190735360, 8190735360},
                             {"qwen3-32b", 32762123264, 32762123264},
                             {"qwen3-30b-a3b", 30532122624, 3353032704},
                             {"qwen3-235b-a22b", 235093634560, 22190763520},
                             {"dots.llm1", 142774373888, 14016581120}}) {
    const Result<Model> model = load_model(p.name);
    ASSERT_TRUE(model.ok()) << model.error().text();
    EXPECT_EQ(model.value().name, p.name);
    EXPECT_EQ(parameter_count(model.value()), p.total) << p.name;
    EXPECT_EQ(active_parameter_count(model.value()), p.active) << p.name;
  }
  const Model small = load_model("qwen3-moe-10m").value();
  EXPECT_NEAR(static_cast<double>(parameter_count(small)), 10.6e6, 0.1e6);
  EXPECT_NEAR(static_cast<double>(parameter_count(load_model("qwen3-dense-5m").value())), 5e6,
              0.1e6);
  const Model dots = load_model("dots1-10m").value();
  EXPECT_NEAR(static_cast<double>(parameter_count(dots)), 10.5e6, 0.1e6);
}

// dots.llm1 by hand: 61 sparse layers of 128 routed and 2 shared experts behind one dense layer.
TEST(Model, SharedExpertsAndTheDenseLayerCount) {
  const Model m = load_model("dots.llm1").value();
  const std::int64_t ends = 2 * 152064LL * 4096 + 4096;
  const std::int64_t attention = 4 * 4096LL * 32 * 128 + 2 * 128 + 2 * 4096;
  const std::int64_t expert = 3 * 4096LL * 1408, router = 128 * 4096LL;
  const std::int64_t shape = ends + 62 * attention + 3 * 4096LL * 10944;
  EXPECT_EQ(parameter_count(m), shape + 61 * (130 * expert + router));
  EXPECT_EQ(active_parameter_count(m), shape + 61 * (8 * expert + router));
  // Megatron's convention: norms and the router left out, one of the two ends.
  const std::int64_t products =
      62 * 4 * 4096LL * 32 * 128 + 3 * 4096LL * 10944 + 61 * 8 * expert + 152064LL * 4096;
  const double square = 12.0 * 62 * 32 * 128 * 1000;
  EXPECT_NEAR(training_flops_per_token(m, 1000) / (6.0 * static_cast<double>(products) + square), 1,
              1e-12);
}

// Figures that the published throughput tables imply, at 4,096 tokens.
TEST(Model, TrainingFlopsEqualThePublishedConvention) {
  const double big = training_flops_per_token(load_model("qwen3-235b-a22b").value(), 2048.5);
  const double small = training_flops_per_token(load_model("qwen3-30b-a3b").value(), 2048.5);
  EXPECT_NEAR(big / 148.03e9, 1, 2e-3);
  EXPECT_NEAR(small / 23.01e9, 1, 2e-3);
}

TEST(Model, EveryConfigRoundTrips) {
  const std::vector<std::string> names = list_configs("models");
  EXPECT_GE(names.size(), 7U);
  for (const std::string& name : names) {
    const Result<Model> model = load_model(name);
    ASSERT_TRUE(model.ok()) << model.error().text();
    const Result<Model> again = parse_model(to_json(model.value()).dump(-1), "other.json");
    ASSERT_TRUE(again.ok()) << again.error().text();
    EXPECT_EQ(again.value(), model.value()) << name;
  }
}

Json config(const char* name) {
  return Json::load(find_config("models", name).value()).value();
}

Result<Model> parse(const Json& json) {
  return parse_model(json.dump(), "m.json");
}

TEST(Model, ReadsTheDialectsAlike) {
  const Model hub = parse(config("qwen3-30b-a3b")).value();
  const Json original = config("qwen3-30b-a3b");
  Json five = Json::object();  // transformers 5
  for (const auto& [key, value] : original.members()) {
    if (key == "num_experts") {
      five.set("num_local_experts", value);
    } else if (key == "rope_theta") {
      five.set("rope_parameters",
               Json::object().set("rope_type", "default").set("rope_theta", 1000000));
    } else if (key == "torch_dtype") {
      five.set("dtype", value);
    } else {
      five.set(key, value);
    }
  }
  EXPECT_EQ(parse(five).value(), hub);
  Json floats = config("qwen3-30b-a3b");
  floats.set("hidden_size", 2048.0).set("rope_theta", 1e6).set("sliding_window", Json());
  EXPECT_EQ(parse(floats).value(), hub);
}

TEST(Model, FillsWhatIsAbsent) {
  Json json = config("qwen3-8b");
  json.set("head_dim", Json()).set("num_key_value_heads", Json());
  const Model model = parse(json).value();
  EXPECT_EQ(model.head_dim, 4096 / 32);
  EXPECT_EQ(model.kv_heads, 32);
}

TEST(Model, SparseLayersFollowStepAndExceptions) {
  Json json = config("qwen3-moe-10m");
  json.set("decoder_sparse_step", 2).set("mlp_only_layers", Json::array().push(3));
  const Model model = parse(json).value();
  EXPECT_EQ(model.moe_layer, (std::vector<bool>{false, true, false, false, false, true}));
  EXPECT_EQ(parse(to_json(model)).value(), model);
  // Two sparse layers of six, counted by hand.
  const std::int64_t attention = 256 * 32 * (8 + 2 + 2 + 8) + 2 * 32 + 2 * 256;
  const std::int64_t sparse = 8 * 3 * 256 * 256 + 8 * 256;
  EXPECT_EQ(parameter_count(model),
            2 * 256 * 256 + 256 + 6 * attention + 4 * 3 * 256 * 1024 + 2 * sparse);
  json.set("decoder_sparse_step", 7);
  EXPECT_FALSE(parse(json).value().is_moe());
}

TEST(Model, WhatCannotBeHonouredIsAnErrorThatNamesTheKey) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"attention_bias", true},
      {"use_sliding_window", true},
      {"attention_dropout", 0.1},
      {"hidden_act", "gelu"},
      {"rope_scaling", Json::object().set("rope_type", "yarn").set("factor", 4.0)},
      {"rope_scaling", Json::object().set("type", "linear").set("factor", 4.0)},
      {"rope_parameters", Json::object().set("rope_theta", 5.0)},
      {"rope_parameters", Json::object().set("full_attention", Json::object())},
      {"layer_types", Json::array().push("sliding_attention")},
      {"quantization_config", Json::object().set("quant_method", "fp8")},
      {"num_attention_heads", 0},
      {"num_key_value_heads", 3},
      {"vocab_size", "many"},
      {"hidden_size", Json()},
      {"hidden_size", 2048.5},
      {"num_experts", 4},
      {"num_local_experts", 64},
      {"num_experts_per_tok", 129},
      {"mlp_only_layers", Json::array().push(48)},
      {"head_dim", 127}};
  for (const auto& [key, value] : cases) {
    Json json = config("qwen3-30b-a3b");
    json.set(key, value);
    const Result<Model> model = parse(json);
    if (std::string(key) == "num_experts") {  // top 8 of 4
      ASSERT_FALSE(model.ok());
      continue;
    }
    ASSERT_FALSE(model.ok()) << key << " " << value.dump(-1);
    EXPECT_EQ(model.error().code, ErrorCode::kInvalid);
    EXPECT_NE(model.error().text().find("m.json:/" + std::string(key)), std::string::npos)
        << model.error().text();
  }
  Json huge = config("qwen3-30b-a3b");
  huge.set("hidden_size", 1 << 24).set("num_experts", 65536).set("moe_intermediate_size", 1 << 24);
  EXPECT_FALSE(parse(huge).ok());
}

TEST(Model, ReadsTheRouterOfDots) {
  const Model m = load_model("dots1-10m").value();
  EXPECT_EQ(m.moe_layer, (std::vector<bool>{false, true, true, true, true, true}));
  EXPECT_TRUE(m.sigmoid_router && m.router_bias && m.norm_topk);
  EXPECT_EQ(std::tie(m.experts, m.top_k, m.expert_groups, m.top_groups, m.shared_ffn),
            std::make_tuple(16, 4, 4, 2, 128));
  EXPECT_EQ(m.routed_scale, 2.5);
  const Model big = load_model("dots.llm1").value();
  EXPECT_EQ(big.shared_ffn, 2 * 1408);
  EXPECT_EQ(big.balance_coefficient, 0);  // loss-free: by the bias
  // Without sparse layers it is the dense network that it would be.
  Json json = config("dots1-10m");
  json.set("first_k_dense_replace", 6);
  const Model dense = parse(json).value();
  EXPECT_FALSE(dense.is_moe() || dense.router_bias || dense.sigmoid_router);
  EXPECT_EQ(parse(to_json(dense)).value(), dense);
}

TEST(Model, WhatDotsCannotHonourIsAnErrorThatNamesTheKey) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"sliding_window", 4096},
      {"layer_types", Json::array().push("full_attention").push("sliding_attention")},
      {"use_sliding_window", true},
      {"scoring_func", "softmax"},
      {"topk_method", "greedy"},
      {"moe_layer_freq", 2},
      {"n_group", 3},
      {"n_group", 16},  // one expert each
      {"topk_group", 5},
      {"n_group", 0},
      {"num_experts_per_tok", 17},
      {"n_routed_experts", Json()},
      {"routed_scaling_factor", -1},
      {"n_shared_experts", -1},
      {"num_nextn_predict_layers", 1},
      {"attention_bias", true}};
  for (const auto& [key, value] : cases) {
    Json json = config("dots1-10m");
    json.set(key, value).set("max_window_layers", 3);
    const Result<Model> model = parse(json);
    ASSERT_FALSE(model.ok()) << key << " " << value.dump(-1);
    EXPECT_NE(model.error().text().find("m.json:/" + std::string(key)), std::string::npos)
        << model.error().text();
  }
  // As many picks as the best groups have experts, and one more.
  Json json = config("dots1-10m");
  EXPECT_TRUE(parse(json.set("num_experts_per_tok", 8)).ok());
  EXPECT_FALSE(parse(json.set("num_experts_per_tok", 9)).ok());
  // A window that starts after the last layer is none; without the key the family's own default
  // has one from layer 62 on.
  json = config("dots1-10m");
  EXPECT_TRUE(parse(json.set("sliding_window", 4096).set("max_window_layers", 6)).ok());
  Json absent = Json::object();
  const Json original = config("dots1-10m");
  for (const auto& [key, value] : original.members()) {
    if (key != "sliding_window") absent.set(key, value);
  }
  EXPECT_TRUE(parse(absent).ok());
  EXPECT_FALSE(parse(absent.set("num_hidden_layers", 63)).ok());
}

TEST(Model, OtherFamiliesTakeNoSharedExperts) {
  for (const char* name : {"qwen3-8b", "qwen3-moe-10m"}) {
    Json json = config(name);
    EXPECT_FALSE(parse(json.set("n_shared_experts", 1)).ok()) << name;
  }
}

TEST(Model, ReportsAllProblemsAtOnce) {
  Json json = config("qwen3-30b-a3b");
  json.set("attention_bias", true).set("vocab_size", -1).set("hidden_act", "relu");
  json.set("num_hidden_layers", Json());
  EXPECT_EQ(parse(json).error().problems.size(), 4U);
}

TEST(Model, UnknownFamilyAndNameNameTheNearest) {
  Json json = config("qwen3-30b-a3b");
  json.set("model_type", "qwen3_mo");
  EXPECT_NE(parse(json).error().text().find("did you mean 'qwen3_moe'"), std::string::npos);
  json.set("model_type", "mamba");
  EXPECT_NE(parse(json).error().text().find("known: qwen3, qwen3_moe, dots1"), std::string::npos);
  const Result<Model> name = load_model("qwen3-8");
  ASSERT_FALSE(name.ok());
  EXPECT_EQ(name.error().code, ErrorCode::kInvalid);
  EXPECT_NE(name.error().text().find("did you mean 'qwen3-8b'"), std::string::npos);
  EXPECT_EQ(load_model("no/such/file.json").error().code, ErrorCode::kInvalid);
}

TEST(Model, EveryTruncationIsAnErrorWithAPlace) {
  const std::string text = read_file(find_config("models", "qwen3-0.6b").value()).value();
  for (std::size_t n = 0; n + 1 < text.size(); ++n) {
    const Result<Model> model = parse_model(text.substr(0, n), "m.json");
    ASSERT_FALSE(model.ok()) << n;
    EXPECT_EQ(model.error().problems.at(0).where.rfind("m.json:", 0), 0U);
  }
}

}  // namespace
}  // namespace orrery
