// Plans whose layouts the engines of handover/ have, also with axes that lowering does not take.
#pragma once

#include <cstdint>

#include "core/plan.h"

namespace orrery {

// A plan drawn from all mechanisms; every second one has a layout of a family that some engine has:
// all replicated, sharded in replicas, or dense parameters replicated over expert groups; some with
// tensor, pipeline and context axes. Not always legal for the engine of this house.
Plan random_engine_plan(std::uint64_t seed);

}  // namespace orrery
