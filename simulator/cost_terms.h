// What a cost rests on: each second of an op belongs to an entry of the device or link profile.
// Calibration moves entries by what their ops took, and `compare` names those to blame.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>

#include "core/cluster.h"

namespace orrery::simulator {

enum class EntryKind : std::uint8_t {
  kLaunch,
  kGemm,  // point of the curve, as below
  kGrouped,
  kAttention,
  kPass,  // which: PassKind
  kHostCopy,
  kLatency,   // tier
  kTransfer,  // tier; which: TransferKind
};

struct Entry {
  EntryKind kind = EntryKind::kLaunch;
  std::int32_t tier = 0;   // of links
  std::int32_t which = 0;  // PassKind or TransferKind
  std::int32_t point = 0;  // of the curve
  auto operator<=>(const Entry&) const = default;
};

// As the cluster file has it: "device/efficiency/gemm/3", "tiers/0/latency".
std::string name_of(const Entry& entry);

// Seconds by entry. Their sum is the cost, but for rounding.
class Terms {
 public:
  void add(const Entry& entry, double seconds) { seconds_[entry] += seconds; }
  // Seconds of a curve's value at `x` belong to the points beside it, by their nearness.
  void add(Entry entry, const EfficiencyCurve& curve, double x, double seconds);
  const std::map<Entry, double>& seconds() const { return seconds_; }
  void clear() { seconds_.clear(); }

 private:
  std::map<Entry, double> seconds_;
};

}  // namespace orrery::simulator
