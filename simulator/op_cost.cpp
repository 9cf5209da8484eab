// Op costs: blocks by their primitives' work, everything else by bytes moved.
#include "simulator/op_cost.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "core/check.h"

namespace orrery::simulator {
namespace {

const Buffer& buffer_of(const Role& role, BufferId b) {
  return role.buffers[static_cast<std::size_t>(b)];
}

double bytes_of(const Role& role, BufferId b, const std::vector<std::int64_t>& binding) {
  const Buffer& buffer = buffer_of(role, b);
  return static_cast<double>(buffer.bytes.eval(binding, buffer.vars));
}

Seconds block_time(const Cluster& cluster, const Role& role, const Op& op,
                   const std::vector<std::int64_t>& binding) {
  const Block& block = role.blocks[static_cast<std::size_t>(op.block)];
  Seconds total(0);
  if (op.kind != OpKind::kBackward) {
    total += work_time(cluster.device, forward_work(block), binding, op.vars);
  }
  if (op.kind == OpKind::kBackward || op.kind == OpKind::kForwardBackward) {
    total += work_time(cluster.device, backward_work(block), binding, op.vars);
  }
  return total;
}

// Bytes an op that runs no block moves through memory.
double moved_bytes(const Role& role, const Op& op, const std::vector<std::int64_t>& binding) {
  double bytes = 0;
  switch (op.kind) {
    case OpKind::kLoadBatch:
      for (const BufferId b : op.out) bytes += 2 * bytes_of(role, b, binding);
      return bytes;
    case OpKind::kUnshard:
      return bytes_of(role, op.in[0], binding) + bytes_of(role, op.out[0], binding);
    case OpKind::kAccumulate:  // reads the gradient, reads and writes the sum
      return bytes_of(role, op.in[0], binding) + 2 * bytes_of(role, op.updates[0], binding);
    case OpKind::kGradNorm:
      for (const BufferId b : op.in) bytes += bytes_of(role, b, binding);
      return bytes;
    case OpKind::kOptimizerStep:  // reads gradient, shard, moments; writes shard and moments
      return bytes_of(role, op.in[0], binding) +
             2 * (bytes_of(role, op.in[1], binding) + bytes_of(role, op.in[2], binding) +
                  bytes_of(role, op.in[3], binding));
    case OpKind::kExchangeCounts:
      return bytes_of(role, op.out[0], binding);
    case OpKind::kAddLoads:  // one row of the loads
      return 3 * bytes_of(role, op.in[0], binding);
    case OpKind::kUpdateBias:
      return 2 * bytes_of(role, op.in[0], binding);
    case OpKind::kJoin:
      return 0;
    default:
      CHECK(false, std::string("no cost for ") + name_of(op.kind));
  }
}

// Ops of one block and kind cost the same unless their size variables differ.
using MemoKey = std::tuple<std::int32_t, OpKind, std::int32_t>;

}  // namespace

Seconds work_time(const DeviceProfile& device, const std::vector<Work>& work,
                  const std::vector<std::int64_t>& binding, VarBase vars) {
  double total = 0;
  for (const Work& w : work) {
    const auto flops = static_cast<double>(w.flops.eval(binding, vars));
    const auto bytes = static_cast<double>(w.bytes.eval(binding, vars));
    double seconds = 0;
    if (bytes > 0) {
      seconds = bytes / (device.memory_bandwidth.value() * device.memory_eff.at(bytes));
    }
    if (flops > 0 && w.kind != WorkKind::kMemory) {
      double fraction = 1;
      switch (w.kind) {
        case WorkKind::kGemm:
          fraction = device.gemm.at(flops);
          break;
        case WorkKind::kGroupedGemm:
          fraction = device.grouped.at(flops / static_cast<double>(w.groups));
          break;
        case WorkKind::kAttention:
          fraction = device.attention.at(flops);
          break;
        case WorkKind::kMemory:
          break;
      }
      seconds = std::max(seconds, flops / (device.peak(w.dtype).value() * fraction));
    }
    total += seconds + static_cast<double>(w.kernels) * device.launch.value();
  }
  CHECK(std::isfinite(total) && total >= 0, "a cost that is no time");
  return Seconds(total);
}

Seconds memory_time(const DeviceProfile& device, double bytes, int kernels) {
  const double launch = static_cast<double>(kernels) * device.launch.value();
  if (bytes <= 0) return Seconds(launch);
  return Seconds(launch + bytes / (device.memory_bandwidth.value() * device.memory_eff.at(bytes)));
}

std::vector<Nanoseconds> op_durations(const Cluster& cluster, const Program& program,
                                      const Role& role, std::int32_t rank,
                                      const std::vector<std::int64_t>& binding) {
  std::vector<Nanoseconds> durations;
  durations.reserve(role.ops.size());
  std::map<MemoKey, Nanoseconds> memo;
  for (const Op& op : role.ops) {
    if (op.block >= 0) {
      // A block whose sizes depend on routing is priced for its own record.
      const bool routed = depends_on_routing(role.blocks[static_cast<std::size_t>(op.block)]);
      const MemoKey key{op.block, op.kind == OpKind::kForwardTape ? OpKind::kForward : op.kind,
                        routed ? op.vars.route : op.vars.batch};
      auto found = memo.find(key);
      if (found == memo.end()) {
        found = memo.emplace(key, to_nanoseconds(block_time(cluster, role, op, binding))).first;
      }
      durations.push_back(found->second);
    } else if (op.lane == Lane::kD2h || op.lane == Lane::kH2d) {
      const Seconds copied =
          Seconds(bytes_of(role, op.in[0], binding) / cluster.device.host_bandwidth.value());
      durations.push_back(to_nanoseconds(copied + cluster.device.launch));
    } else if (is_collective(op.kind) && op.lane != Lane::kCompute) {
      const WireBytes wire = wire_bytes(program, role, op, rank, binding);
      const Group& group = program.groups[static_cast<std::size_t>(op.group)];
      durations.push_back(
          to_nanoseconds(collective_time(cluster, group, op.kind, wire) + cluster.device.launch));
    } else {
      durations.push_back(
          to_nanoseconds(memory_time(cluster.device, moved_bytes(role, op, binding), 1)));
    }
  }
  return durations;
}

}  // namespace orrery::simulator
