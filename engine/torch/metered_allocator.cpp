// A header before each block of memory remembers its meter, class and size.
#include "engine/torch/metered_allocator.h"

#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <malloc.h>

#include <algorithm>
#include <array>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "core/quantity.h"
#include "engine/torch/device_memory.h"

#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

constexpr std::size_t kHeaderBytes = 64;  // keeps the alignment of alloc_cpu

struct Header {
  std::shared_ptr<MemoryMeter> meter;
  std::int64_t bytes = 0;
  BufferClass cls = BufferClass::kWorkspace;
  bool library = false;

  void count(std::int64_t delta) const {
    if (meter == nullptr) return;
    library ? meter->add_library(delta) : meter->add(cls, delta);
  }
};
static_assert(sizeof(Header) <= kHeaderBytes);

std::shared_ptr<MemoryMeter>& current_meter() {
  thread_local std::shared_ptr<MemoryMeter> meter;
  return meter;
}

thread_local int library_depth = 0;

Header* header_of(void* data) {
  return reinterpret_cast<Header*>(static_cast<char*>(data) - kHeaderBytes);
}

void free_metered(void* data) {
  if (data == nullptr) return;
  Header* header = header_of(data);
  header->count(-header->bytes);
  header->~Header();
  c10::free_cpu(header);
}

void* from_machine(std::size_t bytes) {
  try {
    return c10::alloc_cpu(bytes + kHeaderBytes);
  } catch (const std::exception& error) {
    // libtorch has one class for all its errors: the words tell.
    const bool full = std::string(error.what()).find("allocate memory") != std::string::npos ||
                      dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
    if (!full) throw;
    const MemoryMeter* meter = current_meter().get();
    throw OutOfMemory("out of memory: the machine has no " +
                      format_bytes(Bytes(static_cast<std::int64_t>(bytes))) + " left" +
                      (meter == nullptr ? "" : "; " + meter->summary()));
  }
}

class MeteredAllocator final : public AllocatorBase {
 public:
  c10::DataPtr take(std::size_t bytes) const override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &free_metered, cpu};
    const std::shared_ptr<MemoryMeter>& meter = current_meter();
    if (meter != nullptr && library_depth == 0) meter->check_room(static_cast<std::int64_t>(bytes));
    auto* memory = static_cast<char*>(from_machine(bytes));
    auto* header = new (memory) Header{meter, static_cast<std::int64_t>(bytes)};
    header->library = library_depth > 0;
    header->count(header->bytes);
    return {memory + kHeaderBytes, memory + kHeaderBytes, &free_metered, cpu};
  }
  // Some kernels take raw memory: the context is the data itself, as that asks.
  c10::DeleterFnPtr raw_deleter() const override { return &free_metered; }
};

std::size_t index_of(BufferClass cls) {
  return static_cast<std::size_t>(cls);
}

}  // namespace

struct MemoryMeter::State {
  mutable std::mutex mutex;
  std::array<std::int64_t, kNumBufferClasses> live{}, peak{};
  std::int64_t total = 0, total_peak = 0, window_peak = 0;
  std::int64_t library = 0, library_peak = 0;
  std::int64_t limit = std::numeric_limits<std::int64_t>::max();
  Listener listener;

  void change(BufferClass cls, std::int64_t delta) {
    live[index_of(cls)] += delta;
    peak[index_of(cls)] = std::max(peak[index_of(cls)], live[index_of(cls)]);
    if (listener) listener(cls, delta);
  }
};

MemoryMeter::MemoryMeter() : state_(std::make_unique<State>()) {}
MemoryMeter::~MemoryMeter() = default;

std::int64_t MemoryMeter::live() const {
  const std::lock_guard lock(state_->mutex);
  return state_->total;
}

std::int64_t MemoryMeter::live(BufferClass cls) const {
  const std::lock_guard lock(state_->mutex);
  return state_->live[index_of(cls)];
}

std::int64_t MemoryMeter::peak() const {
  const std::lock_guard lock(state_->mutex);
  return state_->total_peak;
}

std::int64_t MemoryMeter::peak(BufferClass cls) const {
  const std::lock_guard lock(state_->mutex);
  return state_->peak[index_of(cls)];
}

void MemoryMeter::reset_peaks() {
  const std::lock_guard lock(state_->mutex);
  state_->peak = state_->live;
  state_->total_peak = state_->total;
  state_->library_peak = state_->library;
}

std::int64_t MemoryMeter::library_peak() const {
  const std::lock_guard lock(state_->mutex);
  return state_->library_peak;
}

void MemoryMeter::add_library(std::int64_t delta) {
  const std::lock_guard lock(state_->mutex);
  state_->library += delta;
  state_->library_peak = std::max(state_->library_peak, state_->library);
}

void MemoryMeter::begin_window() {
  const std::lock_guard lock(state_->mutex);
  state_->window_peak = state_->total;
}

std::int64_t MemoryMeter::window_peak() const {
  const std::lock_guard lock(state_->mutex);
  return state_->window_peak;
}

void MemoryMeter::set_listener(Listener listener) {
  const std::lock_guard lock(state_->mutex);
  state_->listener = std::move(listener);
}

void MemoryMeter::set_limit(std::int64_t bytes) {
  const std::lock_guard lock(state_->mutex);
  state_->limit = bytes;
}

void MemoryMeter::check_room(std::int64_t bytes) const {
  std::int64_t limit = 0;
  {
    const std::lock_guard lock(state_->mutex);
    limit = state_->limit;
    if (bytes <= limit - state_->total) return;
  }
  throw OutOfMemory("out of memory: " + format_bytes(Bytes(bytes)) +
                    " more are beyond the limit of " + format_bytes(Bytes(limit)) + "; " +
                    summary());
}

std::string MemoryMeter::summary() const {
  std::vector<std::pair<std::int64_t, std::string>> classes;
  std::int64_t total = 0;
  {
    const std::lock_guard lock(state_->mutex);
    total = state_->total;
    for (int c = 0; c < kNumBufferClasses; ++c) {
      const auto cls = static_cast<BufferClass>(c);
      if (state_->live[index_of(cls)] > 0) {
        classes.emplace_back(state_->live[index_of(cls)], name_of(cls));
      }
    }
  }
  constexpr std::size_t kShown = 3;
  std::sort(classes.rbegin(), classes.rend());
  std::string text = "live " + format_bytes(Bytes(total));
  for (std::size_t i = 0; i < std::min(kShown, classes.size()); ++i) {
    text +=
        (i == 0 ? ": " : ", ") + classes[i].second + " " + format_bytes(Bytes(classes[i].first));
  }
  return text;
}

void MemoryMeter::add(BufferClass cls, std::int64_t delta) {
  const std::lock_guard lock(state_->mutex);
  state_->change(cls, delta);
  state_->total += delta;
  state_->total_peak = std::max(state_->total_peak, state_->total);
  state_->window_peak = std::max(state_->window_peak, state_->total);
}

void MemoryMeter::move(BufferClass from, BufferClass to, std::int64_t bytes) {
  if (from == to || bytes == 0) return;
  const std::lock_guard lock(state_->mutex);
  state_->change(from, -bytes);
  state_->change(to, bytes);
}

void install_metered_allocator() {
  static MeteredAllocator allocator;
  static std::once_flag once;
  std::call_once(once, [] {
    // Freed memory stays with the process: tensors come back every layer, and fresh pages cost more
    // than much of the arithmetic on them.
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
    mallopt(M_TOP_PAD, 64 << 20);
    c10::SetCPUAllocator(&allocator, 255);
  });
}

MeterScope::MeterScope(std::shared_ptr<MemoryMeter> meter)
    : previous_(std::exchange(current_meter(), std::move(meter))) {}

MeterScope::~MeterScope() {
  current_meter() = std::move(previous_);
}

std::shared_ptr<MemoryMeter> thread_meter() {
  return current_meter();
}

LibraryScope::LibraryScope() {
  ++library_depth;
}

LibraryScope::~LibraryScope() {
  --library_depth;
}

std::int64_t classify(const at::Tensor& tensor, BufferClass cls) {
  if (!tensor.defined() || !tensor.has_storage()) return 0;
  if (!tensor.device().is_cpu()) return classify_device(tensor, cls);
  const c10::DataPtr& data = tensor.storage().data_ptr();
  void* memory = data.cast_context<void>(&free_metered);
  if (memory == nullptr) return 0;
  Header* header = header_of(memory);
  if (header->meter == nullptr || header->library) return 0;
  header->meter->move(header->cls, cls, header->bytes);
  header->cls = cls;
  return header->bytes;
}

}  // namespace orrery::engine
