// The user's own layout beside the best, as a person and as a program reads it.
#pragma once

#include <string>

#include "cli/output.h"
#include "cli/plan_request.h"
#include "planner/questions/versus.h"

namespace orrery::cli {

// "ep=8,fsdp_d=64", or a file: exactly that plan, or with `simulates` that job. kUsage, kInvalid,
// kIo.
Result<planner::OwnLayout> read_versus(const std::string& word, bool simulates);

void print_versus(const planner::Comparison& comparison, Output& out);
Json versus_json(const planner::Comparison& comparison);

// A difference of times that may be negative: "+1.2 s", "-3.0 ms", "0 s".
std::string signed_seconds(Seconds seconds);

}  // namespace orrery::cli
