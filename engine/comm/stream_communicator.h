// A communicator of a device: the calls of Channel, but each only enqueues on a stream. Back ends
// load the vendor's library at run time (nccl.cpp, hccl.cpp). The order of a sum is the library's
// own, so results agree with the other back ends within rounding, not in every bit.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/program/program.h"
#include "core/result.h"
#include "engine/comm/communicator.h"

namespace orrery::engine {

// A stream of the device, as its own library calls it (cudaStream_t, aclrtStream).
using StreamHandle = void*;

// One group of ranks as one of its members sees it. Buffers are device memory; they are read and
// written when the stream reaches the call, and must live until then. Shapes, units and overlap are
// those of Channel. Traffic is what the formulas of core/program/wire.h say of the call: the
// library does not tell what it moves. All members make the same calls in the same order.
class StreamChannel {
 public:
  virtual ~StreamChannel() = default;
  virtual std::int32_t size() const = 0;
  virtual std::int32_t index() const = 0;
  virtual Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes,
                                     StreamHandle stream) = 0;
  virtual Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count,
                                         DType dtype, StreamHandle stream) = 0;
  virtual Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype,
                                     StreamHandle stream) = 0;
  virtual Result<Traffic> all_to_all_v(const void* send,
                                       const std::vector<std::int64_t>& send_bytes, void* recv,
                                       const std::vector<std::int64_t>& recv_bytes,
                                       StreamHandle stream) = 0;
};

class StreamCommunicator {
 public:
  virtual ~StreamCommunicator() = default;
  // The channel of a pair that the communicator was made for; another one is a bug.
  virtual StreamChannel& channel(Lane lane, std::int32_t group) = 0;
  // What has failed since, asynchronously; to be asked after the host waited for a stream.
  virtual Status health() = 0;
  // Ends what is under way on the device, so that a wait for it returns. For a failed run.
  virtual void abort() = 0;
};

// Each communicator costs device memory: only those of `pairs` (channels_of) are made. All ranks
// call one of these together, with the same pairs, on the device that is current in the
// calling thread. `host` carries the ids between ranks and must outlive nothing: it is only used
// during the call. Errors: kIo without the library, kRun with the library's words.
// ORRERY_NCCL_LIBRARY and HCCL_LIBRARY name a library; the defaults are libnccl.so.2, libhccl.so.
Result<std::unique_ptr<StreamCommunicator>> make_nccl(const std::vector<ChannelId>& pairs,
                                                      Communicator& host);
Result<std::unique_ptr<StreamCommunicator>> make_hccl(const std::vector<ChannelId>& pairs,
                                                      Communicator& host);

}  // namespace orrery::engine
