// Names, keys, hashes and the byte counts of a program's ops.
#include "core/program/program.h"

#include <algorithm>
#include <string>

#include "core/check.h"
#include "core/hash.h"
#include "core/program/wire.h"

namespace orrery {

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::kData:
      return "data";
    case Phase::kForward:
      return "fwd";
    case Phase::kRecompute:
      return "recompute";
    case Phase::kBackward:
      return "bwd";
    case Phase::kOptimizer:
      return "opt";
  }
  CHECK(false, "phase");
}

const char* name_of(Lane lane) {
  switch (lane) {
    case Lane::kCompute:
      return "compute";
    case Lane::kFsdp:
      return "fsdp";
    case Lane::kEp:
      return "ep";
    case Lane::kSp:
      return "sp";
    case Lane::kD2h:
      return "d2h";
    case Lane::kH2d:
      return "h2d";
  }
  CHECK(false, "lane");
}

const char* name_of(MemorySpace space) {
  return space == MemorySpace::kDevice ? "device" : "host";
}

const char* name_of(OpKind kind) {
  switch (kind) {
    case OpKind::kLoadBatch:
      return "load_batch";
    case OpKind::kCountTokens:
      return "count_tokens";
    case OpKind::kForward:
      return "forward";
    case OpKind::kForwardTape:
      return "forward_tape";
    case OpKind::kBackward:
      return "backward";
    case OpKind::kForwardBackward:
      return "forward_backward";
    case OpKind::kAllGather:
      return "all_gather";
    case OpKind::kUnshard:
      return "unshard";
    case OpKind::kReduceScatter:
      return "reduce_scatter";
    case OpKind::kAllReduce:
      return "all_reduce";
    case OpKind::kExchangeCounts:
      return "exchange_counts";
    case OpKind::kAllToAllV:
      return "all_to_all_v";
    case OpKind::kAllToAll:
      return "all_to_all";
    case OpKind::kAllGatherRows:
      return "all_gather_rows";
    case OpKind::kReduceScatterRows:
      return "reduce_scatter_rows";
    case OpKind::kCopyToHost:
      return "copy_to_host";
    case OpKind::kCopyToDevice:
      return "copy_to_device";
    case OpKind::kAddLoads:
      return "add_loads";
    case OpKind::kUpdateBias:
      return "update_bias";
    case OpKind::kJoin:
      return "join";
    case OpKind::kAccumulate:
      return "accumulate";
    case OpKind::kGradNorm:
      return "grad_norm";
    case OpKind::kReduceMetrics:
      return "reduce_metrics";
    case OpKind::kOptimizerStep:
      return "optimizer_step";
  }
  CHECK(false, "op kind");
}

const char* name_of(BufferClass cls) {
  switch (cls) {
    case BufferClass::kParameterShard:
      return "parameter_shard";
    case BufferClass::kGatheredParameter:
      return "gathered_parameter";
    case BufferClass::kGradient:
      return "gradient";
    case BufferClass::kOptimizer:
      return "optimizer";
    case BufferClass::kActivation:
      return "activation";
    case BufferClass::kSaved:
      return "saved";
    case BufferClass::kCommunication:
      return "communication";
    case BufferClass::kWorkspace:
      return "workspace";
  }
  CHECK(false, "buffer class");
}

std::int64_t Param::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

const Role& Program::role_of(std::int32_t rank) const {
  for (const Role& role : roles) {
    if (std::find(role.ranks.begin(), role.ranks.end(), rank) != role.ranks.end()) return role;
  }
  CHECK(false, "no role for rank " + std::to_string(rank));
}

std::uint64_t op_key(std::string_view path, Phase phase, std::int32_t micro_batch,
                     std::int32_t chunk) {
  std::string text;
  text.reserve(path.size() + 32);  // one allocation: every op of every role comes here
  text.append(path).append(1, '|').append(name_of(phase));
  text.append(1, '|').append(std::to_string(micro_batch));
  text.append(1, '|').append(std::to_string(chunk));
  return hash64(text);
}

bool is_collective(OpKind kind) {
  switch (kind) {
    case OpKind::kCountTokens:
    case OpKind::kAllGather:
    case OpKind::kReduceScatter:
    case OpKind::kAllReduce:
    case OpKind::kExchangeCounts:
    case OpKind::kAllToAllV:
    case OpKind::kAllToAll:
    case OpKind::kAllGatherRows:
    case OpKind::kReduceScatterRows:
    case OpKind::kReduceMetrics:
      return true;
    default:
      return false;
  }
}

namespace {

// Rows to and from every other peer, in bytes.
WireBytes routed_bytes(const Program& program, const Role& role, const Op& op, std::int32_t rank,
                       const std::vector<std::int64_t>& binding) {
  CHECK(op.vars.route >= 0, "an all-to-all-v without a routing record: " + op.path);
  const Group& group = program.groups[static_cast<std::size_t>(op.group)];
  const Buffer& rows = role.buffers[static_cast<std::size_t>(op.out[0])];
  const std::int64_t row_bytes = rows.cols * size_of(rows.dtype);
  const std::int32_t self = group.index_of(rank);
  WireBytes wire;
  for (std::int32_t p = 0; p < group.size; ++p) {
    if (p == self) continue;
    wire.sent += binding[static_cast<std::size_t>(op.vars.route + role.route.sent(p))] * row_bytes;
    wire.received +=
        binding[static_cast<std::size_t>(op.vars.route + role.route.received(p))] * row_bytes;
  }
  if (op.direction == Direction::kCombine) std::swap(wire.sent, wire.received);
  return wire;
}

}  // namespace

WireBytes wire_bytes(const Program& program, const Role& role, const Op& op, std::int32_t rank,
                     const std::vector<std::int64_t>& binding) {
  const std::int32_t n = program.groups[static_cast<std::size_t>(op.group)].size;
  const auto buffer = [&](BufferId b) -> const Buffer& {
    return role.buffers[static_cast<std::size_t>(b)];
  };
  const auto elements = [&](BufferId b) { return buffer(b).rows.c0 * buffer(b).cols; };
  switch (op.kind) {
    case OpKind::kCountTokens:
      return all_reduce_wire(n, 1, 8);
    case OpKind::kReduceMetrics:
      return all_reduce_wire(n, elements(op.metrics), 8);
    case OpKind::kAllGather:
      return all_gather_wire(n, buffer(op.out[0]).bytes.c0 / n);
    case OpKind::kReduceScatter:
      return reduce_scatter_wire(n, elements(op.out[0]), size_of(buffer(op.out[0]).dtype));
    case OpKind::kAllReduce:
      return all_reduce_wire(n, elements(op.updates[0]), size_of(buffer(op.updates[0]).dtype));
    case OpKind::kExchangeCounts:
      return exchange_counts_wire(n, buffer(op.out[0]).cols);
    case OpKind::kAllToAllV:
      return routed_bytes(program, role, op, rank, binding);
    case OpKind::kAllToAll: {
      const std::int64_t bytes = buffer(op.in[0]).bytes.c0 / n * (n - 1);
      return {bytes, bytes};
    }
    case OpKind::kAllGatherRows:
      return all_gather_wire(n, buffer(op.in[0]).bytes.c0);
    case OpKind::kReduceScatterRows:
      return reduce_scatter_wire(n, elements(op.out[0]), size_of(buffer(op.out[0]).dtype));
    default:
      return {};
  }
}

namespace {

bool takes(const Role& role, const Op& op, BufferId buffer) {
  if (buffer < 0) return false;
  const OpId by = role.buffers[static_cast<std::size_t>(buffer)].taken_by;
  return by >= 0 && role.ops[static_cast<std::size_t>(by)].key == op.key;
}

// Which entry of op.units has the parameter that a block calls so.
std::size_t unit_of(const Role& role, const Op& op, const std::string& name) {
  for (std::size_t i = 0; i < op.units.size(); ++i) {
    for (const Param& p : role.units[static_cast<std::size_t>(op.units[i])].params) {
      const bool layer_fits = op.layer < 0 || p.layer < 0 || op.layer == p.layer;
      if (layer_fits && p.short_name == name) return i;
    }
  }
  CHECK(false, op.path + ": no unit has the parameter " + name);
}

// Each buffer once.
std::int64_t sum_of(std::vector<TakenBuffer> taken) {
  std::sort(taken.begin(), taken.end());
  taken.erase(std::unique(taken.begin(), taken.end()), taken.end());
  std::int64_t sum = 0;
  for (const TakenBuffer& t : taken) sum += t.bytes;
  return sum;
}

// Of a loss op, which takes its sums after the forward part, gradients of parameters while the
// backward part runs, and the gradient of all rows (where it is of several chunks) after that.
std::int64_t loss_workspace(const Role& role, const Op& op, const Block& block,
                            const std::vector<std::int64_t>& binding) {
  const auto bytes_of = [&](BufferId b) {
    const Buffer& buffer = role.buffers[static_cast<std::size_t>(b)];
    return takes(role, op, b) ? buffer.bytes.eval(binding, buffer.vars) : 0;
  };
  const std::vector<TakenBuffer> taken = taken_gradients(role, op);
  const std::int64_t metrics = op.metrics >= 0 ? bytes_of(op.metrics) : 0;
  const std::int64_t gradients = sum_of(taken);
  std::int64_t outputs = 0;
  for (const BufferId b : op.out) outputs += b >= 0 ? bytes_of(b) : 0;
  const BlockBytes f = forward_bytes(block, true, binding, op.vars);
  const BlockBytes b = backward_bytes(block, binding, op.vars, {}, {}, taken);
  std::int64_t peak = std::max(f.peak, metrics + f.outputs + f.saved + b.peak);
  // A slice of gradients is copied to its place; a whole gradient is the op's output itself.
  if (op.row_end > 0) peak = std::max(peak, metrics + gradients + outputs + b.outputs);
  return peak - metrics - gradients - outputs;
}

}  // namespace

std::vector<TakenBuffer> taken_gradients(const Role& role, const Op& op) {
  const bool any = std::any_of(op.updates.begin(), op.updates.end(),
                               [&](BufferId b) { return takes(role, op, b); });
  if (!any) return {};
  std::vector<TakenBuffer> taken;
  for (const BlockParam& p : role.blocks[static_cast<std::size_t>(op.block)].params) {
    const std::size_t i = unit_of(role, op, p.name);
    const BufferId b = op.updates[i];
    const Buffer& buffer = role.buffers[static_cast<std::size_t>(b)];
    taken.push_back({static_cast<std::int32_t>(i), takes(role, op, b) ? buffer.bytes.c0 : 0});
  }
  return taken;
}

std::int64_t workspace_bytes(const Role& role, const Op& op,
                             const std::vector<std::int64_t>& binding) {
  if (op.kind == OpKind::kAccumulate) {
    const Unit& unit = role.units[static_cast<std::size_t>(op.unit)];
    const DType sum = role.buffers[static_cast<std::size_t>(op.updates[0])].dtype;
    return unit.grad_dtype == sum ? 0 : std::min(unit.shard_numel, kSumSlice) * size_of(sum);
  }
  if (op.block < 0) return 0;
  const Block& block = role.blocks[static_cast<std::size_t>(op.block)];
  switch (op.kind) {
    case OpKind::kForward:
    case OpKind::kForwardTape: {
      const BlockBytes b = forward_bytes(block, op.kind == OpKind::kForwardTape, binding, op.vars);
      return b.peak - b.outputs - b.saved;
    }
    case OpKind::kBackward: {
      const std::vector<TakenBuffer> taken = taken_gradients(role, op);
      const BlockBytes b = backward_bytes(block, binding, op.vars, seeded_inputs(block, op),
                                          absent_outputs(block, op), taken);
      return b.peak - b.outputs - sum_of(taken);
    }
    case OpKind::kForwardBackward:
      return loss_workspace(role, op, block, binding);
    default:
      return 0;
  }
}

std::vector<ValueId> seeded_inputs(const Block& block, const Op& op) {
  std::vector<ValueId> seeded;
  const std::size_t first =
      block.outputs.size() + 1 + block.saved_inputs.size() + block.saved_outputs.size();
  for (std::size_t i = 0; i < block.inputs.size(); ++i) {
    if (op.in[first + i] >= 0) seeded.push_back(block.inputs[i]);
  }
  return seeded;
}

std::vector<ValueId> absent_outputs(const Block& block, const Op& op) {
  std::vector<ValueId> absent;
  for (std::size_t i = 0; i < block.outputs.size(); ++i) {
    if (op.in[i] < 0 && !is_loss_output(block, block.outputs[i])) {
      absent.push_back(block.outputs[i]);
    }
  }
  return absent;
}

bool is_loss_output(const Block& block, ValueId v) {
  return std::any_of(block.prims.begin(), block.prims.end(),
                     [&](const Prim& prim) { return is_loss(prim.kind) && prim.out[0] == v; });
}

}  // namespace orrery
