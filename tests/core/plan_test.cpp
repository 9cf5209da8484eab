// Plans: every rule fires on its own, plan.json round trips to the same bytes, edits are noticed.
#include "core/plan.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/configs.h"
#include "core/hash.h"

namespace orrery {
namespace {

Plan sample() {
  Plan plan;
  plan.model = load_model("qwen3-235b-a22b").value();
  plan.cluster = load_cluster("h800x256").value();
  plan.workload = load_workload("pretrain-4k").value();
  Layout& l = plan.layout;
  l.dp = 256;
  l.replicate_d = 8;
  l.fsdp_d = 32;
  l.replicate_e = 1;
  l.fsdp_e = 32;
  l.ep = 8;
  l.micro_batch = 2;
  l.accumulation = 2;
  plan.chunks.loss_tokens = 1024;
  plan.policy.recompute_layers = 94;
  plan.predicted.step = Seconds(9.1234567890123);
  plan.predicted.p10 = Seconds(9);
  plan.predicted.p90 = Seconds(10);
  plan.predicted.peak = Bytes(65LL << 30);
  plan.predicted.tokens_per_s = 459812.25;
  plan.predicted.mfu = 0.27;
  plan.predicted.memory = {{"saved", Bytes(1LL << 34)}, {"optimizer", Bytes(11)}};
  plan.predicted.document_cost = {1.25e-7, 3.3e-13};
  RunnerUp runner{l, plan.chunks, plan.policy, plan.predicted, "3 % more exposed communication"};
  runner.layout.ep = 4;
  plan.runners_up = {runner};
  plan.rejected = {{"experts_divide", 12}, {"memory", 3}};
  plan.proof = {100, 90, 7, 5, 9.1234567890123, 9.2, 1.5};
  plan.sha256 = plan_sha256(plan);
  return plan;
}

std::vector<std::string> broken(const Plan& p) {
  std::vector<std::string> rules;
  for (const Violation& v :
       violations(p.model, p.cluster, p.workload, p.layout, p.chunks, p.policy)) {
    rules.push_back(v.rule);
    EXPECT_FALSE(v.reason.empty());
  }
  return rules;
}

TEST(Plan, EveryRuleFiresAloneOnOneMutation) {
  EXPECT_TRUE(broken(sample()).empty());
  const std::vector<std::pair<const char*, std::function<void(Plan&)>>> cases = {
      {"positive", [](Plan& p) { p.layout.ep = 0; }},
      {"positive", [](Plan& p) { p.layout.accumulation = -2; }},
      {"world_size", [](Plan& p) { p.cluster.devices = 128; }},
      {"world_factors", [](Plan& p) { p.layout.fsdp_d = 64; }},
      {"world_factors", [](Plan& p) { p.layout.replicate_d = 1LL << 62; }},
      {"expert_world_factors", [](Plan& p) { p.layout.replicate_e = 2; }},
      {"experts_divide", [](Plan& p) { p.model.experts = 129; }},
      {"batch_divides", [](Plan& p) { p.layout.accumulation = 3; }},
      {"batch_divides", [](Plan& p) { p.layout.accumulation = 1LL << 62; }},
      {"order_names", [](Plan& p) { p.layout.dense_inner = "ep"; }},
      {"order_names", [](Plan& p) { p.layout.expert_inner = "replicate"; }},
      {"chunk_ranges", [](Plan& p) { p.chunks.loss_tokens = 8193; }},
      {"chunk_ranges", [](Plan& p) { p.chunks.attention_query = -1; }},
      {"chunk_ranges", [](Plan& p) { p.chunks.prefetch_depth = 9; }},
      {"recompute_range", [](Plan& p) { p.policy.recompute_layers = 95; }}};
  for (const auto& [rule, mutate] : cases) {
    Plan plan = sample();
    mutate(plan);
    EXPECT_EQ(broken(plan), std::vector<std::string>{rule});
  }
}

TEST(Plan, AxesThatDoNotRunAreNamed) {
  Plan plan = sample();
  plan.layout.dp = 128;
  plan.layout.tp = 2;
  plan.layout.fsdp_d = 16;
  plan.layout.accumulation = 4;
  EXPECT_EQ(broken(plan), std::vector<std::string>{"engine_axes"});
  const auto all =
      violations(plan.model, plan.cluster, plan.workload, plan.layout, plan.chunks, plan.policy);
  EXPECT_NE(all.at(0).reason.find("tp = 2"), std::string::npos);
}

// A model that is only simulated breaks one rule, whatever else is wrong; so does its plan.json.
TEST(Plan, FamiliesThatTheEngineDoesNotRunAreNamed) {
  Plan plan = sample();
  plan.model = load_model("deepseek-v3").value();
  plan.layout.tp = 2;
  EXPECT_EQ(broken(plan), std::vector<std::string>{"engine_family"});
  const Result<Plan> read = parse_plan(to_json(plan).dump(), "p.json");
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, ErrorCode::kInvalid);
  EXPECT_NE(read.error().text().find("deepseek_v3, which the engine does not run"),
            std::string::npos)
      << read.error().text();
}

TEST(Plan, DenseModelsHaveNoExpertAxes) {
  Plan plan = sample();
  plan.model = load_model("qwen3-8b").value();
  plan.policy.recompute_layers = 0;
  EXPECT_EQ(broken(plan), std::vector<std::string>{"ep_without_experts"});
  plan.layout.ep = 1;
  plan.layout.fsdp_e = 1;
  EXPECT_TRUE(broken(plan).empty());
}

TEST(Plan, JsonRoundTripsToTheSameBytes) {
  const Plan plan = sample();
  const std::string text = to_json(plan).dump();
  const Result<Plan> read = parse_plan(text, "plan.json");
  ASSERT_TRUE(read.ok()) << read.error().text();
  EXPECT_EQ(read.value().sha256, plan.sha256);
  EXPECT_EQ(to_json(read.value()).dump(), text);
  EXPECT_EQ(read.value().model, plan.model);
  EXPECT_EQ(read.value().cluster, plan.cluster);
  EXPECT_EQ(read.value().workload, plan.workload);
  EXPECT_EQ(read.value().layout, plan.layout);
  EXPECT_EQ(read.value().predicted.step.value(), plan.predicted.step.value());
}

TEST(Plan, InputsAreTheHashesOfTheEmbeddedNouns) {
  const Json json = to_json(sample());
  for (const char* noun : {"model", "cluster", "workload"}) {
    EXPECT_EQ(json.find("inputs")->find(noun)->as_string(), sha256_hex(json.find(noun)->dump(-1)));
  }
}

TEST(Plan, HashSeesWhatDecidesTheProgramOnly) {
  const Plan plan = sample();
  Plan same = plan;
  same.predicted.mfu = 0.5;
  same.runners_up.clear();
  EXPECT_EQ(plan_sha256(same), plan.sha256);
  for (const auto& mutate : std::vector<std::function<void(Plan&)>>{
           [](Plan& p) { p.layout.dense_inner = "replicate"; },
           [](Plan& p) { p.chunks.prefetch_depth = 2; },
           [](Plan& p) { p.policy.recompute_layers = 93; },
           [](Plan& p) { p.workload.optimizer.lr = 1; }, [](Plan& p) { p.model.rope_theta += 1; },
           [](Plan& p) { p.cluster.tiers[0].latency = Seconds(1e-9); }}) {
    Plan other = plan;
    mutate(other);
    EXPECT_NE(plan_sha256(other), plan.sha256);
  }
}

Error error_of(const Json& json) {
  const Result<Plan> plan = parse_plan(json.dump(), "plan.json");
  if (plan.ok()) return Error{};
  EXPECT_EQ(plan.error().code, ErrorCode::kInvalid);
  return plan.error();
}

TEST(Plan, EditsAndBrokenRulesAreReported) {
  const Json good = to_json(sample());
  Json json = good;
  Json model = *json.find("model");
  json.set("model", model.set("rope_theta", 12345.0));
  EXPECT_NE(error_of(json).text().find("plan.json:/inputs/model"), std::string::npos);

  json = good;
  Json layout = *json.find("layout");
  json.set("layout", layout.set("ep", 7));
  const std::string text = error_of(json).text();
  EXPECT_NE(text.find("rule expert_world_factors"), std::string::npos);
  EXPECT_NE(text.find("rule experts_divide"), std::string::npos);
  EXPECT_NE(text.find("plan.json:/sha256"), std::string::npos);

  json = good;
  json.set("schema_version", 2).set("chunk", 1).set("proof", Json());
  json.set("layout", Json::object());
  EXPECT_EQ(error_of(json).problems.size(), 3U + 15U);

  json = good;
  Json cluster = *json.find("cluster");
  json.set("cluster", cluster.set("device", "h800-sxm"));
  EXPECT_NE(error_of(json).text().find("embeds the whole device"), std::string::npos);
  EXPECT_EQ(load_plan("/nonexistent/plan.json").error().code, ErrorCode::kIo);
}

TEST(Plan, DescribesItselfInOneLine) {
  const Plan plan = sample();
  EXPECT_EQ(describe(plan.layout, plan.chunks, plan.policy),
            "fsdp 32 x replicate 8 | ep 8 x fsdp 32 | micro-batch 2 x 2 | recompute 94 | "
            "loss chunk 1024 | prefetch 1");
}

}  // namespace
}  // namespace orrery
