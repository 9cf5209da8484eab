// See goodput.h: the formulas as they stand there.
#include "planner/questions/goodput.h"

#include <cmath>
#include <limits>

#include "core/check.h"

namespace orrery::planner {

Seconds save_time(const RunFacts& facts) {
  return Seconds(facts.checkpoint_bytes /
                 (kStoreBytesPerSecondADevice * static_cast<double>(facts.devices)));
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

LongRun run_of(const RunFacts& facts, std::int64_t tokens, const Reliability& reliability) {
  CHECK(tokens > 0, "a run of no tokens");
  LongRun run;
  run.tokens = tokens;
  run.steps = tokens / facts.tokens_a_step + (tokens % facts.tokens_a_step > 0 ? 1 : 0);
  run.save = reliability.save.value() > 0 ? reliability.save : save_time(facts);
  run.mtbf = Seconds(reliability.device_mtbf.value() / static_cast<double>(facts.devices));
  run.interval = daly_interval(run.save, run.mtbf);
  const auto wall = [&](Seconds step) {
    const Seconds solve(step.value() * static_cast<double>(run.steps));
    // A run shorter than the interval is saved once, at its end.
    const Seconds interval = std::min(run.interval, solve);
    return wall_time(solve, interval, run.save, reliability.restart, run.mtbf);
  };
  run.solve = Seconds(facts.step.value() * static_cast<double>(run.steps));
  run.wall = wall(facts.step);
  run.wall_p10 = wall(facts.p10);
  run.wall_p90 = wall(facts.p90);
  run.goodput = run.solve.value() / run.wall.value();
  run.failures = run.wall.value() / run.mtbf.value();
  return run;
}

Seconds longest_step(const RunFacts& facts, std::int64_t tokens, const Reliability& reliability,
                     Seconds limit) {
  RunFacts tried = facts;
  const auto wall = [&](double step) {
    tried.step = tried.p10 = tried.p90 = Seconds(step);
    return run_of(tried, tokens, reliability).wall;
  };
  // Without a failure or a save it would be this; the wall time rises with the step.
  double low = 0, high = limit.value() / static_cast<double>(run_of(facts, tokens, {}).steps);
  constexpr int kHalvings = 60;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (wall(middle) <= limit ? low : high) = middle;
  }
  return Seconds(low);
}

}  // namespace orrery::planner
