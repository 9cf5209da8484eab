// A layout of the user's own beside the best: found, priced, and compared term by term.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "planner/questions/searcher.h"

namespace orrery::planner {

struct Comparison {
  Side best;
  // The best that is left under the user's pins; where none fits, the one that needs least. Absent
  // where the layout breaks rules.
  std::optional<Side> own;
  bool fits = false;
  std::vector<Problem> broken;     // rules, with their numbers
  std::string reason;              // in plain words
  std::optional<Nearest> nearest;  // where the own does not fit or is not legal
};

// What the user set beside the best: pins, or exactly a job, with its pins.
struct OwnLayout {
  PinList pins;
  std::optional<Job> job;
};

// What the pins leave free is searched, under the setting's own pins where they do not speak of the
// same. kUsage: an unknown name or value.
Result<Comparison> versus(const Searcher& searcher, const Setting& setting, const Answer& best,
                          const OwnLayout& own);

// What the own spends more and less than the best, largest first, and why each term is so.
std::string difference_text(const Searcher& searcher, const Side& own, const Side& best);

}  // namespace orrery::planner
