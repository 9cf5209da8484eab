// See cost_terms.h.
#include "simulator/cost_terms.h"

namespace orrery::simulator {

void Terms::add(Entry entry, const EfficiencyCurve& curve, double x, double seconds) {
  const auto [below, t] = curve.place(x);
  entry.point = static_cast<std::int32_t>(below);
  if (t < 1) add(entry, seconds * (1 - t));
  if (t <= 0) return;
  ++entry.point;
  add(entry, seconds * t);
}

std::string name_of(const Entry& e) {
  const std::string point = "/" + std::to_string(e.point);
  const std::string tier = "tiers/" + std::to_string(e.tier) + "/";
  switch (e.kind) {
    case EntryKind::kLaunch:
      return "device/launch";
    case EntryKind::kGemm:
      return "device/efficiency/gemm" + point;
    case EntryKind::kGrouped:
      return "device/efficiency/grouped" + point;
    case EntryKind::kAttention:
      return "device/efficiency/attention" + point;
    case EntryKind::kPass:
      return std::string("device/efficiency/") + name_of(static_cast<PassKind>(e.which)) + point;
    case EntryKind::kHostCopy:
      return "device/host_bandwidth";
    case EntryKind::kLatency:
      return tier + "latency";
    case EntryKind::kTransfer:
      return tier + "efficiency/" + name_of(static_cast<TransferKind>(e.which)) + point;
  }
  return "";
}

}  // namespace orrery::simulator
