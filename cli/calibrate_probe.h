// What `orrery calibrate` does on a machine that has run nothing yet: it probes the machine and
// makes a few short runs of its own, whose ops show what each kind costs where it is used.
#pragma once

#include <string>
#include <vector>

#include "cli/output.h"
#include "core/result.h"

namespace orrery::cli {

struct ProbeJob {
  std::string out;      // OUT: what is done stays in the folder OUT.parts until all is
  std::string cluster;  // of the runs; empty: this machine as the probe finds it
  std::int64_t ranks = 4;
};

struct Probed {
  std::string cluster;            // file: the speeds to begin with
  std::vector<std::string> runs;  // measured
};

// Parts that an earlier call has left are not done again. Says how far it is. kIo without an
// engine; kRun where a part failed; kInterrupted.
Result<Probed> probe_by_running(const ProbeJob& job, Output& out);

// After the profile is written.
void remove_parts_of(const std::string& out);

}  // namespace orrery::cli
