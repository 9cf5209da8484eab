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
                   const std::vector<std::int64_t>& binding, Terms* terms) {
  const Block& block = role.blocks[static_cast<std::size_t>(op.block)];
  Seconds total(0);
  if (op.kind != OpKind::kBackward) {
    total += work_time(cluster.device, forward_work(block), binding, op.vars, terms);
  }
  if (op.kind == OpKind::kBackward || op.kind == OpKind::kForwardBackward) {
    total += work_time(cluster.device, backward_work(block), binding, op.vars, terms);
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

PassKind pass_of(OpKind kind) {
  return kind == OpKind::kOptimizerStep ? PassKind::kOptimizer : PassKind::kStream;
}

const EfficiencyCurve& curve_of(const DeviceProfile& device, WorkKind kind) {
  switch (kind) {
    case WorkKind::kGemm:
      return device.gemm;
    case WorkKind::kGroupedGemm:
      return device.grouped;
    case WorkKind::kAttention:
      return device.attention;
    case WorkKind::kMemory:
      break;
  }
  CHECK(false, "no products");
}

EntryKind entry_of(WorkKind kind) {
  if (kind == WorkKind::kGemm) return EntryKind::kGemm;
  return kind == WorkKind::kGroupedGemm ? EntryKind::kGrouped : EntryKind::kAttention;
}

double pass_seconds(const DeviceProfile& device, PassKind pass, double bytes) {
  if (bytes <= 0) return 0;
  return bytes / (device.memory_bandwidth.value() * device.pass(pass).at(bytes));
}

void blame_pass(const DeviceProfile& device, PassKind pass, double bytes, double seconds,
                Terms* terms) {
  if (terms == nullptr || seconds <= 0) return;
  terms->add({EntryKind::kPass, 0, static_cast<std::int32_t>(pass), 0}, device.pass(pass), bytes,
             seconds);
}

// A product whose bytes take longer than its FLOPs is a pass over memory: a stream.
double item_seconds(const DeviceProfile& device, const Work& w, double flops, double bytes,
                    Terms* terms) {
  const double pass = pass_seconds(device, w.pass, bytes);
  if (flops <= 0 || w.kind == WorkKind::kMemory) {
    blame_pass(device, w.pass, bytes, pass, terms);
    return pass;
  }
  const EfficiencyCurve& curve = curve_of(device, w.kind);
  const double size =
      w.kind == WorkKind::kGroupedGemm ? flops / static_cast<double>(w.groups) : flops;
  const double product = flops / (device.peak(w.dtype).value() * curve.at(size));
  if (pass > product) {
    blame_pass(device, w.pass, bytes, pass, terms);
    return pass;
  }
  if (terms != nullptr) terms->add({entry_of(w.kind), 0, 0, 0}, curve, size, product);
  return product;
}

// x with P(X < x) = p of a standard normal X, by bisection: p in [1/2, 1).
double normal_quantile(double p) {
  double low = 0, high = 10;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return low;
}

// Ops of one block and kind cost the same unless their size variables differ.
using MemoKey = std::tuple<std::int32_t, OpKind, std::int32_t>;

}  // namespace

Seconds work_time(const DeviceProfile& device, const std::vector<Work>& work,
                  const std::vector<std::int64_t>& binding, VarBase vars, Terms* terms) {
  double total = 0;
  double launches = 0;
  for (const Work& w : work) {
    const auto flops = static_cast<double>(w.flops.eval(binding, vars));
    const auto bytes = static_cast<double>(w.bytes.eval(binding, vars));
    const double launch = static_cast<double>(w.kernels) * device.launch.value();
    total += item_seconds(device, w, flops, bytes, terms) + launch;
    launches += launch;
  }
  if (terms != nullptr) terms->add({EntryKind::kLaunch, 0, 0, 0}, launches);
  CHECK(std::isfinite(total) && total >= 0, "a cost that is no time");
  return Seconds(total);
}

Seconds memory_time(const DeviceProfile& device, PassKind pass, double bytes, int kernels,
                    Terms* terms) {
  const double launch = static_cast<double>(kernels) * device.launch.value();
  const double moved = pass_seconds(device, pass, bytes);
  if (terms != nullptr) terms->add({EntryKind::kLaunch, 0, 0, 0}, launch);
  blame_pass(device, pass, bytes, moved, terms);
  return Seconds(launch + moved);
}

Seconds copy_time(const DeviceProfile& device, double bytes, Terms* terms) {
  const double seconds = bytes / device.host_bandwidth.value();
  if (terms != nullptr) {
    terms->add({EntryKind::kHostCopy, 0, 0, 0}, seconds);
    terms->add({EntryKind::kLaunch, 0, 0, 0}, device.launch.value());
  }
  return Seconds(seconds) + device.launch;
}

Seconds op_time(const Cluster& cluster, const Program& program, const Role& role, const Op& op,
                std::int32_t rank, const std::vector<std::int64_t>& binding, Terms* terms) {
  if (op.block >= 0) return block_time(cluster, role, op, binding, terms);
  if (op.lane == Lane::kD2h || op.lane == Lane::kH2d) {
    return copy_time(cluster.device, bytes_of(role, op.in[0], binding), terms);
  }
  if (is_collective(op.kind) && op.lane != Lane::kCompute) {
    const WireBytes wire = wire_bytes(program, role, op, rank, binding);
    const Group& group = program.groups[static_cast<std::size_t>(op.group)];
    if (terms != nullptr) terms->add({EntryKind::kLaunch, 0, 0, 0}, cluster.device.launch.value());
    return collective_time(cluster, group, op.kind, wire, terms) + cluster.device.launch;
  }
  return memory_time(cluster.device, pass_of(op.kind), moved_bytes(role, op, binding), 1, terms);
}

std::vector<Nanoseconds> op_durations(const Cluster& cluster, const Program& program,
                                      const Role& role, std::int32_t rank,
                                      const std::vector<std::int64_t>& binding) {
  std::vector<Nanoseconds> durations;
  durations.reserve(role.ops.size());
  std::map<MemoKey, Nanoseconds> memo;
  for (const Op& op : role.ops) {
    const auto price = [&] {
      return to_nanoseconds(op_time(cluster, program, role, op, rank, binding));
    };
    if (op.block < 0) {
      durations.push_back(price());
      continue;
    }
    // A block whose sizes depend on routing is priced for its own record.
    const bool routed = depends_on_routing(role.blocks[static_cast<std::size_t>(op.block)]);
    const MemoKey key{op.block, op.kind == OpKind::kForwardTape ? OpKind::kForward : op.kind,
                      routed ? op.vars.route : op.vars.batch};
    auto found = memo.find(key);
    if (found == memo.end()) found = memo.emplace(key, price()).first;
    durations.push_back(found->second);
  }
  return durations;
}

double stretch_of(double spread, std::int64_t ranks) {
  if (spread <= 0 || ranks < 2) return 1;
  const auto n = static_cast<double>(ranks);
  return 1 + spread * normal_quantile((n - 0.375) / (n + 0.25));
}

RankDurations rank_durations(const Cluster& cluster, const Program& program, const Role& role,
                             std::int32_t rank, const std::vector<std::int64_t>& binding) {
  RankDurations out{rank, op_durations(cluster, program, role, rank, binding)};
  bool plain = cluster.spread <= 0 && cluster.cores_per_node == 0;
  for (const LinkTier& tier : cluster.tiers) {
    plain = plain && tier.shared_by == 0 && tier.spread <= 0;
  }
  if (plain) return out;
  const auto stretched = [&](std::int64_t ns, double spread) {
    const double stretch = stretch_of(spread, program.world);
    return std::llround(static_cast<double>(ns) * stretch);
  };
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    Share share{cluster.cores_per_node > 0 ? 1000 : 0};
    double spread = op.lane == Lane::kCompute ? cluster.spread : 0;
    if (is_collective(op.kind) && op.lane != Lane::kCompute) {
      const Group& group = program.groups[static_cast<std::size_t>(op.group)];
      const WireBytes wire = wire_bytes(program, role, op, rank, binding);
      share = collective_share(cluster, group, op.kind, wire);
      if (share.tier >= 0) spread = cluster.tiers[static_cast<std::size_t>(share.tier)].spread;
      share.sent_ns = stretched(share.sent_ns, spread);
      share.received_ns = stretched(share.received_ns, spread);
    }
    out.durations[i] = Nanoseconds(stretched(out.durations[i].value(), spread));
    out.shares.push_back(share);
  }
  return out;
}

ClockRates clock_rates(const Cluster& cluster, std::int32_t replayed) {
  ClockRates rates{cluster.compute_slowdown, cluster.link_slowdown};
  for (const LinkTier& tier : cluster.tiers) {
    rates.link_ranks.push_back(static_cast<std::int32_t>(tier.shared_by));
  }
  if (cluster.cores_per_node == 0) return rates;
  rates.computes_on_host = true;
  // As the engine holds ranks to cores (engine/cores.h).
  const std::int64_t cores = cluster.cores_per_node;
  std::int64_t share =
      std::min(cluster.devices_per_node * cluster.nodes_per_machine, cluster.devices);
  rates.cores = static_cast<double>(cores);
  if (share < cores) {
    rates.cores = static_cast<double>(cores / share);
    share = 1;
  } else if (share % cores == 0) {
    rates.cores = 1;
    share /= cores;
  }
  rates.core_ranks = static_cast<std::int32_t>(share);
  if (replayed < cluster.devices) {
    rates.cores *= static_cast<double>(replayed) / static_cast<double>(share);
    rates.core_ranks = static_cast<std::int32_t>(cluster.devices);
  }
  return rates;
}

}  // namespace orrery::simulator
