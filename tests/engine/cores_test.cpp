// How ranks part the cores of a node, and that a thread that gives way or hurries may do so.
#include "engine/cores.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <map>
#include <thread>
#include <vector>

namespace orrery::engine {
namespace {

std::vector<int> cores(int count) {
  std::vector<int> all;
  for (int i = 0; i < count; ++i) all.push_back(10 + 3 * i);  // numbers need not be in a row
  return all;
}

TEST(Cores, ArePartedAlike) {
  for (int available = 1; available <= 9; ++available) {
    for (std::int32_t ranks = 1; ranks <= 12; ++ranks) {
      std::map<int, int> ranks_of;  // by core
      std::size_t width = 0;
      for (std::int32_t r = 0; r < ranks; ++r) {
        const std::vector<int> part = cores_of(cores(available), {r, ranks});
        if (r == 0) width = part.size();
        EXPECT_EQ(part.size(), width) << "no rank has more than another";
        for (const int core : part) ++ranks_of[core];
      }
      for (const auto& [core, sharing] : ranks_of) {
        EXPECT_EQ(sharing, ranks_of.begin()->second) << "no core has more ranks than another";
      }
      if (ranks <= available) {
        EXPECT_EQ(ranks_of.begin()->second, 1) << "a core is one rank's where there are enough";
      }
    }
  }
}

TEST(Cores, NeighboursShareOne) {
  // As the clock has it: ranks in a row share cores (ClockRates::core_ranks).
  const std::vector<int> two = cores(2);
  EXPECT_EQ(cores_of(two, {0, 4}), (std::vector<int>{10}));
  EXPECT_EQ(cores_of(two, {1, 4}), (std::vector<int>{10}));
  EXPECT_EQ(cores_of(two, {2, 4}), (std::vector<int>{13}));
  EXPECT_EQ(cores_of(two, {0, 3}), two) << "three ranks cannot share two cores alike";
  EXPECT_EQ(cores_of(cores(5), {1, 2}), (std::vector<int>{16, 19}));
}

TEST(Cores, AProcessIsHeldToItsPart) {
  // In a thread: affinity and niceness are of the thread that asks.
  std::thread([] {
    const CoreShare share = hold_to_cores({0, 1});
    EXPECT_GE(share.cores, 1);
    EXPECT_TRUE(share.first);
    cpu_set_t before, after;
    ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    const CoreShare half = hold_to_cores({1, 2});
    ASSERT_EQ(sched_getaffinity(0, sizeof after, &after), 0);
    const int had = CPU_COUNT(&before);
    if (had == 1) {
      EXPECT_DOUBLE_EQ(half.cores, 0.5);
      EXPECT_FALSE(half.first);
    } else {
      EXPECT_EQ(CPU_COUNT(&after), had / 2);
      EXPECT_TRUE(half.first);
    }
    be_prompt();
    give_way();
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 10);
  }).join();
}

}  // namespace
}  // namespace orrery::engine
