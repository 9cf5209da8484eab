// The bounds are never above the replay: time and memory, on random legal plans of all kinds.
#include "planner/plans/bound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/program/lower.h"
#include "planner/plans/footprint.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::planner {
namespace {

struct Case {
  explicit Case(const Plan& p)
      : plan(p), choice{p.chunks, p.policy}, costs(p.model, p.cluster, p.workload) {
    prices = costs.candidate(p.layout, p.chunks);
  }
  simulator::Simulation simulate() const {
    simulator::Options options;
    options.events = false;
    return simulator::simulate(plan, lower(plan), options).value();
  }
  std::string name(std::uint64_t seed) const {
    return "seed " + std::to_string(seed) + ": " + describe(plan.layout, plan.chunks, plan.policy);
  }
  Plan plan;
  Choice choice;
  Costs costs;
  CandidateCosts prices;
};

// Random speeds, slowdowns and spreads of expert load on top of the random plan, so that now
// compute, now communication, now launches decide.
Plan varied(Plan plan, std::uint64_t seed) {
  Draw draw(seed * 7919 + 1);
  plan.cluster.compute_slowdown = 1 + 0.05 * static_cast<double>(draw.between(0, 8));
  plan.cluster.link_slowdown = 1 + 0.05 * static_cast<double>(draw.between(0, 8));
  plan.workload.expert_load_cv = 0.25 * static_cast<double>(draw.between(0, 4));
  const auto scale = [&](double value) {
    for (std::int64_t i = draw.between(0, 4); i > 0; --i) value /= 8;
    return value;
  };
  plan.cluster.device.launch = Seconds(scale(1e-6));
  plan.cluster.device.memory_bandwidth = BytesPerSecond(scale(1e11));
  for (LinkTier& t : plan.cluster.tiers) {
    t.bandwidth = BytesPerSecond(scale(t.bandwidth.value()));
    t.latency = Seconds(scale(t.latency.value()));
  }
  plan.cluster.device.host_bandwidth = BytesPerSecond(scale(1e10));
  if (draw.coin()) {  // ranks that share cores and links, and send by pairs
    plan.cluster.cores_per_node = draw.between(1, plan.cluster.devices_per_node);
    plan.cluster.collectives = CollectiveAlgorithm::kPairs;
    for (LinkTier& t : plan.cluster.tiers) {
      t.cpu = 0.25 * static_cast<double>(draw.between(0, 4));
      if (draw.coin()) t.shared_by = plan.cluster.devices_per_node;
    }
  }
  seal(plan);
  return plan;
}

// Cores or links.
bool shares(const Cluster& cluster) {
  return cluster.cores_per_node > 0 ||
         std::any_of(cluster.tiers.begin(), cluster.tiers.end(),
                     [](const LinkTier& t) { return t.shared_by > 0; });
}

Plan varied_plan(std::uint64_t seed) {
  return varied(random_plan(seed), seed);
}

Plan varied_mechanism_plan(std::uint64_t seed) {
  return varied(random_mechanism_plan(seed), seed);
}

// The same plan with what its mechanisms hide laid open: what the walk is for.
Plan exposed_plan(std::uint64_t seed) {
  Plan plan = varied_mechanism_plan(seed);
  plan.layout.accumulation *= plan.chunks.domino;
  plan.layout.dispatcher = "all_to_all";
  plan.chunks.domino = plan.chunks.exchange_parts = plan.chunks.gather_layers = 1;
  plan.policy.recompute_attention = plan.policy.recompute_ffn = plan.policy.recompute_experts = 0;
  plan.policy.keep_layers = 0;
  seal(plan);
  return plan;
}

// A long run by hand takes more seeds.
std::uint64_t seeds(std::uint64_t usual) {
  const char* more = std::getenv("ORRERY_BOUND_SEEDS");
  return more == nullptr ? usual : static_cast<std::uint64_t>(std::stoull(more));
}

TEST(Bound, NeverAboveTheReplay) {
  double closest = 0;
  for (std::uint64_t seed = 1; seed <= 2500; ++seed) {
    Case c(varied_plan(seed));
    const double step = static_cast<double>(c.simulate().step.value());
    const double tight = bound(c.costs, c.plan.layout, c.choice, c.prices);
    const std::string what = "seed " + std::to_string(seed) + ": " +
                             describe(c.plan.layout, c.plan.chunks, c.plan.policy);
    ASSERT_LE(tight, step) << what;
    ASSERT_LE(quick_bound(c.costs, c.plan.layout, c.choice, c.prices), step) << what;
    // And it is worth its name, where nothing that ranks share parts them further.
    if (!shares(c.plan.cluster)) {
      ASSERT_GT(tight, 0.5 * step) << what;
    }
    closest = std::max(closest, tight / step);
  }
  EXPECT_GT(closest, 0.99);
}

TEST(Bound, NeverAboveTheReplayOfSharedSequencesAndTheHost) {
  double closest = 0;
  for (std::uint64_t seed = 1; seed <= seeds(500); ++seed) {
    Case c(exposed_plan(seed));
    ASSERT_TRUE(exposes_exchanges(c.plan.layout, c.choice));
    const double step = static_cast<double>(c.simulate().step.value());
    const double tight = bound(c.costs, c.plan.layout, c.choice, c.prices);
    ASSERT_LE(tight, step) << c.name(seed);
    ASSERT_LE(quick_bound(c.costs, c.plan.layout, c.choice, c.prices), step) << c.name(seed);
    if (c.choice.policy.swap_layers == 0 && !shares(c.plan.cluster)) {
      ASSERT_GT(tight, 0.5 * step) << c.name(seed);
    }
    closest = std::max(closest, tight / step);
  }
  EXPECT_GT(closest, 0.99);
}

TEST(Bound, NeverAboveTheReplayOfAnyMechanism) {
  double closest = 0;
  for (std::uint64_t seed = 1; seed <= seeds(700); ++seed) {
    Case c(varied_mechanism_plan(seed));
    const double step = static_cast<double>(c.simulate().step.value());
    const double relaxed = bound(c.costs, c.plan.layout, c.choice, c.prices);
    ASSERT_LE(relaxed, step) << c.name(seed);
    ASSERT_LE(quick_bound(c.costs, c.plan.layout, c.choice, c.prices), step) << c.name(seed);
    closest = std::max(closest, relaxed / step);
  }
  EXPECT_GT(closest, 0.9);
}

TEST(Bound, IsTheCriticalPathWithoutSlowdowns) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Plan plan = varied_plan(seed);
    plan.cluster.compute_slowdown = plan.cluster.link_slowdown = 1;
    plan.cluster.cores_per_node = 0;
    for (LinkTier& t : plan.cluster.tiers) t.shared_by = 0;
    seal(plan);
    const Case c(plan);
    const double step = static_cast<double>(c.simulate().step.value());
    const double path = walk(c.costs, c.plan.layout, c.choice, c.prices, {});
    ASSERT_LE(path, step + 0.5) << "seed " << seed;
    ASSERT_GE(path, 0.9 * step) << "seed " << seed;
  }
}

TEST(Footprint, NeverAboveTheReplayedPeak) {
  double closest = 0;
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    const Case c(varied_plan(seed));
    const Bytes peak = c.simulate().peak;
    Footprints footprints(c.costs);
    const Bytes least = footprints.least(c.plan.layout, c.choice, c.prices);
    const std::string what = "seed " + std::to_string(seed) + ": " +
                             describe(c.plan.layout, c.plan.chunks, c.plan.policy);
    ASSERT_LE(least, peak) << what;
    ASSERT_LE(footprints.state(c.plan.layout, c.choice.policy, c.prices), peak) << what;
    closest =
        std::max(closest, static_cast<double>(least.value()) / static_cast<double>(peak.value()));
  }
  EXPECT_GT(closest, 0.9);
}

TEST(Footprint, NeverAboveTheReplayedPeakOfAnyMechanism) {
  double closest = 0;
  int on_host = 0;
  for (std::uint64_t seed = 1; seed <= seeds(700); ++seed) {
    const Case c(varied_mechanism_plan(seed));
    const simulator::Simulation replayed = c.simulate();
    Footprints footprints(c.costs);
    const Bytes least = footprints.least(c.plan.layout, c.choice, c.prices);
    ASSERT_LE(least, replayed.peak) << c.name(seed);
    ASSERT_LE(footprints.state(c.plan.layout, c.choice.policy, c.prices), replayed.peak)
        << c.name(seed);
    const Bytes host = footprints.host(c.plan.layout, c.choice, c.prices);
    if (c.choice.chunks.gather_layers == 1) {
      ASSERT_EQ(host, replayed.host_peak) << c.name(seed);
    } else {
      ASSERT_LE(host, replayed.host_peak) << c.name(seed);
    }
    on_host += host.value() > 0 ? 1 : 0;
    closest = std::max(
        closest, static_cast<double>(least.value()) / static_cast<double>(replayed.peak.value()));
  }
  EXPECT_GT(closest, 0.9);
  EXPECT_GT(on_host, 100);
}

TEST(Footprint, FallsWithRecomputeAndWithSharding) {
  Plan plan = small_moe_plan(8, 2, 2);
  plan.model = small_moe_model(6);
  plan.layout.fsdp_e = 4;
  const auto least = [&](std::int64_t recompute, std::int64_t fsdp) {
    plan.layout.fsdp_d = fsdp;
    plan.layout.replicate_d = 8 / fsdp;
    plan.policy.recompute_layers = recompute;
    seal(plan);
    Case c(plan);
    return Footprints(c.costs).least(plan.layout, c.choice, c.prices);
  };
  EXPECT_LT(least(4, 8), least(1, 8));
  EXPECT_LT(least(2, 8), least(2, 2));
}

}  // namespace
}  // namespace orrery::planner
