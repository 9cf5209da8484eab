// What ranks share: cores, links, a host that computes. Timelines worked out by hand, and the clock
// turned around: what it ran with is what its times imply.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "core/clock/clock.h"
#include "core/clock/implied.h"
#include "core/clock/issue.h"
#include "core/program/lower.h"
#include "tests/support/plans.h"

namespace orrery {
namespace {

const Lane kC = Lane::kCompute, kFsdp = Lane::kFsdp, kEp = Lane::kEp;
const Share kCore{1000, -1};

// Ranks that do the same; groups "world" (0) and "alone" (1).
Program program_of(std::int32_t world, const std::vector<std::pair<Lane, std::vector<OpId>>>& ops) {
  Program p;
  p.world = world;
  p.groups = {{"world", world, 1}, {"alone", 1, 1}};
  Role role;
  role.name = "all";
  for (std::int32_t r = 0; r < world; ++r) role.ranks.push_back(r);
  for (const auto& [lane, deps] : ops) {
    Op op;
    op.path = "op." + std::to_string(role.ops.size());
    op.kind = lane == kC ? OpKind::kForward : OpKind::kAllReduce;
    op.lane = lane;
    op.group = 0;
    op.deps = deps;
    role.ops.push_back(op);
  }
  p.roles.push_back(std::move(role));
  return p;
}

RankDurations rank_of(std::int32_t rank, const std::vector<std::int64_t>& values,
                      std::vector<Share> shares) {
  RankDurations out;
  out.rank = rank;
  for (const std::int64_t v : values) out.durations.emplace_back(v);
  out.shares = std::move(shares);
  return out;
}

std::vector<std::int64_t> ends(const Replay& replay, std::size_t rank) {
  std::vector<std::int64_t> out;
  for (const OpTimes& t : replay.times[rank]) out.push_back(t.end_ns);
  return out;
}

TEST(SharedCores, RanksTakeTurnsWhereThereAreTooFew) {
  const Program p = program_of(3, {{kC, {}}});
  // Three on two cores run at 2/3 until the first ends: 30 at 0.666 is 46 (rates are thousandths,
  // rounded down); then two on two cores, each at full speed.
  ClockRates rates;
  rates.cores = 2;
  rates.core_ranks = 3;
  const Replay r = replay(
      p, {rank_of(0, {30}, {kCore}), rank_of(1, {60}, {kCore}), rank_of(2, {90}, {kCore})}, rates);
  EXPECT_EQ(ends(r, 0), (std::vector<std::int64_t>{46}));
  EXPECT_EQ(ends(r, 1), (std::vector<std::int64_t>{76}));  // 46 + (60 - 30.6)
  EXPECT_EQ(ends(r, 2), (std::vector<std::int64_t>{106}));
}

TEST(SharedCores, MachinesShareNothing) {
  const Program p = program_of(4, {{kC, {}}});
  ClockRates rates;
  rates.cores = 1;
  rates.core_ranks = 2;  // ranks 0 and 1, ranks 2 and 3
  const Replay r = replay(p,
                          {rank_of(0, {10}, {kCore}), rank_of(1, {10}, {kCore}),
                           rank_of(2, {10}, {kCore}), rank_of(3, {30}, {kCore})},
                          rates);
  EXPECT_EQ(ends(r, 0)[0], 20);
  EXPECT_EQ(ends(r, 2)[0], 20);
  EXPECT_EQ(ends(r, 3)[0], 40) << "half speed beside rank 2, then its own";
}

TEST(SharedCores, ATransferIsSlowedByWhatItAsksOfACore) {
  // One core, two ranks: a collective that takes half a core beside computes that take a whole one.
  const Program p = program_of(2, {{kC, {}}, {kFsdp, {}}});
  ClockRates rates;
  rates.cores = 1;
  rates.core_ranks = 2;
  const std::vector<Share> shares = {kCore, {500, -1}};
  const Replay r = replay(p, {rank_of(0, {90, 90}, shares), rank_of(1, {90, 90}, shares)}, rates);
  // Asked: 2 x 1 by compute, 2 x 0.5 by transfers, whose claim weighs nine times as much: 9 / 11 of
  // the core. The transfer keeps 1 - 0.5 x (1 - 9/11) = 10/11 of its rate: 90 ends at 99.
  EXPECT_NEAR(static_cast<double>(ends(r, 0)[1]), 99, 1);
  // By then 9 of 90 are computed (at 1/11); two computes share the core for the rest.
  EXPECT_NEAR(static_cast<double>(ends(r, 0)[0]), 99 + 2 * 81, 1.5);
}

TEST(SharedCores, ATransferThatTheCoreHasRoomForIsNotSlowed) {
  const Program p = program_of(1, {{kC, {}}, {kFsdp, {}}});
  ClockRates rates;
  rates.cores = 1;
  const Replay r = replay(p, {rank_of(0, {90, 60}, {kCore, {250, -1}})}, rates);
  EXPECT_EQ(ends(r, 0)[1], 60);
  EXPECT_EQ(ends(r, 0)[0], 105) << "45 of 90 in the 60 of the transfer, at 3/4";
}

TEST(SharedLinks, TransfersBesideEachOtherPartTheLink) {
  const Program p = program_of(2, {{kFsdp, {}}, {kEp, {}}});
  ClockRates rates;
  rates.link_ranks = {0, 1};
  const std::vector<Share> over_link = {{0, 1}, {0, 1}}, own = {{0, 0}, {0, 0}};
  const Replay apart =
      replay(p, {rank_of(0, {100, 40}, over_link), rank_of(1, {100, 40}, over_link)}, rates);
  EXPECT_EQ(ends(apart, 0), (std::vector<std::int64_t>{140, 80}));
  const Replay alone = replay(p, {rank_of(0, {100, 40}, own), rank_of(1, {100, 40}, own)}, rates);
  EXPECT_EQ(ends(alone, 0), (std::vector<std::int64_t>{100, 40})) << "tier 0 is not shared";
}

TEST(HostThatComputes, IssuesNothingWhileItDoes) {
  // The transfer depends on nothing, but the host comes to it after the compute op.
  const Program p = program_of(1, {{kC, {}}, {kFsdp, {}}, {kC, {}}});
  ClockRates rates;
  const std::vector<RankDurations> ranks = {rank_of(0, {10, 5, 20}, {})};
  EXPECT_EQ(ends(replay(p, ranks, rates), 0), (std::vector<std::int64_t>{10, 5, 30}));
  rates.computes_on_host = true;
  EXPECT_EQ(ends(replay(p, ranks, rates), 0), (std::vector<std::int64_t>{10, 15, 30}));
}

TEST(HostThatComputes, WaitsForSizesBeforeItIssues) {
  Program p = program_of(1, {{kEp, {}}, {kEp, {0}}, {kC, {}}});
  Role& role = p.roles[0];
  role.buffers.resize(1);
  role.ops[0].host_sync = true;
  role.ops[0].out = {0};
  role.ops[1].in = {0};
  EXPECT_EQ(host_waits(role), (std::vector<OpId>{-1, 0, -1}));
  ClockRates rates;
  rates.computes_on_host = true;
  const Replay r = replay(p, {rank_of(0, {10, 5, 20}, {})}, rates);
  EXPECT_EQ(ends(r, 0), (std::vector<std::int64_t>{10, 15, 30})) << "compute waits for the host";
}

// --- the clock turned around ---------------------------------------------------------------------

TEST(Implied, AreTheDurationsTheClockRanWith) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const Plan plan = random_mechanism_plan(seed, 8);
    const Program program = lower(plan);
    Draw draw(seed);
    ClockRates rates;
    rates.computes_on_host = draw.coin();
    std::vector<RankDurations> ranks;
    for (std::int32_t r = 0; r < program.world; ++r) {
      RankDurations one;
      one.rank = r;
      for (const Op& op : program.role_of(r).ops) {
        // Equal for all members of a collective: the clock takes the slowest.
        Draw of_op(op.key + seed);
        one.durations.emplace_back(is_network(op.lane) ? of_op.between(0, 900)
                                                       : draw.between(0, 900));
      }
      ranks.push_back(std::move(one));
    }
    const Replay run = replay(program, ranks, rates);
    std::vector<MeasuredRank> measured;
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      MeasuredRank one;
      one.rank = ranks[r].rank;
      one.begin_ns = 1'000'000;
      for (const OpTimes& t : run.times[r]) {
        one.end_ns.push_back(t.end_ns + one.begin_ns);
      }
      measured.push_back(std::move(one));
    }
    const auto implied = implied_durations(program, measured, rates.computes_on_host);
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      for (std::size_t i = 0; i < implied[r].size(); ++i) {
        ASSERT_EQ(implied[r][i], ranks[r].durations[i].value())
            << "seed " << seed << " rank " << r << " op "
            << program.role_of(ranks[r].rank).ops[i].path;
      }
    }
  }
}

}  // namespace
}  // namespace orrery
