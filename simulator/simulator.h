// The simulator: a program on a virtual clock. Same input, same rows.
#pragma once

#include <cstdint>
#include <vector>

#include "core/plan.h"
#include "core/program/program.h"
#include "core/result.h"
#include "core/trace_events.h"

namespace orrery::simulator {

struct Options {
  std::vector<Binding> bindings;  // one a rank, recorded by a run; empty: drawn from the workload
  std::uint64_t seed = 0;         // of the drawn expert loads
  bool events = true;             // fill Simulation::events
};

// Of one rank; the four parts sum to the step.
struct Breakdown {
  std::int32_t rank = 0;
  Seconds step, compute, exposed, idle;  // exposed: communication that no compute hides
  Seconds hidden;                        // communication beside compute; not part of the sum
};

struct Simulation {
  Nanoseconds step;
  std::vector<Breakdown> ranks;  // of the replayed ranks
  Bytes peak;                    // of the fullest rank
  std::int32_t peak_rank = 0;
  Bytes host_peak;                     // of the rank that holds most on its host
  std::vector<MemoryRow> at_peak;      // live bytes of each class at that moment
  std::vector<MemoryRow> class_peaks;  // highest live bytes of each class on any rank
  Prediction prediction;
  TraceEvents events;
};

// kInvalid when bindings do not fit the program: another world, a wrong number of variables, rows
// that do not sum to what the plan routes, a rank that is there twice.
// Replays all ranks up to kMaxUnfolded; beyond, one expert group stands for the others.
inline constexpr std::int32_t kMaxUnfolded = 16;
Result<Simulation> simulate(const Plan& plan, const Program& program, const Options& options);

// A rank's size variables: expert loads drawn with the workload's spread (seeded), documents as the
// workload states. All ranks of an expert group see the same draw, so that rows sent are received.
Binding draw_binding(const Plan& plan, const Program& program, std::int32_t rank,
                     std::uint64_t seed);

// Live bytes in issue order: the peak and what it is made of. `at[i]` is the live total while op i
// runs (its workspace included).
struct MemoryTimeline {
  std::int64_t peak = 0;
  OpId peak_op = -1;
  std::vector<std::int64_t> at_peak;      // by BufferClass
  std::vector<std::int64_t> class_peaks;  // by BufferClass
  std::vector<std::int64_t> at;
  std::int64_t host_peak = 0;  // of the buffers that live on the host
};
MemoryTimeline memory_timeline(const Role& role, const std::vector<std::int64_t>& binding);

}  // namespace orrery::simulator
