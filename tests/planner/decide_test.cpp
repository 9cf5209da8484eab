// Ties, risk and the odds of fitting.
#include "planner/plans/decide.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/program/lower.h"
#include "planner/plans/footprint.h"
#include "simulator/simulator.h"
#include "tests/planner/requests.h"

namespace orrery::planner {
namespace {

Request drawn_request(std::int64_t usable) {
  Request r = tight_request();
  r.workload.expert_load_cv = 0.5;
  set_usable(r, usable);
  return r;
}

RunnerUp runner(std::int64_t ep, bool host, std::int64_t recompute) {
  RunnerUp r;
  r.layout.ep = ep;
  r.policy.host_optimizer = host;
  r.policy.recompute_layers = recompute;
  return r;
}

TEST(Decide, TheOrderOfSimplicity) {
  const RunnerUp plain = runner(1, false, 0), deep = runner(1, false, 8),
                 shallow = runner(1, false, 2);
  const RunnerUp expert = runner(4, false, 0), host = runner(1, true, 0), both = runner(4, true, 0);
  // Fewer mechanisms first; of as many, not the host; then not an axis; then less recompute.
  const std::vector<RunnerUp> order = {plain, shallow, deep, expert, host, both};
  for (std::size_t i = 0; i < order.size(); ++i) {
    for (std::size_t j = 0; j < order.size(); ++j) {
      EXPECT_EQ(simpler(order[i], order[j]), i < j) << i << " and " << j;
    }
  }
}

TEST(Decide, OnlyATradeIsUncertain) {
  const Parts a{1.0, 0.5, 0}, slower{1.1, 0.55, 0}, trade{0.9, 0.65, 0};
  // Faster in every part by a tenth: 0.15 s against 0.25 x 0.112 s (the floor is 0.03 s).
  EXPECT_DOUBLE_EQ(noise_s(a, slower, 0.25), 0.03);
  EXPECT_GT(slower.step_s() - a.step_s(), noise_s(a, slower, 0.25));
  // 0.1 s of compute for 0.15 s of links: 0.05 s against 0.25 x 0.18 s.
  EXPECT_NEAR(noise_s(a, trade, 0.25), 0.25 * std::sqrt(0.01 + 0.0225), 1e-12);
  EXPECT_EQ(noise_s(a, trade, 0.25), noise_s(trade, a, 0.25));
  EXPECT_DOUBLE_EQ(noise_s(a, trade, 0), 0.03);  // a plan without an interval: the floor
}

TEST(Decide, OddsOfKnownDraws) {
  // Draws of Gumbel(10, 2) by its own inverse, at even quantiles.
  std::vector<double> draws;
  for (int i = 0; i < 4000; ++i) {
    draws.push_back(10 - 2 * std::log(-std::log((i + 0.5) / 4000)));
  }
  EXPECT_NEAR(probability_within(draws, 10 - 2 * std::log(-std::log(0.99))), 0.99, 0.001);
  EXPECT_NEAR(probability_within(draws, 10), std::exp(-1.0), 0.005);
  EXPECT_NEAR(quantile_of(draws, 0.99), 10 - 2 * std::log(-std::log(0.99)), 0.1);
  for (const double p : {0.5, 0.9, 0.999}) {
    EXPECT_NEAR(probability_within(draws, quantile_of(draws, p)), p, 1e-9);
  }
  EXPECT_EQ(probability_within({5}, 5), 1);
  EXPECT_EQ(probability_within({5}, 4.9), 0);
  EXPECT_EQ(quantile_of({5}, 0.99), 5);
}

TEST(Decide, WhatIsTakenFitsOtherDrawsToo) {
  Request r = drawn_request(70'000'000);
  r.runners_up = 0;
  int held = 0;
  // Exactly what plans take in the draw that the search replays: of others about half take more.
  for (const char* ep : {"1", "2", "4", "8"}) {
    r.pins = {{"ep", ep}};
    r.cluster.device.memory = r.cluster.device.reserved + Bytes(70'000'000);
    const std::int64_t usable = plan(r).value().best->predicted.peak.value();
    r.cluster.device.memory = r.cluster.device.reserved + Bytes(usable);
    const Outcome outcome = decide(r, {}).value();
    if (!outcome.best) continue;
    const Plan& plan = *outcome.best;
    EXPECT_GE(plan.decision.fit, 0.99);
    EXPECT_EQ(plan.cluster, r.cluster);  // what was held back is not the cluster's
    held += plan.decision.held_back.value() > 0 ? 1 : 0;
    // 200 draws that the decision did not see, by the simulator's own memory: about 2 may not fit.
    const Program program = lower(plan);
    int over = 0;
    for (std::uint64_t seed = 1000; seed < 1200; ++seed) {
      std::int64_t peak = 0;
      for (std::int32_t rank = 0; rank < program.world; ++rank) {
        const Binding b = simulator::draw_binding(plan, program, rank, seed);
        peak = std::max(peak, simulator::memory_timeline(program.role_of(rank), b.values).peak);
      }
      over += peak > usable ? 1 : 0;
    }
    EXPECT_LE(over, 6) << usable;
  }
  EXPECT_GE(held, 1);
}

TEST(Decide, OfTiesTheSimplestIsTaken) {
  const Request r = drawn_request(46'000'000);
  DecisionRule rule;
  rule.fit_probability = 0;
  const Plan fastest = *plan(r).value().best;
  const Plan taken = *decide(r, rule).value().best;
  EXPECT_EQ(taken.decision.fastest_s, fastest.predicted.step.value());
  EXPECT_EQ(taken.proof.best_s, fastest.proof.best_s);
  const RunnerUp own{taken.layout, taken.chunks, taken.policy, taken.predicted, "", false};
  int ties = 0;
  for (const RunnerUp& other : taken.runners_up) {
    if (!other.tie) continue;
    ++ties;
    EXPECT_FALSE(simpler(other, own)) << describe(other.layout, other.chunks, other.policy);
  }
  EXPECT_GE(ties, 1);
  rule.simplest = false;
  const Plan quick = *decide(r, rule).value().best;
  EXPECT_EQ(quick.sha256, fastest.sha256);
}

TEST(Decide, ByTheNinetiethPercentile) {
  const Request r = drawn_request(60'000'000);
  DecisionRule rule;
  rule.risk = Risk::kP90;
  const Plan taken = *decide(r, rule).value().best;
  EXPECT_EQ(taken.decision.risk, "p90");
  const Plan again = parse_plan(to_json(taken).dump(), "plan.json").value();
  EXPECT_EQ(again.decision, taken.decision);
  EXPECT_EQ(to_json(again).dump(), to_json(taken).dump());
}

TEST(Decide, WithoutDrawsOnePeakIsAll) {
  Request r = drawn_request(60'000'000);
  r.model = small_dense_model(3);
  r.runners_up = 0;
  const Plan best = *plan(r).value().best;
  EXPECT_EQ(drawn_peaks(best, 32),
            std::vector<double>{static_cast<double>(best.predicted.peak.value())});
}

}  // namespace
}  // namespace orrery::planner
