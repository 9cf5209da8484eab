// Goodput: figures worked out by hand, the optimum of the interval, and a simulated run.
#include "planner/questions/goodput.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/plans.h"

namespace orrery::planner {
namespace {

double uniform(Draw& draw) {
  return (static_cast<double>(draw.next() >> 11) + 0.5) / 9007199254740992.0;
}

// One run, event by event: segments of work that end with a save; a failure at any moment, also
// while saving or restarting, sends the run back to the last save. Independent of the formula.
double simulated_wall(Draw& draw, int segments, double interval, double save, double restart,
                      double mtbf) {
  double now = 0, failure = -mtbf * std::log(uniform(draw));
  const auto attempt = [&](double takes) {  // true where no failure comes within it
    if (now + takes <= failure) {
      now += takes;
      return true;
    }
    now = failure;
    failure = now - mtbf * std::log(uniform(draw));
    return false;
  };
  for (int done = 0; done < segments;) {
    if (attempt(interval + save)) {
      ++done;
    } else {
      while (!attempt(restart)) {
      }
    }
  }
  return now;
}

TEST(Goodput, TheMeanTimeBetweenFailuresOfLlama3) {
  // 16,384 devices: 54 days / 419 = 3.09 hours.
  EXPECT_NEAR(kDeviceMtbfSeconds / 16384 / 3600, 3.093, 0.001);
  EXPECT_NEAR(kDeviceMtbfSeconds / 3600, 50'677, 1);
}

TEST(Goodput, IntervalsByHand) {
  // C = 2 min, M = 4 h: sqrt(2 x 120 x 14400) = 1859.03 s.
  EXPECT_NEAR(young_interval(Seconds(120), Seconds(14400)).value(), 1859.032, 1e-3);
  // C / 2M = 1/240: x (1 + 0.0645497 / 3 + 1 / 2160) - 120 = 1779.893 s.
  EXPECT_NEAR(daly_interval(Seconds(120), Seconds(14400)).value(), 1779.893, 1e-3);
  EXPECT_EQ(daly_interval(Seconds(100), Seconds(50)).value(), 50);  // C >= 2 M
}

TEST(Goodput, WallTimeByHand) {
  // M = 1, interval 0.5, C = 0.1, R = 0.2: e^0.2 (e^0.6 - 1) / 0.5 = 2.008276 a second of work.
  EXPECT_NEAR(wall_time(Seconds(1), Seconds(0.5), Seconds(0.1), Seconds(0.2), Seconds(1)).value(),
              2.0082763, 1e-6);
  // Without failures only the saves remain.
  EXPECT_NEAR(
      wall_time(Seconds(1000), Seconds(100), Seconds(5), Seconds(600), Seconds(1e12)).value(), 1050,
      1e-3);
  EXPECT_TRUE(
      std::isinf(wall_time(Seconds(1), Seconds(1), Seconds(1), Seconds(1e6), Seconds(1)).value()));
}

TEST(Goodput, DalysIntervalIsNearlyTheBest) {
  for (const double save : {1.0, 30.0, 300.0, 1800.0}) {
    for (const double mtbf : {3600.0, 20'000.0, 500'000.0}) {
      const auto wall = [&](double interval) {
        return wall_time(Seconds(1e6), Seconds(interval), Seconds(save), Seconds(600),
                         Seconds(mtbf))
            .value();
      };
      const double daly = wall(daly_interval(Seconds(save), Seconds(mtbf)).value());
      double best = 1e300;
      for (double interval = save / 10; interval < 20 * mtbf; interval *= 1.01) {
        best = std::min(best, wall(interval));
      }
      EXPECT_LE(daly, best * 1.002) << save << " s of " << mtbf << " s";
      EXPECT_LE(daly, wall(young_interval(Seconds(save), Seconds(mtbf)).value()) * 1.0001);
    }
  }
}

TEST(Goodput, ASimulatedRunTakesAsLong) {
  Draw draw(7);
  struct Case {
    double interval, save, restart, mtbf;
  };
  for (const Case& c :
       {Case{1000, 50, 300, 5000}, Case{500, 200, 900, 2000}, Case{3000, 10, 60, 100'000}}) {
    constexpr int kSegments = 200, kRuns = 400;
    double sum = 0, squares = 0;
    for (int run = 0; run < kRuns; ++run) {
      const double wall = simulated_wall(draw, kSegments, c.interval, c.save, c.restart, c.mtbf);
      sum += wall;
      squares += wall * wall;
    }
    const double mean = sum / kRuns;
    const double error = std::sqrt((squares / kRuns - mean * mean) / kRuns);
    const double expected = wall_time(Seconds(c.interval * kSegments), Seconds(c.interval),
                                      Seconds(c.save), Seconds(c.restart), Seconds(c.mtbf))
                                .value();
    EXPECT_NEAR(mean, expected, 4 * error) << c.interval;
    EXPECT_LT(error, expected * 0.01);  // else the comparison says nothing
  }
}

RunFacts ten_seconds() {
  return {Seconds(10), Seconds(8), Seconds(12), 4096, 2, 1e9};
}

TEST(Goodput, ARunOfSteps) {
  const RunFacts facts = ten_seconds();
  Reliability calm;
  calm.device_mtbf = Seconds(1e15);
  calm.save = Seconds(1e-6);
  const LongRun run = run_of(facts, 1000 * 4096 + 1, calm);
  EXPECT_EQ(run.steps, 1001);  // what is left takes a whole step
  EXPECT_NEAR(run.wall.value(), 10010, 1);
  EXPECT_NEAR(run.goodput, 1, 1e-3);
  EXPECT_LT(run.wall_p10, run.wall);
  EXPECT_LT(run.wall, run.wall_p90);
  Reliability rough = calm;
  rough.device_mtbf = Seconds(7200);  // of two devices: a failure an hour
  rough.save = Seconds(60);
  const LongRun hard = run_of(facts, 1000 * 4096, rough);
  EXPECT_NEAR(hard.mtbf.value(), 3600, 1e-9);
  EXPECT_LT(hard.goodput, 0.8);
  EXPECT_GT(hard.failures, 10'000.0 / 3600);
  // A gigabyte at the storage rate of two devices.
  EXPECT_NEAR(save_time(facts).value(), 1e9 / (2 * 2e12 / 16384), 1e-9);
}

// The wall time at the longest step is the limit; a little more is over it.
TEST(Goodput, TheLongestStepMeetsTheLimit) {
  RunFacts facts = ten_seconds();
  Reliability rough;
  rough.device_mtbf = Seconds(7200);
  rough.save = Seconds(60);
  for (const double limit : {1e4, 3e4, 1e6}) {
    const std::int64_t tokens = 1000 * 4096;
    facts.step = longest_step(facts, tokens, rough, Seconds(limit));
    EXPECT_NEAR(run_of(facts, tokens, rough).wall.value(), limit, 1e-6 * limit);
    EXPECT_LT(facts.step.value(), limit / 1000);
  }
  // Failures so often that nothing is ever done.
  rough.device_mtbf = Seconds(1e-3);
  EXPECT_EQ(longest_step(facts, 4096, rough, Seconds(1e4)).value(), 0);
}

}  // namespace
}  // namespace orrery::planner
