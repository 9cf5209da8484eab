// Document costs as differences of whole micro-batches' prices.
#include "simulator/document_cost.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/program/lower.h"
#include "simulator/binding.h"
#include "simulator/op_cost.h"
#include "simulator/simulator.h"

namespace orrery::simulator {
namespace {

// Of rank 0 in the first micro-batch, whose documents have `pairs`.
double seconds_of(const Plan& plan, const Program& program, std::int64_t pairs) {
  Binding binding = draw_binding(plan, program, 0, 0);
  const Role& role = program.role_of(0);
  for (std::size_t base = 0; base < role.var_names.size(); ++base) {
    if (role.var_names[base].rfind("batch/", 0) == 0) {
      binding.values[base + BatchVars::pairs()] = pairs;
    }
  }
  return micro_batch_compute(plan.cluster, program, 0, 0, binding.values).value();
}

}  // namespace

Seconds micro_batch_compute(const Cluster& cluster, const Program& program, std::int32_t rank,
                            std::int32_t m, const std::vector<std::int64_t>& binding) {
  const Role& role = program.role_of(rank);
  const std::vector<Nanoseconds> durations = op_durations(cluster, program, role, rank, binding);
  Nanoseconds sum(0);
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (op.block >= 0 && op.lane == Lane::kCompute && op.micro_batch == m) sum += durations[i];
  }
  return to_seconds(sum);
}

DocumentCost document_cost(const Plan& whole) {
  const Plan plan = shortened(whole, 1);
  const Program program = lower(plan);
  const std::int64_t expected = plan.layout.micro_batch * plan.workload.pairs_per_sequence();
  const std::int64_t few = std::max<std::int64_t>(1, expected / 2), many = few + expected;
  Plan longer = plan;
  longer.workload.sequence_tokens *= 2;
  const auto tokens = static_cast<double>(plan.layout.micro_batch * plan.workload.sequence_tokens);
  const double base = seconds_of(plan, program, few);
  DocumentCost cost;
  const double by_tokens = seconds_of(longer, lower(longer), few) - base;
  const double by_pairs = seconds_of(plan, program, many) - base;
  // A steep efficiency curve can make more work take less time; a document never gives time back.
  cost.linear_s = std::max(0.0, by_tokens / tokens);
  cost.quadratic_s = std::max(0.0, by_pairs / static_cast<double>(many - few));
  CHECK(std::isfinite(cost.linear_s) && std::isfinite(cost.quadratic_s), "a cost that is no time");
  return cost;
}

}  // namespace orrery::simulator
