// The planner against brute force by the replay clock, and its bounds against each of the replays.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "planner/plans/bound.h"
#include "planner/plans/footprint.h"
#include "planner/plans/planner.h"
#include "planner/plans/space.h"
#include "tests/planner/requests.h"

namespace orrery::planner {
namespace {

struct Replayed {
  std::int64_t step_ns, peak;
};

// None of the bounds of a candidate is above its replay.
void expect_bounded(Costs& costs, Footprints& footprints, const Plan& plan,
                    const CandidateCosts& prices, const Replayed& replayed) {
  const Choice choice{plan.chunks, plan.policy};
  const auto step_ns = static_cast<double>(replayed.step_ns);
  const auto name = [&] { return describe(plan.layout, plan.chunks, plan.policy); };
  EXPECT_LE(bound(costs, plan.layout, choice, prices), step_ns) << name();
  EXPECT_LE(quick_bound(costs, plan.layout, choice, prices), step_ns) << name();
  EXPECT_LE(footprints.least(plan.layout, choice, prices).value(), replayed.peak) << name();
}

// Replays every legal candidate.
std::vector<Replayed> replay_all(const Request& r) {
  std::vector<Replayed> all;
  const Space space = enumerate(r).value();
  Costs costs(r.model, r.cluster, r.workload);
  Footprints footprints(costs);
  Plan plan = plan_at(r, {}, {}, {});
  for (const Layout& l : space.layouts) {
    plan.layout = l;
    for (const Chunks& c : space.chunks_of(l)) {
      plan.chunks = c;
      const CandidateCosts prices = costs.candidate(l, c);
      for (const std::vector<MemoryPolicy>& line : space.policies) {
        for (const MemoryPolicy& p : line) {
          plan.policy = p;
          const simulator::Simulation s = replay_of(plan);
          all.push_back({s.step.value(), s.peak.value()});
          expect_bounded(costs, footprints, plan, prices, all.back());
        }
      }
    }
  }
  return all;
}

// A small instance whose costs, links and slowdowns are drawn, so that now compute, now
// communication, now launches decide.
Request random_request(std::uint64_t seed) {
  Draw draw(seed);
  Request r;
  r.model = draw.between(0, 2) > 0 ? small_moe_model(draw.between(1, 3), draw.coin() ? 4 : 2)
                                   : small_dense_model(draw.between(1, 4), draw.coin());
  const std::int64_t devices = std::int64_t{1} << draw.between(0, 2);
  r.cluster = small_cluster(devices);
  r.workload = small_workload(devices * (std::int64_t{1} << draw.between(0, 1)));
  if (draw.coin()) {  // long enough for chunks
    r.workload.sequence_tokens = 768;
    r.workload.document_tokens = {768};
  }
  r.workload.compute = draw.coin() ? DType::kBFloat16 : DType::kFloat32;
  r.workload.expert_load_cv = 0.25 * static_cast<double>(draw.between(0, 3));
  const auto scale = [&](double value) {
    for (std::int64_t i = draw.between(0, 3); i > 0; --i) value /= 8;
    return value;
  };
  DeviceProfile& d = r.cluster.device;
  d.launch = Seconds(scale(1e-6));
  d.peak_bf16 = FlopsPerSecond(scale(1e12));
  d.peak_fp32 = FlopsPerSecond(scale(5e11));
  d.memory_bandwidth = BytesPerSecond(scale(1e11));
  for (LinkTier& t : r.cluster.tiers) t.bandwidth = BytesPerSecond(scale(t.bandwidth.value()));
  r.cluster.compute_slowdown = 1 + 0.1 * static_cast<double>(draw.between(0, 4));
  r.cluster.link_slowdown = 1 + 0.1 * static_cast<double>(draw.between(0, 4));
  if (draw.coin()) {  // ranks that share cores
    r.cluster.cores_per_node = draw.between(1, r.cluster.devices_per_node);
    r.cluster.tiers.back().cpu = 0.5;
  }
  return r;
}

// In four shards 300 instances, one in five of a large space. Sanitizers make a replay fifteen
// times slower: with them fewer, and small spaces alone.
constexpr int kShards = 4;
#ifdef __SANITIZE_ADDRESS__
constexpr int kInstancesAShard = 10;
constexpr std::int64_t kLargeSpace = 2'500, kSmallSpace = 2'500, kLeastReplays = 0;
#else
constexpr int kInstancesAShard = 75;
constexpr std::int64_t kLargeSpace = 13'000, kSmallSpace = 2'500, kLeastReplays = 25'000;
#endif

std::int64_t candidates_of(const Request& r) {
  const Space space = enumerate(r).value();
  std::int64_t count = 0, policies = 0;
  for (const auto& line : space.policies) policies += static_cast<std::int64_t>(line.size());
  for (const Layout& l : space.layouts) {
    count += static_cast<std::int64_t>(space.chunks_of(l).size()) * policies;
  }
  return count;
}

// Of the row "memory".
std::int64_t unfit(const Plan& plan) {
  for (const Rejection& row : plan.rejected) {
    if (row.rule == "memory") return row.count;
  }
  return 0;
}

class BruteForce : public testing::TestWithParam<std::uint64_t> {};

TEST_P(BruteForce, FindsTheSame) {
  int feasible = 0, infeasible = 0, refined = 0;
  std::int64_t replays = 0;
  for (std::uint64_t seed = GetParam(); feasible + infeasible < kInstancesAShard; seed += kShards) {
    const auto drawn = static_cast<std::size_t>(feasible + infeasible);
    Request r = random_request(seed);
    if (candidates_of(r) > (drawn / 5 % 5 == 0 ? kLargeSpace : kSmallSpace)) continue;
    r.runners_up = 0;
    const std::vector<Replayed> all = replay_all(r);
    ASSERT_FALSE(HasFailure()) << "a bound, seed " << seed;
    replays += static_cast<std::int64_t>(all.size());
    std::vector<std::int64_t> peaks;
    for (const Replayed& x : all) peaks.push_back(x.peak);
    std::sort(peaks.begin(), peaks.end());
    // Memory for all, for half, for a tenth, for one, for none of the candidates.
    const std::vector<std::int64_t> limits = {peaks.back(), peaks[peaks.size() / 2],
                                              peaks[peaks.size() / 10], peaks[0], peaks[0] - 1};
    const std::int64_t usable = limits[drawn % limits.size()];
    set_usable(r, usable);
    std::int64_t best = -1;
    for (const Replayed& x : all) {
      if (x.peak <= usable && (best < 0 || x.step_ns < best)) best = x.step_ns;
    }
    const Outcome outcome = plan(r).value();
    ASSERT_EQ(outcome.best.has_value(), best >= 0) << "seed " << seed;
    if (outcome.best) {
      ++feasible;
      const simulator::Simulation s = replay_of(*outcome.best);
      ASSERT_LE(s.step.value(), best) << "seed " << seed;
      ASSERT_NEAR(outcome.best->proof.best_s * 1e9, static_cast<double>(best), 0.5)
          << "seed " << seed << ": "
          << describe(outcome.best->layout, outcome.best->chunks, outcome.best->policy);
      ASSERT_LE(s.peak.value(), usable);
      refined += s.step.value() < best ? 1 : 0;
      ASSERT_EQ(outcome.best->proof.legal, static_cast<std::int64_t>(all.size()));
      ASSERT_GE(outcome.best->proof.bound_remaining_s, outcome.best->proof.best_s - 1e-12);
      ASSERT_LE(outcome.best->proof.bounded, outcome.best->proof.legal);
      ASSERT_GE(outcome.best->proof.bounded, outcome.best->proof.replayed);
      ASSERT_LE(unfit(*outcome.best),
                peaks.end() - std::upper_bound(peaks.begin(), peaks.end(), usable))
          << "seed " << seed;
    } else {
      ++infeasible;
      ASSERT_EQ(unfit(*outcome.nearest), static_cast<std::int64_t>(all.size())) << "seed " << seed;
      ASSERT_GE(outcome.shortage->needed.value(), peaks[0]);
      ASSERT_LE(outcome.shortage->needed.value(), peaks[0] + peaks[0] / 20) << "seed " << seed;
    }
  }
  EXPECT_EQ(infeasible, kInstancesAShard / 5);
  EXPECT_GT(refined, 0);
  EXPECT_GT(replays, kLeastReplays);
}

INSTANTIATE_TEST_SUITE_P(Seeds, BruteForce, testing::Range<std::uint64_t>(1, kShards + 1));

}  // namespace
}  // namespace orrery::planner
