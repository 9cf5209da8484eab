// The emulated link: its words, its times from below, what it leaves alone, and sharing.
#include "engine/comm/emulated.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/engine/comm_cases.h"

namespace orrery::engine {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

template <class Body>
void on_all_ranks(std::int32_t world, Body body) {
  std::vector<std::thread> threads;
  for (std::int32_t rank = 0; rank < world; ++rank) threads.emplace_back([&, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

LinkOptions link_of(double bytes_per_second, double latency_s) {
  LinkOptions link;
  link.bandwidth = BytesPerSecond(bytes_per_second);
  link.latency = Seconds(latency_s);
  return link;
}

TEST(EmulatedLink, ReadsItsWords) {
  const auto link = parse_link("100 Mbit/s, 1 ms, shared, ep", "--emulate-link");
  ASSERT_TRUE(link.ok()) << link.error().text();
  EXPECT_EQ(link.value().bandwidth.value(), 12.5e6);
  EXPECT_EQ(link.value().latency.value(), 1e-3);
  EXPECT_TRUE(link.value().shared);
  EXPECT_EQ(link.value().only, std::vector<std::string>{"ep"});
  const auto again = parse_link(to_text(link.value()), "");
  ASSERT_TRUE(again.ok()) << to_text(link.value());
  EXPECT_EQ(to_text(again.value()), to_text(link.value()));
  EXPECT_TRUE(check_link(link.value(), test::groups_of(4), "").ok());
  for (const char* wrong : {"", "100 Mbit/s", "1 ms,100 Mbit/s", "100,1 ms", "0 B/s,1 ms",
                            "100 Mbit/s,1 ms,", "100 Mbit/s,-1 ms"}) {
    const auto refused = parse_link(wrong, "--emulate-link");
    ASSERT_FALSE(refused.ok()) << wrong;
    EXPECT_EQ(refused.error().code, ErrorCode::kUsage) << wrong;
    EXPECT_NE(refused.error().text().find("--emulate-link"), std::string::npos) << wrong;
  }
  LinkOptions unknown = link.value();
  unknown.only = {"nvlink"};
  EXPECT_FALSE(check_link(unknown, test::groups_of(4), "").ok());
}

// The same data and the same traffic as without it, and never faster than the link.
TEST(EmulatedLink, MovesTheSameBytesNoFasterThanTheLink) {
  constexpr std::int32_t kWorld = 4;
  constexpr double kRate = 1e6, kLatency = 1e-3;
  const std::vector<Group> groups = test::groups_of(kWorld);
  const auto ranks = make_in_process(groups, kWorld);
  std::vector<std::string> wrong(kWorld);
  std::vector<double> took(kWorld), least(kWorld);
  on_all_ranks(kWorld, [&](std::int32_t rank) {
    const auto r = static_cast<std::size_t>(rank);
    const auto slow = make_emulated(*ranks[r], groups, link_of(kRate, kLatency));
    const auto start = Clock::now();
    const auto actual = test::run_script(slow->channel(Lane::kFsdp, 0), 5, 0, 1);
    took[r] = std::chrono::duration<double>(Clock::now() - start).count();
    if (!actual.ok()) {
      wrong[r] = actual.error().text();
      return;
    }
    wrong[r] = test::difference(actual.value(), test::expected_outcome(5, kWorld, rank, 0, 1));
    for (const Traffic& t : actual.value().traffic) {
      least[r] += static_cast<double>(std::max(t.bytes_sent, t.bytes_received)) / kRate;
      least[r] += 2 * kLatency;  // log2 of 4 members
    }
  });
  for (std::size_t r = 0; r < kWorld; ++r) {
    EXPECT_EQ(wrong[r], "");
    EXPECT_GT(least[r], 0.03);
    EXPECT_GE(took[r], least[r]);
  }
}

// The time begins when the last member has come, and counts from there for all of them.
TEST(EmulatedLink, CountsFromTheRendezvous) {
  const std::vector<Group> groups = {{"world", 2, 1}};
  const auto ranks = make_in_process(groups, 2);
  std::vector<Clock::time_point> came(2), went(2);
  on_all_ranks(2, [&](std::int32_t rank) {
    const auto r = static_cast<std::size_t>(rank);
    const auto slow = make_emulated(*ranks[r], groups, link_of(1e9, 50e-3));
    Channel& channel = slow->channel(Lane::kEp, 0);
    if (rank == 1) std::this_thread::sleep_for(milliseconds(60));
    came[r] = Clock::now();
    double value = 1;
    ASSERT_TRUE(channel.rendezvous(1).ok());
    ASSERT_TRUE(channel.all_reduce(&value, 1, DType::kFloat64).ok());
    went[r] = Clock::now();
    EXPECT_EQ(value, 2);
  });
  const Clock::time_point last = std::max(came[0], came[1]);
  EXPECT_GE(went[0], last + milliseconds(50));
  EXPECT_GE(went[1], last + milliseconds(50));
}

TEST(EmulatedLink, OthersStayAsTheyWere) {
  const std::vector<Group> groups = {{"world", 1, 1}, {"pair", 1, 1}};
  const auto ranks = make_in_process(groups, 1);
  LinkOptions link = link_of(1, 1);
  link.only = {"pair", "ep"};
  const auto slow = make_emulated(*ranks[0], groups, link);
  EXPECT_EQ(&slow->channel(Lane::kFsdp, 0), &ranks[0]->channel(Lane::kFsdp, 0));
  EXPECT_NE(&slow->channel(Lane::kFsdp, 1), &ranks[0]->channel(Lane::kFsdp, 1));
  EXPECT_NE(&slow->channel(Lane::kEp, 0), &ranks[0]->channel(Lane::kEp, 0));
}

// Two lanes at once over one link take as long as one after the other, on every member: also on one
// whose own link was free.
TEST(EmulatedLink, OneSharedLinkCarriesOneTransferAtATime) {
  constexpr std::int64_t kBytes = 20000;  // 40 ms
  const std::vector<Group> groups = {{"world", 2, 1}};
  for (const bool shared : {false, true}) {
    const auto ranks = make_in_process(groups, 2);
    LinkOptions link = link_of(5e5, 0);
    link.shared = shared;
    std::vector<std::unique_ptr<Communicator>> slow;
    for (const auto& rank : ranks) slow.push_back(make_emulated(*rank, groups, link));
    std::vector<Clock::time_point> ends(4);
    const auto start = Clock::now();
    on_all_ranks(4, [&](std::int32_t thread) {
      const auto lane = thread / 2 == 0 ? Lane::kFsdp : Lane::kEp;
      Channel& channel = slow[static_cast<std::size_t>(thread % 2)]->channel(lane, 0);
      std::vector<char> send(kBytes), recv(2 * kBytes);
      ASSERT_TRUE(channel.rendezvous(7).ok());
      ASSERT_TRUE(channel.all_gather(send.data(), recv.data(), kBytes).ok());
      ends[static_cast<std::size_t>(thread)] = Clock::now();
    });
    for (std::size_t rank = 0; rank < 2; ++rank) {
      const auto last = std::max(ends[rank], ends[rank + 2]) - start;
      EXPECT_GE(last, milliseconds(shared ? 80 : 40));
    }
  }
}

}  // namespace
}  // namespace orrery::engine
