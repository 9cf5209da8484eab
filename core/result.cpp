// How an Error reads on a terminal.
#include "core/result.h"

namespace orrery {

std::string Error::text() const {
  std::string out;
  for (const Problem& problem : problems) {
    out += "error: ";
    if (!problem.where.empty()) out += problem.where + ": ";
    out += problem.message + "\n";
    if (!problem.hint.empty()) out += "  hint: " + problem.hint + "\n";
  }
  return out;
}

}  // namespace orrery
