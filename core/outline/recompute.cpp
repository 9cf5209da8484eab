// Recompute: what of forward is run again, and what is kept from forward to backward.
#include <algorithm>

#include "core/outline/builder.h"

namespace orrery::outline {
namespace {

// Bytes of what comes and goes while a task's backward runs: the gradients of its output and of
// its input, and the input where it is gathered again.
double transient_of(const Job& job, const Task& t) {
  switch (t.kind) {
    case TaskKind::kProduct:
    case TaskKind::kGrouped:
      return width(job) * t.m * (t.n + t.k) + t.gathered;
    case TaskKind::kAttention:
      return t.saves;  // of queries, keys, values and the output: as many as are kept
    case TaskKind::kPass:
      // Of an activation: of its input, which is kept, and of its output, half as wide with a gate.
      return t.pass == PassKind::kActivation ? t.saves * (job.model.gated ? 1.5 : 2) : 0;
    case TaskKind::kCollective:
      return 0;
  }
  return 0;
}

// Of Recompute::ops, a task's part: every second product is half of each. `kept`: bytes of what
// it keeps of its output instead of its input.
bool op_again(const Job& job, Task& t, double& kept) {
  switch (t.kind) {
    case TaskKind::kProduct:
    case TaskKind::kGrouped:
      kept += width(job) * t.m * t.n / 2;
      t.n /= 2;
      t.flops /= 2;
      t.bytes /= 2;
      return true;
    case TaskKind::kAttention:
      kept += width(job) * t.m * t.n * t.k;
      return false;
    case TaskKind::kPass:
      return true;
    case TaskKind::kCollective:
      return t.collective == CollectiveKind::kAllGather ||
             t.collective == CollectiveKind::kAllToAll;
  }
  return false;
}

}  // namespace

void finish(const Job& job, Outline& o, bool whole, double input) {
  o.backward = backward_of(job, o.forward);
  o.forward.erase(std::remove_if(o.forward.begin(), o.forward.end(),
                                 [](const Task& t) { return t.backward_only; }),
                  o.forward.end());
  double kept = 0, dropped = 0, most = 0;
  const bool ops = job.recompute.ops && !whole && input > 0;
  if (ops) kept = input;
  for (const Task& t : o.forward) {
    Task part = t;
    const bool again = ops ? op_again(job, part, kept) : whole || job.recompute.again(t.module);
    if (again) o.again.push_back(part);
    (again || ops ? dropped : kept) += t.saves;
    most = std::max(most, transient_of(job, t));
  }
  o.saves = whole ? input : kept;
  o.worst = dropped;
  o.transient = most;
}

}  // namespace orrery::outline
