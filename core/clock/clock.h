// The clock: pure event replay of a program over given durations, in integer nanoseconds. It knows
// no costs: the simulator gives it predicted durations, what-if analysis gives it measured ones.
//
// Each lane of a rank is FIFO; an op starts when its dependencies have ended; a collective starts
// when every replayed member of its group has posted it, and ends for all at once. Compute and
// communication that run together slow each other: rates are piecewise constant, changed only by
// starts and ends. Ties are broken by (time, rank, op): the same input gives the same output.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program/program.h"
#include "core/units.h"

namespace orrery {

// One rank to replay. Folding replays a representative instead of every rank: collectives then
// join only the members that are replayed.
struct RankDurations {
  std::int32_t rank = 0;
  std::vector<Nanoseconds> durations;  // one an op of the rank's role, undisturbed
};

struct ClockRates {
  double compute_slowdown = 1;  // of compute while a collective runs on the rank, >= 1
  double link_slowdown = 1;     // of a collective while a member computes, >= 1
};

struct OpTimes {
  std::int64_t posted_ns = 0;  // its dependencies and its lane let it go
  std::int64_t start_ns = 0;   // a collective: the last member has posted
  std::int64_t end_ns = 0;
};

struct Replay {
  std::vector<std::vector<OpTimes>> times;  // [index of the replayed rank][op]
  Nanoseconds end;
};

// CHECKs that durations are non-negative and that the program cannot deadlock (verify it first).
Replay replay(const Program& program, const std::vector<RankDurations>& ranks,
              const ClockRates& rates);

}  // namespace orrery
