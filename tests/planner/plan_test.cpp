// What the outcome of the planner promises.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/program/lower.h"
#include "core/program/verify.h"
#include "planner/plans/explain.h"
#include "planner/plans/footprint.h"
#include "planner/plans/frontier.h"
#include "planner/plans/planner.h"
#include "planner/plans/space.h"
#include "simulator/simulator.h"
#include "tests/planner/requests.h"

namespace orrery::planner {
namespace {

Request named(const char* model, const char* cluster, const char* workload) {
  Request r;
  r.probes = std::make_shared<ProbeStore>();
  r.model = load_model(model).value();
  r.cluster = load_cluster(cluster).value();
  r.workload = load_workload(workload).value();
  return r;
}

// What the plan that needs least takes.
std::int64_t least_peak(const Request& r) {
  return Search(r, enumerate(r).value()).smallest_of({})->predicted.peak.value();
}

void expect_sound(const Request& r, const Layout& layout, const Chunks& chunks,
                  const MemoryPolicy& policy, const Prediction& predicted) {
  ASSERT_TRUE(violations(r.model, r.cluster, r.workload, layout, chunks, policy).empty());
  const Plan plan = plan_at(r, layout, chunks, policy);
  EXPECT_TRUE(verify(lower(plan)).empty());
  const simulator::Simulation again = replay_of(plan);
  EXPECT_EQ(again.prediction.step, predicted.step);
  EXPECT_EQ(again.peak, predicted.peak);
}

TEST(Planner, WhatItReturnsIsSoundAndReproducible) {
  const Request r = tight_request();
  const Outcome outcome = plan(r).value();
  ASSERT_TRUE(outcome.best);
  const Plan& best = *outcome.best;
  expect_sound(r, best.layout, best.chunks, best.policy, best.predicted);
  EXPECT_LE(best.predicted.peak, r.cluster.device.memory - r.cluster.device.reserved);
  EXPECT_EQ(best.sha256, plan_sha256(best));
  ASSERT_FALSE(best.runners_up.empty());
  for (const RunnerUp& u : best.runners_up) {
    expect_sound(r, u.layout, u.chunks, u.policy, u.predicted);
    const bool fits = u.predicted.peak <= r.cluster.device.memory - r.cluster.device.reserved;
    EXPECT_EQ(fits, u.lost_by.find("does not fit") == std::string::npos) << u.lost_by;
    EXPECT_TRUE(!fits || u.predicted.step >= best.predicted.step) << u.lost_by;
  }
  std::set<std::string> seen = {describe(best.layout, best.chunks, best.policy)};
  for (const RunnerUp& u : best.runners_up) {
    EXPECT_TRUE(seen.insert(describe(u.layout, u.chunks, u.policy)).second) << u.lost_by;
  }
  std::int64_t memory = 0;
  for (const MemoryRow& row : best.predicted.memory) memory += row.bytes.value();
  EXPECT_EQ(memory, best.predicted.peak.value());
}

TEST(Planner, IsDeterministic) {
  const Request r = tight_request();
  Plan a = *plan(r).value().best, b = *plan(r).value().best;
  a.proof.seconds = b.proof.seconds = 0;
  EXPECT_EQ(to_json(a).dump(1), to_json(b).dump(1));
}

TEST(Planner, NoPinBeatsTheOptimum) {
  Request r = tight_request();
  r.runners_up = 0;
  const double best = plan(r).value().best->proof.best_s;
  const std::vector<std::pair<std::string, std::string>> pins = {{"ep", "1"},
                                                                 {"ep", "2"},
                                                                 {"ep", "8"},
                                                                 {"fsdp_d", "1"},
                                                                 {"fsdp_d", "2"},
                                                                 {"fsdp_d", "8"},
                                                                 {"fsdp_e", "1"},
                                                                 {"micro_batch", "1"},
                                                                 {"micro_batch", "2"},
                                                                 {"micro_batch", "4"},
                                                                 {"loss_tokens", "0"},
                                                                 {"loss_tokens", "700"},
                                                                 {"prefetch_depth", "0"},
                                                                 {"prefetch_depth", "2"},
                                                                 {"prefetch_depth", "1"},
                                                                 {"attention_query", "0"},
                                                                 {"attention_query", "512"},
                                                                 {"recompute_layers", "0"},
                                                                 {"recompute_layers", "3"},
                                                                 {"recompute_layers", "all"},
                                                                 {"expert_inner", "fsdp"},
                                                                 {"dense_inner", "replicate"},
                                                                 {"sp", "1"},
                                                                 {"sp", "2"},
                                                                 {"sp", "4"},
                                                                 {"host_optimizer", "true"},
                                                                 {"swap_layers", "all"},
                                                                 {"swap_layers", "0"}};
  int feasible = 0;
  for (const auto& pin : pins) {
    r.pins = {pin};
    const Outcome outcome = plan(r).value();
    if (!outcome.best) continue;
    ++feasible;
    EXPECT_GE(outcome.best->proof.best_s, best) << pin.first << "=" << pin.second;
  }
  EXPECT_GE(feasible, 15);
}

#ifndef __SANITIZE_ADDRESS__
TEST(Planner, NoListedChunkBeatsTheOptimumOfABigJob) {
  const auto check = [](Request r, const std::string& name, std::int64_t from, std::int64_t to) {
    r.runners_up = 0;
    const double best = plan(r).value().best->proof.best_s;
    for (std::int64_t rows = from; rows <= to; rows *= 2) {
      r.pins = {{name, std::to_string(rows)}};
      const Outcome pinned = plan(r).value();
      if (!pinned.best) continue;
      EXPECT_GE(pinned.best->proof.best_s, best) << name << "=" << rows;
    }
  };
  check(named("qwen3-0.6b", "h100x8", "pack-64k"), "attention_query", 512, 32768);
  check(named("qwen3-30b-a3b", "h100x64", "pretrain-4k"), "loss_tokens", 4096, 65536);
}
#endif

TEST(Planner, APinHolds) {
  Request r = tight_request();
  r.pins = {{"ep", "4"}, {"loss_tokens", "512"}, {"recompute_layers", "3"}};
  const Outcome outcome = plan(r).value();
  const Plan& p = outcome.best ? *outcome.best : *outcome.nearest;
  EXPECT_EQ(p.layout.ep, 4);
  EXPECT_EQ(p.chunks.loss_tokens, 512);
  EXPECT_EQ(p.policy.recompute_layers, 3);
}

TEST(Planner, MoreMemoryIsNeverSlower) {
  Request r = tight_request();
  r.runners_up = 0;
  double last = 1e9;
  for (const std::int64_t megabytes : {43, 44, 45, 48, 60, 200}) {
    set_usable(r, megabytes * 1'000'000);
    const Outcome outcome = plan(r).value();
    if (!outcome.best) continue;
    EXPECT_LE(outcome.best->proof.best_s, last) << megabytes << " MB";
    last = outcome.best->proof.best_s;
  }
  EXPECT_LT(last, 1e9);
}

// Each step of the frontier is what the planner finds for a device with so much memory, but for
// what it refines; and a plan that carries it reads back to the same bytes.
TEST(Planner, TheFrontierIsTheBestOfSmallerDevices) {
  Request request = tight_request();
  request.runners_up = 0;
  set_usable(request, 60'000'000);
  Plan best = *plan(request).value().best;
  best.frontier = frontier_of(request, best);
  ASSERT_GE(best.frontier.size(), 3U);
  EXPECT_EQ(best.frontier[0].predicted.step, best.predicted.step);
  for (std::size_t i = 1; i < 3; ++i) {
    const FrontierPoint& point = best.frontier[i];
    EXPECT_LE(point.memory, point.searched);
    EXPECT_LT(point.memory, best.frontier[i - 1].memory);
    request.cluster.device.memory = point.searched;
    EXPECT_EQ(point.predicted.step.value(), plan(request).value().best->proof.best_s);
  }
  const std::string text = to_json(best).dump();
  const Result<Plan> again = parse_plan(text, "plan.json");
  ASSERT_TRUE(again.ok()) << again.error().text();
  EXPECT_EQ(to_json(again.value()).dump(), text);
}

TEST(Planner, WhereNothingFitsItNamesTheNearestAndWhatWould) {
  Request r = tight_request();
  set_usable(r, 64 << 10);
  const Outcome outcome = plan(r).value();
  EXPECT_FALSE(outcome.best);
  ASSERT_TRUE(outcome.nearest && outcome.shortage);
  EXPECT_EQ(outcome.shortage->usable, Bytes(64 << 10));
  EXPECT_GT(outcome.shortage->needed, outcome.shortage->usable);
  EXPECT_EQ(outcome.shortage->needed, outcome.nearest->predicted.peak);
  EXPECT_FALSE(outcome.shortage->advice.empty());
  expect_sound(r, outcome.nearest->layout, outcome.nearest->chunks, outcome.nearest->policy,
               outcome.nearest->predicted);
}

// The plan that an outcome calls feasible, under the request that it is for.
void expect_feasible(const Request& changed, const Outcome& outcome, const std::string& change) {
  ASSERT_TRUE(outcome.nearest_feasible);
  EXPECT_EQ(outcome.nearest_feasible->change, change);
  EXPECT_EQ(outcome.shortage->advice.find(change), 0u) << outcome.shortage->advice;
  const Plan& p = outcome.nearest_feasible->plan;
  expect_sound(changed, p.layout, p.chunks, p.policy, p.predicted);
  EXPECT_LE(p.predicted.peak, changed.cluster.device.memory - changed.cluster.device.reserved);
  EXPECT_EQ(p.predicted.step.value(), plan(changed).value().best->proof.best_s);
}

TEST(Planner, APinThatIsInTheWayIsNamedFirst) {
  Request r = tight_request();
  r.runners_up = 0;
  r.pins = {{"recompute_layers", "0"}};
  Request free = r;
  free.pins.clear();
  const std::int64_t least = least_peak(free), pinned = least_peak(r);
  ASSERT_LT(least, pinned);
  set_usable(r, least + (pinned - least) * 3 / 4);
  set_usable(free, least + (pinned - least) * 3 / 4);
  const Outcome one = plan(r).value();
  ASSERT_FALSE(one.best);
  expect_feasible(free, one, "without --pin recompute_layers=0");
  // Of two, the one to drop.
  r.pins = {{"prefetch_depth", "1"}, {"recompute_layers", "0"}};
  free.pins = {{"prefetch_depth", "1"}};
  const Outcome two = plan(r).value();
  ASSERT_FALSE(two.best);
  expect_feasible(free, two, "without --pin recompute_layers=0");
}

TEST(Planner, WhereAPinForbidsMoreDevicesNothingIsSaidOfThem) {
  Request r = tight_request();
  r.pins = {{"dp", "8"}, {"sp", "1"}};
  set_usable(r, 64 << 10);
  const std::string advice = plan(r).value().shortage->advice;
  EXPECT_EQ(advice.find("devices do"), std::string::npos) << advice;
  EXPECT_NE(advice.find("more devices were not tried"), std::string::npos) << advice;
}

TEST(Planner, ShorterRowsThatFitAreAPlan) {
  Request r = tight_request();
  r.runners_up = 0;
  set_usable(r, least_peak(r) * 9 / 10);
  const Outcome outcome = plan(r).value();
  ASSERT_FALSE(outcome.best);
  Request shorter = r;
  shorter.workload.sequence_tokens /= 2;
  shorter.workload.document_tokens = {shorter.workload.sequence_tokens};
  shorter.workload.global_sequences *= 2;
  expect_feasible(shorter, outcome, "rows of 1024 tokens");
}

TEST(Planner, NumbersThatPrintAlikeAreNotSetAgainstEachOther) {
  Trial best, other;
  best.step = Nanoseconds(9'000'000'000);
  best.predicted.step = Seconds(9);
  best.compute = Seconds(6.84);
  other = best;
  other.step = Nanoseconds(9'000'900'000);
  other.predicted.step = Seconds(9.0009);
  other.compute = Seconds(6.8409);
  EXPECT_EQ(lost_by(other, best), "+0.01 %: 0.9 ms more compute");
  other.compute = Seconds(7.84);
  EXPECT_EQ(lost_by(other, best), "+0.01 %: 1.00 s more compute (7.84 s against 6.84 s)");
}

#ifndef __SANITIZE_ADDRESS__  // searches of hundreds of devices
TEST(Planner, TwiceTheDevicesAreFaster) {
  Request r = named("qwen3-30b-a3b", "h800x256", "pretrain-4k");
  r.runners_up = 0;
  const Seconds half = plan(r).value().best->predicted.step;
  r.cluster = load_cluster("h800x512").value();
  EXPECT_LT(plan(r).value().best->predicted.step, half);
}

TEST(Planner, TheBigModelOnItsCluster) {
  const Outcome outcome = plan(named("qwen3-235b-a22b", "h800x256", "pretrain-4k")).value();
  ASSERT_TRUE(outcome.best);
  const Plan& best = *outcome.best;
  EXPECT_GT(best.policy.recompute_layers, 0);  // all layers' tapes do not fit
  EXPECT_GE(best.proof.bound_remaining_s, best.proof.best_s);
  EXPECT_GE(best.runners_up.size(), 5u);
  // 22.1e9 active parameters x 6 FLOPs x 4,194,304 tokens at the peak of 256 devices.
  const double least = 6 * 22.1e9 * 4194304 / (256 * 989e12);
  EXPECT_GT(best.predicted.step.value(), least);
  EXPECT_LT(best.predicted.step.value(), 10 * least);
}

TEST(Planner, EightDevicesCannotHoldTheBigModel) {
  Request r = named("qwen3-235b-a22b", "h800x8", "pretrain-4k");
  r.workload.global_sequences = 64;  // the state alone is too much
  const Outcome outcome = plan(r).value();
  EXPECT_FALSE(outcome.best);
  ASSERT_TRUE(outcome.shortage);
  // Shards and gradients, the moments on the host: 235.1e9 parameters x 8 bytes over 8 devices.
  EXPECT_GT(outcome.shortage->needed.value(), 235'000'000'000 * 8 / 8);
  EXPECT_NE(outcome.shortage->advice.find("devices fit"), std::string::npos);
}
#endif

TEST(Planner, ABatchThatDoesNotDivide) {
  Request r = named("qwen3-moe-10m", "local-cpu", "demo-local");
  r.workload.global_sequences = 10;
  r.pins = {{"sp", "1"}};  // two ranks that share a sequence would have five each
  const auto outcome = plan(r);
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, ErrorCode::kInfeasible);
}

}  // namespace
}  // namespace orrery::planner
