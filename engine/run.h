// One rank of a training run: the plan's program, step after step, into the rank's part of the
// trace.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "core/result.h"
#include "engine/comm/emulated.h"
#include "engine/inject.h"

namespace orrery::engine {

struct RunArguments {
  std::string plan, data, out;
  std::int32_t steps = 10;
  std::uint64_t seed = 1;
  std::int64_t predicted_ns = 0;  // of one step; 0: not shown
  std::string device = "cpu";     // or cuda, npu: each rank of a node takes one, by its local rank
  bool trace = true;              // false: no trace at all (to measure what tracing costs)
  std::chrono::nanoseconds stall_limit = std::chrono::minutes(10);  // see CommTuning
  std::int64_t memory_limit = 0;    // bytes a rank may have live; 0: as much as there is
  std::int32_t skip_limit = 8;      // steps in a row whose update is skipped: the run ends
  std::optional<LinkOptions> link;  // a slow link that is emulated
  std::optional<Fault> fault;       // on purpose
};

// Starts MPI; the caller ends it (mpi_finish) after it has printed the error, since a rank that is
// gone may take the words of the others along. kInvalid: the plan is for another world, or the data
// hold no row of it. kIo: data or plan cannot be read, the trace cannot be written. kRun: a rank
// failed; the message names it and its op. One rank's error has words, the others' have none.
Status run_rank(const RunArguments& arguments);

}  // namespace orrery::engine
