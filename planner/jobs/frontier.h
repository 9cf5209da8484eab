// The frontier of time against memory: for devices with ever less memory, the fastest job that
// fits.
#pragma once

#include <vector>

#include "planner/jobs/planner.h"
#include "planner/jobs/search.h"

namespace orrery::planner::jobs {

// At how many sizes of memory below the device's a fastest job is searched for.
inline constexpr int kFrontierSearches = 8;

// The fastest job, `winner`, first; then the fastest jobs for kFrontierSearches sizes of memory,
// evenly spaced as logarithms from the least that any job fits in, each once. Sizes fall and steps
// rise; the second may be as fast as the winner and less simple. Leaves the search limited.
struct FrontierStep {
  double memory_bytes = 0;    // of the smallest device that the job fits in
  double searched_bytes = 0;  // of the device that it was found the fastest for
  Candidate candidate;
};
std::vector<FrontierStep> frontier_of(Search& search, const Candidate& winner, double device_bytes,
                                      double reserve_bytes);

}  // namespace orrery::planner::jobs
