// Size variables in two halves, the loads of a step and a rank's view of them; and those that
// others hand in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/plan.h"
#include "core/program/program.h"

namespace orrery::simulator {

// For each routing record of a role, in order: rows to each expert of the model, of those that one
// rank routes.
using Loads = std::vector<std::vector<std::int64_t>>;

// With the workload's spread. A load depends on seed, layer and micro-batch, never on the layout.
Loads draw_loads(const Plan& plan, const Role& role, std::uint64_t seed);

// What `rank` sends, receives and computes where every rank routes `loads`.
Binding binding_of(const Plan& plan, const Program& program, std::int32_t rank, const Loads& loads);

// Why `binding` cannot be of a step of this program; empty where it can. Recorded bindings come
// from files: what they hold becomes sizes and times.
std::string misfit(const Plan& plan, const Program& program, const Binding& binding);

}  // namespace orrery::simulator
