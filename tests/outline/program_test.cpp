// Where the engine executes a layout, its program and the outline agree: the same FLOPs of products
// on every rank, the same bytes of exchanges.
#include <gtest/gtest.h>

#include "core/outline/task.h"
#include "core/program/lower.h"
#include "core/program/work.h"
#include "tests/outline/jobs.h"

namespace orrery::outline {
namespace {

Job job_of(const Plan& plan) {
  Job job;
  job.model = plan.model;
  job.cluster = plan.cluster;
  job.layout = plan.layout;
  job.sharding = Sharding::kParameters;
  job.precision = Precision::kFp32;
  job.sequence_tokens = plan.workload.sequence_tokens;
  job.global_sequences = plan.workload.global_sequences;
  return job;
}

// FLOPs of products of one micro-batch in `phase`, with balanced routing.
double program_flops(const Plan& plan, const Program& program, Phase phase) {
  const Role& role = program.roles[0];
  double sum = 0;
  for (const Op& op : role.ops) {
    if (op.block < 0 || op.micro_batch != 0 || op.phase != phase) continue;
    const Block& block = role.blocks[static_cast<std::size_t>(op.block)];
    if (op.kind == OpKind::kForwardBackward) continue;
    const bool backward = op.kind == OpKind::kBackward;
    for (const Work& w : backward ? backward_work(block) : forward_work(block)) {
      if (w.kind != WorkKind::kGemm && w.kind != WorkKind::kGroupedGemm) continue;
      const double rows =
          w.flops.is_constant()
              ? static_cast<double>(w.flops.c0)
              : static_cast<double>(w.flops.c1) *
                    static_cast<double>(program.step.sequences * program.step.sequence_tokens *
                                        plan.model.top_k);
      sum += rows;
    }
  }
  return sum;
}

double outline_flops(const Job& job, bool backward) {
  double sum = 0;
  for (std::int64_t i = 0; i < job.model.layers; ++i) {
    const Outline o = layer(job, i, false).outline;
    for (const Task& t : backward ? o.backward : o.forward) {
      if (t.kind == TaskKind::kProduct || t.kind == TaskKind::kGrouped) sum += t.flops;
    }
  }
  return sum;
}

TEST(OutlineOfAProgram, HasItsProducts) {
  for (const std::int64_t ep : {1, 2, 4}) {
    Plan plan = small_moe_plan(4, ep, 1);
    const Program program = lower(plan);
    const Job job = job_of(plan);
    EXPECT_DOUBLE_EQ(outline_flops(job, false), program_flops(plan, program, Phase::kForward))
        << ep;
    EXPECT_DOUBLE_EQ(outline_flops(job, true), program_flops(plan, program, Phase::kBackward))
        << ep;
  }
  const Plan plan = small_dense_plan(2, 1);
  const Program program = lower(plan);
  EXPECT_DOUBLE_EQ(outline_flops(job_of(plan), false),
                   program_flops(plan, program, Phase::kForward));
  EXPECT_DOUBLE_EQ(outline_flops(job_of(plan), true),
                   program_flops(plan, program, Phase::kBackward));
}

}  // namespace
}  // namespace orrery::outline
