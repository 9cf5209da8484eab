// A stand-in of libhccl.so over MPI: the functions that the engine loads, with the signatures of
// the public interface. What it cannot show: device memory, HCCL's own algorithms and its limits.
#include <cstring>

#include "tests/engine/stand_in.h"

namespace test = orrery::engine::test;

namespace {

struct RootInfo {
  char internal[4108];
};
enum { kSuccess = 0, kParameter = 1, kRemote = 21 };

test::Element element_of(int type) {
  switch (type) {
    case 4:
      return test::Element::kFloat32;
    case 5:
      return test::Element::kInt64;
    case 10:
      return test::Element::kFloat64;
    case 11:
      return test::Element::kBfloat16;
    default:
      return test::Element::kUint8;
  }
}

const test::StandInComm& members_of(void* comm) {
  return *static_cast<test::StandInComm*>(comm);
}

}  // namespace

extern "C" {

int HcclGetRootInfo(RootInfo* info) {
  const test::Meeting meeting = test::new_meeting();
  std::memset(info, 0, sizeof(*info));
  // At the end: an id that did not travel whole is found out.
  std::memcpy(info->internal + sizeof(info->internal) - sizeof(meeting), &meeting, sizeof(meeting));
  return kSuccess;
}

int HcclCommInitRootInfo(std::uint32_t size, const RootInfo* info, std::uint32_t rank,
                         void** comm) {
  test::Meeting meeting = {};
  std::memcpy(&meeting, info->internal + sizeof(info->internal) - sizeof(meeting), sizeof(meeting));
  *comm = test::meet(meeting, static_cast<int>(size), static_cast<int>(rank));
  return kSuccess;
}

int HcclCommDestroy(void* comm) {
  test::part(static_cast<test::StandInComm*>(comm));
  return kSuccess;
}

int HcclGetCommAsyncError(void*, int* code) {
  *code = kSuccess;
  return kSuccess;
}

const char* HcclGetErrorString(int code) {
  return code == kRemote ? "remote rank failed" : "parameter error";
}

int HcclAllGather(const void* send, void* recv, std::uint64_t count, int type, void* comm,
                  void* stream) {
  if (test::fails_now()) return kRemote;
  const std::size_t bytes = count * test::width_of(element_of(type));
  test::launch(stream, [=] { test::run_all_gather(members_of(comm), send, recv, bytes); });
  return kSuccess;
}

int HcclReduceScatter(const void* send, void* recv, std::uint64_t count, int type, int op,
                      void* comm, void* stream) {
  if (op != 0) return kParameter;
  test::launch(stream, [=] {
    test::run_reduce_scatter(members_of(comm), send, recv, count, element_of(type));
  });
  return kSuccess;
}

int HcclAllReduce(const void* send, void* recv, std::uint64_t count, int type, int op, void* comm,
                  void* stream) {
  if (op != 0) return kParameter;
  test::launch(
      stream, [=] { test::run_all_reduce(members_of(comm), send, recv, count, element_of(type)); });
  return kSuccess;
}

int HcclAlltoAllV(const void* send, const void* send_counts, const void* send_at, int send_type,
                  const void* recv, const void* recv_counts, const void* recv_at, int recv_type,
                  void* comm, void* stream) {
  if (send_type != recv_type) return kParameter;
  const std::size_t width = test::width_of(element_of(send_type));
  std::vector<test::Message> messages;
  for (int peer = 0; peer < members_of(comm).size; ++peer) {
    const auto entry = [&](const void* table) {
      return static_cast<const std::uint64_t*>(table)[peer] * width;
    };
    char* to = static_cast<char*>(const_cast<void*>(recv)) + entry(recv_at);
    const char* from = static_cast<const char*>(send) + entry(send_at);
    if (entry(recv_counts) > 0) messages.push_back({nullptr, to, entry(recv_counts), peer});
    if (entry(send_counts) > 0) messages.push_back({from, nullptr, entry(send_counts), peer});
  }
  test::launch(
      stream, [comm, moved = std::move(messages)] { test::run_messages(members_of(comm), moved); });
  return kSuccess;
}

}  // extern "C"
