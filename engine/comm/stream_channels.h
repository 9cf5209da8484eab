// What the back ends over vendors' libraries share: the table of channels, the traffic of a call,
// and how an id reaches the members of a group. Only for engine/comm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/program/wire.h"
#include "engine/comm/stream_communicator.h"

namespace orrery::engine {

inline Traffic traffic_of(WireBytes wire) {
  return {wire.sent, wire.received};
}

// Bytes to and from the other members.
Traffic exchange_traffic(const std::vector<std::int64_t>& sent,
                         const std::vector<std::int64_t>& received, std::int32_t own);

// Member 0's `bytes` at `id` come to every member of the group.
Status share_id(Channel& channel, void* id, std::size_t bytes);

// The channels by pair. `Channel` is the back end's.
template <class BackEnd>
class ChannelTable {
 public:
  void add(ChannelId pair, std::unique_ptr<BackEnd> channel) {
    rows_.emplace_back(pair, std::move(channel));
  }
  BackEnd& at(Lane lane, std::int32_t group) {
    for (auto& [pair, channel] : rows_) {
      if (pair.lane == lane && pair.group == group) return *channel;
    }
    CHECK(false, std::string("no communicator of lane ") + name_of(lane) + " and group " +
                     std::to_string(group));
  }
  auto begin() { return rows_.begin(); }
  auto end() { return rows_.end(); }

 private:
  std::vector<std::pair<ChannelId, std::unique_ptr<BackEnd>>> rows_;
};

}  // namespace orrery::engine
