// Changes to one job as a user would make them: another value of one axis, a switch, a kernel, the
// workload, the devices. What each would do is for the simulator to say.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/job.h"

namespace orrery::planner::jobs {

// From the smallest change to the largest.
enum class ChangeKind : std::uint8_t {
  kSwitch,     // recompute, sharding, schedule, micro-batch: the devices do the same work
  kAxis,       // other groups of devices
  kKernel,     // what the framework runs
  kPrecision,  // other numbers
  kWorkload,   // other sequences, another batch
  kDevices
};
const char* name_of(ChangeKind kind);  // "switch", "axis", "kernel", ...

struct Change {
  std::string axis;   // "recompute", "tp"
  std::string words;  // "tp 8 instead of 4"
  ChangeKind kind = ChangeKind::kSwitch;
  // Makes it in a job; what hangs on it follows (dp takes the devices that are left, the
  // micro-batch divides the batch). False where the result breaks a rule or is the job as it was.
  std::function<bool(Job&)> apply;
};

// Every change that is worth a look for this job.
std::vector<Change> changes_of(const Job& job);

// The axes in which `to` is not as `from`, but dp, which follows from them: "pp 4 instead of 1,
// recompute full instead of none";
// empty where there are none. Not `olds`: "pp 4, recompute full".
std::string difference_words(const Job& from, const Job& to, bool olds = true);

// The cluster with so many devices: of its template where its name tells it, since a part of a node
// has no links beyond it; nullopt where there is none.
std::optional<Cluster> grown(const Cluster& cluster, std::int64_t devices);

}  // namespace orrery::planner::jobs
