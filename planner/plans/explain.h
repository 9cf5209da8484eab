// Words for people: why a plan lost, and what would make a model fit that does not. Every number
// in them comes from a replay.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "planner/plans/search.h"

namespace orrery::planner {

// "+3.1 %: 0.30 s more exposed communication (0.41 s against 0.11 s)": the largest of what the
// trial spends more, and the rest of the difference where another part gains. Where both times of
// the bracket would print alike, there is none.
std::string lost_by(const Trial& trial, const Trial& best);
std::string does_not_fit(Bytes needed, Bytes usable);

// The best other layouts that were replayed, then the best of each family that the winner is not of
// ("ep 1", "no recompute", ...). Replays what it must.
std::vector<RunnerUp> runners_up(Search& search, const Request& request, const Trial& best);

// For a job of which nothing fits without shared sequences and the host's memory: what the chosen
// plan would need without each of its mechanisms. Else empty.
std::vector<FitReason> fit_reasons(Search& search, const Trial& chosen);

// The fastest plan of the listed space, where any fits: without runners-up and proof. Where nothing
// was found within so many steps of the search, the plan of least memory.
std::optional<Plan> fastest_that_fits(
    const Request& request, std::int64_t most_steps = std::numeric_limits<std::int64_t>::max());

struct Advice {
  std::string text;
  std::optional<NearestFeasible> nearest;  // of the change that the text names first
};

// For a request of which no layout is legal: the fastest plan without the pins, else with the batch
// that divides over the devices and is nearest, else on fewer devices.
std::optional<NearestFeasible> nearest_legal(const Request& request);

// The smallest changes that fit, found by trying: without a pin, shorter rows, more devices. The
// plan of each is the fastest that fits under it, or one that does, where that takes long to find.
Advice advice(const Request& request);

}  // namespace orrery::planner
