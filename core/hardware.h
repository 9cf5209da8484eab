// A cluster by what a published run prints of its hardware: the word for its GPU, how many there
// are, how many a node has, how fast they are joined. The words are the `aliases` of the files in
// configs/devices; what a run does not print is taken from the cluster template that the device's
// file names as its `fabric`.
#pragma once

#include <cstdint>
#include <string>

#include "core/cluster.h"
#include "core/result.h"

namespace orrery {

// `gpu` is an alias ("A100-80GB", "H100-96GB-500W") or the name of a device's file. The bandwidths
// are in the units that runs print: of a device's links inside the node, GB/s of both directions
// together are 1e9 bytes/s each; of its part of the network, bits of one direction. Zero or less:
// not printed. A node of several tiers (bridges, then PCIe) has the printed figure on its
// innermost tier, unless the next one is as fast: then there are no bridges. An unknown word is
// kInvalid and names the nearest known.
Result<Cluster> cluster_of(const std::string& gpu, std::int64_t gpus, std::int64_t gpus_per_node,
                           double intra_node_bytes_per_s_both_directions,
                           double inter_node_bits_per_s_per_gpu);

}  // namespace orrery
