// See checks.h.
#include "tests/parity/checks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace orrery::parity {
namespace {

std::vector<std::int32_t> ops_on(const std::vector<SpanEvent>& spans, const Role& role, Lane lane) {
  std::vector<std::pair<std::int64_t, std::int32_t>> ordered;
  for (const SpanEvent& s : spans) {
    if (role.ops[static_cast<std::size_t>(s.op)].lane == lane) {
      ordered.emplace_back(s.start_ns, s.op);
    }
  }
  // The clock ends an op and starts the next at one moment; the trace keeps the issue order then.
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::int32_t> ops;
  for (const auto& [at, op] : ordered) ops.push_back(op);
  return ops;
}

}  // namespace

TraceEvents of_step(const TraceEvents& events, const Program& program, std::int32_t rank,
                    std::int32_t step) {
  const auto mine = [&](const auto& e) { return e.rank == rank && e.step == step; };
  const Role& role = program.role_of(rank);
  TraceEvents out;
  for (const SpanEvent& s : events.spans) {
    if (mine(s)) out.spans.push_back(s);
  }
  for (const PeakEvent& p : events.peaks) {
    if (mine(p)) out.peaks.push_back(p);
  }
  for (const Binding& b : events.bindings) {
    if (mine(b)) out.bindings.push_back(b);
  }
  for (const StepEvent& s : events.steps) {
    if (mine(s)) out.steps.push_back(s);
  }
  std::map<std::pair<Lane, std::int32_t>, std::int64_t> before;  // by channel
  const auto channel = [&](const CollectiveEvent& c) {
    return std::pair(role.ops[static_cast<std::size_t>(c.op)].lane, c.group);
  };
  for (const CollectiveEvent& c : events.collectives) {
    if (c.rank == rank && c.step < step) ++before[channel(c)];
    if (mine(c)) out.collectives.push_back(c);
  }
  for (CollectiveEvent& c : out.collectives) c.sequence -= before[channel(c)];
  return out;
}

void expect_same_structure(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank,
                           const Role& role) {
  std::vector<SpanEvent> mine;
  for (const SpanEvent& s : sim.spans) {
    if (s.rank == rank) mine.push_back(s);
  }
  EXPECT_EQ(run.spans.size(), role.ops.size());
  for (int i = 0; i < kNumLanes; ++i) {
    const auto lane = static_cast<Lane>(i);
    EXPECT_EQ(ops_on(run.spans, role, lane), ops_on(mine, role, lane)) << name_of(lane);
  }
}

int expect_same_bytes(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank,
                      const Role& role) {
  std::map<std::int32_t, CollectiveEvent> simulated;
  for (const CollectiveEvent& c : sim.collectives) {
    if (c.rank == rank) simulated[c.op] = c;
  }
  EXPECT_EQ(run.collectives.size(), simulated.size());
  int routed = 0;
  for (const CollectiveEvent& c : run.collectives) {
    const Op& op = role.ops[static_cast<std::size_t>(c.op)];
    EXPECT_EQ(c.bytes_sent, simulated[c.op].bytes_sent) << op.path;
    EXPECT_EQ(c.bytes_received, simulated[c.op].bytes_received) << op.path;
    EXPECT_EQ(c.sequence, simulated[c.op].sequence) << op.path;
    if (op.kind == OpKind::kAllToAllV) ++routed;
  }
  return routed;
}

void expect_same_peaks(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank) {
  std::map<std::int32_t, std::int64_t> simulated;
  for (const PeakEvent& p : sim.peaks) {
    if (p.rank == rank) simulated[p.cls] = p.bytes;
  }
  ASSERT_EQ(run.peaks.size(), simulated.size());
  for (const PeakEvent& p : run.peaks) {
    const std::string name = p.cls < 0             ? "all"
                             : p.cls == kHostClass ? "host"
                                                   : name_of(static_cast<BufferClass>(p.cls));
    const auto expected = static_cast<double>(simulated[p.cls]);
    // The declared workspace of a block holds within 64 KiB; everything else is exact.
    const bool has_workspace =
        p.cls < 0 || p.cls == static_cast<std::int32_t>(BufferClass::kWorkspace);
    const double slack = has_workspace ? std::max(0.01 * expected, 64.0 * 1024) : 0;
    EXPECT_NEAR(static_cast<double>(p.bytes), expected, slack) << name;
  }
}

void expect_peaks_within(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank,
                         double all, double one_class, std::int64_t workspace_slack) {
  std::map<std::int32_t, std::int64_t> simulated;
  for (const PeakEvent& p : sim.peaks) {
    if (p.rank == rank) simulated[p.cls] = p.bytes;
  }
  ASSERT_EQ(run.peaks.size(), simulated.size());
  for (const PeakEvent& p : run.peaks) {
    const auto expected = static_cast<double>(simulated[p.cls]);
    const bool workspace = p.cls == static_cast<std::int32_t>(BufferClass::kWorkspace);
    const double slack = (p.cls < 0 ? all : one_class) * expected;
    EXPECT_NEAR(static_cast<double>(p.bytes), expected,
                workspace ? std::max(slack, static_cast<double>(workspace_slack)) : slack)
        << "rank " << rank << " class " << p.cls;
  }
}

int empty_experts(const Binding& binding, const Role& role) {
  int empty = 0;
  for (std::int32_t v = 0; v < role.num_vars; ++v) {
    if (role.var_names[static_cast<std::size_t>(v)].rfind("route/", 0) != 0) continue;
    for (std::int32_t e = 0; e < role.route.local_experts; ++e) {
      if (binding.values[static_cast<std::size_t>(v + role.route.expert_rows(e))] == 0) ++empty;
    }
  }
  return empty;
}

}  // namespace orrery::parity
