// The in-process communicator against brute force, its failures, and the sums it is made of.
#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <limits>
#include <random>
#include <thread>

#include "engine/comm/communicator.h"
#include "engine/comm/reduce.h"
#include "tests/engine/comm_cases.h"

namespace orrery::engine {
namespace {

using test::Outcome;

// Runs `body(rank)` on one thread a rank.
template <class Body>
void on_all_ranks(std::int32_t world, Body body) {
  std::vector<std::thread> threads;
  for (std::int32_t rank = 0; rank < world; ++rank) threads.emplace_back([&, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

class InProcessWorld : public ::testing::TestWithParam<std::int32_t> {};

TEST_P(InProcessWorld, EveryGroupGivesTheBruteForceResult) {
  const std::int32_t world = GetParam();
  const std::vector<Group> groups = test::groups_of(world);
  const auto ranks = make_in_process(groups, world);
  for (std::uint64_t seed = 0; seed < 25; ++seed) {
    std::vector<std::string> wrong(static_cast<std::size_t>(world));
    on_all_ranks(world, [&](std::int32_t rank) {
      auto& report = wrong[static_cast<std::size_t>(rank)];
      Communicator& self = *ranks[static_cast<std::size_t>(rank)];
      for (std::size_t g = 0; g < groups.size(); ++g) {
        const Group& group = groups[g];
        Channel& channel = self.channel(Lane::kFsdp, static_cast<std::int32_t>(g));
        const auto actual = test::run_script(channel, seed, group.first_of(rank), group.stride);
        if (!actual.ok()) {
          report += actual.error().text();
          return;
        }
        const Outcome expected = test::expected_outcome(seed, group.size, group.index_of(rank),
                                                        group.first_of(rank), group.stride);
        report += test::difference(actual.value(), expected);
      }
    });
    for (const std::string& report : wrong) ASSERT_EQ(report, "") << "seed " << seed;
  }
}

TEST_P(InProcessWorld, LanesDoNotDisturbEachOther) {
  const std::int32_t world = GetParam();
  const auto ranks = make_in_process({{"world", world, 1}}, world);
  std::atomic<int> wrong = 0;
  const auto lanes = static_cast<std::int32_t>(std::size(kNetworkLanes));
  on_all_ranks(world * lanes, [&](std::int32_t thread) {
    const std::int32_t rank = thread % world;
    const Lane lane = kNetworkLanes[thread / world];
    Channel& channel = ranks[static_cast<std::size_t>(rank)]->channel(lane, 0);
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      const std::uint64_t own = seed + 100 * static_cast<std::uint64_t>(lane);
      const auto actual = test::run_script(channel, own, 0, 1);
      const Outcome expected = test::expected_outcome(own, world, rank, 0, 1);
      if (!actual.ok() || !test::difference(actual.value(), expected).empty()) ++wrong;
    }
  });
  EXPECT_EQ(wrong, 0);
}

INSTANTIATE_TEST_SUITE_P(Worlds, InProcessWorld, ::testing::Values(1, 2, 3, 4, 8));

TEST(InProcess, AllReduceIsTheSameForAnyAlgorithm) {
  // Above the limit the sum is a reduce-scatter, below it a gather: element by element the same.
  constexpr std::int32_t kWorld = 4;
  constexpr std::size_t kCount = 5003;  // large, and no multiple of 4
  const auto ranks = make_in_process({{"world", kWorld, 1}}, kWorld);
  std::vector<int> wrong(kWorld);
  on_all_ranks(kWorld, [&](std::int32_t rank) {
    std::mt19937 random(static_cast<unsigned>(rank));
    std::normal_distribution<float> normal;
    std::vector<float> whole(kCount);
    for (float& x : whole) x = normal(random) * std::exp2(normal(random) * 8);
    std::vector<float> pieces = whole;
    Channel& channel = ranks[static_cast<std::size_t>(rank)]->channel(Lane::kSp, 0);
    bool ok = channel.all_reduce(whole.data(), kCount, DType::kFloat32).ok();
    for (std::size_t at = 0; at < kCount; at += 100) {
      const auto length = static_cast<std::int64_t>(std::min<std::size_t>(100, kCount - at));
      ok = ok && channel.all_reduce(pieces.data() + at, length, DType::kFloat32).ok();
    }
    wrong[static_cast<std::size_t>(rank)] = !ok || whole != pieces;
  });
  EXPECT_EQ(wrong, std::vector<int>(kWorld));
}

TEST(InProcess, ReduceScatterWorksBeyondOnePiece) {
  constexpr std::int32_t kWorld = 2;
  constexpr std::int64_t kCount = 300001;  // of 8 bytes: three pieces, the last one short
  const auto ranks = make_in_process({{"world", kWorld, 1}}, kWorld);
  std::vector<std::int64_t> wrong(kWorld);
  on_all_ranks(kWorld, [&](std::int32_t rank) {
    std::vector<std::int64_t> send(kCount * kWorld), recv(kCount);
    for (std::size_t i = 0; i < send.size(); ++i) {
      send[i] = static_cast<std::int64_t>(i) * (rank + 1);
    }
    Channel& channel = ranks[static_cast<std::size_t>(rank)]->channel(Lane::kFsdp, 0);
    const auto traffic = channel.reduce_scatter(send.data(), recv.data(), kCount, DType::kInt64);
    auto& bad = wrong[static_cast<std::size_t>(rank)];
    if (!traffic.ok() || traffic.value().bytes_sent != kCount * 8) ++bad;
    for (std::int64_t i = 0; i < kCount; ++i) {
      if (recv[static_cast<std::size_t>(i)] != 3 * (rank * kCount + i)) ++bad;
    }
  });
  EXPECT_EQ(wrong, std::vector<std::int64_t>(kWorld));
}

TEST(InProcess, RendezvousNamesTheRankAndTheOp) {
  constexpr std::int32_t kWorld = 4;
  // Ranks 1 and 3 are a group; they issue different ops.
  const auto ranks = make_in_process({{"distant", 2, 2}}, kWorld);
  std::vector<std::string> messages(kWorld);
  on_all_ranks(kWorld, [&](std::int32_t rank) {
    Channel& channel = ranks[static_cast<std::size_t>(rank)]->channel(Lane::kEp, 0);
    const Status met = channel.rendezvous(rank == 3 ? 777 : 42);
    if (!met.ok()) messages[static_cast<std::size_t>(rank)] = met.error().text();
  });
  EXPECT_EQ(messages[0], "");
  EXPECT_EQ(messages[2], "");
  for (const int rank : {1, 3}) {
    const std::string& text = messages[static_cast<std::size_t>(rank)];
    EXPECT_NE(text.find("rank 1 op 42, rank 3 op 777"), std::string::npos) << text;
    EXPECT_NE(text.find("/distant"), std::string::npos) << text;
  }
}

TEST(InProcess, AbortWakesEveryWaiterWithItsError) {
  constexpr std::int32_t kWorld = 4;
  const auto ranks = make_in_process({{"world", kWorld, 1}}, kWorld);
  std::vector<std::string> messages(kWorld);
  on_all_ranks(kWorld, [&](std::int32_t rank) {
    if (rank == 3) {  // never arrives
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      ranks[3]->abort(Error::of(ErrorCode::kRun, "rank 3", "out of luck"));
      return;
    }
    std::vector<float> data(8, 1.0F);
    Channel& channel = ranks[static_cast<std::size_t>(rank)]->channel(Lane::kFsdp, 0);
    const auto done = channel.all_reduce(data.data(), 8, DType::kFloat32);
    if (!done.ok()) {
      EXPECT_EQ(done.error().code, ErrorCode::kRun);
      messages[static_cast<std::size_t>(rank)] = done.error().text();
    }
    EXPECT_FALSE(channel.rendezvous(1).ok());  // and it stays so
  });
  for (const int rank : {0, 1, 2}) {
    const std::string& text = messages[static_cast<std::size_t>(rank)];
    EXPECT_NE(text.find("out of luck"), std::string::npos) << text;
  }
}

TEST(InProcess, AbortAtAnyMomentNeitherHangsNorTearsData) {
  constexpr std::int32_t kWorld = 4;
  for (int round = 0; round < 60; ++round) {
    const auto ranks = make_in_process({{"world", kWorld, 1}}, kWorld);
    std::atomic<int> torn = 0;
    on_all_ranks(kWorld + 1, [&](std::int32_t rank) {
      if (rank == kWorld) {
        std::this_thread::sleep_for(std::chrono::microseconds(37 * round));
        ranks[0]->abort(Error::of(ErrorCode::kRun, "", "stop"));
        return;
      }
      Channel& channel = ranks[static_cast<std::size_t>(rank)]->channel(Lane::kFsdp, 0);
      while (true) {
        std::vector<double> data(3000, rank + 1.0);
        const auto done = channel.all_reduce(data.data(), 3000, DType::kFloat64);
        if (!done.ok()) return;
        for (const double x : data) torn += x == 10.0 ? 0 : 1;
      }
    });
    ASSERT_EQ(torn, 0);
  }
}

TEST(InProcess, UnequalByteCountsAreAnErrorOnAllRanks) {
  const auto ranks = make_in_process({{"world", 2, 1}}, 2);
  std::atomic<int> errors = 0;
  on_all_ranks(2, [&](std::int32_t rank) {
    const std::vector<char> send(16);
    std::vector<char> recv(16);
    const std::vector<std::int64_t> sends = {4, 4};
    const std::vector<std::int64_t> receives = rank == 0 ? std::vector<std::int64_t>{4, 5} : sends;
    Channel& channel = ranks[static_cast<std::size_t>(rank)]->channel(Lane::kEp, 0);
    errors += channel.all_to_all_v(send.data(), sends, recv.data(), receives).ok() ? 0 : 1;
    errors += channel.all_gather(send.data(), recv.data(), 4 + rank).ok() ? 0 : 1;
    errors += channel.rendezvous(5).ok() ? 0 : 100;  // the channel is whole again
  });
  EXPECT_EQ(errors, 4);
}

TEST(Reduce, Bf16RoundsToNearestEvenAndKeepsNaN) {
  std::mt19937 random(7);
  for (int i = 0; i < 200000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (std::abs(value) > 3e38F || !(value == value)) continue;
    ASSERT_EQ(bf16_of(value), test::nearest_bf16(value)) << value;
  }
  EXPECT_EQ(bf16_of(std::bit_cast<float>(0x3f808000U)), 0x3f80);  // a tie goes down to even
  EXPECT_EQ(bf16_of(std::bit_cast<float>(0x3f818000U)), 0x3f82);  // and up to even
  EXPECT_EQ(bf16_of(std::numeric_limits<float>::max()), 0x7f80);  // overflows to infinity
  const float nan = std::bit_cast<float>(0x7f800001U);            // payload in the lost bits only
  EXPECT_TRUE(float_of_bf16(bf16_of(nan)) != float_of_bf16(bf16_of(nan)));
}

TEST(Reduce, Bf16AccumulatesInFp32) {
  // 256 + 1 is lost in bf16 (8 bits) if rounded at each addition, and kept when rounded once.
  std::vector<std::uint16_t> big = {bf16_of(256)}, one = {bf16_of(1)}, out(1);
  sum_in_rank_order({big.data(), one.data(), one.data()}, out.data(), 1, DType::kBFloat16);
  EXPECT_EQ(float_of_bf16(out[0]), 258.0F);
}

TEST(Reduce, OrderIsTheRanksOrderAndOutputMayBeAnInput) {
  std::vector<float> a(3000, 1e8F), b(3000, 1.0F), c(3000, -1e8F);
  sum_in_rank_order({a.data(), b.data(), c.data()}, b.data(), 3000, DType::kFloat32);
  EXPECT_EQ(b, std::vector<float>(3000, 0.0F));  // (1e8 + 1) - 1e8 in fp32
  std::vector<float> d(3000, 1.0F);
  sum_in_rank_order({a.data(), c.data(), d.data()}, d.data(), 3000, DType::kFloat32);
  EXPECT_EQ(d, std::vector<float>(3000, 1.0F));
}

}  // namespace
}  // namespace orrery::engine
