// The device a rank computes on: its lanes, its memory and its clock. A lane runs its jobs in the
// order they were posted. On the CPU a lane is a worker thread and the posting thread computes; on
// a device a lane is a stream, jobs only launch work on it, and events order streams, so that the
// host waits where a program's host synchronisation says so and nowhere else.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/program/program.h"
#include "core/result.h"
#include "engine/comm/stream_communicator.h"

namespace orrery::engine {

// kNpu and kFake are libtorch's PrivateUse1: what registered itself there.
enum class DeviceKind : std::uint8_t { kCpu, kCuda, kNpu, kFake };
const char* name_of(DeviceKind kind);

// A moment of a lane: its job of this number has ended. The first job has number 1; 0 is long past.
struct LanePoint {
  Lane lane = Lane::kCompute;
  std::uint64_t ticket = 0;
};

// When a job ran, on the steady clock.
struct LaneTimes {
  std::int64_t start_ns = 0, end_ns = 0;
};

// Used by one thread, the one that walks the program. Of a device's methods only jobs may throw.
class Device {
 public:
  using Job = std::function<Status()>;

  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual at::Device torch() const = 0;
  // Whether jobs only launch: true for all but the CPU.
  bool launches() const { return kind() != DeviceKind::kCpu; }

  // Appends a job to a lane, to begin when the moments `after` have come. A job of a device is
  // called at once, on the calling thread, with the lane's stream current, and returns when it has
  // launched; so is a job of the compute lane on the CPU, which computes. Returns the moment of its
  // end, or the error of the job, or of what it had to wait for. After the first failed job of a
  // CPU lane later ones are skipped.
  virtual Result<LanePoint> post(Lane lane, const std::vector<LanePoint>& after, Job job) = 0;
  // The host waits for a moment. Returns the lane's first error, if there is one.
  virtual Status wait(LanePoint point) = 0;
  // What a lane does from now on begins after `point`. For memory: a block that the lane's pool
  // gets back may be given out again at once, while another lane still reads it.
  virtual void order(Lane lane, LanePoint point) = 0;
  // The host waits for all lanes. The times of their jobs are known after it, until the next post.
  virtual Status drain() = 0;
  // When a job ran, of those between the last two drains. Zeros on the CPU, where jobs can tell.
  virtual LaneTimes times(LanePoint point) const = 0;
  // Skips what has not begun, and waits for what has. Idempotent.
  virtual void shutdown() = 0;

  // For libraries that launch on their own; null on the CPU.
  virtual StreamHandle stream(Lane lane) const = 0;

  // Uninitialised device memory of the pool of a lane: it may be used by jobs of that lane, and by
  // those ordered after one.
  virtual at::Tensor empty(Lane pool, at::IntArrayRef shape, at::ScalarType dtype) const = 0;
  // Uninitialised host memory, pinned where copies to and from a device need that.
  virtual at::Tensor host_empty(at::IntArrayRef shape, at::ScalarType dtype) const = 0;
  // Inside a job: `to` = `from`, without waiting where one side is the device and the other pinned.
  virtual void copy(const at::Tensor& to, const at::Tensor& from) const = 0;
};

// The CPU, with a worker thread for each of `lanes` but compute.
std::unique_ptr<Device> make_cpu_device(const std::vector<Lane>& lanes);

// What libtorch 1.13 does not tell of streams and events; null: ask libtorch 2.x.
struct StreamHooks {
  StreamHandle (*native)(at::Device device, std::int64_t stream_id) = nullptr;
  double (*elapsed_ms)(void* from, void* to) = nullptr;
};

// A device with streams, driven through libtorch's own registered interface to it, so that nothing
// of a vendor's is needed to build: CUDA, an NPU (whose library has registered itself), the fake of
// the tests. Makes it the current device of the calling thread. Error kIo where there is none. CUDA
// and NPU: not run on hardware.
Result<std::unique_ptr<Device>> make_stream_device(DeviceKind kind, std::int32_t index,
                                                   StreamHooks hooks = {});

}  // namespace orrery::engine
