// The fitted interval holds what it promises, on rows that it was not fitted on too, and does not
// depend on orders or names; fits that hold rows out do not see them.
#include "validation/fit_spread.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/outline/jobs.h"
#include "tests/validation/rows.h"
#include "validation/held_out.h"
#include "validation/metrics.h"
#include "validation/report.h"

namespace orrery::validation {
namespace {

using simulator::SpreadModel;

// Residuals of a world in which the interval's law holds: normal, of a deviation that grows with
// what is not known times the distance; `skew` times as far up.
std::vector<SpreadSample> samples(int n, std::uint64_t seed, double skew = 1) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<double> part(0, 1);
  std::normal_distribution<double> normal;
  std::vector<SpreadSample> out;
  for (int i = 0; i < n; ++i) {
    SpreadSample s;
    s.source = "source" + std::to_string(i % 7);
    s.features.distance = simulator::kFarthest * part(rng);
    s.features.faster = s.features.slower = 0.3 * part(rng);
    s.features.exposed = part(rng);
    s.residual = normal(rng) *
                 (0.15 + 0.25 * s.features.exposed + 0.6 * s.features.slower * s.features.far());
    if (s.residual > 0) s.residual *= skew;
    out.push_back(s);
  }
  return out;
}

// Of the residuals, the share inside.
double coverage(const SpreadModel& model, const std::vector<SpreadSample>& rows) {
  std::size_t inside = 0;
  for (const SpreadSample& s : rows) {
    const auto by = simulator::factors(model, s.features);
    if (std::log(by.p10) <= s.residual && s.residual <= std::log(by.p90)) ++inside;
  }
  return static_cast<double>(inside) / static_cast<double>(rows.size());
}

TEST(FitSpread, HoldsEightyPercentNearAndFar) {
  const SpreadModel model = fit_spread(samples(3000, 1), {});
  EXPECT_EQ(model.rows, 3000U);
  const std::vector<SpreadSample> others = samples(3000, 2);
  EXPECT_NEAR(coverage(model, others), 0.8, 0.03);
  std::vector<SpreadSample> near, far;
  for (const SpreadSample& s : others) (s.features.far() < 1 ? near : far).push_back(s);
  EXPECT_NEAR(coverage(model, near), 0.8, 0.04);
  EXPECT_NEAR(coverage(model, far), 0.8, 0.04);
  // 1.2816 deviations of the law's.
  EXPECT_NEAR(model.slower.base, 1.2816 * 0.15, 0.04);
  EXPECT_NEAR(model.slower.exposed, 1.2816 * 0.25, 0.1);
  EXPECT_NEAR(model.slower.unseen, 1.2816 * 0.6, 0.1);
}

TEST(FitSpread, SidesAreTheirOwn) {
  const SpreadModel model = fit_spread(samples(3000, 3, 2.5), {});
  EXPECT_GT(model.slower.base, 2 * model.faster.base);
  EXPECT_NEAR(coverage(model, samples(3000, 4, 2.5)), 0.8, 0.03);
}

TEST(FitSpread, OrderAndNamesAreIrrelevant) {
  std::vector<SpreadSample> rows = samples(500, 5);
  const SpreadModel model = fit_spread(rows, {});
  std::mt19937_64 rng(6);
  std::shuffle(rows.begin(), rows.end(), rng);
  for (SpreadSample& s : rows) s.source = "z" + std::string(s.source.rbegin(), s.source.rend());
  EXPECT_EQ(fit_spread(rows, {}), model);
}

TEST(FitSpread, ASourceOfManyRowsIsNotTheFit) {
  std::vector<SpreadSample> rows = samples(700, 7);
  for (SpreadSample& s : rows) s.features = {0, 0, 0, 0};
  const double before = fit_spread(rows, {}).slower.base;
  SpreadSample same = rows[0];
  same.source = "large";
  same.residual = 0;
  rows.insert(rows.end(), 2000, same);
  // Row by row, the base would be a quantile of the others of 0.61 and not of 0.84.
  EXPECT_GT(fit_spread(rows, {}).slower.base, 0.5 * before);
  EXPECT_LT(fit_spread(rows, {}).slower.base, before);
}

TEST(FitSpread, NeverBelowNoiseAndPriors) {
  std::vector<SpreadSample> exact = samples(100, 8);
  for (SpreadSample& s : exact) s.residual = 0;
  const SpreadModel model = fit_spread(exact, {});
  EXPECT_DOUBLE_EQ(model.slower.base, simulator::kNoise);
  EXPECT_DOUBLE_EQ(model.faster.unseen, simulator::kLeastUnseen);
  // Too few to say anything.
  EXPECT_EQ(fit_spread(samples(10, 9), {}), SpreadModel{});
}

// Two sources, of which one runs a third slower than the simulator thinks.
std::vector<PublishedRow> two_sources() {
  std::vector<PublishedRow> rows;
  const std::vector<Stack> stacks = load_stacks().value();
  for (int i = 0; i < 24; ++i) {
    PublishedRow row = made_up_row();
    row.id = "made_up#" + std::to_string(i);
    row.source = i % 2 == 0 ? "even" : "odd";
    row.model.sequence_tokens = 1024 << (i % 4);
    row.plan.global_batch = 64 * (1 + i / 4);
    if (row.source == "odd") row.plan.extra["framework"] = "llm-foundry";
    const double step = simulator::predict(*job_of(row, stacks).job).step.value();
    row.measured.step_s = step * (row.source == "odd" ? 1.33 : 1);
    rows.push_back(row);
  }
  return rows;
}

TEST(HeldOut, WhatIsHeldOutIsNotSeen) {
  const std::vector<Stack> stacks = load_stacks().value();
  std::vector<PublishedRow> rows = two_sources();
  FitOptions few;
  few.turns = 2;
  const auto fits_of = [&] { return fit_held_out(fit_rows(rows, stacks), few); };
  const auto steps = [&](const std::vector<HeldFit>& fits) {
    std::vector<double> out;
    for (const Outcome& o : validate_held_out(rows, stacks, Held::kSource, fits)) {
      if (o.row.source == "odd") out.push_back(o.prediction->step.value());
    }
    return out;
  };
  const std::vector<HeldFit> fits = fits_of();
  ASSERT_EQ(fits.size(), 2 + 1 + 5U);  // sources, a family of devices, fifths
  for (const HeldFit& f : fits) {
    for (const SpreadSample& s : f.samples) {
      EXPECT_TRUE(f.held != Held::kSource || s.source == f.key);
    }
  }
  const std::vector<double> before = steps(fits);
  for (PublishedRow& row : rows) {
    if (row.source == "odd") *row.measured.step_s *= 3;
  }
  EXPECT_EQ(steps(fits_of()), before);
  EXPECT_EQ(before.size(), 12U);
}

TEST(HeldOut, FiguresSayHowHonestByDistance) {
  const std::vector<Stack> stacks = load_stacks().value();
  const std::vector<PublishedRow> rows = two_sources();
  const auto outcomes = validate_rows(rows, stacks, [](const Job& job) {
    simulator::JobPrediction p = simulator::predict(job);
    p.distance = job.sequence_tokens >= 4096 ? 2.5 : 0.5;
    p.p10 = Seconds(0.9 * p.step.value());
    p.p90 = Seconds((p.distance > 1 ? 1.5 : 1.1) * p.step.value());
    return p;
  });
  const std::vector<Cause> classes = by_distance(outcomes);
  ASSERT_EQ(classes.size(), 2U);
  EXPECT_EQ(classes[0].step.rows, 12U);
  EXPECT_DOUBLE_EQ(classes[0].step.coverage, 0.5);
  EXPECT_DOUBLE_EQ(classes[1].step.coverage, 1);
  EXPECT_NEAR(classes[1].step.width, std::log(1.5 / 0.9), 1e-12);
  EXPECT_EQ(figures(outcomes).at("inside, 0 to 1"), 0.5);
}

}  // namespace
}  // namespace orrery::validation
