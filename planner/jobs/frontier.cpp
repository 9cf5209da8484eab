// See frontier.h.
#include "planner/jobs/frontier.h"

#include <algorithm>
#include <cmath>

namespace orrery::planner::jobs {

std::vector<FrontierStep> frontier_of(Search& search, const Candidate& winner, double device_bytes,
                                      double reserve_bytes) {
  // How surely a job fits depends on the ratio of what it needs to what there is alone.
  const double room = device_bytes / search.most_bytes();
  const auto device_for = [&](const Candidate& candidate) {
    return (search.predict(candidate).allocated_bytes + reserve_bytes) * room;
  };
  const auto steps_in = [&](const Candidate& candidate) {
    return search.predict(candidate).step.value();
  };
  std::vector<FrontierStep> steps;
  std::optional<Candidate> known = search.smallest();
  const double least = known ? device_for(*known) : device_bytes;
  const double most = device_for(winner);
  // From the least on: what fits in less is known to fit, which bounds the next search.
  for (int k = 0; k < kFrontierSearches; ++k) {
    // A little above the least, or rounding may leave nothing that fits.
    constexpr double kAbove = 1 + 1e-9;
    const double share = static_cast<double>(k) / kFrontierSearches;
    const double size = least * std::pow(device_bytes / least, share) * kAbove;
    if (size >= most) break;
    search.limit_memory(size);
    const Outcome found = search.best_of({}, 0, known);
    if (!found.best) break;
    known = found.best;
    const double memory = device_for(*known);
    // The one before may fit in as little and be slower; or as fast, and this one but simpler.
    while (!steps.empty() && memory <= steps.back().memory_bytes) steps.pop_back();
    if (steps.empty() || steps_in(*known) < steps_in(steps.back().candidate)) {
      steps.push_back({memory, size, *known});
    }
  }
  steps.push_back({most, device_bytes, winner});
  std::reverse(steps.begin(), steps.end());
  return steps;
}

}  // namespace orrery::planner::jobs
