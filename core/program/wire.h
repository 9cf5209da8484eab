// Bytes that a collective hands to the wire, as formulas of its algorithm. The engine's back ends
// use these algorithms and count on their own; a test holds the counts against the formulas, so
// that the simulator's bytes are the engine's bytes.
#pragma once

#include <cstdint>

#include "core/program/program.h"

namespace orrery {

// An all-reduce up to this many bytes gathers everything and sums locally; a larger one is a
// reduce-scatter and an all-gather. Both sum in rank order, so the bits do not depend on it.
inline constexpr std::int64_t kAllReduceGatherLimit = 16 * 1024;

// Every rank's `bytes` go to the n - 1 others.
WireBytes all_gather_wire(std::int64_t n, std::int64_t bytes);

// All-to-all of the n parts of `count` elements, then a local sum in rank order.
WireBytes reduce_scatter_wire(std::int64_t n, std::int64_t count, std::int64_t element_bytes);

// count * element_bytes <= kAllReduceGatherLimit: an all-gather. Else the largest multiple of n
// elements by reduce-scatter and all-gather, and the fewer than n that remain by all-gather.
WireBytes all_reduce_wire(std::int64_t n, std::int64_t count, std::int64_t element_bytes);

// All-to-all of `counts_per_peer` int64 counts to each peer.
WireBytes exchange_counts_wire(std::int64_t n, std::int64_t counts_per_peer);

}  // namespace orrery
