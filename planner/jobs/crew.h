// Threads that work through the same list together, again and again.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace orrery::planner::jobs {

class Crew {
 public:
  explicit Crew(std::size_t threads);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  std::size_t size() const { return threads_.size() + 1; }
  // Calls `work(thread, i)` for each i below `count`, in parts of `grain` in a row, and returns
  // when all are done. The caller is thread 0.
  void run(std::size_t count, std::size_t grain,
           const std::function<void(std::size_t thread, std::size_t i)>& work);

 private:
  void help(std::size_t thread);
  void take(std::size_t thread);

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable begins_, ends_;
  const std::function<void(std::size_t, std::size_t)>* work_ = nullptr;
  std::size_t count_ = 0, grain_ = 1, round_ = 0, busy_ = 0;
  std::atomic<std::size_t> next_{0};
  bool stops_ = false;
};

}  // namespace orrery::planner::jobs
