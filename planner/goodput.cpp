// See goodput.h: the formulas as they stand there.
#include "planner/goodput.h"

#include <cmath>
#include <limits>

#include "core/check.h"

namespace orrery::planner {

Seconds save_time(const Plan& plan) {
  constexpr double kCopies = 3;  // the shard and AdamW's two moments
  const double bytes = static_cast<double>(parameter_count(plan.model)) * kCopies *
                       static_cast<double>(size_of(plan.workload.master));
  return Seconds(bytes / (kStoreBytesPerSecondADevice * static_cast<double>(plan.cluster.devices)));
}

Seconds young_interval(Seconds save, Seconds mtbf) {
  return Seconds(std::sqrt(2 * save.value() * mtbf.value()));
}

Seconds daly_interval(Seconds save, Seconds mtbf) {
  const double x = save.value() / (2 * mtbf.value());
  if (x >= 1) return mtbf;
  const double young = young_interval(save, mtbf).value();
  return Seconds(young * (1 + std::sqrt(x) / 3 + x / 9) - save.value());
}

Seconds wall_time(Seconds solve, Seconds interval, Seconds save, Seconds restart, Seconds mtbf) {
  const double m = mtbf.value();
  const double wall = m * std::exp(restart.value() / m) *
                      std::expm1((interval + save).value() / m) * solve.value() / interval.value();
  return Seconds(std::isfinite(wall) ? wall : std::numeric_limits<double>::infinity());
}

LongRun run_of(const Plan& plan, std::int64_t tokens, const Reliability& reliability) {
  CHECK(tokens > 0, "a run of no tokens");
  LongRun run;
  const std::int64_t a_step = plan.workload.global_tokens();
  run.tokens = tokens;
  run.steps = tokens / a_step + (tokens % a_step > 0 ? 1 : 0);
  run.save = reliability.save.value() > 0 ? reliability.save : save_time(plan);
  run.mtbf = Seconds(reliability.device_mtbf.value() / static_cast<double>(plan.cluster.devices));
  run.interval = daly_interval(run.save, run.mtbf);
  const auto wall = [&](Seconds step) {
    const Seconds solve(step.value() * static_cast<double>(run.steps));
    // A run shorter than the interval is saved once, at its end.
    const Seconds interval = std::min(run.interval, solve);
    return wall_time(solve, interval, run.save, reliability.restart, run.mtbf);
  };
  run.solve = Seconds(plan.predicted.step.value() * static_cast<double>(run.steps));
  run.wall = wall(plan.predicted.step);
  run.wall_p10 = wall(plan.predicted.p10);
  run.wall_p90 = wall(plan.predicted.p90);
  run.goodput = run.solve.value() / run.wall.value();
  run.failures = run.wall.value() / run.mtbf.value();
  return run;
}

}  // namespace orrery::planner
