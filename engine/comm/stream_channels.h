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

// A communicator over a vendor's library. `Library` has the types Id and Channel (with health()
// and abort()), and
//   Status new_id(Id& id) const;                               made by the first member of a group
//   Result<std::unique_ptr<Channel>> join(const Id& id, std::int32_t size, std::int32_t index)
//   const;
template <class Library>
class LibraryCommunicator final : public StreamCommunicator {
 public:
  explicit LibraryCommunicator(const Library& library) : library_(library) {}

  Status open(const std::vector<ChannelId>& pairs, Communicator& host) {
    for (const ChannelId& pair : pairs) {
      Channel& members = host.channel(pair.lane, pair.group);
      const auto id = std::make_unique<typename Library::Id>();
      const Status made = members.index() == 0 ? library_.new_id(*id) : Ok{};
      TRY_OK(share_id(members, id.get(), sizeof(*id)));
      TRY_OK(made);
      TRY(auto joined, library_.join(*id, members.size(), members.index()));
      channels_.add(pair, std::move(joined));
    }
    return Ok{};
  }

  StreamChannel& channel(Lane lane, std::int32_t group) override {
    return channels_.at(lane, group);
  }
  Status health() override {
    for (auto& [pair, channel] : channels_) TRY_OK(channel->health());
    return Ok{};
  }
  void abort() override {
    for (auto& [pair, channel] : channels_) channel->abort();
  }

 private:
  const Library library_;
  ChannelTable<typename Library::Channel> channels_;
};

// Loads the library and opens a channel for each pair.
template <class Library>
Result<std::unique_ptr<StreamCommunicator>> open_library(const std::vector<ChannelId>& pairs,
                                                         Communicator& host) {
  TRY(const Library library, Library::load());
  auto made = std::make_unique<LibraryCommunicator<Library>>(library);
  TRY_OK(made->open(pairs, host));
  return std::unique_ptr<StreamCommunicator>(std::move(made));
}

}  // namespace orrery::engine
