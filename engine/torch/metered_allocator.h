// Exact memory of a rank: every CPU allocation of libtorch is counted by the meter that the
// allocating thread carries, and given back to the same meter from whichever thread frees it.
// Bytes are those asked for; the allocator's own overhead is not counted, and neither is what a
// BLAS or oneDNN takes for itself while it runs (LibraryScope), which depends on the processor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>

#include "core/program/program.h"
#include "core/result.h"  // before the headers of libtorch, which have a CHECK of their own

namespace at {
class Tensor;
}

namespace orrery::engine {

// There was no memory for a tensor: of the machine, or below a meter's limit. Stops at the border
// of this folder (compat.h), as what libtorch throws.
class OutOfMemory final : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// The live and highest bytes of one rank, by class. All methods may be called from any thread.
class MemoryMeter {
 public:
  // Called after each change: bytes gained (or lost) by a class. Runs under the meter's lock.
  using Listener = std::function<void(BufferClass cls, std::int64_t delta)>;

  MemoryMeter();
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;

  std::int64_t live() const;
  std::int64_t live(BufferClass cls) const;
  // Highest since the last reset_peaks(): of all classes together, and of one class.
  std::int64_t peak() const;
  std::int64_t peak(BufferClass cls) const;
  void reset_peaks();
  // Highest of what libraries took for themselves; in no class and not in the total.
  std::int64_t library_peak() const;
  // Highest total since the last begin_window(): what one op needed. Independent of reset_peaks().
  void begin_window();
  std::int64_t window_peak() const;
  // From here on an allocation that would bring the total beyond `bytes` throws OutOfMemory.
  void set_limit(std::int64_t bytes);
  // Throws where `bytes` more would be beyond the limit.
  void check_room(std::int64_t bytes) const;
  // "live 1.2 GiB: activation 900 MiB, gradient 200 MiB, ...": the largest classes.
  std::string summary() const;
  void set_listener(Listener listener);  // empty: none

  void add(BufferClass cls, std::int64_t delta);
  void move(BufferClass from, BufferClass to, std::int64_t bytes);  // the total does not change
  void add_library(std::int64_t delta);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Puts the metering allocator in the place of libtorch's CPU allocator. Call it once, before the
// first tensor; later calls do nothing. Memory that was allocated earlier is not counted.
void install_metered_allocator();

// Allocations of this thread are counted by `meter` (may be null: not counted) while this lives.
class MeterScope {
 public:
  explicit MeterScope(std::shared_ptr<MemoryMeter> meter);
  ~MeterScope();
  MeterScope(const MeterScope&) = delete;
  MeterScope& operator=(const MeterScope&) = delete;

 private:
  std::shared_ptr<MemoryMeter> previous_;
};

// The meter of this thread's innermost MeterScope; null without one.
std::shared_ptr<MemoryMeter> thread_meter();

// Allocations of this thread are a product's own scratch while this lives. Held around the calls of
// matrix products only, whose outputs exist already: oneDNN packs bf16 operands into buffers of its
// own, below 2 MiB whatever the sizes (a device profile's `reserved` covers them).
class LibraryScope {
 public:
  LibraryScope();
  ~LibraryScope();
  LibraryScope(const LibraryScope&) = delete;
  LibraryScope& operator=(const LibraryScope&) = delete;
};

// Moves a tensor's storage, of the CPU or of a device, to another class (an allocation begins as
// kWorkspace). Does nothing for storage that no meter counted. Returns the bytes of the storage
// that are counted.
std::int64_t classify(const at::Tensor& tensor, BufferClass cls);

}  // namespace orrery::engine
