// Terms that sum to the step, and a layout of the user's own beside the best.
#include "planner/questions/versus.h"

#include <gtest/gtest.h>

#include <memory>

#include "core/program/lower.h"
#include "planner/plans/explain.h"
#include "planner/plans/footprint.h"
#include "planner/questions/engine_searcher.h"
#include "simulator/simulator.h"
#include "tests/planner/requests.h"

namespace orrery::planner {
namespace {

// Spans worked out by hand: forward 0-10, a gather 5-20 beside an exchange 12-20, backward 20-30.
TEST(Terms, ASweepByHand) {
  Role role;
  role.ops.resize(4);
  role.ops[0].phase = Phase::kForward;
  role.ops[1].lane = Lane::kFsdp;
  role.ops[2].lane = Lane::kEp;
  role.ops[3].phase = Phase::kBackward;
  const std::vector<SpanEvent> spans = {
      {0, 0, 0, 0, 0, 10}, {0, 0, 1, 0, 5, 20}, {0, 0, 2, 0, 12, 20}, {0, 0, 3, 0, 20, 30}};
  const std::vector<Seconds> times = term_times(role, spans, Nanoseconds(35));
  std::vector<double> ns;
  for (const Seconds t : times) ns.push_back(t.value() * 1e9);
  // data, forward, recompute, backward, optimizer; gathers 2 + 8 / 2, exchanges 8 / 2; waiting 5.
  const std::vector<double> expected = {0, 10, 0, 10, 0, 6, 4, 0, 0, 0, 5};
  ASSERT_EQ(ns.size(), expected.size());
  for (std::size_t i = 0; i < ns.size(); ++i) EXPECT_NEAR(ns[i], expected[i], 1e-6) << i;
}

TEST(Terms, SumToTheStepOfRandomPlans) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const Plan plan = random_mechanism_plan(seed, 8);
    const Terms terms = terms_of(plan);
    double sum = 0;
    for (const Term& t : terms.parts) sum += t.time.value();
    ASSERT_NEAR(sum, terms.step.value(), 1e-9 * terms.step.value() + 1e-12) << seed;
    // The simulator's own breakdown, by a sweep of its own.
    simulator::Options options;
    options.events = options.document_cost = false;
    const auto s = simulator::simulate(plan, lower(plan), options).value();
    double compute = 0, idle = 0;
    for (const auto& rank : s.ranks) {
      compute += rank.compute.value() / static_cast<double>(s.ranks.size());
      idle += rank.idle.value() / static_cast<double>(s.ranks.size());
    }
    EXPECT_NEAR(terms.compute().value(), compute, 1e-9) << seed;
    EXPECT_NEAR(terms.waiting().value(), idle, 1e-9) << seed;
  }
}

Result<Comparison> versus(const Request& r, const Plan& best, const PinList& pins) {
  const Setting setting{r.model, r.cluster, r.workload, {}, r.pins};
  return versus(EngineSearcher(r, {}), setting, answer_of(best, true), {pins, std::nullopt});
}

TEST(Versus, TheBestAgainstItselfIsTheSame) {
  const Request r = tight_request(0);
  const Plan best = *plan(r).value().best;
  const Comparison c = versus(r, best, pins_of(best)).value();
  ASSERT_TRUE(c.own && c.fits);
  EXPECT_EQ(plan_of(c.own->answer).sha256, best.sha256);
  EXPECT_EQ(c.reason, "the same time");
}

TEST(Versus, WhatIsPinnedHoldsAndTheRestIsSearched) {
  const Request r = tight_request(0);
  const Plan best = *plan(r).value().best;
  const std::string other = best.layout.micro_batch == 1 ? "2" : "1";
  const Comparison c = versus(r, best, {{"micro_batch", other}}).value();
  ASSERT_TRUE(c.own);
  EXPECT_EQ(std::to_string(plan_of(c.own->answer).layout.micro_batch), other);
  EXPECT_GE(c.own->answer.step, c.best.answer.step);
  EXPECT_NE(c.reason.find("micro-batch " + other + " against"), std::string::npos) << c.reason;
  // The pins of the request hold too, where the user's own do not speak of them.
  Request pinned = r;
  pinned.pins = {{"prefetch_depth", "0"}, {"micro_batch", "1"}};
  const Comparison both = versus(pinned, best, {{"micro_batch", other}}).value();
  ASSERT_TRUE(both.own);
  EXPECT_EQ(plan_of(both.own->answer).chunks.prefetch_depth, 0);
  EXPECT_EQ(std::to_string(plan_of(both.own->answer).layout.micro_batch), other);
}

TEST(Versus, ABrokenRuleIsNamedWithTheNearestThatFits) {
  const Request r = tight_request(0);
  const Plan best = *plan(r).value().best;
  const Comparison c = versus(r, best, {{"ep", "3"}}).value();  // 8 experts do not divide by 3
  EXPECT_FALSE(c.own);
  ASSERT_FALSE(c.broken.empty());
  EXPECT_NE(c.reason.find("breaks a rule"), std::string::npos);
  ASSERT_TRUE(c.nearest);
  EXPECT_TRUE(c.nearest->change == "ep=2 instead of 3" || c.nearest->change == "ep=4 instead of 3")
      << c.nearest->change;
}

TEST(Versus, AShortageNamesTheBytesAndTheNearestThatFits) {
  const Request r = tight_request(0);
  const Plan best = *plan(r).value().best;
  const Comparison c =
      versus(r, best, {{"recompute_layers", "0"}, {"micro_batch", "4"}, {"sp", "1"}}).value();
  ASSERT_TRUE(c.own);
  ASSERT_FALSE(c.fits);
  EXPECT_NE(c.reason.find("does not fit: needs"), std::string::npos) << c.reason;
  ASSERT_TRUE(c.nearest);
  EXPECT_LE(c.nearest->answer.peak.value(), 45'000'000);
  EXPECT_NE(c.nearest->change.find("instead of"), std::string::npos) << c.nearest->change;
}

TEST(Versus, WhereNoLayoutIsLegalTheNearestBatchIs) {
  Request r = tight_request(0);
  r.cluster = small_cluster(7);
  r.cluster.device.memory = r.cluster.device.reserved + Bytes(200'000'000);
  const auto found = plan(r);  // 32 sequences over 7 ranks, or over shares of 4 heads
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().code, ErrorCode::kInfeasible);
  const auto near = nearest_legal(r);
  ASSERT_TRUE(near);
  EXPECT_EQ(near->change, "a batch of 28 sequences");
  EXPECT_EQ(near->plan.layout.world(), 7);
  EXPECT_LE(near->plan.predicted.peak.value(), 200'000'000);
  // A pin that forbids all is the first to go.
  Request pinned = tight_request(0);
  pinned.pins = {{"ep", "3"}};
  EXPECT_EQ(nearest_legal(pinned)->change, "without the pins");
}

TEST(Versus, AnUnknownNameIsAWrongCall) {
  const Request r = tight_request(0);
  const Plan best = *plan(r).value().best;
  const auto c = versus(r, best, {{"epp", "3"}});
  ASSERT_FALSE(c.ok());
  EXPECT_EQ(c.error().code, ErrorCode::kUsage);
}

}  // namespace
}  // namespace orrery::planner
