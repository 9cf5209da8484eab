// See the header.
#include "tests/engine/fake_stream.h"

#include <chrono>
#include <exception>
#include <utility>

namespace orrery::engine::test {

void FakeEvent::fire() {
  const std::lock_guard lock(mutex_);
  time_ns_ = std::chrono::duration_cast<std::chrono::nanoseconds>(
                 std::chrono::steady_clock::now().time_since_epoch())
                 .count();
  changed_.notify_all();
}

void FakeEvent::wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return time_ns_ >= 0; });
}

bool FakeEvent::fired() const {
  const std::lock_guard lock(mutex_);
  return time_ns_ >= 0;
}

std::int64_t FakeEvent::fired_ns() const {
  const std::lock_guard lock(mutex_);
  return time_ns_;
}

FakeStream::FakeStream(std::uint64_t seed) {
  entry_.stream = this;
  entry_.enqueue = [](StreamEntry* self, void (*job)(void*), void* argument) {
    static_cast<Entry*>(self)->stream->enqueue([job, argument] { job(argument); });
  };
  reseed(seed);
  thread_ = std::thread([this] { run(); });
}

FakeStream::~FakeStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  posted_.notify_all();
  thread_.join();
}

void FakeStream::reseed(std::uint64_t seed) {
  const std::lock_guard lock(mutex_);
  random_.seed(seed);
  random_.discard(7);
  manner_ = static_cast<int>(random_() % 4);
  failure_ = nullptr;
  pause_us_ = 0;
}

void FakeStream::set_pause(std::int64_t microseconds) {
  const std::lock_guard lock(mutex_);
  pause_us_ = microseconds;
}

FakeStream& FakeStream::of_handle(void* handle) {
  return *static_cast<Entry*>(static_cast<StreamEntry*>(handle))->stream;
}

void FakeStream::push(Item item) {
  const std::lock_guard lock(mutex_);
  items_.push_back(std::move(item));
  ++last_;
  posted_.notify_one();
}

void FakeStream::enqueue(Job job) {
  push({std::move(job), false});
}

void FakeStream::enqueue_always(Job job) {
  push({std::move(job), true});
}

std::shared_ptr<FakeEvent> FakeStream::record() {
  auto event = std::make_shared<FakeEvent>();
  push({[event] { event->fire(); }, true});
  return event;
}

void FakeStream::wait_for(std::shared_ptr<FakeEvent> event) {
  push({[event = std::move(event)] { event->wait(); }, true});
}

bool FakeStream::idle() const {
  const std::lock_guard lock(mutex_);
  return completed_ == last_;
}

void FakeStream::drain() {
  std::unique_lock lock(mutex_);
  const std::uint64_t until = last_;
  done_.wait(lock, [&] { return completed_ >= until; });
}

void FakeStream::synchronize() {
  drain();
  const std::lock_guard lock(mutex_);
  if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// Called with the lock held for the generator, released for the sleep. Four manners: at once, now
// and then late, often late by a little, seldom late by much.
void FakeStream::delay() {
  const std::uint64_t draw = random_();
  std::int64_t us = pause_us_;
  if (manner_ == 1 && draw % 8 == 0) us += static_cast<std::int64_t>(draw / 8 % 300);
  if (manner_ == 2 && draw % 2 == 0) us += static_cast<std::int64_t>(draw / 8 % 60);
  if (manner_ == 3 && draw % 16 == 0) us += static_cast<std::int64_t>(draw / 16 % 2000);
  if (us == 0) return;
  mutex_.unlock();
  std::this_thread::sleep_for(std::chrono::microseconds(us));
  mutex_.lock();
}

void FakeStream::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    posted_.wait(lock, [&] { return stopping_ || !items_.empty(); });
    if (items_.empty()) return;
    Item item = std::move(items_.front());
    items_.pop_front();
    const bool runs = item.always || failure_ == nullptr;
    if (!item.always) delay();
    lock.unlock();
    std::exception_ptr thrown;
    try {
      if (runs) item.job();
    } catch (...) {
      thrown = std::current_exception();
    }
    item.job = nullptr;
    lock.lock();
    if (thrown != nullptr && failure_ == nullptr) failure_ = thrown;
    ++completed_;
    done_.notify_all();
  }
}

}  // namespace orrery::engine::test
