// A plan as a person reads it: what it is, what is predicted, why it won, why the others lost.
#pragma once

#include <string>
#include <vector>

#include "cli/output.h"
#include "core/plan.h"
#include "planner/plans/planner.h"

namespace orrery::cli {

// "qwen3-235b-a22b on h800x256, pretrain-4k (4.19 M tokens a step)"
std::string job_of(const Plan& plan);

// describe() without the expert axes where the model has no experts.
std::string layout_text(const Model& model, Layout layout, const Chunks& chunks,
                        const MemoryPolicy& policy);

// Memory of a device that a plan may use.
Bytes usable_memory(const Cluster& cluster);

void print_prediction(const Prediction& predicted, const Cluster& cluster, Output& out);
// Rows of (class, bytes, share of their sum); `title` heads the table.
void print_memory(const std::string& title, const std::vector<MemoryRow>& rows, Output& out);
// Everything about a plan that was found.
void print_plan(const Plan& plan, Output& out);
// What does not fit, by how much, and the nearest plan. CHECKs that there is no best plan.
void print_infeasible(const planner::Outcome& outcome, Output& out);
Json nearest_json(const planner::NearestFeasible& nearest);
Json infeasible_json(const planner::Outcome& outcome);

Json memory_json(const std::vector<MemoryRow>& rows);

}  // namespace orrery::cli
