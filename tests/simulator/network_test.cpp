// Collective times: figures worked out by hand on one and two tiers, a count of the bytes that
// cross borders rank by rank, and what holds for every group.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "simulator/op_cost.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

// Nodes of 8: 100 GB/s and 1 us inside, 10 GB/s and 5 us outside.
Cluster two_tiers(std::int64_t devices) {
  Cluster c;
  c.name = "two-tiers";
  c.devices = devices;
  c.devices_per_node = 8;
  c.tiers.push_back({"inner", 8, BytesPerSecond(100e9), Seconds(1e-6)});
  c.tiers.push_back({"outer", devices, BytesPerSecond(10e9), Seconds(5e-6)});
  return c;
}

double us(const Cluster& c, const Group& g, OpKind kind, std::int64_t bytes) {
  return collective_time(c, g, kind, {bytes, bytes}).value() * 1e6;
}

constexpr std::int64_t kMB = 1000 * 1000;
const OpKind kGather = OpKind::kAllGather, kReduce = OpKind::kReduceScatter,
             kSum = OpKind::kAllReduce, kRows = OpKind::kAllToAllV,
             kCounts = OpKind::kExchangeCounts;

TEST(Network, AGroupOfOneIsFree) {
  for (const OpKind kind : {kGather, kReduce, kSum, kRows, kCounts}) {
    EXPECT_EQ(us(two_tiers(64), {"", 1, 1}, kind, 0), 0);
    EXPECT_EQ(us(Cluster{}, {"", 1, 8}, kind, 0), 0) << "no link is needed";
  }
}

TEST(Network, InsideANode) {
  // 7 MB to and from each of 8 devices: 7e6 / 100e9 = 70 us, and 3 steps of 1 us.
  const Cluster c = two_tiers(64);
  for (const OpKind kind : {kGather, kReduce, kSum, kRows}) {
    EXPECT_NEAR(us(c, {"", 8, 1}, kind, 7 * kMB), 73, 1e-9);
  }
  // Two members at a distance of 4 share a node too: 10 us and one step.
  EXPECT_NEAR(us(c, {"", 2, 4}, kGather, kMB), 11, 1e-9);
  // Three need two steps.
  EXPECT_NEAR(us(c, {"", 2, 1}, kGather, 0), 1, 1e-9);
  EXPECT_NEAR(us(c, {"", 4, 2}, kGather, 0), 2, 1e-9);
}

TEST(Network, OneTier) {
  Cluster c;
  c.devices = 4;
  c.tiers.push_back({"shm", 4, BytesPerSecond(2e9), Seconds(3e-6)});
  EXPECT_NEAR(us(c, {"", 4, 1}, kGather, 6 * kMB), 3000 + 6, 1e-9);
  EXPECT_NEAR(us(c, {"", 2, 2}, kRows, 4 * kMB), 2000 + 3, 1e-9);
}

TEST(Network, StridedGroupsHaveANicAMember) {
  // fsdp_e of ep = 8: one member a node, each with its own link. 16 members: everything crosses
  // the outer links: 15 MB / 10 GB/s = 1500 us, and 4 steps of 5 us.
  const Cluster c = two_tiers(128);
  for (const OpKind kind : {kGather, kReduce, kSum, kRows}) {
    EXPECT_NEAR(us(c, {"", 16, 8}, kind, 15 * kMB), 1520, 1e-9);
  }
  // A stride wider than a node is the same.
  EXPECT_NEAR(us(c, {"", 4, 32}, kGather, 15 * kMB), 1510, 1e-9);
}

TEST(Network, NeighboursShareTheirNodesNics) {
  // 256 ranks in 32 nodes gather 256 MB. A node takes in the 248 MB of the others over 8 NICs:
  // 31 MB each, 3100 us. Inside, each device gets 7/8 of 256 MB over 100 GB/s: 2240 us, hidden
  // behind it. 8 steps of 5 us.
  const Cluster c = two_tiers(256);
  EXPECT_NEAR(us(c, {"", 256, 1}, kGather, 255 * kMB), 3140, 1e-6);
  EXPECT_NEAR(us(c, {"", 256, 1}, kReduce, 255 * kMB), 3140, 1e-6);
  // 16 ranks gather 16 MB: 8 MB come into a node over 8 NICs, 100 us; inside 7/8 of 16 MB: 140 us,
  // the slower of the two; 4 steps of 5 us.
  EXPECT_NEAR(us(c, {"", 16, 1}, kGather, 15 * kMB), 160, 1e-9);
  // 16 ranks at a stride of 4, two a node: 14 of 16 MB over 2 NICs, 700 us; 4 steps of 5 us.
  EXPECT_NEAR(us(c, {"", 16, 4}, kGather, 15 * kMB), 720, 1e-9);
}

TEST(Network, AllToAllSendsToEachPeerOnItsOwn) {
  // 15 MB to 15 peers, 7 of them in the node: 7 MB inside (70 us), 8 MB outside (800 us).
  EXPECT_NEAR(us(two_tiers(64), {"", 16, 1}, kRows, 15 * kMB), 820, 1e-9);
  // Counts go the same way.
  EXPECT_NEAR(us(two_tiers(64), {"", 16, 1}, kCounts, 15 * kMB), 820, 1e-9);
  // The larger of what is sent and what is received sets the time.
  const Cluster c = two_tiers(64);
  EXPECT_EQ(collective_time(c, {"", 8, 1}, kRows, {3 * kMB, 7 * kMB}).value(),
            collective_time(c, {"", 8, 1}, kRows, {7 * kMB, kMB}).value());
}

TEST(Network, AThirdTierCarriesWhatLeavesTheSecond) {
  // Nodes of 2, pods of 4, two pods: 100, 10 and 1 GB/s. 8 ranks gather 8 MB:
  //   inside a node 1/2 of 8 MB: 40 us; into a node of its pod 1/2 of 8 MB over 2 links: 200 us;
  //   into a pod 4 MB over 4 links: 1000 us. 3 steps of 9 us.
  Cluster c;
  c.devices = 8;
  c.tiers.push_back({"a", 2, BytesPerSecond(100e9), Seconds(1e-6)});
  c.tiers.push_back({"b", 4, BytesPerSecond(10e9), Seconds(5e-6)});
  c.tiers.push_back({"c", 8, BytesPerSecond(1e9), Seconds(9e-6)});
  EXPECT_NEAR(us(c, {"", 8, 1}, kGather, 7 * kMB), 1027, 1e-9);
  // Each sends 7 MB to 7 peers: 1 MB in the node, 2 MB in the pod, 4 MB beyond: 4000 us.
  EXPECT_NEAR(us(c, {"", 8, 1}, kRows, 7 * kMB), 4027, 1e-9);
}

TEST(Network, OversubscriptionAndMeshTakeAPartOfTheBandwidth) {
  Cluster c = two_tiers(64);
  c.tiers[1].oversubscription = 2;
  const double before = us(two_tiers(64), {"", 64, 1}, kGather, 63 * kMB);
  EXPECT_NEAR(us(c, {"", 64, 1}, kGather, 63 * kMB) - 30, 2 * (before - 30), 1e-6);
  EXPECT_EQ(us(c, {"", 8, 1}, kGather, 7 * kMB), us(two_tiers(64), {"", 8, 1}, kGather, 7 * kMB));
  c.tiers[0].mesh = true;  // two of eight have one link of seven
  EXPECT_NEAR(us(c, {"", 2, 1}, kGather, kMB), 70 + 1, 1e-9);
  EXPECT_NEAR(us(c, {"", 8, 1}, kRows, 7 * kMB), 73, 1e-9);
}

TEST(Network, GroupsThatStraddleABorderPayForIt) {
  // 3 neighbours in nodes of 8: ranks 6, 7 | 8. Rank 8 takes in 2 MB over its one NIC.
  const Cluster c = two_tiers(24);
  EXPECT_NEAR(us(c, {"", 3, 1}, kGather, 2 * kMB), 200 + 10, 1e-9);
  // 12 in nodes of 8 (8 | 4, 4 | 8): the 4 take in 8 of 12 MB over 4 NICs: 200 us. Inside, 7/8 of
  // 12 MB: 105 us.
  EXPECT_NEAR(us(c, {"", 12, 1}, kGather, 11 * kMB), 200 + 20, 1e-9);
}

TEST(Network, MetricsAreAnAllReduce) {
  const Cluster c = two_tiers(256);
  for (const std::int64_t bytes : {8, 1000, 255 * 1000}) {
    EXPECT_EQ(us(c, {"", 256, 1}, OpKind::kCountTokens, bytes), us(c, {"", 256, 1}, kSum, bytes));
    EXPECT_EQ(us(c, {"", 256, 1}, OpKind::kReduceMetrics, bytes), us(c, {"", 256, 1}, kSum, bytes));
  }
}

// --- against a count of every byte ---------------------------------------------------------------

// The slowest of all groups of this size and stride, by placing every member: what each domain
// takes in (a ring) or each member sends out of it (an exchange), over the links of the members.
double counted_us(const Cluster& c, const Group& g, OpKind kind, double bytes) {
  const bool ring = kind != kRows;
  const double n = g.size;
  const double whole = bytes * n / (n - 1);
  double slowest = 0, latency = 0;
  for (std::int64_t rank = 0; rank < c.devices; ++rank) {
    if (g.index_of(static_cast<std::int32_t>(rank)) != 0) continue;
    std::map<std::int64_t, double> in_node;
    for (std::int64_t i = 0; i < g.size; ++i) in_node[(rank + i * g.stride) / 8] += 1;
    for (const auto& [node, members] : in_node) {
      const double outer =
          ring ? whole * (n - members) / n / members : bytes * (n - members) / (n - 1);
      const double inner = ring ? whole * (members - 1) / members : bytes * (members - 1) / (n - 1);
      slowest = std::max({slowest, outer / 10e9, inner / 100e9});
    }
    latency = std::max(latency, in_node.size() > 1 ? 5e-6 : 1e-6);
  }
  return (slowest + latency * std::ceil(std::log2(n))) * 1e6;
}

TEST(Network, EqualsTheCountOfEveryGroupOfTheWorld) {
  for (const std::int64_t devices : {8, 24, 64, 96}) {
    const Cluster c = two_tiers(devices);
    for (std::int64_t n = 2; n <= devices; ++n) {
      if (devices % n != 0) continue;
      for (std::int64_t stride = 1; stride * n <= devices; ++stride) {
        // Strides that no node's size is a multiple of: the price may only be above the count.
        if (devices % (n * stride) != 0) continue;
        const Group g{"", static_cast<std::int32_t>(n), static_cast<std::int32_t>(stride)};
        for (const OpKind kind : {kGather, kRows}) {
          const double counted = counted_us(c, g, kind, 5e6);
          const double priced = us(c, g, kind, 5 * kMB);
          const bool even = stride >= 8 || 8 % stride == 0;
          EXPECT_GE(priced, counted * (1 - 1e-12)) << devices << " " << n << " x " << stride;
          if (even) {
            EXPECT_NEAR(priced, counted, 1e-9 * counted) << devices << " " << n << " x " << stride;
          }
        }
      }
    }
  }
}

// --- what holds for every group ------------------------------------------------------------------

TEST(Network, MoreBytesNeverTakeLess) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Draw draw(seed);
    const Cluster c = two_tiers(8 * draw.between(1, 32));
    const std::int64_t n = draw.divisor_of(c.devices);
    const Group g{"", static_cast<std::int32_t>(n),
                  static_cast<std::int32_t>(draw.divisor_of(c.devices / n))};
    for (const OpKind kind : {kGather, kReduce, kSum, kRows, kCounts}) {
      const std::int64_t few = draw.between(0, 1 << 30), more = few + draw.between(1, 1 << 30);
      const double least = us(c, g, kind, few), most = us(c, g, kind, more);
      EXPECT_GE(least, 0) << seed;
      EXPECT_TRUE(std::isfinite(most)) << seed;
      if (n > 1) {
        EXPECT_LT(least, most) << seed;
      }
    }
  }
}

// A buffer of one size, gathered or reduced over ever more neighbours; rows over ever more peers.
TEST(Network, LargerGroupsNeverTakeLess) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Draw draw(seed);
    const Cluster c = two_tiers(1024);
    const double whole = static_cast<double>(draw.between(0, 1 << 30));
    double before[3] = {0, 0, 0}, empty = 0;
    for (std::int32_t n = 2; n <= 1024; n *= 2) {
      const auto wire = static_cast<std::int64_t>(whole * (n - 1) / n);
      std::size_t i = 0;
      for (const OpKind kind : {kGather, kReduce, kRows}) {
        const double now = us(c, {"", n, 1}, kind, wire);
        EXPECT_GE(now, before[i] * (1 - 1e-9)) << seed << " " << n;
        before[i++] = now;
      }
      const double latency = us(c, {"", n, 1}, kGather, 0);
      EXPECT_GT(latency, empty) << n;
      empty = latency;
    }
  }
}

}  // namespace
}  // namespace orrery::simulator
