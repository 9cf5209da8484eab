// See implied.h.
#include "core/clock/implied.h"

#include <algorithm>
#include <array>
#include <map>

#include "core/check.h"
#include "core/clock/issue.h"

namespace orrery {
namespace {

// When the lane, the dependencies and the host let each op of a rank go.
std::vector<std::int64_t> posted_times(const Role& role, const MeasuredRank& m, bool on_host) {
  const std::vector<OpId> waits = host_waits(role);
  const auto end = [&](OpId op) { return m.end_ns[static_cast<std::size_t>(op)]; };
  std::vector<std::int64_t> posted(role.ops.size());
  std::array<std::int64_t, kNumLanes> lane_free;
  lane_free.fill(m.begin_ns);
  std::int64_t issued = m.begin_ns;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    std::int64_t& free = lane_free[static_cast<std::size_t>(op.lane)];
    if (waits[i] >= 0) issued = std::max(issued, end(waits[i]));
    posted[i] = std::max(free, on_host || waits[i] >= 0 ? issued : m.begin_ns);
    for (const OpId dep : op.deps) posted[i] = std::max(posted[i], end(dep));
    free = end(static_cast<OpId>(i));
    if (on_host && op.lane == Lane::kCompute) issued = std::max(issued, free);
  }
  return posted;
}

}  // namespace

std::vector<std::vector<std::int64_t>> implied_durations(const Program& program,
                                                         const std::vector<MeasuredRank>& ranks,
                                                         bool computes_on_host) {
  std::vector<std::vector<std::int64_t>> durations(ranks.size());
  // Of a collective the last to come and the last to go count: by lane, group, first rank and
  // number.
  using Instance = std::array<std::int64_t, 4>;
  struct Times {
    std::int64_t posted = 0, end = 0;
  };
  std::map<Instance, Times> last;
  std::vector<std::vector<Instance>> instances(ranks.size());
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const Role& role = program.role_of(ranks[r].rank);
    CHECK(ranks[r].end_ns.size() == role.ops.size(), "one end an op");
    durations[r] = posted_times(role, ranks[r], computes_on_host);
    std::map<std::array<std::int64_t, 3>, std::int64_t> numbers;
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      const Op& op = role.ops[i];
      if (!is_network(op.lane)) {
        instances[r].push_back({-1, 0, 0, 0});
        continue;
      }
      const Group& group = program.groups[static_cast<std::size_t>(op.group)];
      const std::array<std::int64_t, 3> own = {static_cast<std::int64_t>(op.lane), op.group,
                                               group.first_of(ranks[r].rank)};
      const Instance instance = {own[0], own[1], own[2], numbers[own]++};
      const Times own_times{durations[r][i], ranks[r].end_ns[i]};
      Times& times = last.try_emplace(instance, own_times).first->second;
      times.posted = std::max(times.posted, own_times.posted);
      times.end = std::max(times.end, own_times.end);
      instances[r].push_back(instance);
    }
  }
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    for (std::size_t i = 0; i < durations[r].size(); ++i) {
      const Instance& instance = instances[r][i];
      const Times times =
          instance[0] < 0 ? Times{durations[r][i], ranks[r].end_ns[i]} : last.at(instance);
      durations[r][i] = std::max<std::int64_t>(0, times.end - times.posted);
    }
  }
  return durations;
}

}  // namespace orrery
