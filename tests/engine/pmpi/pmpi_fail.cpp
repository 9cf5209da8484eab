// A layer between a program and MPI, loaded by LD_PRELOAD, in which MPI fails once: call number
// $PMPI_FAIL_AT of MPI_Isend on rank $PMPI_FAIL_RANK returns an error and sends nothing; or, where
// $PMPI_FAIL_HANGS is set, does not return.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

namespace {

std::atomic<long> calls{0};

long setting(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? -1 : std::strtol(text, nullptr, 10);
}

}  // namespace

extern "C" int MPI_Isend(const void* data, int items, MPI_Datatype type, int peer, int tag,
                         MPI_Comm comm, MPI_Request* request) {
  int rank = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == setting("PMPI_FAIL_RANK") && ++calls == setting("PMPI_FAIL_AT")) {
    while (std::getenv("PMPI_FAIL_HANGS") != nullptr) {
      std::this_thread::sleep_for(std::chrono::seconds(1));
    }
    return MPI_ERR_OTHER;
  }
  return PMPI_Isend(data, items, type, peer, tag, comm, request);
}
