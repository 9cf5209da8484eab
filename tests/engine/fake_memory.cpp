// Poison, guard bytes and quarantine.
#include "tests/engine/fake_memory.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <unordered_map>

#include "tests/engine/fake_device.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::engine::test {
namespace {

constexpr std::size_t kGuardBytes = 64;
constexpr unsigned char kGuard = 0xA5;
constexpr unsigned char kPoison = 0xFF;  // NaN as bf16, fp32 and fp64; -1 as an integer
constexpr std::size_t kQuarantineBytes = 64 << 20;

struct DeviceMemory {
  std::mutex mutex;
  std::deque<std::shared_ptr<FakeBlock>> quarantine;
  std::size_t quarantined = 0;
  std::int64_t live = 0;
  std::vector<std::string> faults;
  std::array<std::unique_ptr<FakeStream>, kFakeStreams> streams;
};

struct Everything {
  std::array<DeviceMemory, kFakeDevices> devices;
  std::mutex mutex;  // of the table
  std::unordered_map<const void*, std::shared_ptr<FakeBlock>> blocks;
};

// Never destroyed: tensors outlive static objects.
Everything& everything() {
  static Everything* const one = new Everything;
  return *one;
}

DeviceMemory& memory_of(int device) {
  return everything().devices[static_cast<std::size_t>(device)];
}

bool is_filled(const char* data, std::size_t bytes, unsigned char with) {
  for (std::size_t i = 0; i < bytes; ++i) {
    if (static_cast<unsigned char>(data[i]) != with) return false;
  }
  return true;
}

void check_guards(DeviceMemory& memory, const FakeBlock& block) {
  const char* end = block.raw + kGuardBytes + block.bytes;
  if (!is_filled(block.raw, kGuardBytes, kGuard) || !is_filled(end, kGuardBytes, kGuard)) {
    memory.faults.push_back("a write past a block of " + std::to_string(block.bytes) + " bytes");
  }
}

// Gives the oldest blocks back to the host until at most `keep` bytes wait.
void release(DeviceMemory& memory, std::size_t keep) {
  while (memory.quarantined > keep) {
    const std::shared_ptr<FakeBlock> block = memory.quarantine.front();
    memory.quarantine.pop_front();
    memory.quarantined -= block->bytes;
    check_guards(memory, *block);
    if (!is_filled(block->raw + kGuardBytes, block->bytes, kPoison)) {
      memory.faults.push_back("a write to a block of " + std::to_string(block->bytes) +
                              " bytes after it was freed");
    }
    std::free(block->raw);
  }
}

// Runs on the stream of the block, after all that was launched there before the free.
void retire(const std::shared_ptr<FakeBlock>& block) {
  DeviceMemory& memory = memory_of(block->device);
  const std::lock_guard lock(memory.mutex);
  check_guards(memory, *block);
  block->freed = true;
  std::memset(block->raw + kGuardBytes, kPoison, block->bytes);
  memory.quarantine.push_back(block);
  memory.quarantined += block->bytes;
  release(memory, kQuarantineBytes);
}

void report_usage(void* data, const FakeBlock& block, std::int64_t delta) {
  const c10::Device device(c10::DeviceType::PrivateUse1,
                           static_cast<c10::DeviceIndex>(block.device));
  c10::reportMemoryUsageToProfiler(data, delta, 0, 0, device);
}

void free_fake(void* data) {
  if (data == nullptr) return;
  std::shared_ptr<FakeBlock> block;
  {
    const std::lock_guard lock(everything().mutex);
    const auto found = everything().blocks.find(data);
    block = found->second;
    everything().blocks.erase(found);
  }
  const auto bytes = static_cast<std::int64_t>(block->bytes);
  report_usage(data, *block, -bytes);
  {
    const std::lock_guard lock(memory_of(block->device).mutex);
    memory_of(block->device).live -= bytes;
  }
  FakeStream& stream = fake_stream(block->device, block->stream);
  // Even after a failure, or the memory would never come back.
  stream.enqueue_always([block] { retire(block); });
}

}  // namespace

FakeStream& fake_stream(int device, int stream) {
  DeviceMemory& memory = memory_of(device);
  const std::lock_guard lock(memory.mutex);
  auto& one = memory.streams[static_cast<std::size_t>(stream)];
  if (one == nullptr) {
    one = std::make_unique<FakeStream>(static_cast<std::uint64_t>(device * 100 + stream));
  }
  return *one;
}

int& current_fake_device() {
  thread_local int device = 0;
  return device;
}

int& current_fake_stream(int device) {
  thread_local std::array<int, kFakeDevices> streams{};
  return streams[static_cast<std::size_t>(device)];
}

c10::DataPtr allocate_fake(std::size_t bytes) {
  const int device = current_fake_device();
  const c10::Device where(c10::DeviceType::PrivateUse1, static_cast<c10::DeviceIndex>(device));
  if (bytes == 0) return {nullptr, nullptr, &free_fake, where};
  auto block = std::make_shared<FakeBlock>();
  block->bytes = bytes;
  block->device = device;
  block->stream = current_fake_stream(device);
  const std::size_t whole = (bytes + 2 * kGuardBytes + 63) / 64 * 64;
  block->raw = static_cast<char*>(std::aligned_alloc(64, whole));
  CHECK(block->raw != nullptr, "no memory");
  std::memset(block->raw, kGuard, whole);
  char* const data = block->raw + kGuardBytes;
  std::memset(data, kPoison, bytes);
  report_usage(data, *block, static_cast<std::int64_t>(bytes));
  {
    const std::lock_guard lock(memory_of(device).mutex);
    memory_of(device).live += static_cast<std::int64_t>(bytes);
  }
  const std::lock_guard lock(everything().mutex);
  everything().blocks[data] = std::move(block);
  return {data, data, &free_fake, where};
}

std::shared_ptr<FakeBlock> fake_block(const void* data) {
  const std::lock_guard lock(everything().mutex);
  const auto found = everything().blocks.find(data);
  return found == everything().blocks.end() ? nullptr : found->second;
}

void expect_live(const std::vector<std::shared_ptr<FakeBlock>>& blocks, const std::string& who) {
  for (const auto& block : blocks) {
    DeviceMemory& memory = memory_of(block->device);
    const std::lock_guard lock(memory.mutex);
    if (block->freed) {
      memory.faults.push_back(who + " uses a block of " + std::to_string(block->bytes) +
                              " bytes after it was freed");
    }
  }
}

void reseed_fake_device(int index, std::uint64_t seed) {
  for (int s = 0; s < kFakeStreams; ++s) {
    FakeStream& stream = fake_stream(index, s);
    stream.drain();
    stream.reseed(seed * 1009 + static_cast<std::uint64_t>(index * 100 + s));
  }
  const std::lock_guard lock(memory_of(index).mutex);
  memory_of(index).faults.clear();
}

std::vector<std::string> fake_faults(int index) {
  for (int s = 0; s < kFakeStreams; ++s) fake_stream(index, s).drain();
  DeviceMemory& memory = memory_of(index);
  const std::lock_guard lock(memory.mutex);
  release(memory, 0);
  return memory.faults;
}

std::int64_t fake_live_bytes(int index) {
  const std::lock_guard lock(memory_of(index).mutex);
  return memory_of(index).live;
}

}  // namespace orrery::engine::test
