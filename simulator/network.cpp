// Collectives over link tiers.
//
// A group of n ranks at a stride meets several tiers: within tier t's domain sit n_t of its ranks.
// What a rank sends to ranks of its own inner domain crosses the inner links, the rest crosses the
// next tier. Rings and pairwise exchanges keep all tiers busy at once, so time is the slowest
// tier's bytes / bandwidth, plus latency x ceil(log2 n) steps of the outermost tier crossed.
// A ring all-gather or reduce-scatter carries (k-1)/k of the whole buffer into each of the k inner
// domains, shared by the links of the members inside (every device has its own link to each tier);
// all-to-all sends to each peer on its own, so the share that leaves is (n - n_t) / (n - 1) of the
// bytes a rank sends.
#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "simulator/op_cost.h"

namespace orrery::simulator {
namespace {

// Members of the group inside one domain of the tier.
std::int64_t members_inside(const Group& group, std::int64_t domain) {
  return std::clamp<std::int64_t>(domain / group.stride, 1, group.size);
}

bool is_ring(OpKind kind) {
  return kind == OpKind::kAllGather || kind == OpKind::kReduceScatter || kind == OpKind::kAllReduce;
}

}  // namespace

Seconds collective_time(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire) {
  const std::int64_t n = group.size;
  const double bytes = static_cast<double>(std::max(wire.sent, wire.received));
  if (n == 1) return Seconds(0);
  CHECK(!cluster.tiers.empty(), "a cluster without links");
  double slowest = 0;
  double latency = 0;
  std::int64_t inner = 1;  // members reached by the tiers below
  for (std::size_t t = 0; t < cluster.tiers.size(); ++t) {
    const LinkTier& tier = cluster.tiers[t];
    const bool last = t + 1 == cluster.tiers.size();
    const std::int64_t here = last ? n : members_inside(group, tier.domain);
    if (here <= inner) continue;
    double crossing = 0;
    if (is_ring(kind)) {
      // The whole buffer is bytes * n / (n - 1); (k-1)/k of it enters each inner domain.
      const double k = static_cast<double>(here) / static_cast<double>(inner);
      const double whole = bytes * static_cast<double>(n) / static_cast<double>(n - 1);
      crossing = whole * (k - 1) / k / static_cast<double>(inner);
    } else {
      crossing = bytes * static_cast<double>(here - inner) / static_cast<double>(n - 1);
    }
    slowest = std::max(slowest, crossing / tier.bandwidth.value());
    latency = std::max(latency, tier.latency.value());
    inner = here;
  }
  return Seconds(latency * std::ceil(std::log2(static_cast<double>(n))) + slowest);
}

}  // namespace orrery::simulator
