// See frontier.h.
#include "planner/plans/frontier.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "planner/plans/footprint.h"
#include "planner/plans/search.h"

namespace orrery::planner {

std::vector<FrontierPoint> frontier_of(const Request& original, const Plan& winner) {
  Request request = original;
  request.progress = {};
  if (!request.probes) request.probes = std::make_shared<ProbeStore>();
  // What was held back of the winner, for draws of its loads, is held back of all.
  request.cluster.device.reserved += winner.decision.held_back;
  const Bytes reserved = request.cluster.device.reserved;
  std::vector<FrontierPoint> points = {{winner.predicted.peak + reserved,
                                        winner.cluster.device.memory, winner.layout, winner.chunks,
                                        winner.policy, winner.predicted}};
  const auto device = static_cast<double>(request.cluster.device.memory.value());
  Result<Space> whole = enumerate(request);
  if (!whole.ok()) return points;
  const auto smallest = Search(request, std::move(whole).value()).smallest_of({});
  if (!smallest) return points;
  const auto least = std::max(device * kLeastOfDevice,
                              static_cast<double>((smallest->predicted.peak + reserved).value()));
  for (int k = 1; k <= kFrontierSearches && least < device; ++k) {
    const double share = static_cast<double>(k) / kFrontierSearches;
    const Bytes size(
        static_cast<std::int64_t>(std::ceil(device * std::pow(least / device, share))));
    if (size >= points.back().memory) continue;
    request.cluster.device.memory = size;
    Result<Space> space = enumerate(request);
    if (!space.ok()) break;
    Search search(request, std::move(space).value());
    search.run();
    if (!search.best()) break;
    const Trial& best = *search.best();
    points.push_back({best.predicted.peak + reserved, size, best.layout, best.choice.chunks,
                      best.choice.policy, best.predicted});
  }
  return points;
}

}  // namespace orrery::planner
