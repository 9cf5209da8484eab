// Goldens: what the simulator says of fixed plans, to the digit. They pin every cost, byte and
// rounding at once; a change that means to move them says so by rewriting them:
//   UPDATE_GOLDEN=1 build/<preset>/tests/test_simulator_golden
// tests/simulator/golden/NAME.json holds a plan's figures.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "core/configs.h"
#include "core/json.h"
#include "core/program/lower.h"
#include "core/program/verify.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

struct Case {
  std::string name;
  Plan plan;
};

// A published model on a cluster of configs/, in a layout fixed here.
Plan configured(const char* model, const char* cluster, const char* workload, const Layout& layout,
                const Chunks& chunks, std::int64_t recompute_layers) {
  Plan plan;
  plan.model = load_model(model).value();
  plan.cluster = load_cluster(cluster).value();
  plan.workload = load_workload(workload).value();
  plan.layout = layout;
  plan.chunks = chunks;
  plan.policy.recompute_layers = recompute_layers;
  seal(plan);
  return plan;
}

Layout layout(std::int64_t world, std::int64_t fsdp_d, std::int64_t ep, std::int64_t fsdp_e,
              std::int64_t micro_batch, std::int64_t accumulation) {
  Layout l;
  l.dp = world;
  l.fsdp_d = fsdp_d;
  l.replicate_d = world / fsdp_d;
  l.ep = ep;
  l.fsdp_e = fsdp_e;
  l.replicate_e = ep * fsdp_e > 1 ? world / (ep * fsdp_e) : 1;
  l.micro_batch = micro_batch;
  l.accumulation = accumulation;
  return l;
}

Plan drawn(std::uint64_t seed) {
  Plan plan = random_plan(seed);
  plan.workload.expert_load_cv = 0.5;
  seal(plan);
  return plan;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  all.push_back({"small-dense-x2", small_dense_plan(2, 2)});
  all.push_back({"small-moe-x4", small_moe_plan(4, 2, 2)});
  all.push_back({"random-3", drawn(3)});
  all.push_back({"qwen3-moe-10m-local", configured("qwen3-moe-10m", "local-cpu", "demo-local",
                                                   layout(4, 4, 4, 1, 1, 2), {256, 0, 1}, 2)});
  all.push_back({"qwen3-8b-h100x8", configured("qwen3-8b", "h100x8", "pretrain-4k",
                                               layout(8, 8, 1, 1, 4, 32), {4096, 1024, 1}, 36)});
  all.push_back(
      {"qwen3-235b-h800x256", configured("qwen3-235b-a22b", "h800x256", "pretrain-4k",
                                         layout(256, 256, 8, 32, 1, 4), {2048, 1024, 1}, 94)});
  return all;
}

Json classes(const std::vector<MemoryRow>& rows) {
  Json json = Json::object();
  for (const MemoryRow& row : rows) json.set(row.cls, row.bytes.value());
  return json;
}

Json figures(const Case& c) {
  const Program program = lower(c.plan);
  EXPECT_TRUE(verify(program).empty()) << c.name;
  const Simulation s = simulate(c.plan, program, {{}, 0, false}).value();
  const auto ns = [](Seconds t) { return std::int64_t{std::llround(t.value() * 1e9)}; };
  Json ranks = Json::array();
  for (const Breakdown& b : s.ranks) {
    ranks.push(Json::array().push(ns(b.compute)).push(ns(b.exposed)).push(ns(b.idle)));
  }
  Json json = Json::object();
  json.set("step_ns", s.step.value())
      .set("peak_bytes", s.peak.value())
      .set("peak_rank", static_cast<std::int64_t>(s.peak_rank))
      .set("at_peak", classes(s.at_peak))
      .set("class_peaks", classes(s.class_peaks))
      .set("compute_exposed_idle_ns", std::move(ranks));
  return json;
}

// Every figure that differs, by its JSON pointer, with both numbers.
void compare(const Json& golden, const Json& now, const std::string& at) {
  if (golden.is_object() && now.is_object()) {
    ASSERT_EQ(golden.members().size(), now.members().size()) << at;
    for (const auto& [key, value] : golden.members()) {
      ASSERT_NE(now.find(key), nullptr) << at << "/" << key << " is gone";
      compare(value, *now.find(key), at + "/" + key);
    }
  } else if (golden.is_array() && now.is_array()) {
    ASSERT_EQ(golden.items().size(), now.items().size()) << at;
    for (std::size_t i = 0; i < golden.items().size(); ++i) {
      compare(golden.items()[i], now.items()[i], at + "/" + std::to_string(i));
    }
  } else {
    EXPECT_TRUE(golden == now) << at << ": golden " << golden.dump(-1) << ", now " << now.dump(-1);
  }
}

class Golden : public ::testing::TestWithParam<Case> {};

TEST_P(Golden, ToTheDigit) {
  const Case& c = GetParam();
  const std::string path =
      std::string(ORRERY_SOURCE_DIR) + "/tests/simulator/golden/" + c.name + ".json";
  const Json now = figures(c);
  if (std::getenv("UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path) << now.dump() << '\n';
  }
  const Result<Json> golden = Json::load(path);
  ASSERT_TRUE(golden.ok()) << golden.error().text();
  compare(golden.value(), now, c.name);
}

INSTANTIATE_TEST_SUITE_P(Plans, Golden, ::testing::ValuesIn(cases()), [](const auto& which) {
  std::string name;
  for (const char ch : which.param.name) name += ch == '-' ? '_' : ch;
  return name;
});

}  // namespace
}  // namespace orrery::simulator
