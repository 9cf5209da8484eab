// The clock: timelines worked out by hand to the nanosecond, and what every replay of a lowered
// program keeps whatever the durations.
#include "core/clock/clock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/program/lower.h"
#include "tests/support/mutate.h"
#include "tests/support/plans.h"

namespace orrery {
namespace {

const Lane kC = Lane::kCompute, kFsdp = Lane::kFsdp, kEp = Lane::kEp;

// A program of bare ops: `world` ranks of one role, groups "world" (0) and, of an even world,
// "pairs" (1) of neighbours.
Program bare_program(std::int32_t world, const std::vector<std::pair<Lane, std::vector<OpId>>>& ops,
                     std::int32_t group = 0) {
  Program p;
  p.world = world;
  p.groups.push_back({"world", world, 1});
  p.groups.push_back({"pairs", world % 2 == 0 ? 2 : 1, 1});
  Role role;
  role.name = "all";
  for (std::int32_t r = 0; r < world; ++r) role.ranks.push_back(r);
  for (const auto& [lane, deps] : ops) {
    Op op;
    op.path = "op." + std::to_string(role.ops.size());
    op.kind = lane == kC ? OpKind::kForward : OpKind::kAllReduce;
    op.lane = lane;
    op.group = group;
    op.deps = deps;
    role.ops.push_back(op);
  }
  p.roles.push_back(std::move(role));
  return p;
}

std::vector<Nanoseconds> ns(const std::vector<std::int64_t>& values) {
  std::vector<Nanoseconds> out;
  for (const std::int64_t v : values) out.emplace_back(v);
  return out;
}

using Row = std::array<std::int64_t, 3>;  // posted, start, end

std::vector<Row> rows(const Replay& replay, std::size_t rank = 0) {
  std::vector<Row> out;
  for (const OpTimes& t : replay.times[rank]) out.push_back({t.posted_ns, t.start_ns, t.end_ns});
  return out;
}

TEST(Clock, LanesAreFirstInFirstOut) {
  // Op 1 could start only after op 2 of another lane; op 3 waits behind it in its lane.
  const Program p = bare_program(1, {{kC, {}}, {kC, {}}, {kFsdp, {}}, {kC, {2}}, {kC, {}}});
  const Replay r = replay(p, {{0, ns({10, 5, 40, 7, 1})}}, {});
  EXPECT_EQ(rows(r),
            (std::vector<Row>{{0, 0, 10}, {10, 10, 15}, {0, 0, 40}, {40, 40, 47}, {47, 47, 48}}));
  EXPECT_EQ(r.end.value(), 48);
}

TEST(Clock, DependenciesCrossLanes) {
  const Program p = bare_program(1, {{kC, {}}, {kFsdp, {0}}, {kEp, {0, 1}}, {kC, {2}}});
  const Replay r = replay(p, {{0, ns({3, 4, 5, 6})}}, {});
  EXPECT_EQ(rows(r), (std::vector<Row>{{0, 0, 3}, {3, 3, 7}, {7, 7, 12}, {12, 12, 18}}));
}

TEST(Clock, CollectivesWaitForTheirLastMember) {
  // Two pairs: {0, 1} and {2, 3}. The pair is as slow as its slower member, and starts when that
  // one has posted.
  const Program p = bare_program(4, {{kC, {}}, {kFsdp, {0}}, {kC, {1}}}, 1);
  const Replay r = replay(
      p, {{0, ns({10, 5, 1})}, {1, ns({30, 8, 1})}, {2, ns({4, 2, 1})}, {3, ns({4, 2, 9})}}, {});
  EXPECT_EQ(rows(r, 0), (std::vector<Row>{{0, 0, 10}, {10, 30, 38}, {38, 38, 39}}));
  EXPECT_EQ(rows(r, 1), (std::vector<Row>{{0, 0, 30}, {30, 30, 38}, {38, 38, 39}}));
  EXPECT_EQ(rows(r, 2), (std::vector<Row>{{0, 0, 4}, {4, 4, 6}, {6, 6, 7}}));
  EXPECT_EQ(rows(r, 3), (std::vector<Row>{{0, 0, 4}, {4, 4, 6}, {6, 6, 15}}));
  EXPECT_EQ(r.end.value(), 39);
}

TEST(Clock, ComputeAndCommunicationSlowEachOther) {
  // Compute needs 100 alone, the collective 40. Together compute runs at 1/2, the collective at
  // 4/5. The collective starts at 0 and needs 40 / (4/5) = 50: compute has done 25 of its 100 by
  // then and does the other 75 alone, to 125.
  const Program p = bare_program(1, {{kC, {}}, {kFsdp, {}}});
  const Replay r = replay(p, {{0, ns({100, 40})}}, {2.0, 1.25});
  EXPECT_EQ(rows(r), (std::vector<Row>{{0, 0, 125}, {0, 0, 50}}));
}

TEST(Clock, RatesChangeAtStartsAndEndsOnly) {
  // Compute A (60), then B (50); the collective (30) waits for A and runs beside B.
  //   0..60 A alone; 60..: B at 1/2, collective at 4/5, so 30 / (4/5) = 37.5, ends at 98 (whole
  //   nanoseconds, rounded up): B has done 38 / 2 = 19 of 50, the other 31 alone: 98 + 31 = 129.
  // The second lane of communication does not slow compute further: C (20) runs from 129 beside
  // two collectives of 16: 16 / (4/5) = 20 at 1/2 -> 10 done, 10 left: 159.
  const Program p =
      bare_program(1, {{kC, {}}, {kC, {}}, {kFsdp, {0}}, {kC, {}}, {kFsdp, {1}}, {kEp, {1}}});
  const Replay r = replay(p, {{0, ns({60, 50, 30, 20, 16, 16})}}, {2.0, 1.25});
  EXPECT_EQ(rows(r), (std::vector<Row>{{0, 0, 60},
                                       {60, 60, 129},
                                       {60, 60, 98},
                                       {129, 129, 159},
                                       {129, 129, 149},
                                       {129, 129, 149}}));
}

TEST(Clock, AnyComputingMemberSlowsACollective) {
  // Rank 0 posts at 0 and idles; rank 1 computes 20 first, posts at 20, then computes beside it.
  // The collective (40) at 4/5: 50, from 20 to 70. Rank 1's second op (10) at 1/2 ends at 40, so
  // the collective runs 20 at 4/5 (16 done) and the other 24 alone: 40 + 24 = 64.
  const Program p = bare_program(2, {{kC, {}}, {kFsdp, {0}}, {kC, {}}});
  const Replay r = replay(p, {{0, ns({0, 40, 0})}, {1, ns({20, 40, 10})}}, {2.0, 1.25});
  EXPECT_EQ(rows(r, 0), (std::vector<Row>{{0, 0, 0}, {0, 20, 64}, {0, 0, 0}}));
  EXPECT_EQ(rows(r, 1), (std::vector<Row>{{0, 0, 20}, {20, 20, 64}, {20, 20, 40}}));
}

TEST(Clock, TiesAndZerosAreSettled) {
  // Everything ends at 10 at once; ops of no length still run, in order, at 10.
  const Program p =
      bare_program(2, {{kC, {}}, {kFsdp, {}}, {kC, {1}}, {kFsdp, {0}}, {kEp, {2, 3}}, {kC, {4}}});
  const std::vector<RankDurations> ranks = {{0, ns({10, 10, 0, 0, 0, 5})},
                                            {1, ns({10, 10, 0, 0, 0, 7})}};
  const Replay r = replay(p, ranks, {});
  EXPECT_EQ(rows(r, 0),
            (std::vector<Row>{
                {0, 0, 10}, {0, 0, 10}, {10, 10, 10}, {10, 10, 10}, {10, 10, 10}, {10, 10, 15}}));
  EXPECT_EQ(r.end.value(), 17);
}

TEST(Clock, DeadlockIsABug) {
  Program p = split_roles(bare_program(2, {{kFsdp, {}}, {kEp, {0}}}));
  std::swap(p.roles[1].ops[0].lane, p.roles[1].ops[1].lane);
  EXPECT_EXIT(replay(p, {{0, ns({1, 1})}, {1, ns({1, 1})}}, {}), ::testing::ExitedWithCode(70),
              "cannot end");
}

TEST(Clock, NegativeDurationsAreABug) {
  const Program p = bare_program(1, {{kC, {}}});
  EXPECT_EXIT(replay(p, {{0, ns({-1})}}, {}), ::testing::ExitedWithCode(70), "negative");
  EXPECT_EXIT(replay(p, {{0, ns({1})}}, {0.5, 1}), ::testing::ExitedWithCode(70), "slowdown");
}

// --- properties of random programs ---------------------------------------------------------------

std::vector<RankDurations> random_durations(Draw& draw, const Program& p) {
  std::vector<RankDurations> ranks;
  for (std::int32_t rank = 0; rank < p.world; ++rank) {
    RankDurations r{rank, {}};
    for (std::size_t i = 0; i < p.role_of(rank).ops.size(); ++i) {
      r.durations.emplace_back(draw.between(0, 3) == 0 ? draw.between(0, 3)
                                                       : draw.between(0, 5000));
    }
    ranks.push_back(std::move(r));
  }
  return ranks;
}

bool meets(const Op& op) {
  return op.lane != Lane::kCompute;
}

// The base duration of an op on a rank: a collective lasts as long as its slowest member.
std::int64_t base(const Program& p, const std::vector<RankDurations>& ranks, std::size_t rank,
                  std::size_t op) {
  const Op& it = p.roles[0].ops[op];
  if (!meets(it)) return ranks[rank].durations[op].value();
  const Group& g = p.groups[static_cast<std::size_t>(it.group)];
  std::int64_t longest = 0;
  for (std::int32_t i = 0; i < g.size; ++i) {
    const auto member =
        static_cast<std::size_t>(g.first_of(static_cast<std::int32_t>(rank)) + i * g.stride);
    longest = std::max(longest, ranks[member].durations[op].value());
  }
  return longest;
}

// Earliest ends without slowdown, op by op in issue order: an independent way to the same times.
std::vector<std::vector<std::int64_t>> unslowed_ends(const Program& p,
                                                     const std::vector<RankDurations>& ranks) {
  const Role& role = p.roles[0];
  const std::size_t n = ranks.size();
  std::vector<std::vector<std::int64_t>> end(n, std::vector<std::int64_t>(role.ops.size()));
  std::vector<std::array<std::int64_t, kNumLanes>> lane_end(n, {0, 0, 0});
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    const auto lane = static_cast<std::size_t>(op.lane);
    std::vector<std::int64_t> ready(n);
    for (std::size_t r = 0; r < n; ++r) {
      ready[r] = lane_end[r][lane];
      for (const OpId dep : op.deps) {
        ready[r] = std::max(ready[r], end[r][static_cast<std::size_t>(dep)]);
      }
    }
    for (std::size_t r = 0; r < n; ++r) {
      std::int64_t start = ready[r];
      if (meets(op)) {
        const Group& g = p.groups[static_cast<std::size_t>(op.group)];
        for (std::int32_t k = 0; k < g.size; ++k) {
          start = std::max(start, ready[static_cast<std::size_t>(
                                      g.first_of(static_cast<std::int32_t>(r)) + k * g.stride)]);
        }
      }
      end[r][i] = lane_end[r][lane] = start + base(p, ranks, r, i);
    }
  }
  return end;
}

std::string dump(const Replay& replay) {
  std::string text = std::to_string(replay.end.value());
  for (const auto& rank : replay.times) {
    for (const OpTimes& t : rank) {
      text += ' ' + std::to_string(t.posted_ns) + ' ' + std::to_string(t.start_ns) + ' ' +
              std::to_string(t.end_ns);
    }
  }
  return text;
}

template <class Test>
void for_seeds(std::uint64_t count, Test test) {
  for (std::uint64_t seed = 0; seed < count; ++seed) {
    const Plan plan = random_plan(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " +
                 describe(plan.layout, plan.chunks, plan.policy));
    Draw draw(seed + 1000);
    const Program p = lower(plan);
    test(p, random_durations(draw, p), draw);
    if (::testing::Test::HasFailure()) return;
  }
}

constexpr std::uint64_t kSeeds = 100;

TEST(ClockProperties, UnslowedReplayIsTheLongestPath) {
  for_seeds(kSeeds, [](const Program& p, const std::vector<RankDurations>& ranks, Draw&) {
    const Replay r = replay(p, ranks, {});
    const auto ends = unslowed_ends(p, ranks);
    std::int64_t last = 0;
    for (std::size_t k = 0; k < ranks.size(); ++k) {
      for (std::size_t i = 0; i < ends[k].size(); ++i) {
        EXPECT_EQ(r.times[k][i].end_ns, ends[k][i]) << "rank " << k << " op " << i;
        last = std::max(last, ends[k][i]);
      }
    }
    EXPECT_EQ(r.end.value(), last);
  });
}

// Each op starts when its lane and its dependencies let it, never before; communication also when
// its last member has posted; none is faster than its duration, nor slower than the slowdown says.
TEST(ClockProperties, EveryOpKeepsItsOrderAndItsLength) {
  for_seeds(kSeeds, [](const Program& p, const std::vector<RankDurations>& ranks, Draw& draw) {
    const ClockRates rates{1.0 + 0.1 * static_cast<double>(draw.between(0, 10)),
                           1.0 + 0.1 * static_cast<double>(draw.between(0, 10))};
    const Replay r = replay(p, ranks, rates);
    const Role& role = p.roles[0];
    for (std::size_t k = 0; k < ranks.size(); ++k) {
      std::array<std::int64_t, kNumLanes> lane_end = {0, 0, 0};
      for (std::size_t i = 0; i < role.ops.size(); ++i) {
        const Op& op = role.ops[i];
        const OpTimes& t = r.times[k][i];
        std::int64_t ready = lane_end[static_cast<std::size_t>(op.lane)];
        for (const OpId dep : op.deps) {
          ready = std::max(ready, r.times[k][static_cast<std::size_t>(dep)].end_ns);
        }
        EXPECT_EQ(t.posted_ns, ready);
        std::int64_t start = ready;
        if (meets(op)) {
          const Group& g = p.groups[static_cast<std::size_t>(op.group)];
          const std::int32_t first = g.first_of(static_cast<std::int32_t>(k));
          for (std::int32_t m = 0; m < g.size; ++m) {
            const OpTimes& other = r.times[static_cast<std::size_t>(first + m * g.stride)][i];
            start = std::max(start, other.posted_ns);
            EXPECT_EQ(other.start_ns, t.start_ns);
            EXPECT_EQ(other.end_ns, t.end_ns);
          }
        }
        EXPECT_EQ(t.start_ns, start);
        const std::int64_t alone = base(p, ranks, k, i);
        const double slowest = meets(op) ? rates.link_slowdown : rates.compute_slowdown;
        EXPECT_GE(t.end_ns - t.start_ns, alone);
        // Rates are whole thousandths, rounded down; ends are whole nanoseconds, rounded up.
        EXPECT_LE(static_cast<double>(t.end_ns - t.start_ns),
                  static_cast<double>(alone) * slowest * 1.003 + 1);
        lane_end[static_cast<std::size_t>(op.lane)] = t.end_ns;
      }
    }
  });
}

// Work is conserved: an op that did all its work was, while it ran, at full rate or at the slow
// one, and at the slow one exactly while something ran beside it.
TEST(ClockProperties, WorkIsConserved) {
  for_seeds(40, [](const Program& p, const std::vector<RankDurations>& ranks, Draw&) {
    const Replay r = replay(p, ranks, {2.0, 1.25});
    const Role& role = p.roles[0];
    for (std::size_t k = 0; k < ranks.size(); ++k) {
      for (std::size_t i = 0; i < role.ops.size(); ++i) {
        if (role.ops[i].lane != Lane::kCompute) continue;
        const OpTimes& t = r.times[k][i];
        // Length of the union of the communication that ran beside it.
        std::vector<std::pair<std::int64_t, std::int64_t>> beside;
        for (std::size_t j = 0; j < role.ops.size(); ++j) {
          if (!meets(role.ops[j])) continue;
          const OpTimes& o = r.times[k][j];
          const std::int64_t from = std::max(t.start_ns, o.start_ns);
          const std::int64_t to = std::min(t.end_ns, o.end_ns);
          if (from < to) beside.emplace_back(from, to);
        }
        std::sort(beside.begin(), beside.end());
        std::int64_t together = 0, covered = t.start_ns;
        for (const auto& [from, to] : beside) {
          together += std::max<std::int64_t>(0, to - std::max(from, covered));
          covered = std::max(covered, to);
        }
        const std::int64_t done = 2 * (t.end_ns - t.start_ns) - together;  // in half nanoseconds
        const std::int64_t work = 2 * ranks[k].durations[i].value();
        EXPECT_GE(done, work);
        EXPECT_LT(done, work + 2) << "rank " << k << " op " << i;  // the end is rounded up
      }
    }
  });
}

TEST(ClockProperties, MakespanIsBoundedBelowAndAbove) {
  for_seeds(kSeeds, [](const Program& p, const std::vector<RankDurations>& ranks, Draw& draw) {
    const ClockRates rates{1.0 + 0.1 * static_cast<double>(draw.between(0, 10)),
                           1.0 + 0.1 * static_cast<double>(draw.between(0, 10))};
    const Replay r = replay(p, ranks, rates);
    std::int64_t path = 0, lanes = 0, everything = 0;
    for (const auto& rank : unslowed_ends(p, ranks)) {
      path = std::max(path, *std::max_element(rank.begin(), rank.end()));
    }
    for (std::size_t k = 0; k < ranks.size(); ++k) {
      std::array<std::int64_t, kNumLanes> sums = {0, 0, 0};
      for (std::size_t i = 0; i < p.roles[0].ops.size(); ++i) {
        sums[static_cast<std::size_t>(p.roles[0].ops[i].lane)] += base(p, ranks, k, i);
      }
      lanes = std::max(lanes, *std::max_element(sums.begin(), sums.end()));
    }
    for (std::size_t i = 0; i < p.roles[0].ops.size(); ++i) {  // one after the other, world-wide
      std::int64_t longest = 0;
      for (std::size_t k = 0; k < ranks.size(); ++k) {
        longest = std::max(longest, base(p, ranks, k, i));
      }
      everything += longest;
    }
    EXPECT_GE(r.end.value(), path);
    EXPECT_GE(r.end.value(), lanes);
    EXPECT_LE(replay(p, ranks, {}).end.value(), everything);
  });
}

TEST(ClockProperties, SameInputSameOutput) {
  for_seeds(30, [](const Program& p, std::vector<RankDurations> ranks, Draw&) {
    const ClockRates rates{1.3, 1.2};
    const Replay once = replay(p, ranks, rates);
    EXPECT_EQ(dump(replay(p, ranks, rates)), dump(once));
    // The order in which the ranks are handed in is only the order of the rows.
    std::reverse(ranks.begin(), ranks.end());
    Replay backwards = replay(p, ranks, rates);
    std::reverse(backwards.times.begin(), backwards.times.end());
    EXPECT_EQ(dump(backwards), dump(once));
  });
}

TEST(ClockProperties, SplittingARoleChangesNothing) {
  for_seeds(30, [](const Program& p, const std::vector<RankDurations>& ranks, Draw&) {
    EXPECT_EQ(dump(replay(split_roles(p), ranks, {1.3, 1.2})), dump(replay(p, ranks, {1.3, 1.2})));
  });
}

// Folding: ranks that all take as long need no more than one of them, or one group of them.
TEST(ClockProperties, OneOfEqualRanksStandsForAll) {
  for_seeds(60, [](const Program& p, std::vector<RankDurations> ranks, Draw&) {
    const ClockRates rates{1.3, 1.2};
    for (RankDurations& r : ranks) r.durations = ranks[0].durations;
    const Replay all = replay(p, ranks, rates);
    for (const RankDurations& one : ranks) {
      const Replay folded = replay(p, {one}, rates);
      EXPECT_EQ(folded.end, all.end);
      EXPECT_EQ(rows(folded), rows(all, static_cast<std::size_t>(one.rank)));
    }
    for (const Group& g : p.groups) {
      std::vector<RankDurations> members;
      for (std::int32_t i = 0; i < g.size; ++i) {
        members.push_back(ranks[static_cast<std::size_t>(i * g.stride)]);
      }
      const Replay folded = replay(p, members, rates);
      for (std::size_t i = 0; i < members.size(); ++i) EXPECT_EQ(rows(folded, i), rows(all, 0));
    }
  });
}

// Longer ops never make a step without slowdowns shorter.
TEST(ClockProperties, UnslowedTimeIsMonotone) {
  for_seeds(60, [](const Program& p, std::vector<RankDurations> ranks, Draw& draw) {
    const std::int64_t before = replay(p, ranks, {}).end.value();
    for (RankDurations& r : ranks) {
      for (Nanoseconds& d : r.durations) d += Nanoseconds(draw.between(0, 50));
    }
    EXPECT_GE(replay(p, ranks, {}).end.value(), before);
  });
}

}  // namespace
}  // namespace orrery
