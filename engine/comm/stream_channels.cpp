// See the header.
#include "engine/comm/stream_channels.h"

#include <algorithm>
#include <cstring>

namespace orrery::engine {

Traffic exchange_traffic(const std::vector<std::int64_t>& sent,
                         const std::vector<std::int64_t>& received, std::int32_t own) {
  Traffic traffic;
  for (std::size_t peer = 0; peer < sent.size(); ++peer) {
    if (peer == static_cast<std::size_t>(own)) continue;
    traffic.bytes_sent += sent[peer];
    traffic.bytes_received += received[peer];
  }
  return traffic;
}

Status share_id(Channel& channel, void* id, std::size_t bytes) {
  if (channel.size() == 1) return Ok{};
  std::vector<std::byte> all(bytes * static_cast<std::size_t>(channel.size()));
  TRY_OK(channel.all_gather(id, all.data(), static_cast<std::int64_t>(bytes)));
  std::memcpy(id, all.data(), bytes);
  return Ok{};
}

std::vector<LaneGroup> lane_groups(const Program& program, std::int32_t rank) {
  std::vector<LaneGroup> pairs;
  for (const Op& op : program.role_of(rank).ops) {
    if (op.lane == Lane::kCompute || op.group < 0 || !is_collective(op.kind)) continue;
    const auto same = [&](const LaneGroup& p) { return p.lane == op.lane && p.group == op.group; };
    if (std::none_of(pairs.begin(), pairs.end(), same)) pairs.push_back({op.lane, op.group});
  }
  std::sort(pairs.begin(), pairs.end(), [](const LaneGroup& a, const LaneGroup& b) {
    return std::pair(a.lane, a.group) < std::pair(b.lane, b.group);
  });
  return pairs;
}

}  // namespace orrery::engine
