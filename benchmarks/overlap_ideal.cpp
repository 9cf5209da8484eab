// See overlap_ideal.h.
#include "benchmarks/overlap_ideal.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "core/check.h"

namespace orrery {
namespace {

using Class = std::pair<std::string, Phase>;  // path and phase

struct Measured {
  std::int64_t total_ns = 0;
  std::map<std::uint64_t, std::int64_t> by_key;
};

std::map<Class, Measured> measured_of(const Role& role, const TraceEvents& events) {
  std::map<Class, Measured> classes;
  for (const SpanEvent& span : events.spans) {
    const Op& op = role.ops[static_cast<std::size_t>(span.op)];
    Measured& m = classes[{op.path, op.phase}];
    const std::int64_t ns = span.end_ns - span.start_ns;
    m.total_ns += ns;
    m.by_key[op.key] += ns;
  }
  return classes;
}

}  // namespace

std::vector<RankDurations> durations_of(const Program& target, const Program& source,
                                        const std::vector<TraceEvents>& by_rank) {
  std::vector<RankDurations> out;
  for (std::int32_t rank = 0; rank < target.world; ++rank) {
    const Role& role = target.role_of(rank);
    const auto classes = measured_of(source.role_of(rank), by_rank[static_cast<std::size_t>(rank)]);
    std::map<Class, std::set<std::uint64_t>> keys;
    for (const Op& op : role.ops) keys[{op.path, op.phase}].insert(op.key);
    RankDurations durations{rank, {}};
    for (const Op& op : role.ops) {
      const auto found = classes.find({op.path, op.phase});
      CHECK(found != classes.end(), "nothing measured " + op.path);
      const Measured& m = found->second;
      const auto& wanted = keys[{op.path, op.phase}];
      const bool same = wanted.size() == m.by_key.size() && m.by_key.count(op.key) > 0;
      durations.durations.emplace_back(
          same ? m.by_key.at(op.key) : m.total_ns / static_cast<std::int64_t>(wanted.size()));
    }
    out.push_back(std::move(durations));
  }
  return out;
}

double replayed_s(const Program& program, const std::vector<RankDurations>& durations) {
  return to_seconds(replay(program, durations, {}).end).value();
}

Totals totals_of(const Program& program, const std::vector<RankDurations>& durations) {
  std::array<double, kNumLanes> lanes{};
  for (const RankDurations& rank : durations) {
    const Role& role = program.role_of(rank.rank);
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      lanes[static_cast<std::size_t>(role.ops[i].lane)] +=
          to_seconds(rank.durations[i]).value() / static_cast<double>(durations.size());
    }
  }
  Totals totals{lanes[static_cast<std::size_t>(Lane::kCompute)], 0};
  for (const Lane lane : kNetworkLanes) {
    totals.lane_s = std::max(totals.lane_s, lanes[static_cast<std::size_t>(lane)]);
  }
  return totals;
}

}  // namespace orrery
