// Streams of a device that does not exist: each is a thread that runs jobs in the order they were
// enqueued, after random delays. Events order streams. A missing event shows: the other stream is
// late or early by milliseconds. No torch here: the stand-ins of communication libraries and their
// tests use it too.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>

namespace orrery::engine::test {

// What a stream handle points to. A library that was built apart enqueues by it.
struct StreamEntry {
  void (*enqueue)(StreamEntry* self, void (*job)(void* argument), void* argument) = nullptr;
};

// A moment of a stream, once it has come.
class FakeEvent {
 public:
  void fire();
  void wait() const;
  bool fired() const;
  std::int64_t fired_ns() const;  // steady clock; only of one that fired

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::int64_t time_ns_ = -1;
};

class FakeStream {
 public:
  using Job = std::function<void()>;

  // The seed settles how this stream delays its jobs.
  explicit FakeStream(std::uint64_t seed);
  ~FakeStream();  // runs what is enqueued
  FakeStream(const FakeStream&) = delete;
  FakeStream& operator=(const FakeStream&) = delete;

  // Never blocks. After a job that throws, later jobs are dropped; events still come.
  void enqueue(Job job);
  void enqueue_always(Job job);  // not dropped, and without a delay
  std::shared_ptr<FakeEvent> record();
  void wait_for(std::shared_ptr<FakeEvent> event);  // later jobs wait
  bool idle() const;
  // Until all that was enqueued has run. Throws what a job threw, once.
  void synchronize();
  void reseed(std::uint64_t seed);  // and forgets a failure
  // Waits for what is enqueued, whatever it threw.
  void drain();

  // Every job from now on begins later by this much, until the next reseed.
  void set_pause(std::int64_t microseconds);

  void* handle() { return &entry_; }
  static FakeStream& of_handle(void* handle);

 private:
  struct Entry : StreamEntry {
    FakeStream* stream = nullptr;
  };
  struct Item {
    Job job;
    bool always = false;  // an event's, which no failure stops
  };

  void push(Item item);
  void run();
  void delay();

  Entry entry_;
  mutable std::mutex mutex_;
  std::condition_variable posted_;
  std::condition_variable done_;
  std::deque<Item> items_;
  std::uint64_t last_ = 0, completed_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
  std::mt19937_64 random_;
  int manner_ = 0;  // of delaying: see delay()
  std::int64_t pause_us_ = 0;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace orrery::engine::test
