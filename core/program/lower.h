// Lowering: from a plan to the program of one training step, for each role. There is one lowering;
// the simulator and the engine both take what it returns.
#pragma once

#include "core/plan.h"
#include "core/program/program.h"

namespace orrery {

// CHECKs that the plan breaks no rule (violations() is the caller's duty, with its messages).
Program lower(const Plan& plan);

}  // namespace orrery
