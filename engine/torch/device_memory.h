// Memory of a device, counted as libtorch's allocators report it: a device's pools round sizes
// (CUDA to 512 bytes and more), and it is the rounded sizes that fill it.
#pragma once

#include <cstdint>
#include <memory>

#include "core/program/program.h"

namespace at {
class Tensor;
}
namespace c10 {
class DebugInfoGuard;
}

namespace orrery::engine {

// Device memory that this thread takes while this lives is counted by the meter of the thread's
// MeterScope, and given back to the same meter by whichever such thread frees it.
class DeviceMeterScope {
 public:
  DeviceMeterScope();
  ~DeviceMeterScope();
  DeviceMeterScope(const DeviceMeterScope&) = delete;
  DeviceMeterScope& operator=(const DeviceMeterScope&) = delete;

 private:
  std::unique_ptr<c10::DebugInfoGuard> guard_;
};

// classify() of metered_allocator.h for a tensor of a device.
std::int64_t classify_device(const at::Tensor& tensor, BufferClass cls);

}  // namespace orrery::engine
