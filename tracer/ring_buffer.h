// A bounded queue between one writing and one reading thread, without locks: Lamport's ring, the
// two ends in cache lines of their own.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace orrery {

template <class T>
class RingBuffer {
  static_assert(std::is_trivially_copyable_v<T>, "records are copied as bytes");

 public:
  // At least `capacity` records fit; capacity >= 1.
  explicit RingBuffer(std::size_t capacity)
      : slots_(std::bit_ceil(capacity)), mask_(slots_.size() - 1) {}

  std::size_t capacity() const { return slots_.size(); }

  // The writing thread. False, and nothing stored, when the ring is full.
  bool push(const T& value) {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    if (head - tail_seen_ == slots_.size()) {
      tail_seen_ = tail_.load(std::memory_order_acquire);
      if (head - tail_seen_ == slots_.size()) return false;
    }
    slots_[head & mask_] = value;
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  // The reading thread. False when the ring is empty.
  bool pop(T& value) {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail == head_seen_) {
      head_seen_ = head_.load(std::memory_order_acquire);
      if (tail == head_seen_) return false;
    }
    value = slots_[tail & mask_];
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

 private:
  static constexpr std::size_t kLine = 64;
  std::vector<T> slots_;
  std::size_t mask_;
  alignas(kLine) std::atomic<std::uint64_t> head_{0};  // next to write
  std::uint64_t tail_seen_ = 0;                        // the writer's last look at tail_
  alignas(kLine) std::atomic<std::uint64_t> tail_{0};  // next to read
  std::uint64_t head_seen_ = 0;                        // the reader's last look at head_
};

}  // namespace orrery
