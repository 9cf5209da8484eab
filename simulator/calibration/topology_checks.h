// What `nvidia-smi topo -m` and copies between devices say of a cluster's tiers.
#pragma once

#include <vector>

#include "core/cluster.h"
#include "simulator/calibration/samples.h"

namespace orrery::simulator {

// Notes on what agrees and what does not. Where every pair of a node has NVLink, the cluster has no
// tier of a node, and copies between devices were measured, it gains that tier.
std::vector<Note> check_topology(Cluster& cluster, const std::vector<Measurements>& files);

}  // namespace orrery::simulator
