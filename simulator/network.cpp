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
//
// Where groups and domains do not divide each other, some groups straddle a border (3 neighbours in
// nodes of 8: ranks 6, 7 | 8). The price is that of the worst placed group: all wait for it.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "simulator/op_cost.h"

namespace orrery::simulator {
namespace {

struct Inside {
  std::int64_t least = 1, most = 1;
};

// Members of a group inside one domain of `domain` devices, over all groups of this size and
// stride. A border of domains cuts groups at every multiple of gcd(domain, span).
Inside members_inside(const Group& group, std::int64_t domain) {
  const std::int64_t n = group.size, stride = group.stride, span = n * stride;
  if (stride >= domain) return {1, 1};
  if (domain % span == 0) return {n, n};
  const std::int64_t most = std::min(n, (domain + stride - 1) / stride);
  if (span % domain == 0) return {domain / stride, most};
  return {std::max<std::int64_t>(1, std::gcd(domain, span) / stride), most};
}

// Whether the algorithm moves every byte to every member: rings over tiers.
bool is_ring(OpKind kind) {
  return kind != OpKind::kAllToAllV && kind != OpKind::kAllToAll && kind != OpKind::kExchangeCounts;
}

}  // namespace

Seconds collective_time(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire) {
  const std::int64_t n = group.size;
  const double bytes = static_cast<double>(std::max(wire.sent, wire.received));
  if (n == 1) return Seconds(0);
  CHECK(!cluster.tiers.empty(), "a cluster without links");
  double slowest = 0;
  double latency = 0;
  std::int64_t inner = 1;  // members that the tiers below are sure to reach
  for (std::size_t t = 0; t < cluster.tiers.size(); ++t) {
    const LinkTier& tier = cluster.tiers[t];
    const bool last = t + 1 == cluster.tiers.size();
    const Inside inside = last ? Inside{n, n} : members_inside(group, tier.domain);
    const std::int64_t here = inside.most;
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
    inner = std::max(inner, inside.least);
  }
  return Seconds(latency * std::ceil(std::log2(static_cast<double>(n))) + slowest);
}

}  // namespace orrery::simulator
