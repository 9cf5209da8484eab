// What one op costs, from shapes, dtypes, the device profile and the link tiers; nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "core/cluster.h"
#include "core/program/program.h"
#include "core/program/work.h"
#include "core/units.h"

namespace orrery::simulator {

// Sum over the items of max(FLOPs / (peak x eff(shape, dtype)), bytes / (bandwidth x eff(bytes)))
// plus the launch cost of their kernels.
Seconds work_time(const DeviceProfile& device, const std::vector<Work>& work,
                  const std::vector<std::int64_t>& binding, VarBase vars);

// Moving `bytes` through device memory with `kernels` launches.
Seconds memory_time(const DeviceProfile& device, double bytes, int kernels);

// A collective of a group in which a rank sends and receives `wire`, own part excluded:
// latency x ceil(log2 n) + the slower of what stays inside each tier's domain and what leaves it
// over that tier's links (network.cpp states the sharing).
Seconds collective_time(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire);

// Durations of every op of `role` on `rank` under `binding`.
std::vector<Nanoseconds> op_durations(const Cluster& cluster, const Program& program,
                                      const Role& role, std::int32_t rank,
                                      const std::vector<std::int64_t>& binding);

}  // namespace orrery::simulator
