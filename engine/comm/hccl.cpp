// Collectives over HCCL, by a table of its functions. The types are those of its documented C
// interface (hiascend.com, CANN: "HCCL API"), declared here so that nothing of it is needed to
// build. Run against a stand-in library; not run on hardware. Its documentation does not list fp64
// among the types it reduces on every device: where it refuses, its words come back as the error.
#include <array>
#include <string>

#include "engine/comm/dynamic_library.h"
#include "engine/comm/stream_channels.h"

namespace orrery::engine {
namespace {

using Comm = void*;
struct RootInfo {
  std::array<char, 4108> internal;
};
using Code = int;                    // HcclResult
constexpr Code kSuccess = 0;         // HCCL_SUCCESS
constexpr int kSum = 0, kUint8 = 7;  // HCCL_REDUCE_SUM, HCCL_DATA_TYPE_UINT8

int type_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kInt64:
      return 5;
    case DType::kFloat64:
      return 10;
    case DType::kBFloat16:
      return 11;
  }
  CHECK(false, "unknown dtype");
}

class HcclChannel;

struct Functions {
  using Id = RootInfo;
  using Channel = HcclChannel;

  Code (*get_root_info)(RootInfo*) = nullptr;
  Code (*init_root_info)(std::uint32_t, const RootInfo*, std::uint32_t, Comm*) = nullptr;
  Code (*destroy)(Comm) = nullptr;
  Code (*async_error)(Comm, Code*) = nullptr;
  const char* (*error_string)(Code) = nullptr;
  Code (*all_gather)(const void*, void*, std::uint64_t, int, Comm, StreamHandle) = nullptr;
  Code (*reduce_scatter)(const void*, void*, std::uint64_t, int, int, Comm, StreamHandle) = nullptr;
  Code (*all_reduce)(const void*, void*, std::uint64_t, int, int, Comm, StreamHandle) = nullptr;
  Code (*all_to_all_v)(const void*, const void*, const void*, int, const void*, const void*,
                       const void*, int, Comm, StreamHandle) = nullptr;

  static Result<Functions> load() {
    TRY(const DynamicLibrary library, DynamicLibrary::open("HCCL", "HCCL_LIBRARY", "libhccl.so"));
    Functions f;
    TRY_OK(library.find("HcclGetRootInfo", f.get_root_info));
    TRY_OK(library.find("HcclCommInitRootInfo", f.init_root_info));
    TRY_OK(library.find("HcclCommDestroy", f.destroy));
    TRY_OK(library.find("HcclGetCommAsyncError", f.async_error));
    TRY_OK(library.find("HcclGetErrorString", f.error_string));
    TRY_OK(library.find("HcclAllGather", f.all_gather));
    TRY_OK(library.find("HcclReduceScatter", f.reduce_scatter));
    TRY_OK(library.find("HcclAllReduce", f.all_reduce));
    TRY_OK(library.find("HcclAlltoAllV", f.all_to_all_v));
    return f;
  }

  Status new_id(RootInfo& id) const { return check(get_root_info(&id), "HcclGetRootInfo"); }
  Result<std::unique_ptr<HcclChannel>> join(const RootInfo& id, std::int32_t size,
                                            std::int32_t index) const;

  Status check(Code code, const char* call) const {
    if (code == kSuccess) return Ok{};
    return Error::of(ErrorCode::kRun, "HCCL", std::string(call) + ": " + error_string(code));
  }
};

// Counts and displacements as HCCL takes them: of bytes, 64 bits.
struct Spread {
  std::vector<std::uint64_t> counts, displacements;

  explicit Spread(const std::vector<std::int64_t>& bytes) {
    std::uint64_t at = 0;
    for (const std::int64_t part : bytes) {
      counts.push_back(static_cast<std::uint64_t>(part));
      displacements.push_back(at);
      at += counts.back();
    }
  }
};

class HcclChannel final : public StreamChannel {
 public:
  HcclChannel(const Functions& f, Comm comm, std::int32_t size, std::int32_t index)
      : f_(f), comm_(comm), size_(size), index_(index) {}
  HcclChannel(const HcclChannel&) = delete;
  HcclChannel& operator=(const HcclChannel&) = delete;
  ~HcclChannel() override { abort(); }

  std::int32_t size() const override { return size_; }
  std::int32_t index() const override { return index_; }

  Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes,
                             StreamHandle stream) override {
    TRY_OK(f_.check(
        f_.all_gather(send, recv, static_cast<std::uint64_t>(bytes), kUint8, comm_, stream),
        "HcclAllGather"));
    return traffic_of(all_gather_wire(size_, bytes));
  }

  Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count, DType dtype,
                                 StreamHandle stream) override {
    TRY_OK(f_.check(f_.reduce_scatter(send, recv, static_cast<std::uint64_t>(count), type_of(dtype),
                                      kSum, comm_, stream),
                    "HcclReduceScatter"));
    return traffic_of(reduce_scatter_wire(size_, count, size_of(dtype)));
  }

  Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype,
                             StreamHandle stream) override {
    TRY_OK(f_.check(f_.all_reduce(data, data, static_cast<std::uint64_t>(count), type_of(dtype),
                                  kSum, comm_, stream),
                    "HcclAllReduce"));
    return traffic_of(all_reduce_wire(size_, count, size_of(dtype)));
  }

  Result<Traffic> all_to_all_v(const void* send, const std::vector<std::int64_t>& send_bytes,
                               void* recv, const std::vector<std::int64_t>& recv_bytes,
                               StreamHandle stream) override {
    const auto members = static_cast<std::size_t>(size_);
    CHECK(send_bytes.size() == members && recv_bytes.size() == members, "one count a member");
    const Spread out(send_bytes), in(recv_bytes);
    TRY_OK(
        f_.check(f_.all_to_all_v(send, out.counts.data(), out.displacements.data(), kUint8, recv,
                                 in.counts.data(), in.displacements.data(), kUint8, comm_, stream),
                 "HcclAlltoAllV"));
    return exchange_traffic(send_bytes, recv_bytes, index_);
  }

  Status health() {
    Code code = kSuccess;
    TRY_OK(f_.check(f_.async_error(comm_, &code), "HcclGetCommAsyncError"));
    return f_.check(code, "asynchronous error");
  }
  // HCCL has no abort: destroying a communicator ends what it has under way.
  void abort() {
    if (comm_ != nullptr) f_.destroy(comm_);
    comm_ = nullptr;
  }

 private:
  const Functions& f_;
  Comm comm_;
  std::int32_t size_, index_;
};

Result<std::unique_ptr<HcclChannel>> Functions::join(const RootInfo& id, std::int32_t size,
                                                     std::int32_t index) const {
  Comm comm = nullptr;
  TRY_OK(check(init_root_info(static_cast<std::uint32_t>(size), &id,
                              static_cast<std::uint32_t>(index), &comm),
               "HcclCommInitRootInfo"));
  return std::make_unique<HcclChannel>(*this, comm, size, index);
}

}  // namespace

Result<std::unique_ptr<StreamCommunicator>> make_hccl(const std::vector<ChannelId>& pairs,
                                                      Communicator& host) {
  return open_library<Functions>(pairs, host);
}

}  // namespace orrery::engine
