// Lowering, the building blocks: buffers, ops, and calls of a block forward and backward.
#include <utility>

#include "core/check.h"
#include "core/program/lowering.h"

namespace orrery {

SizeExpr tape_bytes(const Block& block) {
  SizeExpr total;
  const auto add = [&](SizeExpr e) {
    if (e.c1 != 0) {
      CHECK(total.c1 == 0 || (total.scope == e.scope && total.offset == e.offset),
            "a tape of two size variables");
      total.scope = e.scope;
      total.offset = e.offset;
    }
    total.c0 += e.c0;
    total.c1 += e.c1;
  };
  for (const ValueId v : block.saved) add(block.values[static_cast<std::size_t>(v)].bytes());
  for (const Prim& prim : block.prims) add(memory_of(block, prim).saved_extra);
  return total;
}

namespace {

template <class Call>
void set_block(Op& op, const Call& c) {
  op.block = c.block;
  op.vars = c.vars;
  op.units = c.units;
  op.layer = c.layer;
  op.chunk = c.part;
  op.parts = c.parts;
}

}  // namespace

BufferId Lowering::buffer(std::string name, BufferClass cls, SizeExpr rows, std::int64_t cols,
                          DType dtype, VarBase vars, MemorySpace space) {
  Buffer b;
  b.name = std::move(name);
  b.cls = cls;
  b.space = space;
  b.rows = rows;
  b.cols = cols;
  b.dtype = dtype;
  b.bytes = rows * (cols * size_of(dtype));
  b.vars = vars;
  role_.buffers.push_back(std::move(b));
  return static_cast<BufferId>(role_.buffers.size()) - 1;
}

BufferId Lowering::value_buffer(const std::string& path, const Value& value, VarBase vars,
                                const char* suffix) {
  return buffer(path + "/" + value.name + suffix, BufferClass::kActivation, value.rows, value.cols,
                value.dtype, vars);
}

Op Lowering::op(OpKind kind, Phase phase, Lane lane, std::string path, std::int32_t m) const {
  Op o;
  o.kind = kind;
  o.phase = phase;
  o.lane = lane;
  o.path = std::move(path);
  o.micro_batch = m;
  o.vars = vars_of(m);
  return o;
}

OpId Lowering::add(Op o) {
  o.key = op_key(o.path, o.phase, o.micro_batch, o.chunk);
  const auto id = static_cast<OpId>(role_.ops.size());
  const auto take = [&](BufferId b) {
    if (b < 0) return;
    Buffer& taken = role_.buffers[static_cast<std::size_t>(b)];
    const bool persistent =
        taken.cls == BufferClass::kParameterShard || taken.cls == BufferClass::kOptimizer;
    if (taken.taken_by < 0 && !persistent) taken.taken_by = id;
  };
  for (const BufferId b : o.out) take(b);
  for (const BufferId b : o.updates) take(b);
  take(o.metrics);
  if (o.lane == Lane::kCompute) {
    o.deps.insert(o.deps.end(), due_.begin(), due_.end());
    due_.clear();
  }
  role_.ops.push_back(std::move(o));
  return id;
}

BufferId Lowering::move_rows(Op o, BufferId from, SizeExpr rows, const char* suffix) {
  const std::string name =
      o.path + "/" + name_of(o.phase) + "/mb." + std::to_string(o.micro_batch) + suffix;
  const std::int64_t cols = at(from).cols;
  const BufferId out = buffer(name, BufferClass::kCommunication, rows, cols, at(from).dtype);
  o.in = {from};
  o.out = {out};
  add(std::move(o));
  return out;
}

void Lowering::use_units(Op& o, bool gradients) {
  for (const std::int32_t u : o.units) {
    const Unit& unit = role_.units[static_cast<std::size_t>(u)];
    const auto found = gathered_.find(u);
    const bool at_hand = found != gathered_.end() && found->second >= 0;
    // Embedding backward writes a gradient but reads no parameter: nothing is gathered for it.
    o.params.push_back(at_hand ? found->second : (unit.resident ? unit.shard : -1));
    o.updates.push_back(gradients ? gradient_of(u) : -1);
  }
}

Lowering::BlockCall Lowering::layer_call(std::int32_t block, std::int32_t j, std::int64_t layer,
                                         const char* name, Phase phase, bool has_parameters) const {
  BlockCall c;
  c.block = block;
  c.path = layer_path(layer) + name;
  c.phase = phase;
  c.m = micro_batch(j);
  c.vars = vars_of(c.m, layer);
  if (has_parameters) c.units = {layer_units_[static_cast<std::size_t>(layer)]};
  c.layer = static_cast<std::int32_t>(layer);
  return c;
}

std::vector<BufferId> Lowering::call(const BlockCall& c, const std::vector<BufferId>& in,
                                     bool tape) {
  const Block& block = role_.blocks[static_cast<std::size_t>(c.block)];
  const SizeExpr kept = tape ? tape_bytes(block) : SizeExpr{};
  const bool has_tape = kept.c0 > 0 || kept.c1 > 0;
  Op o =
      op(has_tape ? OpKind::kForwardTape : OpKind::kForward, c.phase, Lane::kCompute, c.path, c.m);
  set_block(o, c);
  o.in = in;
  if (c.received >= 0) o.in.push_back(c.received);
  if (c.adds_loss) o.metrics = metrics_;
  const std::string part = c.parts > 1 ? "/part." + std::to_string(c.part) : "";
  const std::string name = c.path + "/" + name_of(c.phase) + part;
  for (const ValueId v : block.outputs) {
    o.out.push_back(value_buffer(name, block.values[static_cast<std::size_t>(v)], c.vars));
  }
  std::vector<BufferId> result = o.out;
  result.push_back(-1);
  if (has_tape) {
    const BufferId b = buffer(name + "/tape", BufferClass::kSaved, kept, 1, DType::kInt64, c.vars);
    role_.buffers[static_cast<std::size_t>(b)].bytes = kept;
    o.out.push_back(b);
    result.back() = b;
  }
  use_units(o, false);
  o.updates.clear();
  add(std::move(o));
  return result;
}

std::vector<BufferId> Lowering::call_backward(const BlockCall& c,
                                              const std::vector<BufferId>& grads, BufferId tape,
                                              const std::vector<BufferId>& inputs,
                                              const std::vector<BufferId>& outputs,
                                              const std::vector<BufferId>& seeds) {
  const Block& block = role_.blocks[static_cast<std::size_t>(c.block)];
  Op o = op(OpKind::kBackward, Phase::kBackward, Lane::kCompute, c.path, c.m);
  set_block(o, c);
  CHECK(grads.size() == block.outputs.size(), "one gradient an output of " + block.name);
  o.in = grads;
  o.in.push_back(tape);
  const auto operand = [&](const std::vector<ValueId>& ids, const std::vector<BufferId>& from,
                           ValueId v) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == v) return from[i];
    }
    CHECK(false, "no operand of " + block.name);
    return BufferId{-1};
  };
  for (const ValueId v : block.saved_inputs) o.in.push_back(operand(block.inputs, inputs, v));
  for (const ValueId v : block.saved_outputs) o.in.push_back(operand(block.outputs, outputs, v));
  for (std::size_t i = 0; i < block.inputs.size(); ++i) {
    o.in.push_back(i < seeds.size() ? seeds[i] : -1);
  }
  if (c.received >= 0) o.in.push_back(c.received);
  for (const ValueId v : block.inputs) {
    const Value& value = block.values[static_cast<std::size_t>(v)];
    o.out.push_back(value.needs_grad ? value_buffer(c.path + "/bwd", value, c.vars, ".grad") : -1);
  }
  const std::vector<BufferId> result = o.out;
  use_units(o, true);
  add(std::move(o));
  return result;
}

OpId Lowering::call_loss(const BlockCall& c, const std::vector<BufferId>& in,
                         const std::vector<BufferId>& out, std::int32_t chunk) {
  Op o = op(OpKind::kForwardBackward, c.phase, Lane::kCompute, c.path, c.m);
  set_block(o, c);
  o.chunk = chunk;
  o.in = in;
  o.out = out;
  o.metrics = metrics_;
  use_units(o, true);
  return add(std::move(o));
}

}  // namespace orrery
