// How a rank's run ends, whatever ends it: its part of the trace is closed with the reason first.
#pragma once

#include <csignal>
#include <memory>
#include <mutex>
#include <string>

#include "core/result.h"
#include "engine/comm/communicator.h"
#include "engine/comm/watch.h"
#include "tracer/recorder.h"

namespace orrery::engine {

// Made on the first thread before any other exists: SIGTERM, with which a launcher ends the ranks
// that outlive another, is kept from all of them and read by a thread of this object. The process
// then dies of that signal, as it would have.
class RankEnd {
 public:
  RankEnd();
  ~RankEnd() = default;
  RankEnd(const RankEnd&) = delete;
  RankEnd& operator=(const RankEnd&) = delete;

  // From here on the end is recorded; the recorder lives as long as this object.
  void attach(std::unique_ptr<Recorder> recorder);
  Recorder* recorder() const { return recorder_.get(); }  // null: no trace
  // Closes the trace, once: later calls change nothing. Ok where there is none.
  Status close(RunStatus status, const std::string& reason = "");
  // Closes the trace as failed, prints the error and ends all ranks. From any thread.
  void abort(const Error& error);

 private:
  void look_for_signal();

  const sigset_t signals_;  // first: blocked before there is a thread
  std::mutex mutex_;
  std::unique_ptr<Recorder> recorder_;
  bool closed_ = false;
  Watch watch_;  // last: its thread uses the members above
};

// What an error says, in one line: for the trace.
std::string reason_of(const Error& error);

// `inner` whose abort() is that of the rank's end. Both outlive it.
class RecordedCommunicator final : public Communicator {
 public:
  RecordedCommunicator(Communicator& inner, RankEnd& end) : inner_(inner), end_(end) {}
  std::int32_t rank() const override { return inner_.rank(); }
  std::int32_t world() const override { return inner_.world(); }
  Channel& channel(Lane lane, std::int32_t group) override { return inner_.channel(lane, group); }
  Result<ClockOffset> clock_offset() override { return inner_.clock_offset(); }
  void abort(const Error& error) override { end_.abort(error); }

 private:
  Communicator& inner_;
  RankEnd& end_;
};

}  // namespace orrery::engine
