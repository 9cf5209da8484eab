// Op costs: the roofline by hand, and every op of random plans against what its operands say.
#include "simulator/op_cost.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/program/lower.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

// 1 TFLOP/s in bf16, 100 GB/s, everything at 1/2, a launch of 1 us.
DeviceProfile plain_device() {
  DeviceProfile d;
  d.name = "plain";
  d.peak_bf16 = FlopsPerSecond(1e12);
  d.peak_fp32 = FlopsPerSecond(5e11);
  d.peak_fp64 = FlopsPerSecond(2.5e11);
  d.memory_bandwidth = BytesPerSecond(1e11);
  d.launch = Seconds(1e-6);
  d.gemm = d.grouped = d.attention = d.memory_eff = {{1e6}, {0.5}};
  return d;
}

Work work_of(WorkKind kind, std::int64_t flops, std::int64_t bytes, std::int32_t kernels = 1) {
  Work w;
  w.kind = kind;
  w.dtype = DType::kBFloat16;
  w.flops = SizeExpr::constant(flops);
  w.bytes = SizeExpr::constant(bytes);
  w.kernels = kernels;
  return w;
}

double us(const DeviceProfile& d, const std::vector<Work>& work,
          const std::vector<std::int64_t>& binding = {}, VarBase vars = {}) {
  return work_time(d, work, binding, vars).value() * 1e6;
}

TEST(OpCost, RooflineIsTheSlowerOfFlopsAndBytes) {
  const DeviceProfile d = plain_device();
  // 1e9 FLOPs at 0.5e12: 2000 us. 1e7 bytes at 0.5e11: 200 us.
  EXPECT_NEAR(us(d, {work_of(WorkKind::kGemm, 1'000'000'000, 10'000'000)}), 2001, 1e-6);
  EXPECT_NEAR(us(d, {work_of(WorkKind::kGemm, 1'000'000, 10'000'000)}), 201, 1e-6);
  EXPECT_NEAR(us(d, {work_of(WorkKind::kAttention, 1'000'000'000, 10'000'000)}), 2001, 1e-6);
  // Memory-bound work has no FLOPs to wait for.
  EXPECT_NEAR(us(d, {work_of(WorkKind::kMemory, 1'000'000'000, 10'000'000)}), 201, 1e-6);
}

TEST(OpCost, ItemsAddUpAndEveryKernelIsLaunched) {
  const DeviceProfile d = plain_device();
  EXPECT_EQ(us(d, {}), 0);
  EXPECT_NEAR(us(d, {work_of(WorkKind::kMemory, 0, 0, 7)}), 7, 1e-9);
  EXPECT_NEAR(us(d, {work_of(WorkKind::kMemory, 0, 5'000'000, 3),
                     work_of(WorkKind::kGemm, 50'000'000, 0, 2)}),
              100 + 3 + 100 + 2, 1e-6);
  EXPECT_NEAR(memory_time(d, PassKind::kStream, 5e6, 2).value() * 1e6, 102, 1e-6);
  EXPECT_NEAR(memory_time(d, PassKind::kStream, 0, 2).value() * 1e6, 2, 1e-9);
}

TEST(OpCost, EachDtypeHasItsPeak) {
  const DeviceProfile d = plain_device();
  Work w = work_of(WorkKind::kGemm, 1'000'000'000, 0, 0);
  EXPECT_NEAR(us(d, {w}), 2000, 1e-6);
  w.dtype = DType::kFloat32;
  EXPECT_NEAR(us(d, {w}), 4000, 1e-6);
  w.dtype = DType::kFloat64;
  EXPECT_NEAR(us(d, {w}), 8000, 1e-6);
}

TEST(OpCost, CurvesAreLinearInTheLogarithmAndFlatOutside) {
  DeviceProfile d = plain_device();
  d.gemm = {{1e6, 1e8, 1e9}, {0.2, 0.6, 0.8}};
  const auto fraction = [&](std::int64_t flops) {
    const double seconds = us(d, {work_of(WorkKind::kGemm, flops, 0, 0)}) * 1e-6;
    return static_cast<double>(flops) / 1e12 / seconds;
  };
  EXPECT_NEAR(fraction(1), 0.2, 1e-9);
  EXPECT_NEAR(fraction(1'000'000), 0.2, 1e-9);
  EXPECT_NEAR(fraction(10'000'000), 0.4, 1e-9);  // half way between 1e6 and 1e8
  EXPECT_NEAR(fraction(100'000'000), 0.6, 1e-9);
  EXPECT_NEAR(fraction(316'227'766), 0.7, 1e-9);  // half way between 1e8 and 1e9
  EXPECT_NEAR(fraction(1'000'000'000), 0.8, 1e-9);
  EXPECT_NEAR(fraction(900'000'000'000), 0.8, 1e-9);
}

TEST(OpCost, EachKindReadsItsOwnCurve) {
  DeviceProfile d = plain_device();
  d.gemm = {{1}, {0.1}};
  d.grouped = {{1}, {0.2}};
  d.attention = {{1}, {0.4}};
  EXPECT_NEAR(us(d, {work_of(WorkKind::kGemm, 1'000'000, 0, 0)}), 10, 1e-9);
  EXPECT_NEAR(us(d, {work_of(WorkKind::kGroupedGemm, 1'000'000, 0, 0)}), 5, 1e-9);
  EXPECT_NEAR(us(d, {work_of(WorkKind::kAttention, 1'000'000, 0, 0)}), 2.5, 1e-9);
}

TEST(OpCost, GroupedProductsAreAsEfficientAsOneExpertsPart) {
  DeviceProfile d = plain_device();
  d.grouped = {{1e6, 1e8}, {0.2, 0.6}};
  Work w = work_of(WorkKind::kGroupedGemm, 80'000'000, 0, 0);
  w.groups = 8;  // 1e7 FLOPs an expert: 0.4
  EXPECT_NEAR(us(d, {w}), 200, 1e-6);
}

TEST(OpCost, SizesComeFromTheBinding) {
  const DeviceProfile d = plain_device();
  Work w = work_of(WorkKind::kGroupedGemm, 0, 0, 0);
  w.flops = {0, 1'000'000, VarScope::kRoute, 0};
  VarBase vars;
  vars.route = 2;
  EXPECT_NEAR(us(d, {w}, {7, 7, 50}, vars), 100, 1e-9);
  EXPECT_EQ(us(d, {w}, {7, 7, 0}, vars), 0) << "no rows, no time";
}

// --- the ops of lowered programs -----------------------------------------------------------------

Plan drawn_plan(std::uint64_t seed) {
  Plan plan = random_plan(seed);
  plan.workload.expert_load_cv = seed % 3 == 0 ? 0 : 0.5;
  seal(plan);
  return plan;
}

// No memory of what an op cost before: every block from its own work, at the op's own records.
double block_seconds(const Cluster& c, const Block& block, const Op& op, const Binding& binding) {
  const auto time = [&](const std::vector<Work>& work) {
    return work_time(c.device, work, binding.values, op.vars).value();
  };
  if (op.kind == OpKind::kBackward) return time(backward_work(block));
  if (op.kind != OpKind::kForwardBackward) return time(forward_work(block));
  return time(forward_work(block)) + time(backward_work(block));
}

TEST(OpCost, EveryOpOfRandomPlansIsPricedByItsOwnRecords) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Plan plan = drawn_plan(seed);
    const Program program = lower(plan);
    const Role& role = program.roles[0];
    const auto rank = static_cast<std::int32_t>(seed) % program.world;
    const Binding binding = draw_binding(plan, program, rank, seed);
    const auto durations = op_durations(plan.cluster, program, role, rank, binding.values);
    ASSERT_EQ(durations.size(), role.ops.size());
    const Nanoseconds launch = to_nanoseconds(plan.cluster.device.launch);
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      const Op& op = role.ops[i];
      ASSERT_GE(durations[i], launch) << seed << " " << op.path;
      ASSERT_LT(durations[i].value(), 1'000'000'000) << seed << " " << op.path;
      if (op.block < 0) continue;
      const Block& block = role.blocks[static_cast<std::size_t>(op.block)];
      ASSERT_EQ(durations[i],
                to_nanoseconds(Seconds(block_seconds(plan.cluster, block, op, binding))))
          << seed << " " << op.path;
    }
  }
}

TEST(OpCost, ExpertsArePricedByTheirOwnRows) {
  Plan plan = small_moe_plan(2, 2, 2);
  const Program program = lower(plan);
  const Role& role = program.roles[0];
  Binding binding = draw_binding(plan, program, 0, 0);
  const auto before = op_durations(plan.cluster, program, role, 0, binding.values);
  // More rows for layer 1 of micro-batch 1, and for nothing else.
  for (std::size_t v = 0; v < role.var_names.size(); ++v) {
    if (role.var_names[v] == "route/layer.1/mb.1") binding.values[v + RouteVars::rows()] *= 1000;
  }
  const auto after = op_durations(plan.cluster, program, role, 0, binding.values);
  int changed = 0;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    const bool its = op.path == "layer.1/moe/experts" && op.micro_batch == 1;
    EXPECT_EQ(before[i] != after[i], its) << op.path << " of micro-batch " << op.micro_batch;
    changed += its ? 1 : 0;
    if (its) {
      EXPECT_GT(after[i], before[i]);
    }
  }
  EXPECT_EQ(changed, 2) << "forward and backward";
}

TEST(OpCost, OpsWithoutABlockMoveTheirOperands) {
  // Two ranks, FSDP over both: shards are half of each unit, in fp32; a device of 100 GB/s at 1/2.
  Plan plan = small_dense_plan(2, 2);
  plan.cluster.device = plain_device();
  plan.workload.compute = DType::kBFloat16;
  seal(plan);
  const Program program = lower(plan);
  const Role& role = program.roles[0];
  const Binding binding = draw_binding(plan, program, 1, 0);
  const auto durations = op_durations(plan.cluster, program, role, 1, binding.values);
  const auto time = [](double bytes) { return to_nanoseconds(Seconds(1e-6 + bytes / 5e10)); };
  double all_shards = 0;
  for (const Unit& u : role.units) all_shards += 4 * static_cast<double>(u.shard_numel);
  int seen = 0;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (op.kind == OpKind::kLoadBatch) {  // 2 micro-batches of ids and labels, 8 tokens of 8 bytes
      EXPECT_EQ(durations[i], time(2 * (2 * 2 * 8 * 8)));
    } else if (op.kind == OpKind::kGradNorm) {
      EXPECT_EQ(durations[i], time(all_shards));
    } else if (op.kind == OpKind::kAccumulate) {  // bf16 gradients into fp32 sums
      const auto& unit = role.units[static_cast<std::size_t>(op.unit)];
      const double numel = static_cast<double>(unit.shard_numel);
      EXPECT_EQ(durations[i], time(numel * (static_cast<double>(size_of(unit.grad_dtype)) + 8)))
          << op.path;
    } else if (op.kind == OpKind::kOptimizerStep) {  // one gradient; shard and moments both ways
      const auto& unit = role.units[static_cast<std::size_t>(op.unit)];
      EXPECT_EQ(durations[i], time(static_cast<double>(unit.shard_numel) * 7 * 4)) << op.path;
    } else {
      continue;
    }
    ++seen;
  }
  EXPECT_EQ(seen, 1 + 1 + 2 * 4 + 4) << "embed, two layers and head";
}

TEST(OpCost, AGatherOfOneIsACast) {
  Plan plan = small_dense_plan(1, 1);
  plan.cluster.device = plain_device();
  plan.workload.compute = DType::kBFloat16;
  seal(plan);
  const Program program = lower(plan);
  const Role& role = program.roles[0];
  const auto durations =
      op_durations(plan.cluster, program, role, 0, draw_binding(plan, program, 0, 0).values);
  int seen = 0;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    if (role.ops[i].kind != OpKind::kUnshard) continue;
    const auto& unit = role.units[static_cast<std::size_t>(role.ops[i].unit)];
    EXPECT_EQ(durations[i],
              to_nanoseconds(Seconds(1e-6 + static_cast<double>(unit.numel) * (4 + 2) / 5e10)));
    ++seen;
  }
  EXPECT_GT(seen, 0);
}

TEST(OpCost, NamesDoNotMatter) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = drawn_plan(seed);
    Plan other = plan;
    other.model.name = "experts";
    other.cluster.name = "somewhere else";
    other.cluster.device.name = "faster-than-light";
    for (LinkTier& tier : other.cluster.tiers) tier.name = "tier of " + tier.name;
    other.workload.name = "attention";
    seal(other);
    ASSERT_NE(plan.sha256, other.sha256);
    const Program a = lower(plan), b = lower(other);
    for (std::int32_t rank = 0; rank < a.world; ++rank) {
      const Binding binding = draw_binding(plan, a, rank, seed);
      EXPECT_EQ(binding.values, draw_binding(other, b, rank, seed).values);
      EXPECT_EQ(op_durations(plan.cluster, a, a.roles[0], rank, binding.values),
                op_durations(other.cluster, b, b.roles[0], rank, binding.values));
    }
    const auto first = simulate(plan, a, {}), second = simulate(other, b, {});
    EXPECT_EQ(first.value().step, second.value().step);
    EXPECT_EQ(first.value().peak, second.value().peak);
    EXPECT_EQ(first.value().prediction.mfu, second.value().prediction.mfu);
  }
}

}  // namespace
}  // namespace orrery::simulator
