// orrery plan --for simulate: the fastest job over all axes.
#pragma once

#include <string>

#include "cli/command.h"
#include "simulator/stages/parameter_set.h"

namespace orrery::cli {

// Options of `orrery plan` that only this has, by name.
inline constexpr const char* kJobOptions[] = {"stack", "parameters", "threads"};
// And those that it has no answer to.
inline constexpr const char* kEngineOptions[] = {
    "versus",    "size-for",     "max-seq", "sweep", "csv",  "tokens", "device-mtbf",
    "save-time", "restart-time", "import",  "risk",  "ties", "budget", "runners-up"};

Result<int> plan_jobs(const Arguments& arguments, Output& out);

// The set that --parameters names; of no name "published", or none where that is not there.
Result<simulator::ParameterSet> parameters_or_default(const std::string& name);

}  // namespace orrery::cli
