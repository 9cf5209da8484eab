// A stand-in of libnccl.so.2 over MPI: the functions that the engine loads, with the signatures of
// the public interface. What it cannot show: device memory, NCCL's own algorithms and its limits.
#include <cstring>
#include <map>
#include <utility>

#include "tests/engine/stand_in.h"

namespace test = orrery::engine::test;

extern "C" {

struct ncclComm {
  test::StandInComm* members;
};
struct ncclUniqueId {
  char internal[128];
};
enum { ncclSuccess = 0, ncclSystemError = 2, ncclInvalidArgument = 4 };

}  // extern "C"

namespace {

test::Element element_of(int type) {
  switch (type) {
    case 4:
      return test::Element::kInt64;
    case 7:
      return test::Element::kFloat32;
    case 8:
      return test::Element::kFloat64;
    case 9:
      return test::Element::kBfloat16;
    default:
      return test::Element::kUint8;
  }
}

thread_local int depth = 0;
thread_local std::map<std::pair<ncclComm*, void*>, std::vector<test::Message>> grouped;

int post(ncclComm* comm, void* stream, const test::Message& message) {
  if (depth == 0) return ncclInvalidArgument;  // the engine always groups
  grouped[{comm, stream}].push_back(message);
  return ncclSuccess;
}

}  // namespace

extern "C" {

int ncclGetUniqueId(ncclUniqueId* id) {
  if (test::fails_now()) return ncclSystemError;
  const test::Meeting meeting = test::new_meeting();
  std::memset(id, 0, sizeof(*id));
  std::memcpy(id, &meeting, sizeof(meeting));
  return ncclSuccess;
}

int ncclCommInitRank(ncclComm** comm, int size, ncclUniqueId id, int rank) {
  test::Meeting meeting = {};
  std::memcpy(&meeting, &id, sizeof(meeting));
  *comm = new ncclComm{test::meet(meeting, size, rank)};
  return ncclSuccess;
}

int ncclCommDestroy(ncclComm* comm) {
  test::part(comm->members);
  delete comm;
  return ncclSuccess;
}

int ncclCommAbort(ncclComm* comm) {
  return ncclCommDestroy(comm);
}

int ncclCommGetAsyncError(ncclComm*, int* code) {
  *code = ncclSuccess;
  return ncclSuccess;
}

const char* ncclGetErrorString(int code) {
  if (code == ncclSuccess) return "no error";
  return code == ncclSystemError ? "unhandled system error" : "invalid argument";
}

const char* ncclGetLastError(ncclComm*) {
  return "the stand-in was told to fail";
}

int ncclAllGather(const void* send, void* recv, std::size_t count, int type, ncclComm* comm,
                  void* stream) {
  if (test::fails_now()) return ncclSystemError;
  const std::size_t bytes = count * test::width_of(element_of(type));
  test::launch(stream, [=] { test::run_all_gather(*comm->members, send, recv, bytes); });
  return ncclSuccess;
}

int ncclReduceScatter(const void* send, void* recv, std::size_t count, int type, int op,
                      ncclComm* comm, void* stream) {
  if (op != 0) return ncclInvalidArgument;
  test::launch(stream, [=] {
    test::run_reduce_scatter(*comm->members, send, recv, count, element_of(type));
  });
  return ncclSuccess;
}

int ncclAllReduce(const void* send, void* recv, std::size_t count, int type, int op, ncclComm* comm,
                  void* stream) {
  if (op != 0) return ncclInvalidArgument;
  test::launch(stream,
               [=] { test::run_all_reduce(*comm->members, send, recv, count, element_of(type)); });
  return ncclSuccess;
}

int ncclSend(const void* data, std::size_t count, int type, int peer, ncclComm* comm,
             void* stream) {
  return post(comm, stream, {data, nullptr, count * test::width_of(element_of(type)), peer});
}

int ncclRecv(void* data, std::size_t count, int type, int peer, ncclComm* comm, void* stream) {
  return post(comm, stream, {nullptr, data, count * test::width_of(element_of(type)), peer});
}

int ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}

int ncclGroupEnd() {
  if (--depth > 0) return ncclSuccess;
  for (auto& [where, messages] : std::exchange(grouped, {})) {
    ncclComm* comm = where.first;
    test::launch(where.second, [comm, moved = std::move(messages)] {
      test::run_messages(*comm->members, moved);
    });
  }
  return ncclSuccess;
}

}  // extern "C"
