// Calibration: speeds of a machine that nobody told, found again from what its ops took.
#include "simulator/calibration/fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "core/clock/implied.h"
#include "core/program/lower.h"
#include "simulator/binding.h"
#include "simulator/calibration/profile.h"
#include "simulator/op_cost.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

// Four ranks on two cores, two nodes, one link a node: as a lab has it.
Cluster lab_of(Cluster cluster) {
  cluster.devices = 4;
  cluster.devices_per_node = 2;
  cluster.cores_per_node = 2;
  cluster.nodes_per_machine = 2;
  cluster.collectives = CollectiveAlgorithm::kPairs;
  cluster.tiers = {{"shm", 2, BytesPerSecond(1e9), Seconds(5e-6)},
                   {"link", 4, BytesPerSecond(2e7), Seconds(50e-6)}};
  cluster.tiers[0].cpu = 1;
  cluster.tiers[1].shared_by = 2;
  return cluster;
}

// The machine as it is: other speeds than the profile says, entry by entry, up to three times.
Cluster truth_of(const Cluster& profile, std::uint64_t seed) {
  Draw draw(seed);
  Cluster truth = expanded(profile);
  const auto factor = [&] { return std::exp2(static_cast<double>(draw.between(-15, 15)) / 10); };
  truth.device.launch = truth.device.launch * factor();
  DeviceProfile& d = truth.device;
  for (EfficiencyCurve* curve : {&d.gemm, &d.grouped, &d.attention}) {
    const double f = factor();
    for (double& fraction : curve->fraction) fraction *= f;
  }
  for (EfficiencyCurve& curve : d.passes) {
    const double f = factor();
    for (double& fraction : curve.fraction) fraction *= f;
  }
  for (LinkTier& tier : truth.tiers) {
    tier.latency = tier.latency * factor();
    for (EfficiencyCurve& curve : tier.efficiency) {
      for (double& fraction : curve.fraction) fraction *= factor();
    }
  }
  return truth;
}

struct Measured {
  std::unique_ptr<Plan> plan;
  std::unique_ptr<Program> program;
  Observation observation;
};

// A plan on the profile, and one step of it on the machine as it is.
Measured run_of(std::uint64_t seed, const Cluster& profile, const Cluster& truth) {
  Measured run;
  Plan plan = small_moe_plan(4, seed % 2 == 0 ? 2 : 4, 1 + static_cast<std::int64_t>(seed % 3));
  plan.model = small_moe_model(2 + static_cast<std::int64_t>(seed % 2), 4);
  plan.workload.sequence_tokens = 32 << (seed % 4);
  plan.workload.document_tokens = {plan.workload.sequence_tokens};
  plan.policy.recompute_layers = static_cast<std::int64_t>(seed / 2 % 2);
  plan.chunks.prefetch_depth = static_cast<std::int64_t>(seed % 3);
  plan.cluster = profile;
  seal(plan);
  run.plan = std::make_unique<Plan>(plan);
  run.program = std::make_unique<Program>(lower(plan));
  Observation& o = run.observation;
  o.name = "run " + std::to_string(seed);
  o.plan = run.plan.get();
  o.program = run.program.get();
  std::vector<RankDurations> durations;
  for (std::int32_t r = 0; r < 4; ++r) {
    o.bindings.push_back(draw_binding(plan, *run.program, r, seed));
    durations.push_back(
        rank_durations(truth, *run.program, run.program->role_of(r), r, o.bindings.back().values));
  }
  const Replay replayed = replay(*run.program, durations, clock_rates(truth, 4));
  std::vector<MeasuredRank> measured;
  for (std::int32_t r = 0; r < 4; ++r) {
    MeasuredRank one;
    one.rank = r;
    for (const OpTimes& t : replayed.times[static_cast<std::size_t>(r)]) {
      one.end_ns.push_back(t.end_ns);
    }
    measured.push_back(std::move(one));
  }
  for (const auto& rank : implied_durations(*run.program, measured, true)) {
    o.seconds.emplace_back();
    for (const std::int64_t ns : rank) o.seconds.back().push_back(static_cast<double>(ns) * 1e-9);
  }
  o.step_s = static_cast<double>(replayed.end.value()) * 1e-9;
  return run;
}

double step_error(const Observation& o, const Cluster& profile) {
  Plan plan = *o.plan;
  plan.cluster = with_profile(plan.cluster, profile);
  Options options;
  options.bindings = o.bindings;
  options.events = options.document_cost = false;
  const auto simulated = simulate(plan, *o.program, options);
  return std::abs(to_seconds(simulated.value().step).value() / o.step_s - 1);
}

// Sanitized, a fit takes ten times as long.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kMachines = 2;
#else
constexpr std::uint64_t kMachines = 6;
#endif

TEST(FitProfile, RemovesTheErrorOfPlansThatWereNotFitted) {
  double before = 0, after = 0;
  for (std::uint64_t machine = 1; machine <= kMachines; ++machine) {
    const Cluster profile = lab_of(small_cluster(4));
    const Cluster truth = truth_of(profile, machine);
    std::vector<Measured> fitted, others;
    for (std::uint64_t i = 0; i < 6; ++i) fitted.push_back(run_of(i, profile, truth));
    for (std::uint64_t i = 6; i < 12; ++i) others.push_back(run_of(i * 7 + 1, profile, truth));
    std::vector<Observation> observations;
    for (const Measured& run : fitted) observations.push_back(run.observation);
    const auto fit = fit_profile(profile, observations);
    ASSERT_TRUE(fit.ok()) << fit.error().text();
    for (const Measured& run : others) {
      const double left = step_error(run.observation, fit.value().profile);
      EXPECT_LT(left, 0.05) << "machine " << machine << ' ' << run.observation.name;
      before += step_error(run.observation, profile);
      after += left;
    }
  }
  const auto steps = static_cast<double>(6 * kMachines);
  EXPECT_GT(before / steps, 0.15) << "the machines differ from their profile";
  EXPECT_LT(after / steps, 0.015);
}

TEST(FitProfile, NamesTheEntryThatIsWrong) {
  Cluster profile = lab_of(small_cluster(4));
  profile.device.launch = Seconds(1e-8);  // else launches and bytes are most of so small a model
  profile.device.memory_bandwidth = BytesPerSecond(1e13);
  Cluster truth = expanded(profile);
  for (double& fraction : truth.device.grouped.fraction) fraction /= 5;
  const Measured run = run_of(3, profile, truth);
  const auto rows = blame(profile, {run.observation});
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(rows.value()[0].entry.kind, EntryKind::kGrouped) << name_of(rows.value()[0].entry);
  EXPECT_LT(rows.value()[0].difference_s(), 0) << "it took longer than was said";
}

TEST(FitProfile, LeavesAProfileThatIsRight) {
  const Cluster profile = lab_of(small_cluster(4));
  const Measured run = run_of(5, profile, profile);
  const auto fit = fit_profile(profile, {run.observation});
  ASSERT_TRUE(fit.ok());
  const Measured other = run_of(8, profile, profile);
  EXPECT_LT(step_error(other.observation, fit.value().profile), 0.01);
}

TEST(FitProfile, IsOfOneMindAboutAnOrderOfRuns) {
  const Cluster profile = lab_of(small_cluster(4));
  const Cluster truth = truth_of(profile, 9);
  const Measured a = run_of(1, profile, truth), b = run_of(2, profile, truth);
  const auto ab = fit_profile(profile, {a.observation, b.observation});
  const auto again = fit_profile(profile, {a.observation, b.observation});
  ASSERT_TRUE(ab.ok() && again.ok());
  EXPECT_EQ(to_json(ab.value().profile).dump(-1), to_json(again.value().profile).dump(-1));
}

TEST(FitProfile, NeedsAStep) {
  EXPECT_FALSE(fit_profile(small_cluster(4), {}).ok());
}

TEST(Profile, ExpandingAndSettlingChangeNoPrediction) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const Plan plan = random_mechanism_plan(seed, 8);
    const Program program = lower(plan);
    const auto price = [&](const Cluster& cluster) {
      const Binding b = draw_binding(plan, program, 0, 0);
      return op_durations(cluster, program, program.role_of(0), 0, b.values);
    };
    Cluster fast = expanded(plan.cluster);
    EXPECT_EQ(price(plan.cluster), price(fast)) << seed;
    scale_time(fast, {EntryKind::kGemm, 0, 0, 0}, 0.01);
    const auto wanted = price(fast);
    const Cluster kept = settled(fast);
    for (const double f : kept.device.gemm.fraction) EXPECT_LE(f, 1);
    const auto got = price(kept);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(static_cast<double>(got[i].value()), static_cast<double>(wanted[i].value()), 2)
          << seed;
    }
  }
}

TEST(Terms, SumToTheCost) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Plan plan = random_mechanism_plan(seed, 8);
    plan.cluster = expanded(plan.cluster);
    const Program program = lower(plan);
    const Binding b = draw_binding(plan, program, 0, 0);
    const Role& role = program.role_of(0);
    for (const Op& op : role.ops) {
      Terms terms;
      const double cost = op_time(plan.cluster, program, role, op, 0, b.values, &terms).value();
      double sum = 0;
      for (const auto& [entry, seconds] : terms.seconds()) sum += seconds;
      EXPECT_NEAR(sum, cost, 1e-12 + 1e-9 * cost) << seed << ' ' << op.path;
    }
  }
}

}  // namespace
}  // namespace orrery::simulator
