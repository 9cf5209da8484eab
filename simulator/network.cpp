// Collectives over link tiers.
//
// A group of n ranks at a stride meets several tiers: within tier t's domain sit n_t of its ranks.
// What a rank sends to ranks of its own inner domain crosses the inner links, the rest crosses the
// next tier. Rings and pairwise exchanges keep all tiers busy at once, so time is the slowest
// tier's bytes / bandwidth, plus latency x ceil(log2 n) steps of the outermost tier crossed.
// A ring all-gather or reduce-scatter carries (k-1)/k of the whole buffer into each of the k inner
// domains, shared by the links of the members inside (every device has its own link to each tier,
// of which an oversubscribed tier or a mesh leaves it a part: LinkTier::share_of);
// all-to-all sends to each peer on its own, so the share that leaves is (n - n_t) / (n - 1) of the
// bytes a rank sends.
//
// By pairs every kind is such an exchange: each member sends to each other on its own.
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

TransferKind transfer_of(OpKind kind) {
  switch (kind) {
    case OpKind::kAllGather:
    case OpKind::kAllGatherRows:
      return TransferKind::kGather;
    case OpKind::kAllToAll:
    case OpKind::kAllToAllV:
    case OpKind::kExchangeCounts:
      return TransferKind::kExchange;
    default:
      return TransferKind::kReduce;
  }
}

// Whether the algorithm moves every byte to every member: rings over tiers.
bool is_ring(const Cluster& cluster, OpKind kind) {
  return cluster.collectives == CollectiveAlgorithm::kTiers &&
         transfer_of(kind) != TransferKind::kExchange;
}

// Bytes of a rank that cross one tier, and what they take: by the tier's curve, and without it.
struct Crossing {
  std::int32_t tier = 0;
  double bytes = 0, seconds = 0, ideal_s = 0;
};

// Calls `visit(tier, members of the inner domains, members that this tier reaches)` for the tiers
// that the group crosses, from the innermost.
template <class Visit>
void for_tiers(const Cluster& cluster, const Group& group, Visit visit) {
  const std::int64_t n = group.size;
  std::int64_t inner = 1;  // members that the tiers below are sure to reach
  for (std::size_t t = 0; t < cluster.tiers.size(); ++t) {
    const bool last = t + 1 == cluster.tiers.size();
    const Inside inside = last ? Inside{n, n} : members_inside(group, cluster.tiers[t].domain);
    if (inside.most <= inner) continue;
    visit(t, inner, inside.most);
    inner = std::max(inner, inside.least);
  }
}

double crossing_bytes(const Cluster& cluster, OpKind kind, double bytes, std::int64_t n,
                      std::int64_t inner, std::int64_t here) {
  if (!is_ring(cluster, kind)) {
    return bytes * static_cast<double>(here - inner) / static_cast<double>(n - 1);
  }
  // The whole buffer is bytes * n / (n - 1); (k-1)/k of it enters each inner domain.
  const double k = static_cast<double>(here) / static_cast<double>(inner);
  const double whole = bytes * static_cast<double>(n) / static_cast<double>(n - 1);
  return whole * (k - 1) / k / static_cast<double>(inner);
}

// What each tier carries; the slowest bounds the collective, the farthest has its latency.
struct Route {
  Crossing slowest, farthest;
};

// Calls `visit` with the crossing of each tier, from the innermost.
template <class Visit>
void for_crossings(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire,
                   Visit visit) {
  CHECK(!cluster.tiers.empty(), "a cluster without links");
  const auto bytes = static_cast<double>(std::max(wire.sent, wire.received));
  const auto which = static_cast<std::size_t>(transfer_of(kind));
  for_tiers(cluster, group, [&](std::size_t t, std::int64_t inner, std::int64_t here) {
    const LinkTier& tier = cluster.tiers[t];
    const double crossing = crossing_bytes(cluster, kind, bytes, group.size, inner, here);
    const EfficiencyCurve& curve = tier.efficiency[which];
    const double fraction = curve.empty() ? 1 : curve.at(crossing);
    const double rate = tier.bandwidth.value() * tier.share_of(here);
    visit(Crossing{static_cast<std::int32_t>(t), crossing, crossing / (rate * fraction),
                   crossing / rate},
          tier);
  });
}

Route route_of(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire) {
  Route route;
  for_crossings(cluster, group, kind, wire, [&](const Crossing& crossing, const LinkTier& tier) {
    if (crossing.seconds >= route.slowest.seconds) route.slowest = crossing;
    if (tier.latency.value() >= route.farthest.seconds) {
      route.farthest = {crossing.tier, 0, tier.latency.value()};
    }
  });
  return route;
}

}  // namespace

FarthestTier farthest_tier(const Cluster& cluster, const Group& group, OpKind kind,
                           WireBytes wire) {
  FarthestTier out;
  double seconds = 0;  // of the tier before
  for_crossings(cluster, group, kind, wire, [&](const Crossing& crossing, const LinkTier&) {
    out = {crossing.tier, crossing.bytes, std::max(out.inside_s, seconds), crossing.ideal_s};
    seconds = crossing.seconds;
  });
  return out;
}

Seconds collective_time(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire,
                        Terms* terms) {
  if (group.size == 1) return Seconds(0);
  const auto [slowest, farthest] = route_of(cluster, group, kind, wire);
  const double steps = std::ceil(std::log2(static_cast<double>(group.size)));
  const double latency = farthest.seconds * steps;
  if (terms != nullptr) {
    const auto which = static_cast<std::int32_t>(transfer_of(kind));
    const Entry entry{EntryKind::kTransfer, slowest.tier, which, 0};
    const EfficiencyCurve& curve = cluster.tiers[static_cast<std::size_t>(slowest.tier)]
                                       .efficiency[static_cast<std::size_t>(which)];
    terms->add({EntryKind::kLatency, farthest.tier, 0, 0}, latency);
    if (curve.empty()) {
      terms->add(entry, slowest.seconds);
    } else {
      terms->add(entry, curve, slowest.bytes, slowest.seconds);
    }
  }
  return Seconds(latency + slowest.seconds);
}

Share collective_share(const Cluster& cluster, const Group& group, OpKind kind, WireBytes wire) {
  if (group.size == 1) return {};
  const Route route = route_of(cluster, group, kind, wire);
  const LinkTier& tier = cluster.tiers[static_cast<std::size_t>(route.slowest.tier)];
  const auto most = static_cast<double>(std::max({wire.sent, wire.received, std::int64_t{1}}));
  const auto part = [&](std::int64_t bytes) {
    return to_nanoseconds(Seconds(route.slowest.seconds * static_cast<double>(bytes) / most))
        .value();
  };
  return {static_cast<std::int32_t>(std::lround(tier.cpu * 1000)), route.slowest.tier,
          part(wire.sent), part(wire.received)};
}

}  // namespace orrery::simulator
