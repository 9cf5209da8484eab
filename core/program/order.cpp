// The last passes of a lowering: dependencies from operands, lifetimes from dependencies.
#include <algorithm>
#include <array>

#include "core/program/lowering.h"

namespace orrery {
namespace {

constexpr std::array<OpId, kNumLanes> kNone = {-1, -1, -1, -1, -1, -1};

// Who wrote a buffer last, and who read it since: one op a lane suffices, lanes are FIFO.
struct Use {
  OpId writer = -1;
  std::array<OpId, kNumLanes> readers = kNone;
};

std::size_t index(Lane lane) {
  return static_cast<std::size_t>(lane);
}

template <class Visit>
void for_reads(const Op& op, Visit visit) {
  for (const BufferId b : op.in) visit(b);
  for (const BufferId b : op.params) visit(b);
}

template <class Visit>
void for_writes(const Op& op, Visit visit) {
  for (const BufferId b : op.out) visit(b);
  for (const BufferId b : op.updates) visit(b);
  visit(op.metrics);
  if (op.kind == OpKind::kOptimizerStep) {  // the shard and its moments, in place
    for (std::size_t i = 1; i < op.in.size(); ++i) visit(op.in[i]);
  }
}

}  // namespace

void assign_dependencies(Role& role) {
  std::vector<Use> uses(role.buffers.size());
  OpId last_compute = -1;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    Op& op = role.ops[i];
    std::array<OpId, kNumLanes> latest = kNone;
    const auto after = [&](OpId other) {
      if (other < 0) return;
      const Lane lane = role.ops[static_cast<std::size_t>(other)].lane;
      if (lane != op.lane) latest[index(lane)] = std::max(latest[index(lane)], other);
    };
    for (const OpId dep : op.deps) after(dep);
    op.deps.clear();
    for_reads(op, [&](BufferId b) {
      if (b >= 0) after(uses[static_cast<std::size_t>(b)].writer);
    });
    for_writes(op, [&](BufferId b) {
      if (b < 0) return;
      after(uses[static_cast<std::size_t>(b)].writer);
      for (const OpId reader : uses[static_cast<std::size_t>(b)].readers) after(reader);
    });
    // A communication op is posted when the walk reaches it: after the compute before it. This
    // also bounds how far gathers run ahead, hence memory.
    if (op.lane != Lane::kCompute) after(last_compute);
    for (const OpId dep : latest) {
      if (dep >= 0) op.deps.push_back(dep);
    }
    for_reads(op, [&](BufferId b) {
      if (b >= 0) {
        uses[static_cast<std::size_t>(b)].readers[index(op.lane)] = static_cast<OpId>(i);
      }
    });
    for_writes(op, [&](BufferId b) {
      if (b >= 0) uses[static_cast<std::size_t>(b)] = {static_cast<OpId>(i), kNone};
    });
    if (op.lane == Lane::kCompute) last_compute = static_cast<OpId>(i);
  }
}

std::vector<LaneClock> lane_clocks(const Role& role) {
  std::vector<LaneClock> clocks(role.ops.size());
  std::vector<std::int32_t> position(role.ops.size(), 0);
  std::array<std::int32_t, kNumLanes> count = {};
  std::array<OpId, kNumLanes> previous = kNone;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    LaneClock clock = {};
    const auto after = [&](OpId other) {
      const auto o = static_cast<std::size_t>(other);
      for (std::size_t l = 0; l < kNumLanes; ++l) clock[l] = std::max(clock[l], clocks[o][l]);
      const std::size_t lane = index(role.ops[o].lane);
      clock[lane] = std::max(clock[lane], position[o] + 1);
    };
    if (previous[index(op.lane)] >= 0) after(previous[index(op.lane)]);
    for (const OpId dep : op.deps) {
      if (dep >= 0 && static_cast<std::size_t>(dep) < i) after(dep);
    }
    clocks[i] = clock;
    position[i] = count[index(op.lane)]++;
    previous[index(op.lane)] = static_cast<OpId>(i);
  }
  return clocks;
}

void assign_lifetimes(Role& role) {
  // Per buffer, how many ops of each lane must have ended before it may go.
  std::vector<std::array<std::int32_t, kNumLanes>> needed(role.buffers.size());
  std::vector<OpId> last_use(role.buffers.size(), -1);
  std::array<std::int32_t, kNumLanes> count = {};
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    const std::int32_t ended = ++count[index(op.lane)];
    const auto use = [&](BufferId b) {
      if (b < 0) return;
      needed[static_cast<std::size_t>(b)][index(op.lane)] = ended;
      last_use[static_cast<std::size_t>(b)] = static_cast<OpId>(i);
    };
    for_reads(op, use);
    for_writes(op, use);
  }
  const auto clocks = lane_clocks(role);
  for (std::size_t b = 0; b < role.buffers.size(); ++b) {
    Buffer& buffer = role.buffers[b];
    if (buffer.taken_by < 0) continue;
    // Where no op is known to come after every use, freed_by stays -1: the verifier calls it a
    // leak.
    for (auto i = static_cast<std::size_t>(last_use[b]); i < role.ops.size(); ++i) {
      Op& op = role.ops[i];
      if (op.lane != Lane::kCompute) continue;
      bool ended = true;
      for (std::size_t l = 0; l < kNumLanes; ++l) {
        // The op itself has ended when it frees.
        const std::int32_t known = clocks[i][l] + (l == index(Lane::kCompute) ? 1 : 0);
        ended = ended && known >= needed[b][l];
      }
      if (!ended) continue;
      buffer.freed_by = static_cast<OpId>(i);
      op.frees.push_back(static_cast<BufferId>(b));
      break;
    }
  }
}

}  // namespace orrery
