// Random legal plans of all mechanisms together, on up to eight ranks in-process: what is trained
// is what one plain rank trains, and what is run is what was simulated, memory included.
//
// A failure prints the seed and the plan; RANDOM_PLAN_SEED=n runs that one alone.
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/program/lower.h"
#include "core/program/verify.h"
#include "simulator/simulator.h"
#include "tests/parity/cases.h"
#include "tests/parity/checks.h"
#include "tests/parity/harness.h"
#include "tests/support/plans.h"

namespace orrery::parity {
namespace {

constexpr std::uint64_t kShards = 8, kPlansOfShard = 26;

// Large enough that memory is that of tensors, small enough that two hundred run in a minute.
Plan plan_of(std::uint64_t seed) {
  Plan plan = random_mechanism_plan(seed, 8);
  Model& m = plan.model;
  m.hidden *= 6;
  m.head_dim *= 2;
  m.ffn *= 6;
  m.shared_ffn *= 6;
  m.moe_ffn *= 6;
  m.vocab *= 3;
  seal(plan);
  return plan;
}

// The same model, data and step on one rank, with no mechanism but micro-batches.
Plan plain(const Plan& plan) {
  Plan one = plan;
  one.layout = {};
  one.chunks = {};
  one.policy = {};
  one.cluster = small_cluster(1);
  one.layout.micro_batch = plan.workload.global_sequences;
  seal(one);
  return one;
}

Run run_plan(const Plan& plan, const reference::Batch& batch) {
  const Program program = lower(plan);
  const auto findings = verify(program);
  CHECK(findings.empty(), findings[0].rule + ": " + findings[0].message);
  RunOptions options;
  options.steps = 2;
  // With a small epsilon AdamW's first step is nearly a sign: where a gradient is all rounding, the
  // sign is too, and fp32 runs part.
  options.optimizer.eps = 1e-2;
  auto run = run_in_process(plan, program, batch, options);
  CHECK(run.ok(), run.error().text());
  return std::move(run).value();
}

void expect_simulated(const Plan& plan, const Run& run) {
  const Program program = lower(plan);
  const Role& role = program.roles[0];
  simulator::Options bound;
  for (const TraceEvents& events : run.events) bound.bindings.push_back(events.bindings.at(1));
  const auto simulated = simulator::simulate(plan, program, bound);
  ASSERT_TRUE(simulated.ok()) << simulated.error().text();
  for (std::int32_t rank = 0; rank < program.world; ++rank) {
    const TraceEvents second =
        of_step(run.events[static_cast<std::size_t>(rank)], program, rank, 1);
    expect_same_structure(second, simulated.value().events, rank, role);
    expect_same_bytes(second, simulated.value().events, rank, role);
    expect_peaks_within(second, simulated.value().events, rank, 0.02, 0.05);
  }
}

class RandomPlans : public testing::TestWithParam<std::uint64_t> {};

TEST_P(RandomPlans, TrainAndRunAsOnePlainRankAndAsSimulated) {
  const char* only = std::getenv("RANDOM_PLAN_SEED");
  const std::uint64_t first = GetParam() * kPlansOfShard;
  for (std::uint64_t seed = first; seed < first + kPlansOfShard; ++seed) {
    if (only != nullptr && std::strtoull(only, nullptr, 10) != seed) continue;
    const Plan plan = plan_of(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + plan.model.model_type + ": " +
                 describe(plan.layout, plan.chunks, plan.policy));
    const auto batch = reference::random_batch(plan.model, plan.workload.global_sequences,
                                               plan.workload.sequence_tokens, seed);
    const parity::Run run = run_plan(plan, batch);
    expect_simulated(plan, run);
    // Counts of the world weigh each micro-batch on its own: another layout is another loss.
    const bool comparable = plan.workload.balance_scope == BalanceScope::kSequence &&
                            plan.workload.compute != DType::kBFloat16;
    if (comparable) {
      expect_equal_runs(run, run_plan(plain(plan), batch), plan.workload.compute);
    }
    if (testing::Test::HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomPlans, testing::Range<std::uint64_t>(0, kShards));

}  // namespace
}  // namespace orrery::parity
