// The memory timeline against the definition: which buffers live while an op runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/program/lower.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

using Classes = std::vector<std::int64_t>;

constexpr auto kWork = static_cast<std::size_t>(BufferClass::kWorkspace);
constexpr auto kTape = static_cast<std::size_t>(BufferClass::kSaved);

Plan drawn_plan(std::uint64_t seed) {
  Plan plan = random_plan(seed);
  plan.workload.expert_load_cv = seed % 3 == 0 ? 0 : 0.7;
  seal(plan);
  return plan;
}

std::int64_t sum(const Classes& c) {
  return std::accumulate(c.begin(), c.end(), std::int64_t{0});
}

// Bytes of each class of the buffers that live from op `from` (or before) to op `to` (or after).
Classes living(const Role& role, const Binding& binding, OpId from, OpId to) {
  Classes classes(kNumBufferClasses, 0);
  for (const Buffer& b : role.buffers) {
    const bool taken = b.taken_by < 0 || b.taken_by <= from;
    const bool freed = b.freed_by >= 0 && b.freed_by < to;
    if (taken && !freed) {
      classes[static_cast<std::size_t>(b.cls)] += b.bytes.eval(binding.values, b.vars);
    }
  }
  return classes;
}

TEST(MemoryTimeline, EqualsBruteForceOverOps) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const Plan plan = drawn_plan(seed);
    const Program program = lower(plan);
    const Role& role = program.roles[0];
    const auto rank = static_cast<std::int32_t>(seed % 7) % program.world;
    const Binding binding = draw_binding(plan, program, rank, seed);
    const MemoryTimeline timeline = memory_timeline(role, binding.values);
    ASSERT_EQ(timeline.at.size(), role.ops.size());
    std::int64_t peak = 0;
    Classes class_peaks = living(role, binding, -1, 0);
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      const auto id = static_cast<OpId>(i);
      Classes now = living(role, binding, id, id);
      const std::int64_t workspace = workspace_bytes(role, role.ops[i], binding.values);
      ASSERT_EQ(timeline.at[i], sum(now) + workspace) << seed << " " << role.ops[i].path;
      peak = std::max(peak, timeline.at[i]);
      now[kWork] += std::max<std::int64_t>(0, workspace);
      for (std::size_t c = 0; c < now.size(); ++c)
        class_peaks[c] = std::max(class_peaks[c], now[c]);
    }
    EXPECT_EQ(timeline.peak, peak) << seed;
    EXPECT_EQ(timeline.class_peaks, class_peaks) << seed;
    ASSERT_GE(timeline.peak_op, 0);
    EXPECT_EQ(timeline.at[static_cast<std::size_t>(timeline.peak_op)], peak) << seed;
  }
}

TEST(MemoryTimeline, ClassesAtThePeakSumToThePeak) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Plan plan = drawn_plan(seed);
    const Program program = lower(plan);
    const Role& role = program.roles[0];
    const Binding binding = draw_binding(plan, program, 0, seed);
    const MemoryTimeline timeline = memory_timeline(role, binding.values);
    EXPECT_EQ(sum(timeline.at_peak), timeline.peak) << seed;
    Classes expected = living(role, binding, timeline.peak_op, timeline.peak_op);
    for (std::size_t c = 0; c < expected.size(); ++c) {
      EXPECT_GE(timeline.at_peak[c], 0) << seed << " " << name_of(static_cast<BufferClass>(c));
      EXPECT_LE(timeline.at_peak[c], timeline.class_peaks[c]) << seed;
      if (c != kWork && c != kTape) {
        EXPECT_EQ(timeline.at_peak[c], expected[c]) << seed;
      }
    }
  }
}

TEST(MemoryTimeline, EndsAtThePersistentState) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Plan plan = drawn_plan(seed);
    const Program program = lower(plan);
    const Role& role = program.roles[0];
    const Binding binding = draw_binding(plan, program, 0, seed);
    const MemoryTimeline timeline = memory_timeline(role, binding.values);
    // Shards and two moments, in the master's dtype.
    std::int64_t persistent = 0;
    for (const Unit& u : role.units) {
      persistent += 3 * u.shard_numel * size_of(plan.workload.master);
    }
    std::int64_t freed = 0;
    for (const BufferId b : role.ops.back().frees) {
      const Buffer& buffer = role.buffers[static_cast<std::size_t>(b)];
      freed += buffer.bytes.eval(binding.values, buffer.vars);
    }
    EXPECT_EQ(timeline.at.back() - freed, persistent) << seed;
    EXPECT_GT(timeline.peak, persistent) << seed;
  }
}

TEST(MemoryTimeline, AllocationEventsBalanceByClass) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = drawn_plan(seed);
    const Program program = lower(plan);
    const Simulation s = simulate(plan, program, {}).value();
    std::vector<Classes> live(static_cast<std::size_t>(program.world),
                              Classes(kNumBufferClasses, 0));
    std::vector<AllocEvent> events = s.events.allocs;
    std::stable_sort(events.begin(), events.end(), [](const AllocEvent& a, const AllocEvent& b) {
      return a.time_ns != b.time_ns ? a.time_ns < b.time_ns : a.delta > b.delta;
    });
    for (const AllocEvent& e : events) {
      std::int64_t& now = live[static_cast<std::size_t>(e.rank)][static_cast<std::size_t>(e.cls)];
      now += e.delta;
      ASSERT_GE(now, 0) << seed << ": freed before it was taken";
      ASSERT_LE(e.time_ns, s.step.value());
    }
    for (const Classes& c : live) EXPECT_EQ(c, Classes(kNumBufferClasses, 0)) << seed;
    ASSERT_EQ(s.events.peaks.size(),
              static_cast<std::size_t>(program.world) * (1 + kNumBufferClasses));
    std::int64_t fullest = 0;
    for (const PeakEvent& e : s.events.peaks) {
      if (e.cls < 0) fullest = std::max(fullest, e.bytes);
    }
    EXPECT_EQ(fullest, s.peak.value());
  }
}

TEST(MemoryTimeline, MoreRowsTakeMoreMemory) {
  Plan plan = small_moe_plan(2, 2, 1);
  plan.workload.sequence_tokens = 64;
  plan.workload.document_tokens = {64};
  seal(plan);
  const Program program = lower(plan);
  const Role& role = program.roles[0];
  Binding binding = draw_binding(plan, program, 0, 0);
  const std::int64_t balanced = memory_timeline(role, binding.values).peak;
  for (std::size_t v = 0; v < role.var_names.size(); ++v) {
    if (role.var_names[v].rfind("route/", 0) == 0) binding.values[v + RouteVars::rows()] *= 4;
  }
  EXPECT_GT(memory_timeline(role, binding.values).peak, balanced);
}

}  // namespace
}  // namespace orrery::simulator
