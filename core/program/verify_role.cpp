// Checks of one role: operands, order, races, lifetimes, units.
#include <algorithm>
#include <set>

#include "core/program/lowering.h"
#include "core/program/verify_checks.h"

namespace orrery {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

bool in_range(std::int64_t i, std::size_t size) { return i >= 0 && index(i) < size; }

bool persistent(const Buffer& b) {
  return b.cls == BufferClass::kParameterShard || b.cls == BufferClass::kOptimizer;
}

const std::string& name(const Role& role, BufferId b) { return role.buffers[index(b)].name; }

// positions[i]: how many ops of its lane precede op i.
std::vector<std::int32_t> lane_positions(const Role& role) {
  std::vector<std::int32_t> positions;
  std::int32_t count[kNumLanes] = {};
  for (const Op& op : role.ops) positions.push_back(count[index(static_cast<int>(op.lane))]++);
  return positions;
}

}  // namespace

std::vector<BufferId> reads_of(const Op& op) {
  std::vector<BufferId> out;
  for (const BufferId b : op.in) {
    if (b >= 0) out.push_back(b);
  }
  for (const BufferId b : op.params) {
    if (b >= 0) out.push_back(b);
  }
  return out;
}

std::vector<BufferId> writes_of(const Op& op) {
  std::vector<BufferId> out;
  for (const BufferId b : op.out) {
    if (b >= 0) out.push_back(b);
  }
  for (const BufferId b : op.updates) {
    if (b >= 0) out.push_back(b);
  }
  if (op.metrics >= 0) out.push_back(op.metrics);
  return out;
}

void check_operands(const Program& program, const Role& role, Findings& findings) {
  std::set<std::uint64_t> keys;
  for (const Op& op : role.ops) {
    if (!keys.insert(op.key).second) report(findings, role, &op, "unique_key", "key used twice");
    bool ok = true;
    for (const auto* list : {&op.in, &op.out, &op.params, &op.updates, &op.frees}) {
      for (const BufferId b : *list) ok = ok && (b == -1 || in_range(b, role.buffers.size()));
    }
    ok = ok && (op.metrics == -1 || in_range(op.metrics, role.buffers.size()));
    for (const std::int32_t u : op.units) ok = ok && in_range(u, role.units.size());
    ok = ok && (op.unit == -1 || in_range(op.unit, role.units.size()));
    const bool runs_block = op.kind == OpKind::kForward || op.kind == OpKind::kForwardTape ||
                            op.kind == OpKind::kBackward || op.kind == OpKind::kForwardBackward;
    ok = ok && (runs_block ? in_range(op.block, role.blocks.size()) : op.block == -1);
    ok = ok && (is_collective(op.kind) ? in_range(op.group, program.groups.size()) : true);
    ok = ok && op.params.size() == op.units.size();
    ok = ok && (op.updates.size() == op.units.size() || op.units.empty() || op.updates.empty());
    if (!ok) report(findings, role, &op, "operand_range", "an operand does not exist");
  }
  for (const Buffer& b : role.buffers) {
    const bool scope_ok = b.bytes.is_constant() ||
                          (b.bytes.scope == VarScope::kRoute ? b.vars.route : b.vars.batch) >= 0;
    if (b.bytes.c0 < 0 || b.bytes.c1 < 0 || !scope_ok) {
      report(findings, role, nullptr, "bad_size", "buffer " + b.name);
    }
  }
}

void check_order(const Role& role, Findings& findings) {
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    for (const OpId dep : op.deps) {
      if (!in_range(dep, role.ops.size()) || index(dep) >= i) {
        report(findings, role, &op, "dependency_order",
               "waits for op " + std::to_string(dep) + ", itself being " + std::to_string(i));
      }
    }
    // A count exchange inside a group of one is a copy, and stays on the compute lane.
    const bool network = is_collective(op.kind) &&
                         !(op.kind == OpKind::kExchangeCounts && op.lane == Lane::kCompute);
    if (network != (op.lane != Lane::kCompute)) {
      report(findings, role, &op, "lane_of_kind",
             std::string(name_of(op.kind)) + " on lane " + name_of(op.lane));
    }
    const bool reads_on_host = op.kind == OpKind::kExchangeCounts ||
                               op.kind == OpKind::kCountTokens ||
                               op.kind == OpKind::kReduceMetrics;
    if (reads_on_host && !op.host_sync) {
      report(findings, role, &op, "host_sync", "its result is read on the host");
    }
  }
}

void check_buffers(const Role& role, Findings& findings) {
  const auto clocks = lane_clocks(role);
  const auto positions = lane_positions(role);
  const auto ends_before = [&](OpId a, std::size_t b) {  // does a end before b starts?
    const Op& first = role.ops[index(a)];
    return clocks[b][index(static_cast<int>(first.lane))] > positions[index(a)];
  };
  std::vector<OpId> writer(role.buffers.size(), -1);
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    const auto wait_for_writer = [&](BufferId b) {
      if (writer[index(b)] >= 0 && !ends_before(writer[index(b)], i)) {
        report(findings, role, &op, "race",
               "does not wait for " + role.ops[index(writer[index(b)])].path + ", which writes " +
                   name(role, b));
      }
    };
    for (const BufferId b : reads_of(op)) {
      if (writer[index(b)] < 0 && !persistent(role.buffers[index(b)])) {
        report(findings, role, &op, "not_written", "reads " + name(role, b));
      }
      wait_for_writer(b);
    }
    for (const BufferId b : op.out) {
      if (b < 0) continue;
      const bool slice = op.kind == OpKind::kForwardBackward && op.row_end > 0;
      if (writer[index(b)] >= 0 && !slice) {
        report(findings, role, &op, "written_twice", name(role, b));
      }
    }
    for (const BufferId b : writes_of(op)) {
      wait_for_writer(b);
      if (writer[index(b)] < 0 && !persistent(role.buffers[index(b)]) &&
          role.buffers[index(b)].taken_by != static_cast<OpId>(i)) {
        report(findings, role, &op, "free_mismatch", "first writes " + name(role, b) +
                                                         " but is not the op that takes it");
      }
      writer[index(b)] = static_cast<OpId>(i);
    }
  }
}

void check_lifetimes(const Role& role, Findings& findings) {
  const auto clocks = lane_clocks(role);
  const auto positions = lane_positions(role);
  std::vector<int> freed(role.buffers.size(), 0);
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    for (const BufferId b : role.ops[i].frees) {
      const Buffer& buffer = role.buffers[index(b)];
      if (++freed[index(b)] > 1 || buffer.freed_by != static_cast<OpId>(i) ||
          role.ops[i].lane != Lane::kCompute) {
        report(findings, role, &role.ops[i], "free_mismatch", "frees " + buffer.name);
      }
    }
  }
  for (std::size_t b = 0; b < role.buffers.size(); ++b) {
    const Buffer& buffer = role.buffers[b];
    if (buffer.taken_by >= 0 && (buffer.freed_by < 0 || freed[b] == 0)) {
      report(findings, role, nullptr, "leak", "nothing frees " + buffer.name);
    }
  }
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    std::vector<BufferId> uses = reads_of(op);
    for (const BufferId b : writes_of(op)) uses.push_back(b);
    for (const BufferId b : uses) {
      const OpId free = role.buffers[index(b)].freed_by;
      if (free < 0 || index(free) == i || !in_range(free, role.ops.size())) continue;
      const std::int32_t known = clocks[index(free)][index(static_cast<int>(op.lane))];
      if (known <= positions[i]) {
        report(findings, role, &op, "use_after_free",
               "uses " + name(role, b) + ", which " + role.ops[index(free)].path + " frees");
      }
    }
  }
}

void check_units(const Role& role, Findings& findings) {
  std::vector<int> updated(role.units.size(), 0);
  std::vector<OpId> reduced(role.buffers.size(), -1);
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (op.kind == OpKind::kOptimizerStep && op.unit >= 0) ++updated[index(op.unit)];
    for (std::size_t u = 0; u < op.units.size(); ++u) {
      const bool embedding_backward =
          op.kind == OpKind::kBackward && role.blocks[index(op.block)].saved.empty() &&
          role.blocks[index(op.block)].prims.size() == 1;
      if (op.params[u] < 0 && !embedding_backward) {
        report(findings, role, &op, "not_gathered", role.units[index(op.units[u])].name);
      }
    }
    for (const BufferId b : op.updates) {
      if (b < 0 || op.units.empty()) continue;
      if (reduced[index(b)] >= 0) {
        report(findings, role, &op, "reduced_too_early",
               "adds to " + name(role, b) + " after " + role.ops[index(reduced[index(b)])].path);
      }
    }
    if (op.kind == OpKind::kReduceScatter || op.kind == OpKind::kAccumulate) {
      if (!op.in.empty() && op.in[0] >= 0) reduced[index(op.in[0])] = static_cast<OpId>(i);
    }
  }
  for (std::size_t u = 0; u < role.units.size(); ++u) {
    if (updated[u] != 1) {
      report(findings, role, nullptr, "not_updated",
             role.units[u].name + " has " + std::to_string(updated[u]) + " optimizer steps");
    }
  }
}

}  // namespace orrery
