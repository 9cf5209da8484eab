// Plans for other engines, and their configurations as pins of a search.
#pragma once

#include "cli/command.h"
#include "core/json.h"
#include "core/result.h"
#include "planner/jobs/request.h"
#include "planner/plans/planner.h"

namespace orrery::cli {

// Reads TRACE, which has to be a plan or a job, and writes --out in --format. Warns of each field
// that the format does not say, and returns them: [{"field", "value", "why"}].
Result<Json> export_handover(const Arguments& arguments, Output& out);

// Adds what the file of --import says to the request's pins; the request has its model, cluster and
// workload. Notes what it read and what it left. kUsage: a --pin beside it that says otherwise.
// kInfeasible: an axis that no plan of the engine has.
Status import_pins(const Arguments& arguments, planner::Request& request, Output& out);
// The same of a search over all axes. kInfeasible: a value that it cannot hold.
Status import_pins(const Arguments& arguments, planner::jobs::Request& request, Output& out);

}  // namespace orrery::cli
