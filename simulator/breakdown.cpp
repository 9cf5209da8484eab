// Sweep over the starts and ends of a rank's ops.
#include "simulator/breakdown.h"

#include <algorithm>

namespace orrery::simulator {

Breakdown breakdown(const Role& role, std::int32_t rank, const std::vector<OpTimes>& times,
                    Nanoseconds end) {
  struct Edge {
    std::int64_t at;
    int compute, communication;
  };
  std::vector<Edge> edges;
  for (std::size_t i = 0; i < times.size(); ++i) {
    const bool compute = role.ops[i].lane == Lane::kCompute;
    edges.push_back({times[i].start_ns, compute ? 1 : 0, compute ? 0 : 1});
    edges.push_back({times[i].end_ns, compute ? -1 : 0, compute ? 0 : -1});
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });
  std::int64_t compute_ns = 0, exposed_ns = 0, hidden_ns = 0, last = 0;
  int compute = 0, communication = 0;
  for (const Edge& e : edges) {
    const std::int64_t dt = e.at - last;
    if (compute > 0) compute_ns += dt;
    if (compute > 0 && communication > 0) hidden_ns += dt;
    if (compute == 0 && communication > 0) exposed_ns += dt;
    compute += e.compute;
    communication += e.communication;
    last = e.at;
  }
  Breakdown b;
  b.rank = rank;
  b.step = to_seconds(end);
  b.compute = to_seconds(Nanoseconds(compute_ns));
  b.exposed = to_seconds(Nanoseconds(exposed_ns));
  b.hidden = to_seconds(Nanoseconds(hidden_ns));
  b.idle = to_seconds(Nanoseconds(end.value() - compute_ns - exposed_ns));
  return b;
}

}  // namespace orrery::simulator
