// A layout of the user's own beside the best: found, lowered, replayed, and compared term by term.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "planner/planner.h"
#include "planner/terms.h"

namespace orrery::planner {

struct Side {
  Plan plan;
  Terms terms;
};

struct Comparison {
  Side best;
  // The best that is left under the user's pins; where none fits, the one that needs least. Absent
  // where the layout breaks rules.
  std::optional<Side> own;
  bool fits = false;
  std::vector<Problem> broken;             // rules, with their numbers
  std::string reason;                      // in plain words
  std::optional<NearestFeasible> nearest;  // where the own does not fit or is not legal
};

// `pins`: the user's layout; what they leave free is searched, under the request's own pins where
// they do not speak of the same. kUsage: an unknown name or value.
Result<Comparison> versus(const Request& request, const Plan& best,
                          const std::vector<std::pair<std::string, std::string>>& pins);

// What the own plan spends more and less than the best, largest first, and why each term is so.
std::string difference_text(const Side& own, const Side& best);

// Every axis, chunk and policy of a plan as pins: versus() then takes exactly that plan.
std::vector<std::pair<std::string, std::string>> pins_of(const Plan& plan);

}  // namespace orrery::planner
