// Collectives over NCCL, by a table of its functions. The types are those of its documented C
// interface (docs.nvidia.com/deeplearning/nccl: "NCCL API"), declared here so that nothing of it is
// needed to build. Run against a stand-in library; not run on hardware.
#include <array>
#include <string>

#include "engine/comm/dynamic_library.h"
#include "engine/comm/stream_channels.h"

namespace orrery::engine {
namespace {

using Comm = struct ncclComm*;
struct UniqueId {
  std::array<char, 128> internal;
};
using Code = int;                              // ncclResult_t
constexpr Code kSuccess = 0, kInProgress = 7;  // ncclSuccess, ncclInProgress
constexpr int kSum = 0, kUint8 = 1;            // ncclSum, ncclUint8

int type_of(DType dtype) {
  switch (dtype) {
    case DType::kInt64:
      return 4;
    case DType::kFloat32:
      return 7;
    case DType::kFloat64:
      return 8;
    case DType::kBFloat16:
      return 9;
  }
  CHECK(false, "unknown dtype");
}

class NcclChannel;

struct Functions {
  using Id = UniqueId;
  using Channel = NcclChannel;

  Code (*get_unique_id)(UniqueId*) = nullptr;
  Code (*comm_init_rank)(Comm*, int, UniqueId, int) = nullptr;
  Code (*comm_destroy)(Comm) = nullptr;
  Code (*comm_abort)(Comm) = nullptr;
  Code (*comm_async_error)(Comm, Code*) = nullptr;
  const char* (*error_string)(Code) = nullptr;
  const char* (*last_error)(Comm) = nullptr;
  Code (*all_gather)(const void*, void*, std::size_t, int, Comm, StreamHandle) = nullptr;
  Code (*reduce_scatter)(const void*, void*, std::size_t, int, int, Comm, StreamHandle) = nullptr;
  Code (*all_reduce)(const void*, void*, std::size_t, int, int, Comm, StreamHandle) = nullptr;
  Code (*send)(const void*, std::size_t, int, int, Comm, StreamHandle) = nullptr;
  Code (*recv)(void*, std::size_t, int, int, Comm, StreamHandle) = nullptr;
  Code (*group_start)() = nullptr;
  Code (*group_end)() = nullptr;

  static Result<Functions> load() {
    TRY(const DynamicLibrary library,
        DynamicLibrary::open("NCCL", "ORRERY_NCCL_LIBRARY", "libnccl.so.2"));
    Functions f;
    TRY_OK(library.find("ncclGetUniqueId", f.get_unique_id));
    TRY_OK(library.find("ncclCommInitRank", f.comm_init_rank));
    TRY_OK(library.find("ncclCommDestroy", f.comm_destroy));
    TRY_OK(library.find("ncclCommAbort", f.comm_abort));
    TRY_OK(library.find("ncclCommGetAsyncError", f.comm_async_error));
    TRY_OK(library.find("ncclGetErrorString", f.error_string));
    TRY_OK(library.find("ncclGetLastError", f.last_error));
    TRY_OK(library.find("ncclAllGather", f.all_gather));
    TRY_OK(library.find("ncclReduceScatter", f.reduce_scatter));
    TRY_OK(library.find("ncclAllReduce", f.all_reduce));
    TRY_OK(library.find("ncclSend", f.send));
    TRY_OK(library.find("ncclRecv", f.recv));
    TRY_OK(library.find("ncclGroupStart", f.group_start));
    TRY_OK(library.find("ncclGroupEnd", f.group_end));
    return f;
  }

  Status new_id(UniqueId& id) const {
    return check(get_unique_id(&id), "ncclGetUniqueId", nullptr);
  }
  Result<std::unique_ptr<NcclChannel>> join(const UniqueId& id, std::int32_t size,
                                            std::int32_t index) const;

  Status check(Code code, const char* call, Comm comm) const {
    if (code == kSuccess || code == kInProgress) return Ok{};
    const char* detail = last_error(comm);
    std::string text = std::string(call) + ": " + error_string(code);
    if (detail != nullptr && *detail != '\0') text += " (" + std::string(detail) + ")";
    return Error::of(ErrorCode::kRun, "NCCL", text);
  }
};

class NcclChannel final : public StreamChannel {
 public:
  NcclChannel(const Functions& f, Comm comm, std::int32_t size, std::int32_t index)
      : f_(f), comm_(comm), size_(size), index_(index) {}
  NcclChannel(const NcclChannel&) = delete;
  NcclChannel& operator=(const NcclChannel&) = delete;
  ~NcclChannel() override {
    if (comm_ != nullptr) f_.comm_destroy(comm_);
  }

  std::int32_t size() const override { return size_; }
  std::int32_t index() const override { return index_; }

  Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes,
                             StreamHandle stream) override {
    TRY_OK(check(f_.all_gather(send, recv, static_cast<std::size_t>(bytes), kUint8, comm_, stream),
                 "ncclAllGather"));
    return traffic_of(all_gather_wire(size_, bytes));
  }

  Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count, DType dtype,
                                 StreamHandle stream) override {
    TRY_OK(check(f_.reduce_scatter(send, recv, static_cast<std::size_t>(count), type_of(dtype),
                                   kSum, comm_, stream),
                 "ncclReduceScatter"));
    return traffic_of(reduce_scatter_wire(size_, count, size_of(dtype)));
  }

  Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype,
                             StreamHandle stream) override {
    TRY_OK(check(f_.all_reduce(data, data, static_cast<std::size_t>(count), type_of(dtype), kSum,
                               comm_, stream),
                 "ncclAllReduce"));
    return traffic_of(all_reduce_wire(size_, count, size_of(dtype)));
  }

  // NCCL has no such call: one send and one receive a peer, as one group. The own part goes the
  // same way, which NCCL turns into a copy.
  Result<Traffic> all_to_all_v(const void* send, const std::vector<std::int64_t>& send_bytes,
                               void* recv, const std::vector<std::int64_t>& recv_bytes,
                               StreamHandle stream) override {
    const auto members = static_cast<std::size_t>(size_);
    CHECK(send_bytes.size() == members && recv_bytes.size() == members, "one count a member");
    TRY_OK(check(f_.group_start(), "ncclGroupStart"));
    const auto* from = static_cast<const std::byte*>(send);
    auto* to = static_cast<std::byte*>(recv);
    Status posted = Ok{};
    for (std::size_t peer = 0; peer < members && posted.ok(); ++peer) {
      posted = post(from, send_bytes[peer], to, recv_bytes[peer], static_cast<int>(peer), stream);
      from += send_bytes[peer];
      to += recv_bytes[peer];
    }
    const Status ended = check(f_.group_end(), "ncclGroupEnd");
    TRY_OK(posted);
    TRY_OK(ended);
    return exchange_traffic(send_bytes, recv_bytes, index_);
  }

  Status health() {
    Code code = kSuccess;
    TRY_OK(check(f_.comm_async_error(comm_, &code), "ncclCommGetAsyncError"));
    return check(code, "asynchronous error", comm_);
  }
  void abort() {
    if (comm_ != nullptr) f_.comm_abort(comm_);
    comm_ = nullptr;
  }

 private:
  Status check(Code code, const char* call, Comm comm) const { return f_.check(code, call, comm); }
  Status check(Code code, const char* call) const { return f_.check(code, call, comm_); }
  Status post(const std::byte* from, std::int64_t sent, std::byte* to, std::int64_t received,
              int peer, StreamHandle stream) const {
    if (sent > 0) {
      TRY_OK(check(f_.send(from, static_cast<std::size_t>(sent), kUint8, peer, comm_, stream),
                   "ncclSend"));
    }
    if (received == 0) return Ok{};
    return check(f_.recv(to, static_cast<std::size_t>(received), kUint8, peer, comm_, stream),
                 "ncclRecv");
  }

  const Functions& f_;
  Comm comm_;
  std::int32_t size_, index_;
};

Result<std::unique_ptr<NcclChannel>> Functions::join(const UniqueId& id, std::int32_t size,
                                                     std::int32_t index) const {
  Comm comm = nullptr;
  TRY_OK(check(comm_init_rank(&comm, size, id, index), "ncclCommInitRank", nullptr));
  return std::make_unique<NcclChannel>(*this, comm, size, index);
}

}  // namespace

Result<std::unique_ptr<StreamCommunicator>> make_nccl(const std::vector<ChannelId>& pairs,
                                                      Communicator& host) {
  return open_library<Functions>(pairs, host);
}

}  // namespace orrery::engine
