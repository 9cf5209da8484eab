// A round: all threads take parts of the list until none is left. See crew.h.
#include "planner/jobs/crew.h"

#include <algorithm>

namespace orrery::planner::jobs {

Crew::Crew(std::size_t threads) {
  for (std::size_t t = 1; t < std::max<std::size_t>(1, threads); ++t) {
    threads_.emplace_back([this, t] { help(t); });
  }
}

Crew::~Crew() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  begins_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Crew::run(std::size_t count, std::size_t grain,
               const std::function<void(std::size_t, std::size_t)>& work) {
  {
    const std::lock_guard lock(mutex_);
    work_ = &work;
    count_ = count;
    grain_ = std::max<std::size_t>(1, grain);
    next_ = 0;
    busy_ = threads_.size();
    ++round_;
  }
  begins_.notify_all();
  take(0);
  std::unique_lock lock(mutex_);
  ends_.wait(lock, [this] { return busy_ == 0; });
}

void Crew::take(std::size_t thread) {
  for (;;) {
    const std::size_t first = next_.fetch_add(grain_);
    if (first >= count_) return;
    for (std::size_t i = first; i < std::min(count_, first + grain_); ++i) (*work_)(thread, i);
  }
}

void Crew::help(std::size_t thread) {
  std::size_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      begins_.wait(lock, [&] { return stops_ || round_ > seen; });
      if (stops_) return;
      seen = round_;
    }
    take(thread);
    const std::lock_guard lock(mutex_);
    if (--busy_ == 0) ends_.notify_one();
  }
}

}  // namespace orrery::planner::jobs
