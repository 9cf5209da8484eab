// What `orrery explain` says of a job over all axes: text and JSON of a diagnosis.
#pragma once

#include <string>

#include "cli/command.h"
#include "cli/output.h"

namespace orrery::cli {

// Whether the file is a job over all axes: of orrery plan --for simulate, or written by hand. False
// for a trace, and for what cannot be read.
bool is_job(const std::string& path);

// Reads the job, looks at it and prints what was found.
Result<int> explain_job(const std::string& path, const Arguments& arguments, Output& out);

}  // namespace orrery::cli
