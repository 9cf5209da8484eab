// The clock: pure event replay of a program over given durations, in integer nanoseconds. It knows
// no costs: the simulator gives it predicted durations, what-if analysis gives it measured ones.
//
// Each lane of a rank is FIFO; an op starts when its dependencies have ended; a collective starts
// when every replayed member of its group has posted it, and ends for all at once. Compute and
// communication that run together slow each other: rates are piecewise constant, changed only by
// starts and ends. Ranks of a CPU share cores: where their ops ask for more than there are, each
// gets its part (processor sharing, what a fair scheduler comes to), a transfer's of more weight;
// transfers over one link share that alike. Ties are broken by (time, rank, op): the same input
// gives the same output.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program/program.h"
#include "core/units.h"

namespace orrery {

// What an op takes of things that ranks share.
struct Share {
  std::int32_t cpu = 0;    // thousandths of a core
  std::int32_t tier = -1;  // of links, whose bandwidth bounds a collective; -1: none
  // Of its duration, what its bytes take on the link alone, out and in: the longer is part of the
  // duration. Members of one collective that share a link follow each other on it, either way.
  std::int64_t sent_ns = 0, received_ns = 0;
};

// One rank to replay. Folding replays a representative instead of every rank: collectives then
// join only the members that are replayed.
struct RankDurations {
  std::int32_t rank = 0;
  std::vector<Nanoseconds> durations;  // one an op of the rank's role, undisturbed
  std::vector<Share> shares = {};      // one an op; empty: nothing is shared
};

struct ClockRates {
  double compute_slowdown = 1;  // of compute while a collective runs on the rank, >= 1
  double link_slowdown = 1;     // of a collective while a member computes, >= 1
  // The host computes: while a compute op runs, no later op is issued, and before an op whose sizes
  // it must know it waits (issue.h). Else the host is always ahead.
  bool computes_on_host = false;
  double cores = 0;  // that each `core_ranks` ranks in a row share; 0: none to share
  std::int32_t core_ranks = 1;
  std::vector<std::int32_t> link_ranks = {};  // by tier: ranks in a row with one link; 0: own links
};

struct OpTimes {
  std::int64_t posted_ns = 0;  // its dependencies and its lane let it go
  std::int64_t start_ns = 0;   // a collective: the last member has posted
  std::int64_t end_ns = 0;
};

struct Replay {
  std::vector<std::vector<OpTimes>> times;  // [index of the replayed rank][op]
  Nanoseconds end;
};

// CHECKs that durations are non-negative and that the program cannot deadlock (verify it first).
Replay replay(const Program& program, const std::vector<RankDurations>& ranks,
              const ClockRates& rates);

}  // namespace orrery
