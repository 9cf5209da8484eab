// See profile.h.
#include "simulator/calibration/profile.h"

#include <algorithm>
#include <string>

#include "core/check.h"
#include "core/hash.h"

namespace orrery::simulator {
namespace {

constexpr double kLeastFraction = 1e-6;

// Where a file states no curve: flat, with points to move.
EfficiencyCurve flat_transfers() {
  return {{4e3, 64e3, 1e6, 16e6}, {1, 1, 1, 1}};
}

EfficiencyCurve& curve_of(Cluster& cluster, const Entry& entry) {
  DeviceProfile& device = cluster.device;
  const auto which = static_cast<std::size_t>(entry.which);
  switch (entry.kind) {
    case EntryKind::kGemm:
      return device.gemm;
    case EntryKind::kGrouped:
      return device.grouped;
    case EntryKind::kAttention:
      return device.attention;
    case EntryKind::kPass:
      return device.passes[which].empty() ? device.memory_eff : device.passes[which];
    case EntryKind::kTransfer:
      return cluster.tiers[static_cast<std::size_t>(entry.tier)].efficiency[which];
    default:
      CHECK(false, "no curve: " + name_of(entry));
  }
}

double highest(const EfficiencyCurve& curve) {
  return curve.empty() ? 0 : *std::max_element(curve.fraction.begin(), curve.fraction.end());
}

void divide(EfficiencyCurve& curve, double by) {
  for (double& f : curve.fraction) f = std::clamp(f / by, kLeastFraction, 1.0);
}

void settle_device(DeviceProfile& d) {
  const double products =
      std::max({1.0, highest(d.gemm), highest(d.grouped), highest(d.attention)});
  for (EfficiencyCurve* curve : {&d.gemm, &d.grouped, &d.attention}) divide(*curve, products);
  for (FlopsPerSecond* peak : {&d.peak_bf16, &d.peak_fp32, &d.peak_fp64}) {
    *peak = *peak * products;
  }
  double passes = std::max(1.0, highest(d.memory_eff));
  for (const EfficiencyCurve& curve : d.passes) passes = std::max(passes, highest(curve));
  divide(d.memory_eff, passes);
  for (EfficiencyCurve& curve : d.passes) divide(curve, passes);
  d.memory_bandwidth = d.memory_bandwidth * passes;
}

}  // namespace

Cluster expanded(Cluster cluster) {
  for (EfficiencyCurve& curve : cluster.device.passes) {
    if (curve.empty()) curve = cluster.device.memory_eff;
  }
  for (LinkTier& tier : cluster.tiers) {
    for (EfficiencyCurve& curve : tier.efficiency) {
      if (curve.empty()) curve = flat_transfers();
    }
  }
  return cluster;
}

void scale_time(Cluster& cluster, const Entry& entry, double factor) {
  CHECK(factor > 0, "a time scaled by nothing");
  switch (entry.kind) {
    case EntryKind::kLaunch:
      cluster.device.launch = cluster.device.launch * factor;
      return;
    case EntryKind::kHostCopy:
      cluster.device.host_bandwidth = cluster.device.host_bandwidth * (1 / factor);
      return;
    case EntryKind::kLatency: {
      Seconds& latency = cluster.tiers[static_cast<std::size_t>(entry.tier)].latency;
      latency = latency * factor;
      return;
    }
    default:
      break;
  }
  double& fraction = curve_of(cluster, entry).fraction[static_cast<std::size_t>(entry.point)];
  fraction = std::max(kLeastFraction, fraction / factor);
}

Cluster settled(Cluster cluster) {
  settle_device(cluster.device);
  cluster.sha256 = sha256_hex(to_json(cluster).dump(-1));
  return cluster;
}

Cluster with_profile(Cluster topology, const Cluster& profile) {
  topology.device = profile.device;
  topology.compute_slowdown = profile.compute_slowdown;
  topology.link_slowdown = profile.link_slowdown;
  topology.spread = profile.spread;
  topology.uncertainty = profile.uncertainty;
  topology.collectives = profile.collectives;
  for (LinkTier& tier : topology.tiers) {
    for (const LinkTier& known : profile.tiers) {
      if (known.name != tier.name) continue;
      tier.latency = known.latency;
      tier.cpu = known.cpu;
      tier.spread = known.spread;
      tier.efficiency = known.efficiency;
    }
  }
  topology.sha256 = sha256_hex(to_json(topology).dump(-1));
  return topology;
}

}  // namespace orrery::simulator
