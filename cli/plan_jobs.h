// orrery plan --for simulate: the fastest job over all axes.
#pragma once

#include <string>

#include "cli/command.h"
#include "planner/jobs/request.h"
#include "simulator/stages/parameter_set.h"

namespace orrery::cli {

// Options of `orrery plan` that only this has, by name.
inline constexpr const char* kJobOptions[] = {"stack", "parameters", "threads"};
// And those that it has no answer to.
inline constexpr const char* kEngineOptions[] = {"runners-up"};

// All of it but the cluster, of which a call may name several. kUsage, kInvalid, kIo.
Result<planner::jobs::Request> job_request(const Arguments& arguments, const std::string& cluster);

Result<int> plan_jobs(const Arguments& arguments, Output& out);

// What --fit-probability says; 0: a prediction that fits is enough, and that is as likely to fit as
// not. kUsage for what is no probability below 1.
Result<double> read_probability(const std::string& text);

// The set that --parameters names; of no name "published", or none where that is not there.
Result<simulator::ParameterSet> parameters_or_default(const std::string& name);

}  // namespace orrery::cli
