// Questions that ask for many plans: how many devices, how long a sequence, which cluster, and a
// sweep over values. Each prints a table, or one document with --json, and returns the exit code.
#pragma once

#include "cli/command.h"
#include "cli/plan_request.h"
#include "planner/questions/goodput.h"

namespace orrery::cli {

// "12.3 days", "5.0 h", "31.2 s"; "never" where it is infinite.
std::string wall_text(Seconds seconds);
void print_long_run(const planner::LongRun& run, Output& out);
Json long_run_json(const planner::LongRun& run);

// --size-for TIME --tokens N; 4 where no number of devices does it.
Result<int> answer_size(const Arguments& arguments, Output& out);
// --max-seq; 4 where no length fits.
Result<int> answer_longest(const Arguments& arguments, Output& out);
// Several --cluster; 4 where the job fits none.
Result<int> answer_clusters(const Arguments& arguments, Output& out);
// --sweep KEY=A,B,... (repeatable: all combinations), --csv FILE; 4 where no point fits.
Result<int> answer_sweep(const Arguments& arguments, Output& out);

}  // namespace orrery::cli
