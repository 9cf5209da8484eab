// The spans of some steps and ranks, as many as a page can hold.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/json.h"
#include "ui-export/html/op_table.h"
#include "ui-export/html/side.h"

namespace orrery::html {

inline constexpr std::size_t kMaxRanksShown = 16;

// At most kMaxRanksShown of the ranks, spread evenly, the first and the last among them.
std::vector<std::int32_t> ranks_shown(const std::vector<std::int32_t>& ranks);

// Steps whose spans are about `budget`, ascending: the default step is taken first, then the
// slowest, the fastest, the first, the last and the others, each with the same ranks.
std::vector<std::int32_t> timeline_steps(const Side& side, std::size_t budget);

// The spans of those steps. Where one step alone is too much, neighbours on a lane
// that are short and close are drawn as one block, with the time that its ops took. What is left
// out is told in `omitted`, a sentence each.
//   {"steps": [{"step", "ranks": [{"rank", "role", "start", "end", "op": [..], "at": [..],
//               "ns": [..], "count": [..], "busy": [..], "wire": {"op": [..], "wait", "sent",
//               "received"}}]}]}
// "at" counts from the end of the number before it; times are ns from the step's origin; "count"
// and "busy" are there only where ops were drawn as one.
Json timeline_json(const Side& side, std::size_t budget, OpTable& ops,
                   std::vector<std::string>& omitted);

}  // namespace orrery::html
