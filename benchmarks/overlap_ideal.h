// What a step would take if nothing but its program held it up: the clock's replay of a program
// over durations measured in a run, of the same program or of another order of the same work.
#pragma once

#include <vector>

#include "core/clock/clock.h"
#include "core/program/program.h"
#include "core/trace_events.h"

namespace orrery {

// Durations of `target`'s ops, by rank, from one step of each rank of `source`. Ops that have a key
// in both take the measured time. Where the programs cut the same work into other micro-batches or
// parts, the ops of one path and phase share evenly what the source's took together. CHECKs that
// `source` measured every path and phase of `target`. A collective counts from when all had come.
std::vector<RankDurations> durations_of(const Program& target, const Program& source,
                                        const std::vector<TraceEvents>& by_rank);

// Seconds; compute and communication do not slow each other.
double replayed_s(const Program& program, const std::vector<RankDurations>& durations);

// Of the mean rank, seconds: all compute, and all communication of the busiest lane.
struct Totals {
  double compute_s = 0, lane_s = 0;
};
Totals totals_of(const Program& program, const std::vector<RankDurations>& durations);

}  // namespace orrery
