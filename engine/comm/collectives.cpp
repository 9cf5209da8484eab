// Reduce-scatter as all-to-all and a local sum: MPI's own moves up to three times the bytes and
// leaves the order of summation open. It works in pieces, so that scratch memory stays small.
#include "engine/comm/collectives.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/check.h"
#include "core/program/wire.h"
#include "core/quantity.h"
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

// A random-looking word for "`from` hands `to` so many bytes". Each is added by the sender and
// taken away by the receiver: over all members nothing remains, unless two see the same message
// otherwise.
std::uint64_t token(std::int32_t from, std::int32_t to, std::int64_t bytes) {
  std::uint64_t word = static_cast<std::uint64_t>(bytes) * 0x9e3779b97f4a7c15U +
                       static_cast<std::uint64_t>(from) * 0xc2b2ae3d27d4eb4fU +
                       static_cast<std::uint64_t>(to) * 0x165667b19e3779f9U;
  word = (word ^ (word >> 31)) * 0xbf58476d1ce4e5b9U;
  word = (word ^ (word >> 29)) * 0x94d049bb133111ebU;
  return word ^ (word >> 32);
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

std::string CollectiveChannel::name_of_op(std::uint64_t key) const {
  return tuning_.name_of_op ? tuning_.name_of_op(key) : std::to_string(key);
}

Card CollectiveChannel::card_of(const Intent& intent) const {
  Card card{intent.op_key, 0, 0};
  for (std::int32_t member = 0; member < size(); ++member) {
    if (member == index()) continue;
    const auto at = static_cast<std::size_t>(member);
    const std::int64_t to = intent.to.empty() ? intent.bytes : intent.to[at];
    const std::int64_t from = intent.from.empty() ? intent.bytes : intent.from[at];
    card.balance += token(index(), member, to) - token(member, index(), from);
    card.bytes += to;
  }
  return card;
}

Error CollectiveChannel::disagreement(const std::vector<Card>& cards) const {
  const bool same_op = std::all_of(
      cards.begin(), cards.end(), [&](const Card& card) { return card.op_key == cards[0].op_key; });
  std::string who;
  for (std::int32_t member = 0; member < size(); ++member) {
    const Card& card = cards[static_cast<std::size_t>(member)];
    who += (member == 0 ? "rank " : ", rank ") + std::to_string(membership_.world_rank(member)) +
           " op " + name_of_op(card.op_key) +
           (same_op ? " sends " + std::to_string(card.bytes) + " bytes" : "");
  }
  return Error::of(ErrorCode::kRun, membership_.name,
                   (same_op ? "the members expect other sizes than are sent: "
                            : "the members issued different collectives: ") +
                       who,
                   "all ranks must run the same program; compare their plan files");
}

Error CollectiveChannel::stalled(std::uint64_t op_key,
                                 const std::vector<std::int32_t>& missing) const {
  std::string who;
  for (const std::int32_t member : missing) {
    who += (who.empty() ? "rank " : ", rank ") + std::to_string(membership_.world_rank(member));
  }
  const auto waited = std::chrono::duration<double>(tuning_.stall_limit).count();
  return Error::of(ErrorCode::kRun, membership_.name,
                   who + " did not come to op " + name_of_op(op_key) + " within " +
                       format_seconds(Seconds(waited)),
                   "that rank hangs, or waits for another; where steps take this long, raise "
                   "--stall-limit");
}

Status CollectiveChannel::rendezvous(const Intent& intent) {
  if (size() == 1) return Ok{};
  const auto members = static_cast<std::size_t>(size());
  CHECK(
      intent.to.size() == intent.from.size() && (intent.to.empty() || intent.to.size() == members),
      "sizes for some members only");
  std::vector<Card> cards(members);
  TRY_OK(meet(card_of(intent), cards.data()));
  std::uint64_t balance = 0;
  bool equal = true;
  for (const Card& card : cards) {
    balance += card.balance;
    equal = equal && card.op_key == cards[0].op_key;
  }
  if (equal && balance == 0) return Ok{};
  return disagreement(cards);
}

}  // namespace orrery::engine
