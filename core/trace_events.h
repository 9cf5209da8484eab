// What both producers (simulator and engine) say of a run, and both consumers (tracer, analyses)
// read. Rows of the trace's tables; design section 8.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/program/program.h"

namespace orrery {

struct SpanEvent {
  std::int32_t rank = 0, step = 0;
  std::int32_t op = 0;  // index in the role's program
  std::int64_t enqueue_ns = 0, start_ns = 0, end_ns = 0;
};

struct CollectiveEvent {
  std::int32_t rank = 0, step = 0;
  std::int32_t op = 0;
  std::int32_t group = 0;
  std::int64_t sequence = 0;  // number of this collective on its lane and group
  std::int64_t posted_ns = 0, ready_ns = 0, end_ns = 0;  // ready: the last member has arrived
  std::int64_t bytes_sent = 0, bytes_received = 0;       // own part excluded
};

// The class of everything in host memory, beside those of BufferClass (which are of the device):
// neither in another class nor in the total.
inline constexpr std::int32_t kHostClass = kNumBufferClasses;

// A change of live memory. delta > 0 at take, < 0 at free; class is a BufferClass or kHostClass.
struct AllocEvent {
  std::int32_t rank = 0, step = 0;
  std::int32_t op = 0;
  std::int32_t cls = 0;
  std::int64_t time_ns = 0;
  std::int64_t delta = 0;
};

// Highest live bytes of one class in one step (cls = -1: of the device's classes together;
// kHostClass only where a step holds host memory).
struct PeakEvent {
  std::int32_t rank = 0, step = 0;
  std::int32_t cls = -1;
  std::int64_t bytes = 0;
};

struct StepEvent {
  std::int32_t rank = 0, step = 0;
  std::int64_t start_ns = 0, end_ns = 0;
  double loss = 0, balance_loss = 0, z_loss = 0, grad_norm = 0;
  double lr = 0;            // learning rate
  std::int64_t tokens = 0;  // of the world
};

// Everything of one or more steps of some ranks.
struct TraceEvents {
  std::vector<StepEvent> steps;
  std::vector<SpanEvent> spans;
  std::vector<CollectiveEvent> collectives;
  std::vector<AllocEvent> allocs;
  std::vector<PeakEvent> peaks;
  std::vector<Binding> bindings;
};

}  // namespace orrery
