// How many devices, and how long a sequence: questions that ask for many answers.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "planner/questions/goodput.h"
#include "planner/questions/searcher.h"

namespace orrery::planner {

// A cluster of so many devices; an error where there is none of that size.
using ClusterOf = std::function<Result<Cluster>(std::int64_t devices)>;

struct SizeTried {
  std::int64_t devices = 0;
  Answer answer;  // the fastest that fits; of sizes that are far too slow none may be looked for
  LongRun run;    // where there is an answer
};

struct Sized {
  std::vector<SizeTried> tried;  // ascending
  bool met = false;              // by the last of `tried`
  std::int64_t least = 0;        // below it no plan could: all compute at the peak
};

// At most so many sizes are searched, and none beyond so many devices.
inline constexpr std::size_t kMostSizes = 32;
inline constexpr std::int64_t kMostDevices = 131'072;

// The smallest cluster that trains `tokens` within `limit` of wall time. Sizes that do not suit the
// searcher are passed over; all others are tried from the least that the peak allows, so that none
// smaller is missed. The setting's cluster counts only by its device.
Sized size_for(const Searcher& searcher, const Setting& setting, const ClusterOf& cluster_of,
               std::int64_t tokens, Seconds limit, const Reliability& reliability);

// What a run by an answer of the setting is made of.
RunFacts facts_of(const Searcher& searcher, const Setting& setting, const Answer& answer);

// The same tokens a step, or nearly, in rows of `tokens`: documents are repeated or cut.
Workload with_sequence(const Workload& workload, std::int64_t tokens);

struct SequenceTried {
  std::int64_t tokens = 0;
  Answer answer;  // the fastest that fits
};

// The longest row that fits: doubled or halved from the workload's, then in eighths between the
// last that fits and the first that does not. In the order tried; at most 2^26 tokens.
std::vector<SequenceTried> longest_sequence(const Searcher& searcher, const Setting& setting);

}  // namespace orrery::planner
