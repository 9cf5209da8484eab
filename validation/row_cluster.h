// The cluster of a published row: a device by the word that sources use for it, in nodes whose
// links are those that the row states. To be replaced by core/fabric, which has a
// profile of each device in configs/devices.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/cluster.h"

namespace orrery::validation {

struct FabricFacts {
  std::string gpu;  // "A100-80GB", "H100-96GB-500W", ...
  std::int64_t devices = 1, devices_per_node = 8;
  std::optional<double> intra_gbyte_s, inter_gbit_s;  // as ClusterFacts
};

// A cluster, or a kInvalid error with the reason. What was not said and assumed is added to
// `completed`.
Result<Cluster> cluster_of(const FabricFacts& facts, std::vector<std::string>& completed);

}  // namespace orrery::validation
