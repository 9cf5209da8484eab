// Where the executor's events go. One producer a lane, so that no lane waits for another.
#pragma once

#include <array>
#include <mutex>
#include <utility>

#include "core/trace_events.h"
#include "tracer/recorder.h"

namespace orrery::engine {

class TraceSink {
 public:
  virtual ~TraceSink() = default;
  // From the thread of `lane`.
  virtual void record(Lane lane, const TraceRecord& record) = 0;
  // From the walking thread.
  virtual void binding(Binding binding) = 0;
  virtual void step(const StepEvent& step) = 0;
};

// Discards everything.
class NoTrace final : public TraceSink {
 public:
  void record(Lane, const TraceRecord&) override {}
  void binding(Binding) override {}
  void step(const StepEvent&) override {}
};

// Keeps everything in memory, for tests.
class MemoryTrace final : public TraceSink {
 public:
  void record(Lane, const TraceRecord& record) override {
    const std::lock_guard lock(mutex_);
    std::visit([this](const auto& event) { add(event); }, record);
  }
  void binding(Binding b) override { events.bindings.push_back(std::move(b)); }
  void step(const StepEvent& s) override { events.steps.push_back(s); }

  TraceEvents events;

 private:
  void add(const SpanEvent& e) { events.spans.push_back(e); }
  void add(const CollectiveEvent& e) { events.collectives.push_back(e); }
  void add(const AllocEvent& e) { events.allocs.push_back(e); }
  void add(const PeakEvent& e) { events.peaks.push_back(e); }
  std::mutex mutex_;
};

// Into the rank's part of the trace.
class RecorderTrace final : public TraceSink {
 public:
  explicit RecorderTrace(Recorder& recorder) : recorder_(recorder) {
    for (auto& producer : producers_) producer = &recorder.producer();
  }
  void record(Lane lane, const TraceRecord& record) override {
    producers_[static_cast<std::size_t>(lane)]->record(record);
  }
  void binding(Binding b) override { recorder_.record_binding(std::move(b)); }
  void step(const StepEvent& s) override { recorder_.end_step(s); }

 private:
  Recorder& recorder_;
  std::array<TraceProducer*, kNumLanes> producers_{};
};

}  // namespace orrery::engine
