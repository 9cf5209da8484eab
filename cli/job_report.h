// A job over all axes, and what is predicted of it, as text and JSON.
#pragma once

#include "cli/output.h"
#include "core/job.h"
#include "planner/jobs/planner.h"
#include "simulator/stages/step.h"

namespace orrery::cli {

// Layout, step with its interval, speed, memory.
void print_job_facts(const Job& job, const simulator::JobPrediction& predicted, Output& out);
// Where the step goes.
void print_job_parts(const simulator::JobPrediction& predicted, Output& out);
// Both.
void print_job(const Job& job, const simulator::JobPrediction& predicted, Output& out);
// {"step_s", "p10_s", "p90_s", "tokens_per_s", "mfu", "parts": {name: seconds}, "allocated_bytes",
// "peak_bytes", "usable_bytes", "probability_fits"}
Json prediction_json(const Job& job, const simulator::JobPrediction& predicted);

// The winner, the best of other families, the rules, the proof; or what comes nearest.
void print_job_plan(const planner::jobs::JobPlan& plan, Output& out);
// A job file (core/job_json.h) with "predicted" (and in it "memory": {class: bytes}), "runners_up",
// "frontier", "cells" (simulator::CellTimes), "rejected", "proof" beside it; where
// nothing fits "nearest" and "change" instead of the job.
Json to_json(const planner::jobs::JobPlan& plan);

}  // namespace orrery::cli
