// See the header.
#include "engine/comm/stream_channels.h"

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

}  // namespace orrery::engine
