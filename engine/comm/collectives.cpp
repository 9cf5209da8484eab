// Reduce-scatter as all-to-all and a local sum: MPI's own moves up to three times the bytes and
// leaves the order of summation open. It works in pieces, so that scratch memory stays small.
#include "engine/comm/collectives.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/check.h"
#include "core/program/wire.h"
#include "engine/comm/reduce.h"

namespace orrery::engine {
namespace {

// Bytes from each peer that a reduce-scatter sums at a time: a few of them fit the caches.
constexpr std::int64_t kPieceBytes = 1024 * 1024;

void add(Traffic& total, const Traffic& more) {
  total.bytes_sent += more.bytes_sent;
  total.bytes_received += more.bytes_received;
}

void copy(void* to, const void* from, std::int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

Parts contiguous(const std::vector<std::int64_t>& bytes, std::size_t own) {
  Parts parts;
  std::int64_t offset = 0;
  for (std::size_t peer = 0; peer < bytes.size(); ++peer) {
    CHECK(bytes[peer] >= 0, "negative bytes for a peer");
    parts.offsets.push_back(offset);
    parts.bytes.push_back(peer == own ? 0 : bytes[peer]);
    offset += bytes[peer];
  }
  return parts;
}

Parts strided(std::int64_t start, std::int64_t stride, std::int64_t bytes, std::int32_t size,
              std::int32_t own) {
  Parts parts;
  for (std::int32_t peer = 0; peer < size; ++peer) {
    parts.offsets.push_back(start + peer * stride);
    parts.bytes.push_back(peer == own ? 0 : bytes);
  }
  return parts;
}

}  // namespace

Membership Membership::of(Lane lane, const Group& group, std::int32_t rank) {
  return {std::string(name_of(lane)) + "/" + group.name, group.size, group.index_of(rank),
          group.first_of(rank), group.stride};
}

std::vector<ChannelId> channels_of(const Program& program) {
  std::set<ChannelId> used;
  for (const Role& role : program.roles) {
    for (const Op& op : role.ops) {
      if (is_collective(op.kind) && op.lane != Lane::kCompute) used.insert({op.lane, op.group});
    }
  }
  return {used.begin(), used.end()};
}

std::vector<ChannelId> all_channels(const std::vector<Group>& groups) {
  std::vector<ChannelId> all;
  for (const Lane lane : kNetworkLanes) {
    for (std::int32_t group = 0; group < std::ssize(groups); ++group) all.push_back({lane, group});
  }
  return all;
}

void check_groups(const std::vector<Group>& groups, std::int32_t world) {
  for (const Group& group : groups) {
    CHECK(group.size >= 1 && group.stride >= 1 && world % (group.size * group.stride) == 0,
          "group " + group.name + " does not divide the world");
  }
}

std::byte* CollectiveChannel::scratch(std::int64_t bytes) {
  if (bytes > scratch_bytes_) {
    scratch_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes));
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

Result<Traffic> CollectiveChannel::all_gather(const void* send, void* recv, std::int64_t bytes) {
  CHECK(bytes >= 0, "negative bytes in an all-gather");
  auto* target = static_cast<std::byte*>(recv);
  if (bytes == 0) return Traffic{};  // equal on all members, so nobody waits
  if (size() == 1) {
    copy(recv, send, bytes);
    return Traffic{};
  }
  const bool in_place = send == target + index() * bytes;
  return gather(static_cast<const std::byte*>(send), target, bytes, in_place);
}

Result<Traffic> CollectiveChannel::reduce_scatter(const void* send, void* recv, std::int64_t count,
                                                  DType dtype) {
  CHECK(count >= 0, "negative count in a reduce-scatter");
  const std::int64_t element = size_of(dtype);
  if (size() == 1) {
    copy(recv, send, count * element);
    return Traffic{};
  }
  const auto* source = static_cast<const std::byte*>(send);
  const std::int64_t piece = kPieceBytes / element;
  Traffic traffic;
  for (std::int64_t start = 0; start < count; start += piece) {
    const std::int64_t length = std::min(piece, count - start);
    const std::int64_t bytes = length * element;
    std::byte* received = scratch(bytes * size());
    const Parts from = strided(start * element, count * element, bytes, size(), index());
    const Parts to = strided(0, bytes, bytes, size(), index());
    TRY(const Traffic moved, exchange(source, from, received, to));
    add(traffic, moved);
    std::vector<const void*> terms;
    for (std::int32_t peer = 0; peer < size(); ++peer) {
      const auto i = static_cast<std::size_t>(peer);
      terms.push_back(peer == index() ? source + from.offsets[i] : received + to.offsets[i]);
    }
    sum_in_rank_order(terms, static_cast<std::byte*>(recv) + start * element, length, dtype);
  }
  return traffic;
}

Result<Traffic> CollectiveChannel::all_reduce(void* data, std::int64_t count, DType dtype) {
  CHECK(count >= 0, "negative count in an all-reduce");
  if (size() == 1 || count == 0) return Traffic{};
  auto* bytes = static_cast<std::byte*>(data);
  const std::int64_t element = size_of(dtype);
  if (count * element <= kAllReduceGatherLimit) return sum_gathered(bytes, count, dtype);

  const std::int64_t part = count / size();
  const std::int64_t rest = count % size();
  std::byte* own = bytes + index() * part * element;
  TRY(Traffic traffic, reduce_scatter(data, own, part, dtype));
  TRY(const Traffic gathered, all_gather(own, data, part * element));
  add(traffic, gathered);
  if (rest > 0) {
    TRY(const Traffic tail, sum_gathered(bytes + part * size() * element, rest, dtype));
    add(traffic, tail);
  }
  return traffic;
}

Result<Traffic> CollectiveChannel::sum_gathered(std::byte* data, std::int64_t count, DType dtype) {
  const std::int64_t bytes = count * size_of(dtype);
  std::byte* all = scratch(bytes * size());
  TRY(const Traffic traffic, gather(data, all, bytes, /*in_place=*/false));
  std::vector<const void*> terms;
  for (std::int32_t peer = 0; peer < size(); ++peer) terms.push_back(all + peer * bytes);
  sum_in_rank_order(terms, data, count, dtype);
  return traffic;
}

Result<Traffic> CollectiveChannel::all_to_all_v(const void* send,
                                                const std::vector<std::int64_t>& send_bytes,
                                                void* recv,
                                                const std::vector<std::int64_t>& recv_bytes) {
  const auto members = static_cast<std::size_t>(size());
  const auto own = static_cast<std::size_t>(index());
  CHECK(send_bytes.size() == members && recv_bytes.size() == members,
        membership_.name + ": an all-to-all-v needs a byte count for each member");
  CHECK(send_bytes[own] == recv_bytes[own], membership_.name + ": own part differs");
  const Parts from = contiguous(send_bytes, own);
  const Parts to = contiguous(recv_bytes, own);
  const auto* source = static_cast<const std::byte*>(send);
  auto* target = static_cast<std::byte*>(recv);
  if (send_bytes[own] > 0) {
    copy(target + to.offsets[own], source + from.offsets[own], send_bytes[own]);
  }
  if (size() == 1) return Traffic{};
  return exchange(source, from, target, to);
}

Status CollectiveChannel::rendezvous(std::uint64_t op_key) {
  if (size() == 1) return Ok{};
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(size()));
  TRY_OK(meet(op_key, keys.data()));
  if (std::all_of(keys.begin(), keys.end(), [&](std::uint64_t key) { return key == keys[0]; })) {
    return Ok{};
  }
  std::string who;
  for (std::int32_t member = 0; member < size(); ++member) {
    who += (member == 0 ? "rank " : ", rank ") + std::to_string(membership_.world_rank(member)) +
           " op " + std::to_string(keys[static_cast<std::size_t>(member)]);
  }
  return Error::of(ErrorCode::kRun, membership_.name,
                   "the members issued different collectives: " + who,
                   "all ranks must run the same program; compare their plan files");
}

}  // namespace orrery::engine
