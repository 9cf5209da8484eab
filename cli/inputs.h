// Opening what a command was given, with a plain word where it is the other kind of file.
#pragma once

#include <string>

#include "core/job.h"
#include "core/plan.h"
#include "core/result.h"
#include "tracer/trace_db.h"

namespace orrery::cli {

// load_plan; kInvalid says so where the file is a trace.
Result<Plan> open_plan(const std::string& path);

// load_job; kInvalid says so where the file is a plan of the engine.
Result<Job> open_job(const std::string& path);

// TraceReader::open; kInvalid says so where the file is a plan.
Result<TraceReader> open_trace(const std::string& path);

}  // namespace orrery::cli
