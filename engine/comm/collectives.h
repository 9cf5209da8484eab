// A channel made of three primitives. The algorithms of reduce-scatter and all-reduce live here
// once, so that every back end has the same bits and the same bytes (core/program/wire.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/comm/communicator.h"

namespace orrery::engine {

// Where the part of each peer lies, in bytes from a base. A rank's own part always has zero bytes.
struct Parts {
  std::vector<std::int64_t> offsets;
  std::vector<std::int64_t> bytes;
};

// Who a channel serves, for arithmetic and for messages.
struct Membership {
  std::string name;  // "<lane>/<group>"
  std::int32_t size = 1;
  std::int32_t index = 0;
  std::int32_t first = 0;   // world rank of member 0
  std::int32_t stride = 1;  // between world ranks of neighbours

  static Membership of(Lane lane, const Group& group, std::int32_t rank);
  std::int32_t world_rank(std::int32_t member) const { return first + member * stride; }
};

// Bug if a group does not divide the world into instances of equal size.
void check_groups(const std::vector<Group>& groups, std::int32_t world);

// What a member lays on the table at a rendezvous.
struct Card {
  std::uint64_t op_key = 0;
  std::uint64_t balance = 0;  // zero in sum over the members when what is sent is what is expected
  std::int64_t bytes = 0;     // that the member sends to others
};

class CollectiveChannel : public Channel {
 public:
  CollectiveChannel(Membership membership, const CommTuning& tuning)
      : membership_(std::move(membership)), tuning_(tuning) {}

  std::int32_t size() const final { return membership_.size; }
  std::int32_t index() const final { return membership_.index; }
  Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes) final;
  Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count,
                                 DType dtype) final;
  Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype) final;
  Result<Traffic> all_to_all_v(const void* send, const std::vector<std::int64_t>& send_bytes,
                               void* recv, const std::vector<std::int64_t>& recv_bytes) final;
  using Channel::rendezvous;
  Status rendezvous(const Intent& intent) final;

 protected:
  const Membership& membership() const { return membership_; }
  const CommTuning& tuning() const { return tuning_; }
  std::string name_of_op(std::uint64_t key) const;
  // Of a rendezvous to which these members did not come.
  Error stalled(std::uint64_t op_key, const std::vector<std::int32_t>& missing) const;

  // The primitives; a group of one never calls them. Each returns the bytes it really moved.
  // As all_gather above; in_place means that send is recv + index() * bytes.
  virtual Result<Traffic> gather(const std::byte* send, std::byte* recv, std::int64_t bytes,
                                 bool in_place) = 0;
  virtual Result<Traffic> exchange(const std::byte* send, const Parts& send_parts, std::byte* recv,
                                   const Parts& recv_parts) = 0;
  // Waits for every member; cards[i] becomes member i's card. The long waits happen here.
  virtual Status meet(const Card& mine, Card* cards) = 0;

 private:
  Result<Traffic> sum_gathered(std::byte* data, std::int64_t count, DType dtype);
  std::byte* scratch(std::int64_t bytes);

  Card card_of(const Intent& intent) const;
  Error disagreement(const std::vector<Card>& cards) const;

  Membership membership_;
  CommTuning tuning_;
  std::unique_ptr<std::byte[]> scratch_;  // grows to the largest piece times the group's size
  std::int64_t scratch_bytes_ = 0;
};

}  // namespace orrery::engine
