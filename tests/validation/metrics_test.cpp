// Figures of accuracy against ones worked out by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "validation/metrics.h"

namespace orrery::validation {
namespace {

const double kLn2 = std::log(2.0);

TEST(Metrics, Quantiles) {
  EXPECT_DOUBLE_EQ(median({3, 1, 2}), 2);
  EXPECT_DOUBLE_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_DOUBLE_EQ(quantile({0, 10}, 0.9), 9);
  EXPECT_DOUBLE_EQ(quantile({5}, 0.9), 5);
  EXPECT_TRUE(std::isnan(median({})));
  EXPECT_TRUE(std::isnan(mean({})));
}

TEST(Metrics, Pinball) {
  // The 0.9 quantile is fined nine times more for lying below the value than above it.
  EXPECT_DOUBLE_EQ(pinball(0.9, 1, 2), 0.9);
  EXPECT_NEAR(pinball(0.9, 2, 1), 0.1, 1e-15);
  EXPECT_DOUBLE_EQ(pinball(0.5, 1, 3), 1);
  EXPECT_DOUBLE_EQ(pinball(0.1, 7, 7), 0);
}

TEST(Metrics, AccuracyByHand) {
  // Errors: ln 2 (twice too slow), -ln 2 (twice too fast), 0; the last one alone is inside.
  const std::vector<Pair> pairs = {{1.9, 2, 2.1, 1}, {0.95, 1, 1.05, 2}, {0.5, 1, 2, 1}};
  const Accuracy a = accuracy(pairs);
  EXPECT_EQ(a.rows, 3U);
  EXPECT_NEAR(a.median_error, kLn2, 1e-12);
  EXPECT_NEAR(a.bias, 0, 1e-12);
  EXPECT_NEAR(a.p90_error, kLn2, 1e-12);
  EXPECT_NEAR(a.coverage, 1.0 / 3, 1e-12);
  EXPECT_NEAR(a.width, std::log(2.1 / 1.9), 1e-12);  // of 0.1001, 0.1001, 1.386
  // Of the median: half of |error|, so (ln 2 + ln 2 + 0) / 2 / 3.
  EXPECT_NEAR(a.pinball[1], kLn2 / 3, 1e-12);
  // Of p10: ln 1.9 above 0 is fined 0.9 of it; ln 0.95 below ln 2 and ln 0.5 below 0 are 0.1.
  EXPECT_NEAR(a.pinball[0], (0.9 * std::log(1.9) + 0.1 * std::log(2 / 0.95) + 0.1 * kLn2) / 3,
              1e-12);
  EXPECT_TRUE(std::isnan(accuracy({}).median_error));
}

TEST(Metrics, ErrorsAreSymmetric) {
  EXPECT_DOUBLE_EQ(log_error({0, 3, 0, 1}), -log_error({0, 1, 0, 3}));
}

TEST(Metrics, Regret) {
  EXPECT_DOUBLE_EQ(regret({{1, 10}, {2, 8}, {3, 12}}), 0.25);  // chose 10, best is 8
  EXPECT_DOUBLE_EQ(regret({{1, 8}, {2, 10}}), 0);
  EXPECT_DOUBLE_EQ(regret({{1, 8}, {1, 12}}), 0.5);  // a tie is taken at its worst
  EXPECT_DOUBLE_EQ(regret({{1, 12}, {1, 8}}), 0.5);
  EXPECT_TRUE(std::isnan(regret({})));
}

TEST(Metrics, KendallTau) {
  EXPECT_DOUBLE_EQ(kendall_tau({{1, 1}, {2, 2}, {3, 3}}), 1);
  EXPECT_DOUBLE_EQ(kendall_tau({{3, 1}, {2, 2}, {1, 3}}), -1);
  // Two of three pairs agree.
  EXPECT_NEAR(kendall_tau({{1, 1}, {3, 2}, {2, 3}}), 1.0 / 3, 1e-15);
  // 1 and 1.01 are one measurement: the pair does not count, nor does a tie agree.
  EXPECT_DOUBLE_EQ(kendall_tau({{2, 1}, {1, 1.01}, {3, 2}}), 1);
  EXPECT_DOUBLE_EQ(kendall_tau({{1, 1}, {1, 2}}), 0);
  EXPECT_TRUE(std::isnan(kendall_tau({{1, 1}, {2, 1.01}})));
}

TEST(Metrics, TopQuarter) {
  // Of 5 the quarter is 2.
  EXPECT_TRUE(best_in_top_quarter({{1, 9}, {2, 5}, {3, 9}, {4, 9}, {5, 9}}));
  EXPECT_FALSE(best_in_top_quarter({{1, 9}, {2, 9}, {3, 5}, {4, 9}, {5, 9}}));
  EXPECT_FALSE(best_in_top_quarter({{1, 9}, {1, 5}, {1, 9}, {1, 9}}));  // all tied: no choice
}

// Order changes nothing, a common factor of both sides changes no relative figure.
TEST(Metrics, Properties) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 rng(seed);
    std::uniform_real_distribution<double> draw(0.5, 2);
    std::vector<Pair> pairs;
    std::vector<Choice> choices;
    for (int i = 0; i < 12; ++i) {
      const double p = draw(rng), m = draw(rng);
      pairs.push_back({0.8 * p, p, 1.2 * p, m});
      choices.push_back({p, m});
    }
    const Accuracy before = accuracy(pairs);
    const double r = regret(choices), tau = kendall_tau(choices);
    std::shuffle(pairs.begin(), pairs.end(), rng);
    std::shuffle(choices.begin(), choices.end(), rng);
    EXPECT_EQ(accuracy(pairs).median_error, before.median_error);
    EXPECT_EQ(accuracy(pairs).pinball_mean, before.pinball_mean);
    EXPECT_EQ(regret(choices), r);
    EXPECT_EQ(kendall_tau(choices), tau);
    for (Pair& p : pairs) p = {4 * p.p10, 4 * p.predicted, 4 * p.p90, 4 * p.measured};
    EXPECT_NEAR(accuracy(pairs).bias, before.bias, 1e-12);
    EXPECT_NEAR(accuracy(pairs).pinball_mean, before.pinball_mean, 1e-12);
    EXPECT_LE(std::abs(tau), 1);
    EXPECT_GE(r, 0);
  }
}

}  // namespace
}  // namespace orrery::validation
