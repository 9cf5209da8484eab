// The learning rate over the steps: the ends of each piece by hand, and what holds for any
// schedule.
#include <gtest/gtest.h>

#include "core/workload.h"

namespace orrery {
namespace {

AdamW with(Schedule schedule) {
  AdamW optimizer;
  optimizer.lr = 8;
  optimizer.schedule = schedule;
  return optimizer;
}

TEST(Schedule, ConstantIsTheRateItself) {
  for (const std::int64_t step : {0, 1, 1000000}) {
    EXPECT_EQ(learning_rate(with({}), step), 8);
    // No length to fall over: it stays.
    EXPECT_EQ(learning_rate(with({ScheduleKind::kCosine, 0, 0, 1}), step), 8);
  }
}

TEST(Schedule, WarmsUpByALine) {
  for (const ScheduleKind kind :
       {ScheduleKind::kConstant, ScheduleKind::kLinear, ScheduleKind::kCosine}) {
    const AdamW optimizer = with({kind, 4, 20, 1});
    EXPECT_EQ(learning_rate(optimizer, 0), 2);
    EXPECT_EQ(learning_rate(optimizer, 1), 4);
    EXPECT_EQ(learning_rate(optimizer, 2), 6);
    EXPECT_EQ(learning_rate(optimizer, 3), 8);
  }
  EXPECT_EQ(learning_rate(with({ScheduleKind::kConstant, 4, 0, 0}), 4), 8);
}

TEST(Schedule, FallsByALineToItsLeast) {
  const AdamW optimizer = with({ScheduleKind::kLinear, 2, 10, 4});
  EXPECT_EQ(learning_rate(optimizer, 1), 8);    // the last of the warm-up
  EXPECT_EQ(learning_rate(optimizer, 3), 7);    // a quarter of the 8 steps down
  EXPECT_EQ(learning_rate(optimizer, 5), 6);    // half of them
  EXPECT_EQ(learning_rate(optimizer, 8), 4.5);  // all but one
  EXPECT_EQ(learning_rate(optimizer, 9), 4);    // the last step
  EXPECT_EQ(learning_rate(optimizer, 1000), 4);
}

TEST(Schedule, FallsByHalfACosine) {
  const AdamW optimizer = with({ScheduleKind::kCosine, 0, 6, 2});
  // 2 + 6 (1 + cos(pi t / 6)) / 2 at t = 2, 3, 4, 6: cosines of 60, 90, 120 and 180 degrees.
  EXPECT_NEAR(learning_rate(optimizer, 1), 6.5, 1e-12);
  EXPECT_NEAR(learning_rate(optimizer, 2), 5, 1e-12);
  EXPECT_NEAR(learning_rate(optimizer, 3), 3.5, 1e-12);
  EXPECT_EQ(learning_rate(optimizer, 5), 2);
  EXPECT_EQ(learning_rate(optimizer, 6), 2);
}

TEST(Schedule, NeverRisesAfterTheWarmUp) {
  for (const ScheduleKind kind : {ScheduleKind::kLinear, ScheduleKind::kCosine}) {
    for (const std::int64_t warmup : {0, 1, 7, 30, 40}) {
      const AdamW optimizer = with({kind, warmup, 30, 0.5});
      for (std::int64_t step = 0; step < 60; ++step) {
        const double now = learning_rate(optimizer, step),
                     next = learning_rate(optimizer, step + 1);
        EXPECT_GT(now, 0);
        EXPECT_LE(now, 8);
        if (step + 1 < warmup) {
          EXPECT_GT(next, now);
        } else {
          EXPECT_LE(next, now) << step << " of warm-up " << warmup;
        }
      }
      EXPECT_EQ(learning_rate(optimizer, 59), 0.5);
    }
  }
}

}  // namespace
}  // namespace orrery
