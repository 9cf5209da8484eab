// Document costs: by hand where efficiencies are flat, against whole micro-batches elsewhere.
#include "simulator/document_cost.h"

#include <gtest/gtest.h>

#include "core/program/lower.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

Plan published(const char* model, const char* cluster, std::int64_t recompute) {
  Plan plan;
  plan.model = load_model(model).value();
  plan.cluster = load_cluster(cluster).value();
  plan.workload = load_workload("pack-64k").value();
  plan.layout.dp = plan.layout.fsdp_d = plan.layout.fsdp_e = plan.cluster.devices;
  plan.layout.accumulation = plan.workload.global_sequences / plan.layout.dp;
  plan.policy.recompute_layers = recompute;
  seal(plan);
  return plan;
}

// Every efficiency is one, memory and launches cost nothing: times are FLOPs.
void make_flat(Cluster& cluster) {
  DeviceProfile& d = cluster.device;
  d.gemm = d.grouped = d.attention = d.memory_eff = {{1e6}, {1.0}};
  d.memory_bandwidth = BytesPerSecond(1e30);
  d.launch = Seconds(0);
}

TEST(DocumentCost, ByHandOnAFlatDevice) {
  for (const std::int64_t recompute : {0, 36}) {
    Plan plan = published("qwen3-8b", "h100x8", recompute);
    make_flat(plan.cluster);
    seal(plan);
    const DocumentCost cost = document_cost(plan);
    const double peak = plan.cluster.device.peak_bf16.value();
    const Model& m = plan.model;
    // 4 FLOPs a pair and head column forward, 10 backward; again 4 where a layer is recomputed.
    const double pair = (recompute > 0 ? 18.0 : 14.0) * 36 * 32 * 128;
    EXPECT_NEAR(cost.quadratic_s * peak, pair, 1e-3 * pair);
    // 6 FLOPs a weight of a product and token (2 forward, 4 backward); 8 with recompute. The
    // embedding is no product; the head is not recomputed.
    const double head = static_cast<double>(m.vocab * m.hidden);
    const double layers = static_cast<double>(parameter_count(m)) - 2 * head;
    const double token = (recompute > 0 ? 8 : 6) * layers + 6 * head;
    EXPECT_NEAR(cost.linear_s * peak, token, 1e-3 * token);
  }
}

// On a device as it is: the two terms tell apart rows of other documents about as their prices do.
TEST(DocumentCost, TellsRowsApartAsTheirPricesDo) {
  for (const auto& [model, cluster, layers] :
       {std::tuple("qwen3-8b", "h100x8", 36), std::tuple("qwen3-30b-a3b", "h800x64", 48)}) {
    const Plan plan = published(model, cluster, layers);
    const Program program = lower(plan);
    const DocumentCost cost = document_cost(plan);
    EXPECT_GT(cost.linear_s, 0);
    EXPECT_GT(cost.quadratic_s, 0);
    Binding binding = draw_binding(plan, program, 0, 0);
    const auto seconds = [&](std::int64_t pairs) {
      const Role& role = program.role_of(0);
      for (std::size_t b = 0; b < role.var_names.size(); ++b) {
        if (role.var_names[b].rfind("batch/", 0) == 0) binding.values[b] = pairs;
      }
      return micro_batch_compute(plan.cluster, program, 0, 0, binding.values).value();
    };
    const std::int64_t mean = plan.workload.pairs_per_sequence();
    for (const double factor : {0.5, 0.8, 1.2, 1.5}) {
      const auto pairs = static_cast<std::int64_t>(static_cast<double>(mean) * factor);
      const double told = cost.of(0, pairs - mean), priced = seconds(pairs) - seconds(mean);
      EXPECT_NEAR(told / priced, 1, 0.1) << model << " x " << factor;
    }
    // And the whole row, but for what does not depend on tokens: launches and bytes of weights.
    const double whole = cost.of(plan.workload.sequence_tokens, mean);
    EXPECT_GT(whole / seconds(mean), 0.8) << model;
    EXPECT_LT(whole / seconds(mean), 1.02) << model;
  }
}

TEST(DocumentCost, SimulationsCarryIt) {
  const Plan plan = small_moe_plan(4, 2, 2);
  const Program program = lower(plan);
  Options options;
  EXPECT_EQ(simulate(plan, program, options).value().prediction.document_cost, document_cost(plan));
  options.document_cost = false;
  EXPECT_EQ(simulate(plan, program, options).value().prediction.document_cost, DocumentCost{});
}

TEST(DocumentCost, RandomPlansHaveOne) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const Plan plan = random_plan(seed);
    const DocumentCost cost = document_cost(plan);
    EXPECT_GT(cost.linear_s, 0) << seed;
    EXPECT_GE(cost.quadratic_s, 0) << seed;
  }
}

}  // namespace
}  // namespace orrery::simulator
