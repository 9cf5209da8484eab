// The cluster of a published row: a device by the word that sources use for it, in nodes whose
// links are those that the row states. To be replaced by core/hardware.h, which has the same
// function over files of configs/devices.
#pragma once

#include <cstdint>
#include <string>

#include "core/cluster.h"

namespace orrery::validation {

// Bandwidths as runs print them: of a device's links inside the node, bytes/s of both directions
// together; of its part of the network, bits/s of one direction. Zero or less: not printed.
// kInvalid where the word is not known.
Result<Cluster> cluster_of(const std::string& gpu, std::int64_t gpus, std::int64_t gpus_per_node,
                           double intra_node_bytes_per_s_both_directions,
                           double inter_node_bits_per_s_per_gpu);

}  // namespace orrery::validation
