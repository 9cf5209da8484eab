// Memory as a timeline of the program's buffers, in issue order (see Buffer in program.h).
#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "simulator/simulator.h"

namespace orrery::simulator {
namespace {

constexpr auto kWorkspaceIndex = static_cast<std::size_t>(BufferClass::kWorkspace);
constexpr auto kSavedIndex = static_cast<std::size_t>(BufferClass::kSaved);

// Workspaces repeat from layer to layer: computed once a (block, kind, record, seeded or not, what
// gradients it takes). A loss is computed anew where it takes buffers, in its first chunk.
class Workspaces {
 public:
  Workspaces(const Role& role, const std::vector<std::int64_t>& binding)
      : role_(role), binding_(binding) {}
  std::int64_t of(const Op& op) {
    if (op.block < 0 || (op.kind == OpKind::kForwardBackward && op.row_begin == 0))
      return workspace_bytes(role_, op, binding_);
    const Block& block = role_.blocks[static_cast<std::size_t>(op.block)];
    const bool seeded = op.kind == OpKind::kBackward && !seeded_inputs(block, op).empty();
    const std::int32_t record = depends_on_routing(block) ? op.vars.route : -1;
    std::vector<TakenBuffer> taken;
    if (op.kind == OpKind::kBackward) taken = taken_gradients(role_, op);
    const Key key{op.block, op.kind, record, seeded, std::move(taken)};
    const auto found = memo_.find(key);
    if (found != memo_.end()) return found->second;
    return memo_[key] = workspace_bytes(role_, op, binding_);
  }

 private:
  using Key = std::tuple<std::int32_t, OpKind, std::int32_t, bool, std::vector<TakenBuffer>>;
  const Role& role_;
  const std::vector<std::int64_t>& binding_;
  std::map<Key, std::int64_t> memo_;
};

}  // namespace

MemoryTimeline memory_timeline(const Role& role, const std::vector<std::int64_t>& binding) {
  MemoryTimeline timeline;
  std::vector<std::int64_t> live(kNumBufferClasses, 0);
  // What each op takes: the first buffer, and of each buffer the next.
  std::vector<BufferId> first(role.ops.size(), -1), next(role.buffers.size(), -1);
  std::int64_t total = 0, host = 0;
  const auto change = [&](BufferId b, int sign) {
    const Buffer& buffer = role.buffers[static_cast<std::size_t>(b)];
    const std::int64_t bytes = buffer.bytes.eval(binding, buffer.vars) * sign;
    if (buffer.space == MemorySpace::kHost) {
      host += bytes;
      timeline.host_peak = std::max(timeline.host_peak, host);
      return;
    }
    live[static_cast<std::size_t>(buffer.cls)] += bytes;
    total += bytes;
  };
  for (std::size_t b = 0; b < role.buffers.size(); ++b) {
    const OpId taken = role.buffers[b].taken_by;
    if (taken < 0) {
      change(static_cast<BufferId>(b), 1);
    } else {
      next[b] = std::exchange(first[static_cast<std::size_t>(taken)], static_cast<BufferId>(b));
    }
  }
  timeline.class_peaks = live;
  timeline.at.reserve(role.ops.size());
  Workspaces workspaces(role, binding);
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    for (BufferId b = first[i]; b >= 0; b = next[static_cast<std::size_t>(b)]) change(b, 1);
    const std::int64_t workspace = workspaces.of(role.ops[i]);
    live[kWorkspaceIndex] = std::max<std::int64_t>(0, workspace);
    timeline.at.push_back(total + workspace);
    for (std::size_t c = 0; c < kNumBufferClasses; ++c) {
      timeline.class_peaks[c] = std::max(timeline.class_peaks[c], live[c]);
    }
    if (total + workspace > timeline.peak) {
      timeline.peak = total + workspace;
      timeline.peak_op = static_cast<OpId>(i);
      timeline.at_peak = live;
      // Below zero: part of the tape has gone by then.
      timeline.at_peak[kSavedIndex] += std::min<std::int64_t>(0, workspace);
    }
    live[kWorkspaceIndex] = 0;
    for (const BufferId b : role.ops[i].frees) change(b, -1);
  }
  return timeline;
}

}  // namespace orrery::simulator
