// Layers dealt out to stages. See deal.h.
#include "planner/jobs/deal.h"

#include <algorithm>
#include <array>

#include "core/check.h"
#include "simulator/stages/units.h"

namespace orrery::planner::jobs {
namespace {

bool can_deal(Deal deal, std::int64_t layers, std::int64_t stages) {
  switch (deal) {
    case Deal::kEven:
      return stages <= layers;
    case Deal::kLast:
    case Deal::kFirst:
      return stages >= 2 && stages <= layers + 1;
    case Deal::kEnds:
      return stages >= 3 && (stages <= layers || stages == layers + 2);
    case Deal::kBalanced:
      return stages >= 2 && stages <= layers + 2;
  }
  return false;
}

// The stage with fewest layers of those between the ends, or the other end where there is none.
std::size_t fewest(const std::vector<std::int64_t>& counts, std::size_t not_this) {
  if (counts.size() == 2) return 1 - not_this;
  return static_cast<std::size_t>(std::min_element(counts.begin() + 1, counts.end() - 1) -
                                  counts.begin());
}

}  // namespace

const char* name_of(Deal deal) {
  constexpr std::array<const char*, kNumDeals> kNames = {"even", "last", "first", "ends",
                                                         "balanced"};
  return kNames[static_cast<std::size_t>(deal)];
}

std::vector<Deal> deals_of(const std::vector<Deal>& listed, std::int64_t layers,
                           std::int64_t stages) {
  std::vector<Deal> out;
  for (const Deal deal : listed) {
    if (can_deal(deal, layers, stages)) out.push_back(deal);
  }
  return out;
}

std::vector<std::int64_t> dealt(Deal deal, std::int64_t layers, std::int64_t stages) {
  CHECK(can_deal(deal, layers, stages) && deal != Deal::kBalanced, "no such dealing out");
  const bool first = deal == Deal::kFirst || deal == Deal::kEnds;
  const bool last = deal == Deal::kLast || deal == Deal::kEnds;
  if (stages > layers) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), 1);
    if (first) counts.front() = 0;
    if (last) counts.back() = 0;
    return counts;
  }
  std::vector<std::int64_t> counts = simulator::even_layers(layers, stages);
  for (const std::size_t end : {std::size_t{0}, counts.size() - 1}) {
    if (!(end == 0 ? first : last)) continue;
    --counts[end];
    ++counts[fewest(counts, end)];
  }
  return counts;
}

std::vector<std::int64_t> balanced(std::int64_t layers, std::int64_t ranks,
                                   std::int64_t virtual_stages, double layer_s, double first_s,
                                   double last_s) {
  const std::int64_t stages = ranks * virtual_stages;
  CHECK(can_deal(Deal::kBalanced, layers, stages), "no such dealing out");
  std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), 1);
  counts.front() = counts.back() = 0;
  std::vector<double> load(static_cast<std::size_t>(ranks),
                           static_cast<double>(virtual_stages) * layer_s);
  load.front() += first_s - layer_s;
  load.back() += last_s - layer_s;
  for (std::int64_t left = layers - (stages - 2); left > 0; --left) {
    const auto rank = std::min_element(load.begin(), load.end()) - load.begin();
    auto to = static_cast<std::size_t>(rank);
    for (auto s = to; s < counts.size(); s += load.size()) {
      if (counts[s] < counts[to]) to = s;
    }
    ++counts[to];
    load[static_cast<std::size_t>(rank)] += layer_s;
  }
  return counts;
}

}  // namespace orrery::planner::jobs
