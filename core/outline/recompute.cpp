// Recompute: what of forward is run again, and what is kept from forward to backward.
#include <algorithm>

#include "core/outline/builder.h"

namespace orrery::outline {

void finish(const Job& job, Outline& o, bool whole, double input) {
  o.backward = backward_of(job, o.forward);
  o.forward.erase(std::remove_if(o.forward.begin(), o.forward.end(),
                                 [](const Task& t) { return t.backward_only; }),
                  o.forward.end());
  double kept = 0, dropped = 0;
  for (const Task& t : o.forward) {
    const bool again = whole || job.recompute.again(t.module);
    if (again) o.again.push_back(t);
    (again ? dropped : kept) += t.saves;
  }
  o.saves = whole ? input : kept;
  o.worst = dropped;
}

}  // namespace orrery::outline
