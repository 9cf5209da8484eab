// Checks of one role: operands, order, races, lifetimes.
#include <array>
#include <set>
#include <unordered_set>

#include "core/program/lowering.h"
#include "core/program/verify_checks.h"

namespace orrery {
namespace {

constexpr std::array<OpId, kNumLanes> kNone = {-1, -1, -1, -1, -1, -1};

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

bool in_range(std::int64_t i, std::size_t size) {
  return i >= 0 && index(i) < size;
}

bool persistent(const Buffer& b) {
  return b.cls == BufferClass::kParameterShard || b.cls == BufferClass::kOptimizer;
}

const std::string& name(const Role& role, BufferId b) {
  return role.buffers[index(b)].name;
}

// positions[i]: how many ops of its lane precede op i.
std::vector<std::int32_t> lane_positions(const Role& role) {
  std::vector<std::int32_t> positions;
  std::int32_t count[kNumLanes] = {};
  for (const Op& op : role.ops) positions.push_back(count[index(static_cast<int>(op.lane))]++);
  return positions;
}

bool needs_unit(OpKind kind) {
  return kind == OpKind::kAllGather || kind == OpKind::kUnshard || kind == OpKind::kReduceScatter ||
         kind == OpKind::kAccumulate || kind == OpKind::kOptimizerStep;
}

// Are the records that these start at inside the role's table?
bool has_records(const Role& role, VarBase vars) {
  const auto fits = [&](std::int32_t start, std::int32_t size) {
    return start >= -1 && (start < 0 || start + size <= role.num_vars);
  };
  return fits(vars.route, role.route.size()) && fits(vars.batch, BatchVars::size());
}

bool good_size(const Role& role, const SizeExpr& e, VarBase vars) {
  if (e.c0 < 0 || e.c1 < 0) return false;
  if (e.is_constant()) return true;
  const bool route = e.scope == VarScope::kRoute;
  return (route ? vars.route : vars.batch) >= 0 && e.offset >= 0 &&
         e.offset < (route ? role.route.size() : BatchVars::size());
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
  if (op.kind == OpKind::kOptimizerStep) {  // the shard and its moments, in place
    for (std::size_t i = 1; i < op.in.size(); ++i) {
      if (op.in[i] >= 0) out.push_back(op.in[i]);
    }
  }
  return out;
}

void check_operands(const Program& program, const Role& role, Findings& findings) {
  std::unordered_set<std::uint64_t> keys(role.ops.size());
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
    for (const BufferId b : op.frees) ok = ok && b >= 0;
    ok = ok && (!is_collective(op.kind) || in_range(op.group, program.groups.size()));
    ok = ok && (!needs_unit(op.kind) || op.unit >= 0);
    ok = ok && in_range(static_cast<std::int64_t>(op.lane), std::size_t{kNumLanes});
    ok = ok && op.params.size() == op.units.size();
    ok = ok && (op.updates.size() == op.units.size() || op.units.empty() || op.updates.empty());
    if (!ok) report(findings, role, &op, "operand_range", "an operand does not exist");
    if (!has_records(role, op.vars)) report(findings, role, &op, "bad_size", "no such record");
  }
  for (const Unit& u : role.units) {
    bool ok = in_range(u.shard_group, program.groups.size()) &&
              in_range(u.replicate_group, program.groups.size());
    for (const BufferId b : {u.shard, u.moment1, u.moment2}) {
      ok = ok && in_range(b, role.buffers.size());
    }
    if (!ok) report(findings, role, nullptr, "operand_range", "unit " + u.name);
  }
  for (const Buffer& b : role.buffers) {
    const bool sized =
        good_size(role, b.bytes, b.vars) && good_size(role, b.rows, b.vars) && b.cols >= 0;
    if (!sized || !has_records(role, b.vars)) {
      report(findings, role, nullptr, "bad_size", "buffer " + b.name);
    }
    for (const OpId op : {b.taken_by, b.freed_by}) {
      if (op >= -1 && op < static_cast<OpId>(role.ops.size())) continue;
      report(findings, role, nullptr, "operand_range", "buffer " + b.name + "'s ops");
    }
  }
}

void check_order(const Role& role, Findings& findings) {
  const auto clocks = lane_clocks(role);
  std::int32_t computed = 0;  // compute ops issued so far
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (op.lane == Lane::kCompute) {
      ++computed;
    } else if (clocks[i][0] < computed) {
      report(findings, role, &op, "issue_order", "does not wait for the compute issued before it");
    }
    for (const OpId dep : op.deps) {
      if (!in_range(dep, role.ops.size()) || index(dep) >= i) {
        report(findings, role, &op, "dependency_order",
               "waits for op " + std::to_string(dep) + ", itself being " + std::to_string(i));
      }
    }
    // A count exchange inside a group of one is a copy, and stays on the compute lane.
    const bool network = is_collective(op.kind) &&
                         !(op.kind == OpKind::kExchangeCounts && op.lane == Lane::kCompute);
    const bool out = op.kind == OpKind::kCopyToHost, in = op.kind == OpKind::kCopyToDevice;
    if (network != is_network(op.lane) || out != (op.lane == Lane::kD2h) ||
        in != (op.lane == Lane::kH2d)) {
      report(findings, role, &op, "lane_of_kind",
             std::string(name_of(op.kind)) + " on lane " + name_of(op.lane));
    }
    const bool reads_on_host = op.kind == OpKind::kExchangeCounts ||
                               op.kind == OpKind::kCountTokens || op.kind == OpKind::kReduceMetrics;
    if (reads_on_host && !op.host_sync) {
      report(findings, role, &op, "host_sync", "its result is read on the host");
    }
  }
}

namespace {

// Follows the buffers of a role through its ops in issue order.
class BufferWalk {
 public:
  BufferWalk(const Role& role, Findings& findings)
      : role_(role),
        findings_(findings),
        clocks_(lane_clocks(role)),
        positions_(lane_positions(role)),
        uses_(role.buffers.size()) {}

  void run() {
    for (std::size_t i = 0; i < role_.ops.size(); ++i) {
      const Op& op = role_.ops[i];
      for (const BufferId b : reads_of(op)) read(i, b);
      for (const BufferId b : op.out) {
        if (b >= 0) cover(op, b);
      }
      for (const BufferId b : writes_of(op)) write(i, b);
      for (const BufferId b : reads_of(op)) {
        uses_[index(b)].readers[static_cast<std::size_t>(op.lane)] = static_cast<OpId>(i);
      }
    }
  }

 private:
  struct Use {
    OpId writer = -1;
    std::array<OpId, kNumLanes> readers = kNone;  // since then; lanes are FIFO
    std::int64_t rows = 0;  // written by slices, or parts of an exchange, so far
    std::int64_t all = 0;   // there will be
    bool sliced = false;
  };

  // Reports a race unless op `first` has ended before op `i` starts.
  void wait(std::size_t i, OpId first, const char* what, BufferId b) {
    if (first < 0 || index(first) == i) return;
    const Op& other = role_.ops[index(first)];
    if (clocks_[i][static_cast<std::size_t>(other.lane)] > positions_[index(first)]) return;
    report(findings_, role_, &role_.ops[i], "race",
           "does not wait for " + other.path + ", which " + what + " " + name(role_, b));
  }

  void read(std::size_t i, BufferId b) {
    const Use& use = uses_[index(b)];
    const bool whole = !use.sliced || use.rows == use.all;
    if ((use.writer < 0 && !persistent(role_.buffers[index(b)])) || !whole) {
      report(findings_, role_, &role_.ops[i], "not_written", "reads " + name(role_, b));
    }
    wait(i, use.writer, "writes", b);
  }

  // An output is written once, or in slices of rows that follow each other.
  void cover(const Op& op, BufferId b) {
    Use& use = uses_[index(b)];
    const bool part =
        op.kind == OpKind::kAllToAllV && op.direction == Direction::kCombine && op.parts > 1;
    const bool slice = part || (op.kind == OpKind::kForwardBackward && op.row_end > 0);
    const std::int64_t begin = part ? op.chunk : op.row_begin;
    if (use.writer >= 0 && !(slice && use.sliced && begin >= use.rows)) {
      report(findings_, role_, &op, "written_twice", name(role_, b));
    }
    if (!slice) return;
    if (begin > use.rows) {
      report(findings_, role_, &op, "not_written", "rows before it of " + name(role_, b));
    }
    use.sliced = true;
    use.rows = part ? op.chunk + 1 : op.row_end;
    use.all = part ? op.parts : role_.buffers[index(b)].rows.c0;
  }

  void write(std::size_t i, BufferId b) {
    Use& use = uses_[index(b)];
    wait(i, use.writer, "writes", b);
    for (const OpId reader : use.readers) wait(i, reader, "reads", b);
    const Buffer& buffer = role_.buffers[index(b)];
    if (use.writer < 0 && !persistent(buffer) && buffer.taken_by != static_cast<OpId>(i)) {
      report(findings_, role_, &role_.ops[i], "free_mismatch",
             "first writes " + name(role_, b) + " but is not the op that takes it");
    }
    use.writer = static_cast<OpId>(i);
    use.readers = kNone;
  }

  const Role& role_;
  Findings& findings_;
  const std::vector<LaneClock> clocks_;
  const std::vector<std::int32_t> positions_;
  std::vector<Use> uses_;
};

}  // namespace

void check_buffers(const Role& role, Findings& findings) {
  BufferWalk(role, findings).run();
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
    if (persistent(buffer) != (buffer.taken_by < 0)) {
      report(findings, role, nullptr, "free_mismatch",
             buffer.name + (persistent(buffer) ? " is persistent but taken" : " is never taken"));
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

// The counts that a balancing loss weighs (operand 1) are of the world, of the sequence's ranks, or
// of this rank, as the step says: their all-reduce is in place, so no operand shows it.
void check_balance(const Program& program, const Role& role, Findings& findings) {
  std::set<BufferId> summed;
  const bool over_world = program.step.balance_over_world, over_sp = program.step.balance_over_sp;
  for (const Op& op : role.ops) {
    const bool whole =
        op.kind == OpKind::kAllReduce && op.group == (over_sp ? kGroupIds.sp : kGroupIds.world);
    if (whole && !op.updates.empty()) summed.insert(op.updates[0]);
    if (op.kind != OpKind::kForwardBackward || op.in.size() < 2) continue;
    const Block& block = role.blocks[index(op.block)];
    if (block.prims.empty() || block.prims.back().kind != PrimKind::kBalanceLoss) continue;
    if ((summed.count(op.in[1]) > 0) != (over_world || over_sp)) {
      report(findings, role, &op, "not_balanced",
             over_world ? "its counts were not summed over the world"
             : over_sp  ? "its counts were not summed over the ranks of the sequence"
                        : "its counts are not of this rank alone");
    }
  }
}

}  // namespace orrery
