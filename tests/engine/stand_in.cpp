// See the header.
#include "tests/engine/stand_in.h"

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "tests/engine/fake_stream.h"

namespace orrery::engine::test {

struct StandInComm::Handle {
  MPI_Comm comm = MPI_COMM_NULL;
};

namespace {

constexpr int kFirstTag = 20000;
constexpr int kMessageTag = 3;

template <class T>
void add_as(const void* a, void* b, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    T x, y;
    std::memcpy(&x, static_cast<const char*>(a) + i * sizeof(T), sizeof(T));
    std::memcpy(&y, static_cast<char*>(b) + i * sizeof(T), sizeof(T));
    y = static_cast<T>(x + y);
    std::memcpy(static_cast<char*>(b) + i * sizeof(T), &y, sizeof(T));
  }
}

// To nearest, ties to even; the inputs of the tests are finite.
std::uint16_t rounded(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void add_bf16(const void* a, void* b, std::size_t count) {
  const auto real = [](std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  };
  for (std::size_t i = 0; i < count; ++i) {
    std::uint16_t x, y;
    std::memcpy(&x, static_cast<const char*>(a) + i * 2, 2);
    std::memcpy(&y, static_cast<char*>(b) + i * 2, 2);
    y = rounded(real(x) + real(y));
    std::memcpy(static_cast<char*>(b) + i * 2, &y, 2);
  }
}

// b += a.
void add(const void* a, void* b, std::size_t count, Element element) {
  switch (element) {
    case Element::kUint8:
      return add_as<std::uint8_t>(a, b, count);
    case Element::kInt64:
      return add_as<std::uint64_t>(a, b, count);
    case Element::kFloat32:
      return add_as<float>(a, b, count);
    case Element::kFloat64:
      return add_as<double>(a, b, count);
    case Element::kBfloat16:
      return add_bf16(a, b, count);
  }
}

}  // namespace

std::size_t width_of(Element element) {
  if (element == Element::kUint8) return 1;
  if (element == Element::kBfloat16) return 2;
  return element == Element::kFloat32 ? 4 : 8;
}

Meeting new_meeting() {
  static std::atomic<std::int32_t> next = 0;
  Meeting meeting = {};
  MPI_Comm_rank(MPI_COMM_WORLD, &meeting.root);
  meeting.tag = kFirstTag + 3 * next++;
  return meeting;
}

StandInComm* meet(const Meeting& meeting, int size, int rank) {
  std::int32_t self = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &self);
  std::vector<std::int32_t> members(static_cast<std::size_t>(size), self);
  if (self == meeting.root) {
    for (int i = 1; i < size; ++i) {
      std::int32_t who[2] = {0, 0};  // member, world rank
      MPI_Recv(who, 2, MPI_INT32_T, MPI_ANY_SOURCE, meeting.tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      members[static_cast<std::size_t>(who[0])] = who[1];
    }
    for (const std::int32_t other : members) {
      if (other == self) continue;
      MPI_Send(members.data(), size, MPI_INT32_T, other, meeting.tag + 1, MPI_COMM_WORLD);
    }
  } else {
    const std::int32_t who[2] = {rank, self};
    MPI_Send(who, 2, MPI_INT32_T, meeting.root, meeting.tag, MPI_COMM_WORLD);
    MPI_Recv(members.data(), size, MPI_INT32_T, meeting.root, meeting.tag + 1, MPI_COMM_WORLD,
             MPI_STATUS_IGNORE);
  }
  MPI_Group world = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  MPI_Group_incl(world, size, members.data(), &group);
  auto comm = std::make_unique<StandInComm>();
  comm->mpi = new StandInComm::Handle;
  MPI_Comm_create_group(MPI_COMM_WORLD, group, meeting.tag + 2, &comm->mpi->comm);
  MPI_Group_free(&group);
  MPI_Group_free(&world);
  comm->size = size;
  comm->rank = rank;
  return comm.release();
}

void part(StandInComm* comm) {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0) MPI_Comm_free(&comm->mpi->comm);
  delete comm->mpi;
  delete comm;
}

void launch(void* stream, std::function<void()> job) {
  if (stream == nullptr) return job();
  auto* entry = static_cast<StreamEntry*>(stream);
  auto* held = new std::function<void()>(std::move(job));
  entry->enqueue(
      entry,
      [](void* argument) {
        const std::unique_ptr<std::function<void()>> mine(
            static_cast<std::function<void()>*>(argument));
        (*mine)();
      },
      held);
}

void run_all_gather(const StandInComm& comm, const void* send, void* recv, std::size_t bytes) {
  const auto own = static_cast<std::size_t>(comm.rank);
  char* mine = static_cast<char*>(recv) + own * bytes;
  if (bytes > 0 && mine != send) std::memcpy(mine, send, bytes);
  const int count = static_cast<int>(bytes);
  MPI_Allgather(MPI_IN_PLACE, 0, MPI_BYTE, recv, count, MPI_BYTE, comm.mpi->comm);
}

// Chunk c starts at member c + 1 and travels upwards; each hop adds its own part and rounds.
void run_reduce_scatter(const StandInComm& comm, const void* send, void* recv, std::size_t count,
                        Element element) {
  const std::size_t bytes = count * width_of(element);
  const int n = comm.size;
  const auto part_of = [&](int chunk) {
    return static_cast<const char*>(send) + static_cast<std::size_t>((chunk + n) % n) * bytes;
  };
  std::vector<char> sum(bytes), arrived(bytes);
  if (bytes > 0) std::memcpy(sum.data(), part_of(comm.rank - 1), bytes);
  for (int hop = 1; hop < n; ++hop) {
    MPI_Sendrecv(sum.data(), static_cast<int>(bytes), MPI_BYTE, (comm.rank + 1) % n, kMessageTag,
                 arrived.data(), static_cast<int>(bytes), MPI_BYTE, (comm.rank + n - 1) % n,
                 kMessageTag, comm.mpi->comm, MPI_STATUS_IGNORE);
    sum.swap(arrived);
    add(part_of(comm.rank - 1 - hop), sum.data(), count, element);
  }
  if (bytes > 0) std::memcpy(recv, sum.data(), bytes);
}

void run_all_reduce(const StandInComm& comm, const void* send, void* recv, std::size_t count,
                    Element element) {
  const std::size_t width = width_of(element), members = static_cast<std::size_t>(comm.size);
  const std::size_t piece = (count + members - 1) / members;
  std::vector<char> padded(piece * members * width), all(piece * members * width);
  if (count > 0) std::memcpy(padded.data(), send, count * width);
  std::vector<char> mine(piece * width);
  run_reduce_scatter(comm, padded.data(), mine.data(), piece, element);
  run_all_gather(comm, mine.data(), all.data(), mine.size());
  if (count > 0) std::memcpy(recv, all.data(), count * width);
}

void run_messages(const StandInComm& comm, const std::vector<Message>& messages) {
  std::vector<MPI_Request> requests;
  for (const Message& m : messages) {
    const int bytes = static_cast<int>(m.bytes);
    if (m.recv != nullptr) {
      MPI_Irecv(m.recv, bytes, MPI_BYTE, m.peer, kMessageTag, comm.mpi->comm,
                &requests.emplace_back());
    }
    if (m.send != nullptr) {
      MPI_Isend(m.send, bytes, MPI_BYTE, m.peer, kMessageTag, comm.mpi->comm,
                &requests.emplace_back());
    }
  }
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

bool fails_now() {
  static std::atomic<int> calls = 0;
  const char* text = std::getenv("ORRERY_STAND_IN_FAIL");
  return text != nullptr && ++calls == static_cast<int>(std::strtol(text, nullptr, 10));
}

}  // namespace orrery::engine::test
