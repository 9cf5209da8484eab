// What the HTML page of a plan shows beside the plan itself.
#pragma once

#include <string>

#include "core/json.h"
#include "core/plan.h"
#include "core/result.h"
#include "ui-export/html/report.h"

namespace orrery::cli {

// The answer of a plan of the engine, its steps in terms: the plan and its runners-up are replayed.
Json plan_answer(const Plan& plan);

// A job over all axes as its plan.json has it; where it carries the times of its pipeline's cells,
// the schedule is replayed with them. kInvalid, kIo.
Result<JobPageInput> read_job_page(const std::string& path);

}  // namespace orrery::cli
