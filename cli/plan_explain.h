// What `orrery explain` adds to a plan of the engine: what binds it, and which of its plan and the
// runners-up would be the fastest under other circumstances. Each is replayed, none searched.
#pragma once

#include "cli/output.h"
#include "core/plan.h"

namespace orrery::cli {

// Prints both, and returns the plan's document with "binding", "terms" and "what_if" added.
Json explain_plan(const Plan& plan, Output& out);

}  // namespace orrery::cli
