// A communication lane on the CPU: one thread that runs jobs in the order they were posted, as a
// stream runs kernels. A ticket stands for the completion event of its job.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/result.h"

namespace orrery::engine {

class LaneWorker {
 public:
  using Job = std::function<Status()>;
  // Names an op for a message; called only when there is one.
  using Label = std::function<std::string()>;
  // How many jobs must have ended: tickets grow by one a post.
  using Ticket = std::uint64_t;

  explicit LaneWorker(std::string lane);
  ~LaneWorker();  // shutdown()
  LaneWorker(const LaneWorker&) = delete;
  LaneWorker& operator=(const LaneWorker&) = delete;

  // Never blocks on the job. After the first failed job, later ones are skipped.
  Ticket post(Job job);

  // Blocks until the job has ended or was skipped. Returns the lane's first error, if any job of
  // the lane has failed (whichever job is asked for: the step is lost). With a timeout, error kRun
  // that names the op when the job has not ended in time; the job goes on.
  Status wait(Ticket ticket);
  Status wait(Ticket ticket, std::chrono::nanoseconds timeout, const Label& label);
  Status drain();  // waits for all that was posted

  // Jobs not yet begun are skipped; waits for the running one and joins. Idempotent.
  void shutdown();

 private:
  void run();
  bool ended(Ticket ticket) const { return completed_ >= ticket || failure_.has_value(); }
  Status status() const;

  std::string lane_;
  std::mutex mutex_;
  std::condition_variable posted_;
  std::condition_variable done_;
  std::deque<Job> jobs_;
  Ticket last_ = 0;
  Ticket completed_ = 0;
  bool stopping_ = false;
  std::optional<Error> failure_;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace orrery::engine
