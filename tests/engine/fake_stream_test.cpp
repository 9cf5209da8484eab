// The fake streams keep the order of a device's streams: what they must promise, and not more.
#include "tests/engine/fake_stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace orrery::engine::test {
namespace {

TEST(FakeStreamTest, RunsJobsInOrderAndAfterTheirEvents) {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    FakeStream a(seed), b(seed + 100);
    std::vector<int> seen;  // the events alone keep the two threads apart
    for (int i = 0; i < 50; ++i) {
      a.enqueue([&seen, i] { seen.push_back(2 * i); });
      b.wait_for(a.record());
      b.enqueue([&seen, i] { seen.push_back(2 * i + 1); });
      a.wait_for(b.record());
    }
    a.synchronize();
    b.synchronize();
    ASSERT_EQ(seen.size(), 100u);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
  }
}

// Without an event some seed lets the second stream overtake the first: else the delays test
// nothing.
TEST(FakeStreamTest, OvertakesWithoutAnEvent) {
  int overtaken = 0;
  for (std::uint64_t seed = 0; seed < 16; ++seed) {
    FakeStream a(seed), b(seed + 100);
    std::atomic<int> done = 0;
    for (int i = 0; i < 200; ++i) {
      a.enqueue([&] { ++done; });
    }
    int seen = 0;
    b.enqueue([&] { seen = done; });
    a.synchronize();
    b.synchronize();
    overtaken += seen < 200 ? 1 : 0;
  }
  EXPECT_GE(overtaken, 4);  // of 16: a quarter of the seeds delays nothing
}

TEST(FakeStreamTest, AFailureDropsLaterJobsButNoEvent) {
  FakeStream a(1), b(2);
  bool ran = false;
  a.enqueue([] { throw std::runtime_error("no such address"); });
  a.enqueue([&] { ran = true; });
  b.wait_for(a.record());
  b.synchronize();
  try {
    a.synchronize();
    FAIL() << "the failure was not reported";
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "no such address");
  }
  EXPECT_FALSE(ran);
  a.synchronize();  // said once
}

TEST(FakeStreamTest, ALibraryEnqueuesByTheHandle) {
  FakeStream stream(3);
  auto* entry = static_cast<StreamEntry*>(stream.handle());
  std::vector<int> seen;
  stream.enqueue([&] { seen.push_back(1); });
  entry->enqueue(
      entry, [](void* v) { static_cast<std::vector<int>*>(v)->push_back(2); }, &seen);
  stream.synchronize();
  EXPECT_EQ(seen, (std::vector<int>{1, 2}));
}

}  // namespace
}  // namespace orrery::engine::test
