// One rank of a training run: the plan's program, step after step, into the rank's part of the
// trace.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace orrery::engine {

struct RunArguments {
  std::string plan, data, out;
  std::int32_t steps = 10;
  std::uint64_t seed = 1;
  std::int64_t predicted_ns = 0;  // of one step; 0: not shown
  std::string device = "cpu";     // or cuda, npu: each rank of a node takes one, by its local rank
  bool trace = true;              // false: no trace at all (to measure what tracing costs)
};

// Starts MPI; the caller ends it (mpi_finish) after it has printed the error, since a rank that is
// gone may take the words of the others along. kInvalid: the plan is for another world, or the data
// hold no row of it. kIo: data or plan cannot be read, the trace cannot be written. kRun: a rank
// failed; the message names it and its op. One rank's error has words, the others' have none.
Status run_rank(const RunArguments& arguments);

}  // namespace orrery::engine
