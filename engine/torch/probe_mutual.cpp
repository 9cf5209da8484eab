// Compute alone and beside transfers, in turns: what drifts on the machine is in both.
#include "engine/torch/probe_mutual.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <vector>

#include "core/check.h"
#include "engine/cores.h"
#include "engine/lane_worker.h"
#include "engine/torch/executor.h"
#include "engine/torch/probe_blocks.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

constexpr int kTurns = 4;
constexpr double kTurn = 1.2;  // seconds

// Runs a second, while `more`.
double rate_while(const Block& block, const std::function<bool()>& more) {
  const std::int64_t begin = now_ns();
  const std::int64_t times = repeat_block(block, more);
  return static_cast<double>(times) / (static_cast<double>(now_ns() - begin) * 1e-9);
}

}  // namespace

double core_seconds_a_byte(Channel& channel, std::int64_t bytes, double transfer_s,
                           double rank_cores) {
  const Block block = linear_block(128, 256, 256, DType::kFloat32);
  const std::int32_t world = channel.size();
  std::vector<char> send(static_cast<std::size_t>(bytes));
  std::vector<char> receive(static_cast<std::size_t>(bytes * world));
  const int rounds = static_cast<int>(std::clamp(kTurn / transfer_s, 2.0, 5000.0));
  LaneWorker lane("probe");
  give_way();
  std::uint64_t key = 1 << 20;
  double alone = 0, beside = 0, received = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    CHECK(channel.rendezvous(++key).ok(), "probe: meeting");
    const std::int64_t until = now_ns() + static_cast<std::int64_t>(kTurn * 1e9);
    alone += rate_while(block, [&] { return now_ns() < until; }) / kTurns;
    CHECK(channel.rendezvous(++key).ok(), "probe: meeting");
    const std::int64_t begin = now_ns();
    std::atomic<bool> done = false;
    lane.post([&]() -> Status {
      for (int i = 0; i < rounds; ++i) {
        TRY_OK(channel.rendezvous(key + 1 + static_cast<std::uint64_t>(i)));
        TRY_OK(channel.all_gather(send.data(), receive.data(), bytes));
      }
      done = true;
      return Ok{};
    });
    beside += rate_while(block, [&] { return !done; }) / kTurns;
    CHECK(lane.drain().ok(), "probe: transfers");
    key += static_cast<std::uint64_t>(rounds);
    received += static_cast<double>(bytes) * (world - 1) * rounds /
                (static_cast<double>(now_ns() - begin) * 1e-9) / kTurns;
  }
  double sums[3] = {alone, beside, received};
  CHECK(channel.all_reduce(sums, 3, DType::kFloat64).ok(), "probe: sums");
  const double lost = 1 - sums[1] / sums[0];
  return std::max(0.0, lost * std::min(1.0, rank_cores) / (sums[2] / world));
}

}  // namespace orrery::engine
