// The clock turned around: from when the ops of a measured step ended, the durations that make the
// clock end them then. So a duration holds all that an op costs, the walk to it and the wake of its
// thread included, but not what it waited for: its lane, its dependencies, the host, late members.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program/program.h"

namespace orrery {

// One rank of one step; times of all ranks by one clock.
struct MeasuredRank {
  std::int32_t rank = 0;
  std::int64_t begin_ns = 0;         // of the step
  std::vector<std::int64_t> end_ns;  // by op
};

// By rank as given, then by op; never negative. `computes_on_host` as ClockRates has it. Ranks that
// are missing are nobody's late members.
std::vector<std::vector<std::int64_t>> implied_durations(const Program& program,
                                                         const std::vector<MeasuredRank>& ranks,
                                                         bool computes_on_host);

}  // namespace orrery
