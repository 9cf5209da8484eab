// The HTML report of a run beside its prediction, of a prediction, or of a plan.
#pragma once

#include "cli/command.h"
#include "core/result.h"

namespace orrery::cli {

// Reads TRACE (a trace or a plan) and --against, writes --out. A run that holds its plan is held
// against a simulation of it, with the expert loads of its median step where the run recorded them.
Status export_html(const Arguments& arguments, Output& out);

}  // namespace orrery::cli
