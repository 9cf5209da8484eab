// See issue.h; the executor waits by the same rule (wait_for_host).
#include "core/clock/issue.h"

#include <algorithm>

namespace orrery {

std::vector<OpId> host_waits(const Role& role) {
  std::vector<OpId> producer(role.buffers.size(), -1);
  std::vector<OpId> waits(role.ops.size(), -1);
  const auto of = [&](BufferId b) { return b < 0 ? -1 : producer[static_cast<std::size_t>(b)]; };
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (op.lane != Lane::kCompute) {
      for (const BufferId b : op.in) waits[i] = std::max(waits[i], of(b));
    }
    if (!op.host_sync) continue;
    for (const BufferId b : op.out) producer[static_cast<std::size_t>(b)] = static_cast<OpId>(i);
  }
  return waits;
}

}  // namespace orrery
