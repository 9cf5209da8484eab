// A table of the live blocks by address.
#include "engine/torch/device_memory.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <mutex>
#include <unordered_map>
#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/metered_allocator.h"

namespace orrery::engine {
namespace {

struct Block {
  std::shared_ptr<MemoryMeter> meter;
  std::int64_t bytes = 0;
  BufferClass cls = BufferClass::kWorkspace;
};

struct Table {
  std::mutex mutex;
  std::unordered_map<const void*, Block> blocks;
};

// Never destroyed: tensors may be freed after static objects are gone.
Table& table() {
  static Table* const one = new Table;
  return *one;
}

class Reporter final : public c10::MemoryReportingInfoBase {
 public:
#if ORRERY_TORCH_2
  using Total = std::size_t;
#else
  using Total = std::int64_t;
#endif
  void reportMemoryUsage(void* data, std::int64_t bytes, Total, Total, at::Device device) override {
    if (device.is_cpu() || data == nullptr) return;
    const std::lock_guard lock(table().mutex);
    if (bytes >= 0) {
      const Block block{thread_meter(), bytes};
      if (block.meter != nullptr) block.meter->add(block.cls, bytes);
      table().blocks[data] = block;
      return;
    }
    const auto found = table().blocks.find(data);
    if (found == table().blocks.end()) return;
    const Block& block = found->second;
    if (block.meter != nullptr) block.meter->add(block.cls, -block.bytes);
    table().blocks.erase(found);
  }
  bool memoryProfilingEnabled() const override {
    return true;
  }
};

}  // namespace

DeviceMeterScope::DeviceMeterScope()
    : guard_(std::make_unique<c10::DebugInfoGuard>(c10::DebugInfoKind::PROFILER_STATE,
                                                   std::make_shared<Reporter>())) {}

DeviceMeterScope::~DeviceMeterScope() = default;

std::int64_t classify_device(const at::Tensor& tensor, BufferClass cls) {
  const void* data = tensor.storage().data_ptr().get();
  const std::lock_guard lock(table().mutex);
  const auto found = table().blocks.find(data);
  if (found == table().blocks.end() || found->second.meter == nullptr) return 0;
  Block& block = found->second;
  block.meter->move(block.cls, cls, block.bytes);
  block.cls = cls;
  return block.bytes;
}

}  // namespace orrery::engine
