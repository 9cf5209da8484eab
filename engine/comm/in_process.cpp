// Ranks as threads of one process. Each group instance of a lane is a room: members lay their
// buffers on the table, wait until all have arrived, copy what is theirs, and wait until all have
// copied. The tests run whole worlds on it; it is the reference for the other back ends.
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "core/check.h"
#include "engine/comm/collectives.h"

namespace orrery::engine {
namespace {

struct Room;

// What all ranks share. Rooms are made before any thread starts and live as long as one rank does.
struct House {
  std::mutex mutex;
  std::atomic<bool> aborted = false;
  Error error;  // the first; written once before `aborted`
  std::map<std::pair<ChannelId, std::int32_t>, std::unique_ptr<Room>> rooms;  // by first rank
};

struct Room {
  // What a member lays out for the others. Read by them between the two barriers only.
  struct Seat {
    const std::byte* send = nullptr;
    Parts send_parts;
    std::vector<std::int64_t> recv_bytes;
    std::int64_t bytes = 0;
    std::uint64_t key = 0;
  };

  explicit Room(std::int32_t size) : seats(static_cast<std::size_t>(size)) {}

  std::mutex mutex;
  std::condition_variable changed;
  std::size_t arrived = 0;
  std::uint64_t generation = 0;
  std::vector<Seat> seats;

  // Waits for all members. With `house`, gives up once it is aborted: false. Either every member
  // passes or none does: the last to arrive looks at `aborted` under the same lock.
  bool barrier(const House* house) {
    std::unique_lock lock(mutex);
    const auto gone = [&] { return house != nullptr && house->aborted.load(); };
    if (gone()) return false;
    const std::uint64_t now = generation;
    if (++arrived == seats.size()) {
      arrived = 0;
      ++generation;
      changed.notify_all();
      return true;
    }
    changed.wait(lock, [&] { return generation != now || gone(); });
    return generation != now;
  }
};

class InProcessChannel final : public CollectiveChannel {
 public:
  InProcessChannel(Membership membership, House& house, Room& room)
      : CollectiveChannel(std::move(membership)), house_(house), room_(room) {}

 protected:
  Result<Traffic> gather(const std::byte* send, std::byte* recv, std::int64_t bytes,
                         bool in_place) override;
  Result<Traffic> exchange(const std::byte* send, const Parts& send_parts, std::byte* recv,
                           const Parts& recv_parts) override;
  Status meet(std::uint64_t key, std::uint64_t* keys) override;

 private:
  Room::Seat& seat() { return room_.seats[static_cast<std::size_t>(index())]; }
  Status arrive() {
    if (room_.barrier(&house_)) return Ok{};
    Error error = Error::of(ErrorCode::kRun, membership().name, "another rank ended the run");
    const std::lock_guard lock(house_.mutex);
    for (const Problem& problem : house_.error.problems) error.problems.push_back(problem);
    return error;
  }
  // Not to be woken by an abort: a neighbour may still be copying from this rank's buffers.
  void leave() { room_.barrier(nullptr); }
  Error mismatch(const std::string& what) const {
    return Error::of(ErrorCode::kRun, membership().name, "the members disagree: " + what);
  }

  House& house_;
  Room& room_;
};

Result<Traffic> InProcessChannel::gather(const std::byte* send, std::byte* recv, std::int64_t bytes,
                                         bool in_place) {
  seat().send = send;
  seat().bytes = bytes;
  TRY_OK(arrive());
  Traffic traffic;
  bool equal = true;
  for (const Room::Seat& other : room_.seats) equal = equal && other.bytes == bytes;
  for (std::int32_t member = 0; equal && member < size(); ++member) {
    const bool own = member == index();
    if (!(own && in_place)) {
      std::memcpy(recv + member * bytes, room_.seats[static_cast<std::size_t>(member)].send,
                  static_cast<std::size_t>(bytes));
    }
    if (!own) {
      traffic.bytes_sent += bytes;
      traffic.bytes_received += bytes;
    }
  }
  leave();
  if (!equal) return mismatch("different sizes in an all-gather");
  return traffic;
}

Result<Traffic> InProcessChannel::exchange(const std::byte* send, const Parts& send_parts,
                                           std::byte* recv, const Parts& recv_parts) {
  seat().send = send;
  seat().send_parts = send_parts;
  seat().recv_bytes = recv_parts.bytes;
  TRY_OK(arrive());
  Traffic traffic;
  const auto members = static_cast<std::size_t>(size());
  const auto own = static_cast<std::size_t>(index());
  bool equal = true;
  for (std::size_t from = 0; from < members; ++from) {
    for (std::size_t to = 0; to < members; ++to) {
      equal = equal && room_.seats[from].send_parts.bytes[to] == room_.seats[to].recv_bytes[from];
    }
  }
  for (std::size_t peer = 0; equal && peer < members; ++peer) {
    const Room::Seat& other = room_.seats[peer];
    const std::int64_t bytes = recv_parts.bytes[peer];
    traffic.bytes_sent += send_parts.bytes[peer];
    traffic.bytes_received += bytes;
    if (bytes == 0) continue;
    std::memcpy(recv + recv_parts.offsets[peer], other.send + other.send_parts.offsets[own],
                static_cast<std::size_t>(bytes));
  }
  leave();
  if (!equal) return mismatch("bytes sent and bytes expected differ in an all-to-all-v");
  return traffic;
}

Status InProcessChannel::meet(std::uint64_t key, std::uint64_t* keys) {
  seat().key = key;
  TRY_OK(arrive());
  for (const Room::Seat& other : room_.seats) *keys++ = other.key;
  leave();
  return Ok{};
}

class InProcess final : public Communicator {
 public:
  InProcess(std::shared_ptr<House> house, const std::vector<Group>& groups, std::int32_t rank,
            std::int32_t world)
      : house_(std::move(house)), rank_(rank), world_(world) {
    for (const ChannelId id : all_channels(groups)) {
      const Group& group = groups[static_cast<std::size_t>(id.group)];
      std::unique_ptr<Room>& room = house_->rooms[{id, group.first_of(rank)}];
      if (!room) room = std::make_unique<Room>(group.size);
      channels_.emplace(id, std::make_unique<InProcessChannel>(Membership::of(id.lane, group, rank),
                                                               *house_, *room));
    }
  }

  std::int32_t rank() const override { return rank_; }
  std::int32_t world() const override { return world_; }
  Channel& channel(Lane lane, std::int32_t group) override {
    const auto found = channels_.find({lane, group});
    CHECK(found != channels_.end(), "no such channel");
    return *found->second;
  }
  Result<ClockOffset> clock_offset() override { return ClockOffset{}; }

  void abort(const Error& error) override {
    {
      const std::lock_guard lock(house_->mutex);
      if (house_->aborted) return;
      house_->error = error;
      house_->aborted = true;
    }
    for (const auto& [place, room] : house_->rooms) {
      { const std::lock_guard lock(room->mutex); }  // nobody is between its test and its wait
      room->changed.notify_all();
    }
  }

 private:
  std::shared_ptr<House> house_;
  std::int32_t rank_ = 0;
  std::int32_t world_ = 1;
  std::map<ChannelId, std::unique_ptr<InProcessChannel>> channels_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_in_process(const std::vector<Group>& groups,
                                                           std::int32_t world) {
  check_groups(groups, world);
  auto house = std::make_shared<House>();
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (std::int32_t rank = 0; rank < world; ++rank) {
    ranks.push_back(std::make_unique<InProcess>(house, groups, rank, world));
  }
  return ranks;
}

}  // namespace orrery::engine
