// What one op costs, from shapes, dtypes, the device profile and the link tiers; nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "core/clock/clock.h"
#include "core/cluster.h"
#include "core/program/program.h"
#include "core/program/work.h"
#include "core/units.h"
#include "simulator/cost_terms.h"

namespace orrery::simulator {

// Where `terms` is given, each function below also adds what it sums up to it, entry by entry.

// Sum over the items of max(FLOPs / (peak x eff(shape, dtype)), bytes / (bandwidth x eff(bytes)))
// plus the launch cost of their kernels.
Seconds work_time(const DeviceProfile& device, const std::vector<Work>& work,
                  const std::vector<std::int64_t>& binding, VarBase vars, Terms* terms = nullptr);

// Moving `bytes` through device memory with `kernels` launches.
Seconds memory_time(const DeviceProfile& device, PassKind pass, double bytes, int kernels,
                    Terms* terms = nullptr);

// A copy between device and host, its launch included.
Seconds copy_time(const DeviceProfile& device, double bytes, Terms* terms = nullptr);

// A collective of a group in which a rank sends and receives `wire`, own part excluded:
// latency x ceil(log2 n) + the slower of what stays inside each tier's domain and what leaves it
// over that tier's links (network.cpp states the sharing).
Seconds collective_time(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire,
                        Terms* terms = nullptr);

// What it takes of cores and links meanwhile: those of the tier that bounds it.
Share collective_share(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire);

// For calibration: the farthest tier that a group of several ranks crosses, the bytes at which its
// curve is read (of shared links: of all that share one), what the slowest tier inside takes, and
// what this one would take by its bandwidth alone.
struct FarthestTier {
  std::int32_t tier = 0;
  double bytes = 0, inside_s = 0, ideal_s = 0;
};
FarthestTier farthest_tier(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire);

// Durations of every op of `role` on `rank` under `binding`.
std::vector<Nanoseconds> op_durations(const Cluster& cluster, const Program& program,
                                      const Role& role, std::int32_t rank,
                                      const std::vector<std::int64_t>& binding);

// Ranks that do the same take differently long, and all wait for the last: the expected maximum of
// `ranks` times of relative standard deviation `spread`, over their mean. Order statistics of the
// normal distribution, by Blom's approximation (Blom 1958): the quantile (n - 3/8) / (n + 1/4).
double stretch_of(double spread, std::int64_t ranks);

// The same for the clock: stretched by the spreads of compute and of links, and with what each op
// asks of cores and links that ranks share.
RankDurations rank_durations(const Cluster& cluster, const Program& program, const Role& role,
                             std::int32_t rank, const std::vector<std::int64_t>& binding);

// The clock's rates where `replayed` ranks of the cluster are replayed: fewer than all of them
// share as many cores fewer.
ClockRates clock_rates(const Cluster& cluster, std::int32_t replayed);

// One op, with what it rests on.
Seconds op_time(const Cluster& cluster, const Program& program, const Role& role, const Op& op,
                std::int32_t rank, const std::vector<std::int64_t>& binding,
                Terms* terms = nullptr);

}  // namespace orrery::simulator
