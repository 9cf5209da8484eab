// A search that is stopped: what it found by then, and what it says of the rest. The clock is a
// count of questions, so that the tests repeat.
#include <gtest/gtest.h>

#include <memory>

#include "planner/plans/footprint.h"
#include "planner/plans/planner.h"
#include "tests/planner/requests.h"

namespace orrery::planner {
namespace {

std::function<bool()> after_questions(int questions) {
  return [asked = 0, questions]() mutable { return ++asked > questions; };
}

TEST(Budget, TheGapClosesAndTheBestOnlyImproves) {
  Request r = tight_request(3);
  const Plan whole = *plan(r).value().best;
  EXPECT_EQ(unproved_gap(whole.proof), 0);
  double best = 1e9, bound = 0;
  int open = 0;
  for (const int questions : {0, 1, 10, 100, 1000, 10'000, 10'000'000}) {
    r.stop = after_questions(questions);
    const Outcome outcome = plan(r).value();
    ASSERT_TRUE(outcome.best) << questions;
    const Proof& proof = outcome.best->proof;
    // Whatever was not looked at, the optimum is not below what the stopped search says of it.
    EXPECT_LE(proof.bound_remaining_s, whole.proof.best_s + 1e-12) << questions;
    EXPECT_GE(proof.best_s, whole.proof.best_s) << questions;
    EXPECT_LE(proof.best_s * (1 - unproved_gap(proof)), whole.proof.best_s + 1e-12) << questions;
    EXPECT_LE(proof.best_s, best) << questions;
    EXPECT_GE(proof.bound_remaining_s, bound - 1e-12) << questions;
    best = proof.best_s;
    bound = proof.bound_remaining_s;
    open += unproved_gap(proof) > 0 ? 1 : 0;
  }
  EXPECT_GE(open, 1);
  EXPECT_EQ(best, whole.proof.best_s);  // the last had time enough
}

TEST(Budget, TheSameQuestionsGiveTheSamePlan) {
  Request r = tight_request(3);
  r.stop = after_questions(50);
  Plan a = *plan(r).value().best;
  r.stop = after_questions(50);
  Plan b = *plan(r).value().best;
  a.proof.seconds = b.proof.seconds = 0;
  EXPECT_EQ(to_json(a).dump(1), to_json(b).dump(1));
}

TEST(Budget, WhatDoesNotFitIsNotCalledUnfitForWantOfTime) {
  Request r = tight_request(3);
  r.stop = [] { return true; };
  ASSERT_TRUE(plan(r).value().best);  // one in eight candidates fits: the search goes on to one
  r.cluster.device.memory = r.cluster.device.reserved + Bytes(64 << 10);
  const Outcome outcome = plan(r).value();
  EXPECT_FALSE(outcome.best);
  EXPECT_TRUE(outcome.shortage);
}

TEST(Budget, TheGapIsAShareOfTheBest) {
  Proof proof;
  proof.best_s = 2;
  proof.bound_remaining_s = 1.5;
  EXPECT_DOUBLE_EQ(unproved_gap(proof), 0.25);
  proof.bound_remaining_s = 2;
  EXPECT_EQ(unproved_gap(proof), 0);
}

}  // namespace
}  // namespace orrery::planner
