// The smallest cluster and the longest row, against trying all.
#include "planner/questions/size.h"

#include <gtest/gtest.h>

#include <memory>

#include "planner/plans/explain.h"
#include "planner/plans/footprint.h"
#include "planner/questions/engine_searcher.h"
#include "tests/support/plans.h"

namespace orrery::planner {
namespace {

Request small_request() {
  Request r;
  r.model = small_dense_model(2);
  r.cluster = small_cluster(1);
  r.workload = small_workload(24, DType::kBFloat16);
  r.workload.sequence_tokens = 1024;
  r.workload.document_tokens = {1024};
  r.runners_up = 0;
  r.probes = std::make_shared<ProbeStore>();
  return r;
}

Setting setting_of(const Request& r) {
  return {r.model, r.cluster, r.workload, {}, r.pins};
}

LongRun run_of(const Plan& plan, std::int64_t tokens, const Reliability& reliability) {
  const EngineSearcher searcher({}, {});
  const Setting setting{plan.model, plan.cluster, plan.workload, {}, {}};
  return run_of(facts_of(searcher, setting, answer_of(plan, true)), tokens, reliability);
}

Result<Cluster> cluster_of(std::int64_t devices) {
  if (devices > 8 && devices % 8 != 0) return Error::of(ErrorCode::kInvalid, "devices", "");
  return small_cluster(devices);
}

TEST(SizeFor, IsTheSmallestOfAll) {
  const Request r = small_request();
  const std::int64_t tokens = 1'000'000'000;
  Reliability rough;
  rough.device_mtbf = Seconds(1e6);
  rough.save = Seconds(1);
  rough.restart = Seconds(30);
  // Every size, by the planner itself.
  std::vector<std::pair<std::int64_t, double>> walls;
  for (std::int64_t n = 1; n <= 48; ++n) {
    const auto cluster = cluster_of(n);
    if (!cluster.ok()) continue;
    Request one = r;
    one.cluster = cluster.value();
    const auto outcome = plan(one);
    if (!outcome.ok() || !outcome.value().best) continue;
    walls.emplace_back(n, run_of(*outcome.value().best, tokens, rough).wall.value());
  }
  ASSERT_GE(walls.size(), 4u);
  int met = 0;
  for (const double share : {1.5, 0.99, 0.6, 0.4, 0.25}) {
    const double limit = walls.front().second * share;
    std::int64_t expected = 0;
    for (const auto& [n, wall] : walls) {
      if (expected == 0 && wall <= limit) expected = n;
    }
    const Sized sized =
        size_for(EngineSearcher(r, {}), setting_of(r), cluster_of, tokens, Seconds(limit), rough);
    if (expected == 0) continue;
    ++met;
    ASSERT_TRUE(sized.met) << share;
    EXPECT_EQ(sized.tried.back().devices, expected) << share;
    EXPECT_LE(sized.tried.back().run.wall.value(), limit);
    EXPECT_LE(sized.least, expected);
  }
  EXPECT_GE(met, 3);
}

TEST(SizeFor, WhatNoClusterCanEndsAtOnce) {
  const Request r = small_request();
  const Sized sized = size_for(EngineSearcher(r, {}), setting_of(r), cluster_of,
                               std::int64_t{1} << 60, Seconds(1e-3), {});
  EXPECT_FALSE(sized.met);
  EXPECT_TRUE(sized.tried.empty());
  EXPECT_GT(sized.least, kMostDevices);
}

TEST(Sequence, KeepsTheTokensOfAStep) {
  Workload w = small_workload(32);
  w.sequence_tokens = 1000;
  w.document_tokens = {600, 400};
  const Workload longer = with_sequence(w, 2500);
  EXPECT_EQ(longer.global_sequences, 12);
  EXPECT_EQ(longer.document_tokens, (std::vector<std::int64_t>{600, 400, 600, 400, 500}));
  w.document_tokens = {1000};
  EXPECT_EQ(with_sequence(w, 4000).document_tokens, (std::vector<std::int64_t>{4000}));
  EXPECT_EQ(with_sequence(w, 1 << 20).global_sequences, 1);
}

TEST(Sequence, TheLongestFitsAndTheNextDoesNot) {
  Request r = small_request();
  r.cluster = small_cluster(4);
  r.workload.global_sequences = 64;
  r.cluster.device.memory = r.cluster.device.reserved + Bytes(6'000'000);
  const std::vector<SequenceTried> tried = longest_sequence(EngineSearcher(r, {}), setting_of(r));
  std::int64_t longest = 0, refused = 1 << 30;
  for (const SequenceTried& t : tried) {
    if (t.answer) {
      longest = std::max(longest, t.tokens);
      EXPECT_LE(t.answer.peak.value(), 6'000'000);
      EXPECT_EQ(plan_of(t.answer).workload.sequence_tokens, t.tokens);
    } else {
      refused = std::min(refused, t.tokens);
    }
  }
  ASSERT_GT(longest, 0);
  ASSERT_LT(refused, 1 << 30);
  EXPECT_LT(longest, refused);
  EXPECT_LE(refused - longest, longest / 8);
  // From twice the length, the same answer.
  Request twice = r;
  twice.workload = with_sequence(r.workload, 2048);
  std::int64_t again = 0;
  for (const SequenceTried& t : longest_sequence(EngineSearcher(twice, {}), setting_of(twice))) {
    if (t.answer) again = std::max(again, t.tokens);
  }
  EXPECT_EQ(again, longest);
}

}  // namespace
}  // namespace orrery::planner
