// FIFO, so that completion is a counter: ticket k has ended when k jobs have.
#include "engine/lane_worker.h"

#include <exception>
#include <utility>

#include "core/check.h"
#include "engine/cores.h"

namespace orrery::engine {

LaneWorker::LaneWorker(std::string lane) : lane_(std::move(lane)), thread_([this] { run(); }) {}

LaneWorker::~LaneWorker() {
  shutdown();
}

LaneWorker::Ticket LaneWorker::post(Job job) {
  const std::lock_guard lock(mutex_);
  CHECK(!stopping_, "a job posted to lane " + lane_ + " after its shutdown");
  jobs_.push_back(std::move(job));
  posted_.notify_one();
  return ++last_;
}

void LaneWorker::run() {
  be_prompt();
  std::unique_lock lock(mutex_);
  while (true) {
    posted_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    const bool skip = stopping_ || failure_.has_value();
    Status status = Ok{};
    lock.unlock();
    if (skip) {
      status = Error::of(ErrorCode::kRun, "lane " + lane_, "shut down with jobs left");
    } else {
      try {
        status = job();
      } catch (const std::exception& error) {
        status = Error::of(ErrorCode::kRun, "lane " + lane_, error.what());
      }
    }
    job = nullptr;  // what it captured goes before the waiters go on
    lock.lock();
    if (!status.ok() && !failure_.has_value()) failure_ = status.error();
    ++completed_;
    done_.notify_all();
  }
}

Status LaneWorker::status() const {
  if (failure_.has_value()) return *failure_;
  return Ok{};
}

Status LaneWorker::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  CHECK(ticket <= last_, "a wait on lane " + lane_ + " for a job that was never posted");
  done_.wait(lock, [&] { return ended(ticket); });
  return status();
}

Status LaneWorker::wait(Ticket ticket, std::chrono::nanoseconds timeout, const Label& label) {
  std::unique_lock lock(mutex_);
  CHECK(ticket <= last_, "a wait on lane " + lane_ + " for a job that was never posted");
  if (done_.wait_for(lock, timeout, [&] { return ended(ticket); })) return status();
  const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count();
  return Error::of(ErrorCode::kRun, "lane " + lane_,
                   label() + " has not ended after " + std::to_string(waited) + " ms",
                   "another rank is late, stopped, or runs another op");
}

Status LaneWorker::drain() {
  Ticket last = 0;
  {
    const std::lock_guard lock(mutex_);
    last = last_;
  }
  return wait(last);
}

void LaneWorker::shutdown() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  posted_.notify_all();
  if (thread_.joinable()) thread_.join();
}

}  // namespace orrery::engine
