// Size variables that others hand in.
#pragma once

#include <string>

#include "core/plan.h"
#include "core/program/program.h"

namespace orrery::simulator {

// Why `binding` cannot be of a step of this program; empty where it can. Recorded bindings come
// from files: what they hold becomes sizes and times.
std::string misfit(const Plan& plan, const Program& program, const Binding& binding);

}  // namespace orrery::simulator
