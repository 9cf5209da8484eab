// How many rows each expert received, by layer, from the size variables that a step recorded.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"
#include "ui-export/html/side.h"

namespace orrery::html {

// Of the default step, over its micro-batches and the ranks that the trace holds; by layer and
// expert. Null where the trace has no routing records.
//   {"step", "ranks", "layers": [..], "rows": [[rows an expert] a layer], "experts_a_column"}
// Columns hold several experts each where there are more than a page can show.
Result<Json> experts_json(TraceReader& trace, const Side& side, std::vector<std::string>& omitted);

}  // namespace orrery::html
