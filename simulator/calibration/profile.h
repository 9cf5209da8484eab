// A cluster as entries that calibration moves: device and links as one vector of speeds.
#pragma once

#include "core/cluster.h"
#include "simulator/cost_terms.h"

namespace orrery::simulator {

// Gives every kind of pass and of transfer a curve of its own, so that each can be fitted alone.
// What it predicts stays the same.
Cluster expanded(Cluster cluster);

// Multiplies the time that the entry stands for. A fraction may pass 1 meanwhile: see `settled`.
void scale_time(Cluster& cluster, const Entry& entry, double factor);

// Raises the device's peaks and bandwidth to the fastest that was fitted, so that all its fractions
// are in (0, 1] again; what the cluster predicts stays the same.
Cluster settled(Cluster cluster);

// `topology` with the device of `profile`, and the latency, efficiency and share of a core of those
// tiers whose names it has. Bandwidths are the topology's own: a link of another speed is another
// topology, not another profile.
Cluster with_profile(Cluster topology, const Cluster& profile);

}  // namespace orrery::simulator
