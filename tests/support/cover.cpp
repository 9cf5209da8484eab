// See cover.h.
#include "tests/support/cover.h"

#include <algorithm>
#include <cstddef>

namespace orrery {

std::vector<OpId> cover_of(const Role& role, OpId id) {
  const Lane lane = role.ops[static_cast<std::size_t>(id)].lane;
  std::vector<OpId> cover;
  for (std::size_t i = static_cast<std::size_t>(id) + 1; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (op.lane != Lane::kCompute) continue;
    const bool waits = std::any_of(op.deps.begin(), op.deps.end(), [&](OpId dep) {
      return dep >= id && role.ops[static_cast<std::size_t>(dep)].lane == lane;
    });
    if (waits) break;
    cover.push_back(static_cast<OpId>(i));
  }
  return cover;
}

}  // namespace orrery
