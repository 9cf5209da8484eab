// Where a step goes: by hand, and against a count of every stretch of time.
#include "simulator/breakdown.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/program/lower.h"
#include "simulator/op_cost.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

std::int64_t ns(Seconds s) {
  return std::llround(s.value() * 1e9);
}

struct Parts {
  std::int64_t compute = 0, exposed = 0, hidden = 0, idle = 0;
};

// Every stretch between two neighbouring times at which anything starts or ends.
Parts counted(const Role& role, const std::vector<OpTimes>& times, std::int64_t end) {
  std::set<std::int64_t> cuts = {0, end};
  for (const OpTimes& t : times) {
    cuts.insert(t.start_ns);
    cuts.insert(t.end_ns);
  }
  Parts parts;
  for (auto it = cuts.begin(); std::next(it) != cuts.end(); ++it) {
    const std::int64_t from = *it, to = *std::next(it);
    bool computes = false, talks = false;
    for (std::size_t i = 0; i < times.size(); ++i) {
      if (times[i].start_ns > from || times[i].end_ns < to) continue;
      (role.ops[i].lane == Lane::kCompute ? computes : talks) = true;
    }
    if (computes) parts.compute += to - from;
    if (computes && talks) parts.hidden += to - from;
    if (!computes && talks) parts.exposed += to - from;
    if (!computes && !talks) parts.idle += to - from;
  }
  return parts;
}

Role lanes(const std::vector<Lane>& of) {
  Role role;
  for (const Lane lane : of) {
    Op op;
    op.lane = lane;
    role.ops.push_back(op);
  }
  return role;
}

TEST(Breakdown, ByHand) {
  // compute 10..30 and 50..60; fsdp 20..45; ep 40..55; the step ends at 70.
  //   compute 20 + 10; hidden 20..30 and 50..55; exposed 30..50; idle 0..10 and 60..70.
  const Role role = lanes({Lane::kCompute, Lane::kFsdp, Lane::kEp, Lane::kCompute});
  const std::vector<OpTimes> times = {{0, 10, 30}, {5, 20, 45}, {30, 40, 55}, {50, 50, 60}};
  const Breakdown b = breakdown(role, 3, times, Nanoseconds(70));
  EXPECT_EQ(b.rank, 3);
  EXPECT_EQ(ns(b.step), 70);
  EXPECT_EQ(ns(b.compute), 30);
  EXPECT_EQ(ns(b.hidden), 15);
  EXPECT_EQ(ns(b.exposed), 20);
  EXPECT_EQ(ns(b.idle), 20);
}

TEST(Breakdown, WaitingForAMemberIsIdle) {
  // Posted at 0, the last member comes at 40: only the transfer is communication.
  const Breakdown b = breakdown(lanes({Lane::kFsdp}), 0, {{0, 40, 50}}, Nanoseconds(50));
  EXPECT_EQ(ns(b.exposed), 10);
  EXPECT_EQ(ns(b.idle), 40);
}

TEST(Breakdown, OpsWithoutLengthTakeNoTime) {
  const Role role = lanes({Lane::kCompute, Lane::kFsdp, Lane::kCompute});
  const Breakdown b = breakdown(role, 0, {{5, 5, 5}, {5, 5, 5}, {5, 5, 5}}, Nanoseconds(10));
  EXPECT_EQ(ns(b.compute), 0);
  EXPECT_EQ(ns(b.exposed), 0);
  EXPECT_EQ(ns(b.idle), 10);
}

TEST(Breakdown, PartsSumToTheStepOfRandomPlans) {
  std::int64_t hidden = 0, exposed = 0, idle = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Plan plan = random_plan(seed);
    plan.workload.expert_load_cv = 0.6;
    plan.cluster.compute_slowdown = 1.2;
    plan.cluster.link_slowdown = 1.3;
    seal(plan);
    const Program program = lower(plan);
    std::vector<RankDurations> ranks;
    for (std::int32_t r = 0; r < program.world; ++r) {
      const Binding binding = draw_binding(plan, program, r, seed);
      ranks.push_back(
          {r, op_durations(plan.cluster, program, program.roles[0], r, binding.values)});
    }
    const Replay run = replay(program, ranks, {1.2, 1.3});
    const Simulation s = simulate(plan, program, {{}, seed, false}).value();
    ASSERT_EQ(s.step, run.end) << seed;
    ASSERT_EQ(s.ranks.size(), ranks.size());
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      const Breakdown& b = s.ranks[r];
      const Parts parts = counted(program.roles[0], run.times[r], run.end.value());
      EXPECT_EQ(b.rank, static_cast<std::int32_t>(r));
      EXPECT_EQ(ns(b.compute), parts.compute) << seed;
      EXPECT_EQ(ns(b.exposed), parts.exposed) << seed;
      EXPECT_EQ(ns(b.hidden), parts.hidden) << seed;
      EXPECT_EQ(ns(b.idle), parts.idle) << seed;
      EXPECT_EQ(ns(b.compute) + ns(b.exposed) + ns(b.idle), run.end.value()) << seed;
      EXPECT_EQ(ns(b.step), run.end.value());
      EXPECT_LE(b.hidden, b.compute) << seed;
      hidden += parts.hidden;
      exposed += parts.exposed;
      idle += parts.idle;
    }
  }
  EXPECT_GT(hidden, 0);
  EXPECT_GT(exposed, 0);
  EXPECT_GT(idle, 0);
}

}  // namespace
}  // namespace orrery::simulator
