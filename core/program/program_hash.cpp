// The hash of a program: two programs with one hash execute the same. Names of buffers and units
// are left out: they are for people.
#include <concepts>
#include <string>
#include <tuple>
#include <type_traits>

#include "core/hash.h"
#include "core/program/program.h"

namespace orrery {
namespace {

// A text that spells out everything, in order; every item ends with a separator.
class Spelling {
 public:
  template <class... Values>
  void add(const Values&... values) {
    (item(values), ...);
  }
  template <class T>
  void list(const std::vector<T>& values) {
    add(values.size());
    for (const T& v : values) add(v);
  }
  std::uint64_t hash() const { return hash64(text_); }

 private:
  template <class T>
  requires std::integral<T> || std::is_enum_v<T>
  void item(T value) { text_ += std::to_string(static_cast<std::int64_t>(value)) + ','; }
  void item(const std::string& value) { text_ += std::to_string(value.size()) + ':' + value + ','; }
  void item(double value) {
    // Bits, so that no rounding hides a difference.
    std::uint64_t bits = 0;
    static_assert(sizeof bits == sizeof value);
    __builtin_memcpy(&bits, &value, sizeof bits);
    text_ += std::to_string(bits) + ',';
  }
  void item(const SizeExpr& e) { add(e.c0, e.c1, e.scope, e.offset); }
  void item(const VarBase& v) { add(v.route, v.batch); }
  std::string text_;
};

void spell(Spelling& out, const Block& block) {
  out.add(block.values.size(), block.params.size(), block.prims.size());
  for (const Value& v : block.values) out.add(v.rows, v.cols, v.dtype, v.needs_grad);
  for (const BlockParam& p : block.params) {
    out.add(p.name, p.grad_dtype);
    out.list(p.shape);
  }
  out.list(block.inputs);
  out.list(block.outputs);
  for (const Prim& p : block.prims) {
    out.list(p.in);
    out.list(p.out);
    out.add(p.kind, p.param, p.heads, p.kv_heads, p.head_dim, p.top_k, p.experts, p.sequences,
            p.sequence_tokens, p.chunk, p.scalar, p.normalize);
    // Spelt only where used: programs without them keep their hash. The word is no number, so that
    // nothing else reads the same.
    const Prim plain{.kind = p.kind};
    if (std::tie(p.sigmoid, p.groups, p.top_groups, p.parts, p.peers, p.valid_tokens) !=
        std::tie(plain.sigmoid, plain.groups, plain.top_groups, plain.parts, plain.peers,
                 plain.valid_tokens)) {
      out.add(std::string("more"), p.sigmoid, p.groups, p.top_groups, p.parts, p.peers,
              p.valid_tokens);
    }
  }
}

void spell(Spelling& out, const Unit& unit) {
  out.add(unit.params.size());
  for (const Param& p : unit.params) {
    out.add(p.name, p.layer, p.is_norm, p.is_expert);
    out.list(p.shape);
  }
  out.add(unit.shard_group, unit.replicate_group, unit.is_expert, unit.resident, unit.numel,
          unit.shard_numel, unit.grad_dtype, unit.shard, unit.moment1, unit.moment2);
}

void spell(Spelling& out, const Op& op) {
  out.add(static_cast<std::int64_t>(op.key), op.kind, op.phase, op.lane, op.path, op.micro_batch,
          op.chunk, op.parts, op.layer, op.block, op.unit, op.group, op.direction, op.host_sync,
          op.vars, op.row_begin, op.row_end, op.metrics);
  for (const auto* ids :
       {&op.deps, &op.in, &op.out, &op.units, &op.params, &op.updates, &op.frees}) {
    out.list(*ids);
  }
}

}  // namespace

std::uint64_t Program::hash() const {
  Spelling out;
  out.add(world, plan_hash, groups.size(), roles.size());
  for (const Group& g : groups) out.add(g.name, g.size, g.stride);
  out.add(step.micro_batches, step.sequences, step.sequence_tokens, step.valid_tokens, step.sp,
          step.global_sequences, step.compute, step.master, step.balance_over_world,
          step.balance_over_sp, step.bias_speed);
  for (const Role& role : roles) {
    out.list(role.ranks);
    out.add(role.blocks.size(), role.units.size(), role.buffers.size(), role.ops.size(),
            role.num_vars, role.route.ep, role.route.local_experts);
    for (const Block& block : role.blocks) spell(out, block);
    for (const Unit& unit : role.units) spell(out, unit);
    for (const Buffer& b : role.buffers) {
      out.add(b.cls, b.space, b.bytes, b.vars, b.taken_by, b.freed_by, b.rows, b.cols, b.dtype);
    }
    for (const Op& op : role.ops) spell(out, op);
  }
  return out.hash();
}

}  // namespace orrery
