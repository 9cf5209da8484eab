// Words for people: why a plan lost, and what would make a model fit that does not. Every number
// in them comes from a replay.
#pragma once

#include <string>
#include <vector>

#include "planner/search.h"

namespace orrery::planner {

// "+3.1 %: 0.30 s more exposed communication (0.41 s against 0.11 s)": the largest of what the
// trial spends more, and the rest of the difference where another part gains.
std::string lost_by(const Trial& trial, const Trial& best);
std::string does_not_fit(Bytes needed, Bytes usable);

// The best other layouts that were replayed, then the best of each family that the winner is not of
// ("ep 1", "no recompute", ...). Replays what it must.
std::vector<RunnerUp> runners_up(Search& search, const Request& request);

// The smallest change that fits, found by trying: shorter rows, more devices.
std::string advice(const Request& request);

}  // namespace orrery::planner
