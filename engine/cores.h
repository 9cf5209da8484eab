// Which cores a rank computes on, and which of its threads go first.
#pragma once

#include <cstdint>
#include <vector>

namespace orrery::engine {

// A rank's place among those of its node, as the launcher says; 0 of 1 where it says nothing.
struct LocalRank {
  std::int32_t rank = 0;
  std::int32_t count = 1;
};
LocalRank local_rank();

// Of `cores` the part of one local rank: equal runs of them (what is left over is nobody's), or one
// core for as many ranks as every other has; all of them where more ranks than cores do not part
// so.
std::vector<int> cores_of(const std::vector<int>& cores, LocalRank local);

// What one rank has of its node.
struct CoreShare {
  double cores = 1;   // its part; below 1 where ranks share a core
  bool first = true;  // of those that share its core
};

// Holds this process, and the threads that it is yet to start, to its part of the cores that it may
// use. Left to itself the kernel lets three of four ranks share one of two cores for a tenth of a
// second, and every other rank waits for them. A system that refuses changes nothing.
CoreShare hold_to_cores(LocalRank local);

// The thread that walks computes, and lanes move data by threads of their own, which go first, as
// every rank waits for them. Neither needs rights, and both are of the calling thread alone.
void give_way();   // of one that computes: less weight
void be_prompt();  // of one that moves data: on the core as soon as it wakes (Linux 6.12 and newer)

}  // namespace orrery::engine
