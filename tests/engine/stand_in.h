// What the stand-ins of the two communication libraries share: members found over MPI, collectives
// on host memory, and jobs on fake streams. Built into shared objects that the engine loads as it
// would load the vendors' own. Sums go around a ring, rounded to their type at every hop, so that
// their order is not that of the engine's other back ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace orrery::engine::test {

enum class Element { kUint8, kInt64, kFloat32, kFloat64, kBfloat16 };
std::size_t width_of(Element element);

// What an id holds: who made it, and which of its ids it is.
struct Meeting {
  std::int32_t root;  // rank in MPI_COMM_WORLD
  std::int32_t tag;
};
Meeting new_meeting();

struct StandInComm {
  struct Handle;  // of MPI
  Handle* mpi = nullptr;
  int size = 1, rank = 0;
};
// All members call it; each learns who the others are from the root of the meeting.
StandInComm* meet(const Meeting& meeting, int size, int rank);
void part(StandInComm* comm);

// Enqueues on the stream, or runs at once where it is null.
void launch(void* stream, std::function<void()> job);

struct Message {
  const void* send = nullptr;
  void* recv = nullptr;
  std::size_t bytes = 0;
  int peer = 0;
};
void run_all_gather(const StandInComm& comm, const void* send, void* recv, std::size_t bytes);
// recv = this member's part of the sum; send holds size * count elements.
void run_reduce_scatter(const StandInComm& comm, const void* send, void* recv, std::size_t count,
                        Element element);
void run_all_reduce(const StandInComm& comm, const void* send, void* recv, std::size_t count,
                    Element element);
void run_messages(const StandInComm& comm, const std::vector<Message>& messages);

// Failure injection: the number of the call that fails, from the environment (ORRERY_STAND_IN_FAIL,
// counted from 1); true when it is this one.
bool fails_now();

}  // namespace orrery::engine::test
