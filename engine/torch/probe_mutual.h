// What transfers take of the cores that compute beside them. For the probe alone.
#pragma once

#include <cstdint>

#include "engine/comm/communicator.h"

namespace orrery::engine {

// Seconds of a core that a rank's compute loses for each byte that the rank receives in all-gathers
// of `bytes` a rank: the copies, the network's stack, the waking of threads and the caches that all
// of it empties. Every rank computes, alone and beside transfers in turns; `rank_cores` is the part
// of the cores that it has. All ranks call it together, with `transfer_s`, what one such all-gather
// takes; it lasts about ten seconds, and leaves the calling thread one that gives way. The mean of
// all ranks, at least 0.
double core_seconds_a_byte(Channel& channel, std::int64_t bytes, double transfer_s,
                           double rank_cores);

}  // namespace orrery::engine
