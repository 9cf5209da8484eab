// Records what one rank of the engine does. The threads that execute ops write fixed-size records
// to rings of their own and never wait; one thread drains them into the rank's own file,
// `<out>.parts/rank00003.db`. A batch that was committed survives a killed process. merge.h makes
// one trace of the parts.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "core/program/program.h"
#include "core/result.h"
#include "core/trace_events.h"
#include "tracer/ring_buffer.h"
#include "tracer/trace_db.h"

namespace orrery {

using TraceRecord = std::variant<SpanEvent, CollectiveEvent, AllocEvent, PeakEvent>;

// The part of `rank` of the run at `out`: "<out>.parts/rank00003.db".
std::string parts_directory(const std::string& out);
std::string part_path(const std::string& out, std::int32_t rank);

// What one thread writes to. Each thread takes its own and keeps it; valid until close().
class TraceProducer {
 public:
  explicit TraceProducer(std::size_t capacity) : ring_(capacity) {}
  // Never blocks: a record that finds the ring full is counted and lost.
  void record(const TraceRecord& record) {
    if (!ring_.push(record)) dropped_.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  friend class Recorder;
  RingBuffer<TraceRecord> ring_;
  std::atomic<std::int64_t> dropped_{0};
};

class Recorder {
 public:
  struct Options {
    std::size_t ring_capacity = 1 << 16;  // records a thread; rounded up to a power of two
    int flush_ms = 100;                   // the longest a record waits for its commit; <= 200
  };

  // Makes the directory and replaces the rank's part. Stores the static side of the rank's role;
  // rank.role is found in the program. info.status and reason are ignored.
  static Result<std::unique_ptr<Recorder>> open(const std::string& out, const RankInfo& rank,
                                                const RunInfo& info, const Program& program,
                                                const Options& options);
  static Result<std::unique_ptr<Recorder>> open(const std::string& out, const RankInfo& rank,
                                                const RunInfo& info, const Program& program);
  ~Recorder();  // without close(): as a failed run
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // A new ring, for the calling thread alone.
  TraceProducer& producer();

  // These may come from any thread and take a lock; they are rare.
  void record_binding(Binding binding);
  void record(CounterEvent counter);
  void record(NoteEvent note);
  void record(Attr attr);  // the merge keeps one of equal ones
  // Records the step and asks for a commit at once, without waiting for it.
  void end_step(const StepEvent& step);
  void set_clock(std::int64_t offset_ns, std::int64_t error_ns);

  // Waits until all that was recorded before the call is committed; the first error, if any.
  Status flush();
  std::int64_t committed() const;  // records and rows committed so far
  std::int64_t dropped() const;

  // Drains, stores the status and closes the file. The first error of any write, if any.
  Status close(RunStatus status, const std::string& reason = "");

 private:
  struct Impl;
  explicit Recorder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace orrery
