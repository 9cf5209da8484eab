// Damage to programs; see mutate.h.
#include "tests/support/mutate.h"

#include <utility>
#include <vector>

#include "core/check.h"
#include "core/program/lowering.h"

namespace orrery {
namespace {

// Renames the ops of a role: op i becomes to[i], or nothing where that is -1.
void rename_ops(Role& role, const std::vector<OpId>& to) {
  const auto renamed = [&](OpId id) { return id < 0 ? id : to[static_cast<std::size_t>(id)]; };
  for (Op& op : role.ops) {
    std::vector<OpId> deps;
    for (const OpId dep : op.deps) {
      if (renamed(dep) >= 0) deps.push_back(renamed(dep));
    }
    op.deps = std::move(deps);
  }
  for (Buffer& b : role.buffers) {
    b.taken_by = renamed(b.taken_by);
    b.freed_by = renamed(b.freed_by);
  }
}

}  // namespace

std::size_t find_op(const Role& role, const std::string& path, Phase phase, std::int32_t m) {
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (op.path == path && op.phase == phase && op.micro_batch == m && op.chunk == 0) return i;
  }
  CHECK(false, "no op " + path + " in phase " + name_of(phase));
}

std::size_t find_op(const Role& role, OpKind kind, std::size_t from) {
  for (std::size_t i = from; i < role.ops.size(); ++i) {
    if (role.ops[i].kind == kind) return i;
  }
  CHECK(false, std::string("no op of kind ") + name_of(kind));
}

BufferId find_buffer(const Role& role, const std::string& name) {
  for (std::size_t b = 0; b < role.buffers.size(); ++b) {
    if (role.buffers[b].name == name) return static_cast<BufferId>(b);
  }
  CHECK(false, "no buffer " + name);
}

void move_op(Role& role, std::size_t from, std::size_t to) {
  std::vector<OpId> order, renamed(role.ops.size());
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    if (i != from) order.push_back(static_cast<OpId>(i));
  }
  order.insert(order.begin() + static_cast<std::ptrdiff_t>(to), static_cast<OpId>(from));
  std::vector<Op> ops;
  for (std::size_t i = 0; i < order.size(); ++i) {
    renamed[static_cast<std::size_t>(order[i])] = static_cast<OpId>(i);
    ops.push_back(role.ops[static_cast<std::size_t>(order[i])]);
  }
  role.ops = std::move(ops);
  rename_ops(role, renamed);
}

void drop_op(Role& role, std::size_t op) {
  std::vector<OpId> renamed;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    renamed.push_back(i == op ? -1 : static_cast<OpId>(i < op ? i : i - 1));
  }
  role.ops.erase(role.ops.begin() + static_cast<std::ptrdiff_t>(op));
  rename_ops(role, renamed);
}

void relower(Role& role) {
  for (Buffer& b : role.buffers) b.taken_by = b.freed_by = -1;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    Op& op = role.ops[i];
    op.deps.clear();
    op.frees.clear();
    std::vector<BufferId> written = op.out;
    written.insert(written.end(), op.updates.begin(), op.updates.end());
    written.push_back(op.metrics);
    for (const BufferId id : written) {
      if (id < 0) continue;
      Buffer& b = role.buffers[static_cast<std::size_t>(id)];
      const bool persistent =
          b.cls == BufferClass::kParameterShard || b.cls == BufferClass::kOptimizer;
      if (b.taken_by < 0 && !persistent) b.taken_by = static_cast<OpId>(i);
    }
  }
  assign_dependencies(role);
  assign_lifetimes(role);
}

Program split_roles(Program program) {
  CHECK(program.roles.size() == 1, "one role to split");
  Role odd = program.roles[0];
  Role& even = program.roles[0];
  even.name = "even";
  odd.name = "odd";
  std::vector<std::int32_t> ranks[2];
  for (const std::int32_t rank : even.ranks) ranks[rank % 2].push_back(rank);
  even.ranks = ranks[0];
  odd.ranks = ranks[1];
  if (!odd.ranks.empty()) program.roles.push_back(std::move(odd));
  return program;
}

}  // namespace orrery
