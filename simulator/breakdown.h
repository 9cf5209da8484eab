// Where a step's time goes, from the times of its ops.
#pragma once

#include <vector>

#include "core/clock/clock.h"
#include "simulator/simulator.h"

namespace orrery::simulator {

// Exposed: communication runs while the compute lane does not. Hidden: both run.
Breakdown breakdown(const Role& role, std::int32_t rank, const std::vector<OpTimes>& times,
                    Nanoseconds end);

}  // namespace orrery::simulator
