// A lane runs its jobs in order, keeps its first error, and ends.
#include "engine/lane_worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <vector>

namespace orrery::engine {
namespace {

using std::chrono::milliseconds;

Error failure(const char* what) {
  return Error::of(ErrorCode::kRun, "job", what);
}

TEST(LaneWorker, RunsInOrderAndWaitsForOneJobOnly) {
  LaneWorker lane("fsdp");
  std::vector<int> order;
  std::promise<void> gate;
  std::atomic<bool> second = false;
  const auto first = lane.post([&]() -> Status {
    order.push_back(1);
    return Ok{};
  });
  lane.post([&]() -> Status {
    gate.get_future().wait();
    order.push_back(2);
    second = true;
    return Ok{};
  });
  EXPECT_TRUE(lane.wait(first).ok());
  EXPECT_FALSE(second);
  gate.set_value();
  const auto last = lane.post([&]() -> Status {
    order.push_back(3);
    return Ok{};
  });
  EXPECT_TRUE(lane.wait(last).ok());
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_TRUE(lane.wait(first).ok());  // a wait for what ended long ago
}

TEST(LaneWorker, FirstErrorSticksAndLaterJobsAreSkipped) {
  LaneWorker lane("ep");
  std::atomic<int> ran = 0;
  lane.post([&]() -> Status { return failure("broken"); });
  const auto later = lane.post([&]() -> Status {
    ++ran;
    return failure("second");
  });
  for (int i = 0; i < 2; ++i) {
    const Status status = lane.wait(later);
    ASSERT_FALSE(status.ok());
    EXPECT_NE(status.error().text().find("broken"), std::string::npos);
  }
  EXPECT_FALSE(lane.drain().ok());
  EXPECT_EQ(ran, 0);
}

TEST(LaneWorker, AnExceptionIsAnError) {
  LaneWorker lane("ep");
  const auto op = lane.post([]() -> Status { throw std::runtime_error("from a library"); });
  const Status status = lane.wait(op);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().text().find("from a library"), std::string::npos);
}

TEST(LaneWorker, TimeoutNamesTheOpAndLeavesItRunning) {
  LaneWorker lane("ep");
  std::promise<void> gate;
  const auto op = lane.post([&]() -> Status {
    gate.get_future().wait();
    return Ok{};
  });
  int named = 0;
  const auto label = [&] {
    ++named;
    return std::string("layer.3/moe/dispatch");
  };
  const Status late = lane.wait(op, milliseconds(20), label);
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::kRun);
  EXPECT_NE(late.error().text().find("layer.3/moe/dispatch"), std::string::npos);
  gate.set_value();
  EXPECT_TRUE(lane.wait(op, milliseconds(10000), label).ok());
  EXPECT_EQ(named, 1);  // a label is made only for a message
}

TEST(LaneWorker, ShutdownSkipsWhatWasNotBegun) {
  LaneWorker lane("d2h");
  std::promise<void> begun;
  std::promise<void> gate;
  std::atomic<int> ran = 0;
  lane.post([&]() -> Status {
    begun.set_value();
    gate.get_future().wait();
    ++ran;
    return Ok{};
  });
  const auto skipped = lane.post([&]() -> Status {
    ++ran;
    return Ok{};
  });
  begun.get_future().wait();
  auto ended = std::async(std::launch::async, [&] { lane.shutdown(); });
  auto waiter = std::async(std::launch::async, [&] { return lane.wait(skipped).ok(); });
  EXPECT_EQ(ended.wait_for(milliseconds(20)), std::future_status::timeout);
  gate.set_value();
  ended.wait();
  EXPECT_FALSE(waiter.get());
  EXPECT_EQ(ran, 1);
  lane.shutdown();
}

}  // namespace
}  // namespace orrery::engine
