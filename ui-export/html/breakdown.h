// Where the time of a step goes, by phase.
#pragma once

#include <cstdint>
#include <vector>

#include "core/json.h"
#include "ui-export/html/side.h"

namespace orrery::html {

// For each whole step of `wanted` the mean over its ranks of four times, in ns, by phase: compute
// (any op that is no communication), exposed (communication and no compute), hidden (communication
// beside compute), idle (neither; it belongs to the phase of the op that comes next, after the last
// op to that one's). compute + exposed + idle = step, as in the analysis `breakdown`.
//   {"phases": ["data", "fwd", ...], "steps": [{"step", "compute": [ns a phase],
//    "exposed": [..], "hidden": [..], "idle": [..]}]}
Json breakdown_json(const Side& side, const std::vector<std::int32_t>& wanted);

}  // namespace orrery::html
