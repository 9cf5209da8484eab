// The simulation of random plans with every mechanism of the layout: it works, its parts sum up,
// its memory is never negative, its folding is exact where loads are equal, and what lies on the
// host is what was put there.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/clock/clock.h"
#include "core/program/lower.h"
#include "core/program/verify.h"
#include "simulator/op_cost.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

constexpr std::uint64_t kSeeds = 200;

Plan drawn_plan(std::uint64_t seed) {
  Plan plan = random_mechanism_plan(seed);
  plan.workload.expert_load_cv = seed % 3 == 0 ? 0 : 0.6;
  plan.cluster.compute_slowdown = seed % 2 == 0 ? 1 : 1.15;
  plan.cluster.link_slowdown = seed % 5 == 0 ? 1 : 1.3;
  seal(plan);
  return plan;
}

std::string named(std::uint64_t seed, const Plan& plan) {
  return "seed " + std::to_string(seed) + ", " + plan.model.model_type + ": " +
         describe(plan.layout, plan.chunks, plan.policy);
}

std::int64_t ns(Seconds s) {
  return std::llround(s.value() * 1e9);
}

// The compute lane runs one op at a time, so that its part is the sum of its ops.
void expect_parts(const Simulation& s, const Role& role) {
  for (const Breakdown& b : s.ranks) {
    std::int64_t compute = 0, communication = 0;
    for (const SpanEvent& e : s.events.spans) {
      if (e.rank != b.rank) continue;
      const bool computes = role.ops[static_cast<std::size_t>(e.op)].lane == Lane::kCompute;
      (computes ? compute : communication) += e.end_ns - e.start_ns;
    }
    EXPECT_EQ(ns(b.step), s.step.value());
    EXPECT_EQ(ns(b.compute), compute);
    EXPECT_EQ(ns(b.compute) + ns(b.exposed) + ns(b.idle), s.step.value());
    EXPECT_LE(ns(b.exposed) + ns(b.hidden), communication) << "lanes may overlap, not repeat";
    EXPECT_LE(ns(b.hidden), compute);
    for (const Seconds part : {b.compute, b.exposed, b.hidden, b.idle}) EXPECT_GE(part.value(), 0);
  }
}

TEST(Mechanisms, SimulateAndSumUp) {
  int communicates = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Plan plan = drawn_plan(seed);
    SCOPED_TRACE(named(seed, plan));
    const Program program = lower(plan);
    ASSERT_TRUE(verify(program).empty());
    const Result<Simulation> simulated = simulate(plan, program, {{}, seed, true});
    ASSERT_TRUE(simulated.ok()) << simulated.error().text();
    const Simulation& s = simulated.value();
    EXPECT_GT(s.step.value(), 0);
    ASSERT_EQ(s.ranks.size(), static_cast<std::size_t>(program.world));
    expect_parts(s, program.roles[0]);
    communicates += s.ranks[0].exposed.value() > 0 ? 1 : 0;
    // Drawn sizes are those of a step that could be: bound, they give the same step.
    const Result<Simulation> bound = simulate(plan, program, {s.events.bindings, seed + 1, false});
    ASSERT_TRUE(bound.ok()) << bound.error().text();
    EXPECT_EQ(bound.value().step, s.step);
    EXPECT_EQ(bound.value().peak, s.peak);
    EXPECT_EQ(bound.value().host_peak, s.host_peak);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(communicates, 100);
}

// Bytes of the buffers of one space that live while an op runs.
std::int64_t living(const Role& role, const Binding& binding, OpId id, MemorySpace space) {
  std::int64_t bytes = 0;
  for (const Buffer& b : role.buffers) {
    if (b.space != space || b.taken_by > id || (b.freed_by >= 0 && b.freed_by < id)) continue;
    bytes += b.bytes.eval(binding.values, b.vars);
  }
  return bytes;
}

TEST(Mechanisms, MemoryIsWhatLivesAndNeverNegative) {
  int host = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Plan plan = drawn_plan(seed);
    SCOPED_TRACE(named(seed, plan));
    const Program program = lower(plan);
    const Role& role = program.roles[0];
    const auto rank = static_cast<std::int32_t>(seed % 5) % program.world;
    const Binding binding = draw_binding(plan, program, rank, seed);
    const MemoryTimeline timeline = memory_timeline(role, binding.values);
    ASSERT_EQ(timeline.at.size(), role.ops.size());
    const std::int64_t state = living(role, binding, -1, MemorySpace::kDevice);
    std::int64_t peak = 0, host_peak = living(role, binding, -1, MemorySpace::kHost);
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      const auto id = static_cast<OpId>(i);
      EXPECT_GE(timeline.at[i], state) << "less than the state that lives through the step";
      const std::int64_t live = living(role, binding, id, MemorySpace::kDevice);
      EXPECT_EQ(timeline.at[i], live + workspace_bytes(role, role.ops[i], binding.values));
      peak = std::max(peak, timeline.at[i]);
      host_peak = std::max(host_peak, living(role, binding, id, MemorySpace::kHost));
    }
    EXPECT_EQ(timeline.peak, peak);
    EXPECT_EQ(timeline.host_peak, host_peak);
    EXPECT_EQ(timeline.host_peak > 0, plan.policy.swap_layers > 0 || plan.policy.host_optimizer);
    for (std::size_t c = 0; c < timeline.class_peaks.size(); ++c) {
      EXPECT_GE(timeline.at_peak[c], 0);
      EXPECT_GE(timeline.class_peaks[c], timeline.at_peak[c]);
    }
    host += timeline.host_peak > 0 ? 1 : 0;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(host, 50);
}

// --- folding -------------------------------------------------------------------------------------

// The same mechanisms on more ranks than are replayed one by one, by replication; rows that spread
// evenly over the experts.
Plan large_plan(std::uint64_t seed) {
  Plan plan = random_mechanism_plan(seed);
  Layout& l = plan.layout;
  std::int64_t times = 1;
  while (times * l.world() <= kMaxUnfolded) times *= 2;
  l.dp *= times;
  l.replicate_d *= times;
  l.replicate_e *= times;
  plan.cluster = small_cluster(l.world());
  plan.cluster.compute_slowdown = seed % 2 == 0 ? 1 : 1.15;
  plan.cluster.link_slowdown = seed % 3 == 0 ? 1 : 1.3;
  plan.workload.global_sequences *= times;
  const std::int64_t even = std::max<std::int64_t>(1, plan.model.experts) * l.sp;
  plan.workload.sequence_tokens = (plan.workload.sequence_tokens + even - 1) / even * even;
  plan.workload.document_tokens = {plan.workload.sequence_tokens};
  plan.workload.expert_load_cv = 0;
  seal(plan);
  return plan;
}

TEST(Mechanisms, EqualLoadsFoldExactly) {
  for (std::uint64_t seed = 0; seed < kSeeds; seed += 2) {
    const Plan plan = large_plan(seed);
    SCOPED_TRACE(named(seed, plan));
    const Program program = lower(plan);
    ASSERT_GT(program.world, kMaxUnfolded);
    const Simulation folded = simulate(plan, program, {{}, 0, true}).value();
    ASSERT_EQ(folded.ranks.size(), 1U);
    std::vector<RankDurations> ranks;
    std::int64_t peak = 0, host_peak = 0;
    for (std::int32_t r = 0; r < program.world; ++r) {
      const Binding binding = draw_binding(plan, program, r, 0);
      ranks.push_back(
          {r, op_durations(plan.cluster, program, program.role_of(r), r, binding.values)});
      const MemoryTimeline timeline = memory_timeline(program.role_of(r), binding.values);
      peak = std::max(peak, timeline.peak);
      host_peak = std::max(host_peak, timeline.host_peak);
    }
    const Replay all =
        replay(program, ranks, {plan.cluster.compute_slowdown, plan.cluster.link_slowdown});
    EXPECT_EQ(folded.step, all.end);
    EXPECT_EQ(folded.peak.value(), peak);
    EXPECT_EQ(folded.host_peak.value(), host_peak);
    if (testing::Test::HasFailure()) return;
  }
}

// --- by hand -------------------------------------------------------------------------------------

// Four dense layers of hidden 8, rows of 8 tokens in fp32.
Plan host_plan(std::int64_t swap_layers, std::int64_t micro_batch, bool host_optimizer) {
  Plan plan = small_dense_plan(1, 1);
  plan.model = small_dense_model(4);
  plan.layout.micro_batch = plan.workload.global_sequences = micro_batch;
  plan.policy.recompute_layers = 4;
  plan.policy.swap_layers = swap_layers;
  plan.policy.host_optimizer = host_optimizer;
  seal(plan);
  return plan;
}

std::int64_t host_peak(const Plan& plan) {
  return simulate(plan, lower(plan), {}).value().host_peak.value();
}

TEST(HostMemory, IsTheInputsThatWereSwapped) {
  EXPECT_EQ(host_peak(host_plan(0, 1, false)), 0);
  for (std::int64_t layers = 1; layers <= 4; ++layers) {
    EXPECT_EQ(host_peak(host_plan(layers, 1, false)), layers * 8 * 8 * 4) << layers;
    EXPECT_EQ(host_peak(host_plan(layers, 3, false)), layers * 3 * 8 * 8 * 4) << layers;
  }
}

TEST(HostMemory, IsTheTwoMomentsOfEveryParameter) {
  // A layer: q and o 16 x 8, k and v 8 x 8, three MLP matrices 12 x 8, norms 8 + 8 + 4 + 4; the
  // ends: two of 32 x 8 and a norm of 8.
  const std::int64_t layer = 2 * 16 * 8 + 2 * 8 * 8 + 3 * 12 * 8 + 24, ends = 2 * 32 * 8 + 8;
  const std::int64_t moments = 2 * 4 * (4 * layer + ends);
  EXPECT_EQ(host_peak(host_plan(0, 1, true)), moments);
  // Moments stay; swapped inputs come and go.
  EXPECT_EQ(host_peak(host_plan(3, 1, true)), moments + 3 * 8 * 8 * 4);
}

}  // namespace
}  // namespace orrery::simulator
