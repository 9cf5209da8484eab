// See rank_end.h.
#include "engine/rank_end.h"

#include <chrono>
#include <csignal>
#include <utility>

namespace orrery::engine {

namespace {

sigset_t blocked() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

}  // namespace

RankEnd::RankEnd()
    : signals_(blocked()), watch_(std::chrono::milliseconds(20), [this] { look_for_signal(); }) {}

void RankEnd::attach(std::unique_ptr<Recorder> recorder) {
  const std::lock_guard lock(mutex_);
  recorder_ = std::move(recorder);
}

Status RankEnd::close(RunStatus status, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (recorder_ == nullptr || std::exchange(closed_, true)) return Ok{};
  return recorder_->close(status, reason);
}

// One line for the trace: hints are for whoever reads the words of the run.
std::string reason_of(const Error& error) {
  std::string reason;
  for (const Problem& problem : error.problems) {
    reason += (reason.empty() ? "" : "; ") + problem.where + (problem.where.empty() ? "" : ": ") +
              problem.message;
  }
  return reason;
}

void RankEnd::abort(const Error& error) {
  (void)close(RunStatus::kFailed, reason_of(error));
  mpi_abort(error);
}

// A pending signal that every thread blocks stays with the process until somebody takes it.
void RankEnd::look_for_signal() {
  sigset_t pending;
  sigpending(&pending);
  if (sigismember(&pending, SIGTERM) == 0) return;
  (void)close(RunStatus::kFailed,
              "ended from outside by signal 15 (Terminated): the launcher ends every rank when one "
              "has failed");
  std::signal(SIGTERM, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
  std::raise(SIGTERM);
}

}  // namespace orrery::engine
