// A thread that looks at something now and then, until it goes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace orrery::engine {

class Watch {
 public:
  // Calls `look` every `period` from a thread of its own.
  Watch(std::chrono::nanoseconds period, std::function<void()> look)
      : thread_([this, period, look = std::move(look)] {
          std::unique_lock lock(mutex_);
          while (!end_.wait_for(lock, period, [this] { return ended_; })) {
            lock.unlock();
            look();
            lock.lock();
          }
        }) {}
  ~Watch() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    end_.notify_all();
    thread_.join();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable end_;
  bool ended_ = false;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace orrery::engine
