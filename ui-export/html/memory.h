// Live memory by class over the time of one step, and the highest of each class.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"
#include "ui-export/html/side.h"

namespace orrery::html {

// The default step of the ranks that the timeline shows, in `points` slices of equal time; a slice
// holds the bytes of each class at the moment of its highest total, so that no peak is lost. Host
// memory is told apart: it is no part of the total. What an op needs only while it runs (workspace)
// has no rows over time: it is in the peaks alone.
//   {"step", "classes": [..], "host": "host", "start", "end" (ns from the step's origin),
//    "ranks": [{"rank", "bytes": [[..a slice, as differences] a class]}]}
// Null where the trace has no alloc rows of that step.
Json memory_json(const Side& side, std::size_t points, std::vector<std::string>& omitted);

// {class: bytes}, the highest of any rank and step; with "total". Null where there are none.
Json peaks_json(const Side& side);

}  // namespace orrery::html
