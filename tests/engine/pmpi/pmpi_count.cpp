// A counting layer between a program and MPI, loaded by LD_PRELOAD: the bytes that the program
// hands to MPI, by communicator name, own part excluded. It knows nothing of the engine, so that
// its counts can be held against the engine's. At MPI_Finalize it writes lines
// "name sent_bytes received_bytes" to $PMPI_COUNT_OUT.<rank>. The calls counted as data are
// MPI_Allgather, MPI_Isend and MPI_Irecv; MPI_Iallgather (the rendezvous before each collective)
// goes under "name:rendezvous".
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

namespace {

struct Bytes {
  long long sent = 0;
  long long received = 0;
};

std::mutex mutex;
std::map<std::string, Bytes> totals;

std::string name_of(MPI_Comm comm) {
  char name[MPI_MAX_OBJECT_NAME] = {};
  int length = 0;
  PMPI_Comm_get_name(comm, name, &length);
  return name;
}

long long bytes_of(int count, MPI_Datatype type) {
  MPI_Count size = 0;
  PMPI_Type_size_x(type, &size);
  return static_cast<long long>(size) * count;
}

void count(const std::string& name, long long sent, long long received) {
  const std::lock_guard lock(mutex);
  Bytes& bytes = totals[name];
  bytes.sent += sent;
  bytes.received += received;
}

// The part of an all-gather that each of the other members gets from this one, and it from them.
void count_gather(const std::string& name, int recv_count, MPI_Datatype recv_type, MPI_Comm comm) {
  int members = 1;
  PMPI_Comm_size(comm, &members);
  const long long bytes = bytes_of(recv_count, recv_type) * (members - 1);
  count(name, bytes, bytes);
}

bool is_self(int peer, MPI_Comm comm) {
  int rank = 0;
  PMPI_Comm_rank(comm, &rank);
  return rank == peer;
}

void write_totals() {
  const char* path = std::getenv("PMPI_COUNT_OUT");
  if (path == nullptr) return;
  int rank = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::FILE* file = std::fopen((std::string(path) + "." + std::to_string(rank)).c_str(), "w");
  if (file == nullptr) return;
  for (const auto& [name, bytes] : totals) {
    std::fprintf(file, "%s %lld %lld\n", name.c_str(), bytes.sent, bytes.received);
  }
  std::fclose(file);
}

}  // namespace

extern "C" {

int MPI_Allgather(const void* send, int send_count, MPI_Datatype send_type, void* recv,
                  int recv_count, MPI_Datatype recv_type, MPI_Comm comm) {
  count_gather(name_of(comm), recv_count, recv_type, comm);
  return PMPI_Allgather(send, send_count, send_type, recv, recv_count, recv_type, comm);
}

int MPI_Iallgather(const void* send, int send_count, MPI_Datatype send_type, void* recv,
                   int recv_count, MPI_Datatype recv_type, MPI_Comm comm, MPI_Request* request) {
  count_gather(name_of(comm) + ":rendezvous", recv_count, recv_type, comm);
  return PMPI_Iallgather(send, send_count, send_type, recv, recv_count, recv_type, comm, request);
}

int MPI_Isend(const void* data, int items, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
              MPI_Request* request) {
  if (!is_self(peer, comm)) count(name_of(comm), bytes_of(items, type), 0);
  return PMPI_Isend(data, items, type, peer, tag, comm, request);
}

int MPI_Irecv(void* data, int items, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
              MPI_Request* request) {
  if (!is_self(peer, comm)) count(name_of(comm), 0, bytes_of(items, type));
  return PMPI_Irecv(data, items, type, peer, tag, comm, request);
}

int MPI_Finalize() {
  write_totals();
  return PMPI_Finalize();
}

}  // extern "C"
