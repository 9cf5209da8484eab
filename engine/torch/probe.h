// Measures this machine with the engine's own primitives and communicator, all ranks at once (they
// share its cores), and writes a cluster file that describes it.
#pragma once

#include <string>

#include "core/result.h"

namespace orrery::engine {

// Starts MPI; every rank of the world calls it. Rank 0 writes `out` by rename. Takes about ten
// seconds. kIo when the file cannot be written.
Status probe_machine(const std::string& out);

}  // namespace orrery::engine
