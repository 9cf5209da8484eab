// Communicator: what a lane needs of a network. Shaped like NCCL: equal counts for all-gather and
// reduce-scatter, byte counts for all-to-all-v, groups made once, the same issue order on all
// ranks. Calls here block; the engine calls them from the lane's own worker thread (a stream).
// Reductions accumulate bf16 in fp32, fp32 in fp32, fp64 in fp64, always in rank order: the same
// inputs give the same bits on every back end.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/program/program.h"
#include "core/result.h"

namespace orrery::engine {

// Bytes counted where they are handed to the wire, the rank's own part excluded.
struct Traffic {
  std::int64_t bytes_sent = 0, bytes_received = 0;
};

// What a member is about to do, told to the others before data move.
struct Intent {
  std::uint64_t op_key = 0;
  std::int64_t bytes = 0;              // to and from each other member alike; or, where these are
  std::vector<std::int64_t> to, from;  // not empty, by member (the own part counts for nothing)
};

// One group of ranks as one of its members sees it. Not thread-safe: one lane owns it.
class Channel {
 public:
  virtual ~Channel() = default;
  virtual std::int32_t size() const = 0;
  virtual std::int32_t index() const = 0;  // of this rank in the group

  // recv holds size() * bytes; send may be recv + index() * bytes (in place), else no overlap.
  virtual Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes) = 0;
  // send holds size() * count elements, recv count: element-wise sum in rank order. recv may be
  // exactly this rank's part of send, else no overlap.
  virtual Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count,
                                         DType dtype) = 0;
  // In place sum of count elements in rank order. int64 is summed too (wrapping around).
  virtual Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype) = 0;
  // Bytes to and from each peer, contiguous in rank order, the own part included in the layout.
  // Any count may be zero. Send and recv do not overlap.
  virtual Result<Traffic> all_to_all_v(const void* send,
                                       const std::vector<std::int64_t>& send_bytes, void* recv,
                                       const std::vector<std::int64_t>& recv_bytes) = 0;
  // Waits until every member has arrived; the tracer's `ready` time. A rank that issues another
  // collective, or the same with other sizes, is found out before data move: an error (kRun) on
  // every member names both. Members that do not come within CommTuning::stall_limit are named by
  // an error too; the channel is of no use after that one.
  virtual Status rendezvous(const Intent& intent) = 0;
  Status rendezvous(std::uint64_t op_key) { return rendezvous(Intent{op_key, 0, {}, {}}); }
};

// What to add to this rank's steady_clock to read rank 0's, and how far that may be off.
struct ClockOffset {
  std::int64_t offset_ns = 0;
  std::int64_t error_ns = 0;
};

// A channel of a rank: a network lane and an index into the groups.
struct ChannelId {
  Lane lane = Lane::kFsdp;
  std::int32_t group = 0;
  auto operator<=>(const ChannelId&) const = default;
};
// Those that the ops of any role use, in ascending order: the same list on every rank.
std::vector<ChannelId> channels_of(const Program& program);
// Every network lane with every group, in ascending order.
std::vector<ChannelId> all_channels(const std::vector<Group>& groups);

// The channels of one rank: one a (lane, group), so that lanes never share a communicator.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual std::int32_t rank() const = 0;
  virtual std::int32_t world() const = 0;
  // Bug where it was not among the channels asked for.
  virtual Channel& channel(Lane lane, std::int32_t group) = 0;
  // Called by all ranks together, while no lane communicates. Zero where ranks share a clock.
  virtual Result<ClockOffset> clock_offset() = 0;
  // Ends the run on every rank. In process, waiting calls return an error that carries this one;
  // MPI prints the error and ends all processes with the error's code (kRun: 6).
  virtual void abort(const Error& error) = 0;
};

struct CommTuning {
  // MPI counts bytes in an int; larger messages are cut (tests cut much earlier).
  std::int64_t largest_message = 2147483647;  // bytes, at most the largest int
  // How long a member waits for the others before it ends the run.
  std::chrono::nanoseconds stall_limit = std::chrono::minutes(10);
  // What an op is called, for messages; empty: by its key.
  std::function<std::string(std::uint64_t op_key)> name_of_op = nullptr;
  // MPI: how the run is ended when data stop moving inside a collective, from a thread of its own;
  // empty: mpi_abort.
  std::function<void(const Error&)> on_stall = nullptr;
};

// `world` ranks as threads of this process; element r serves rank r. It has all_channels().
std::vector<std::unique_ptr<Communicator>> make_in_process(const std::vector<Group>& groups,
                                                           std::int32_t world,
                                                           const CommTuning& tuning = {});

// This process as one rank of MPI_COMM_WORLD (MPI_Init_thread with MPI_THREAD_MULTIPLE inside).
// All ranks call it together with the same groups and channels; a channel whose group has more than
// one rank takes an MPI communicator, of which there are few. Error kInvalid when the world is of
// another size. The communicator must be gone before mpi_finish().
Result<std::unique_ptr<Communicator>> make_mpi(const std::vector<Group>& groups,
                                               const std::vector<ChannelId>& channels,
                                               std::int32_t world, const CommTuning& tuning = {});

// Rank and size of this process before a plan is known (and before groups can be made).
// Starts MPI; error kRun when MPI cannot serve several threads.
struct MpiWorld {
  std::int32_t rank = 0;
  std::int32_t size = 1;
};
Result<MpiWorld> mpi_world();
void mpi_finish();
// Of the host that this process runs on, or "unknown".
std::string host_name();

// Whether every rank is ready: all ranks call it together, whatever came of their own work. Ok when
// every rank brings ok and the same fingerprint (of what they are about to do). Else an error on
// every rank, with the code of the first failed rank; only that rank's has words (and names the
// rank, unless all failed, and its host, where there are several), so that it is said once.
Status mpi_agree(const Status& mine, std::uint64_t fingerprint = 0);
// For an error of one rank while the others may wait for it: prints it and ends all processes with
// its code.
void mpi_abort(const Error& error);

}  // namespace orrery::engine
