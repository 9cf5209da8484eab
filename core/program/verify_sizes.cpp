// Checks of one role: the sizes and dtypes of every op's operands fit its kind, or its block.
#include <algorithm>

#include "core/program/lowering.h"
#include "core/program/verify_checks.h"

namespace orrery {
namespace {

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

class SizeCheck {
 public:
  SizeCheck(const Program& program, const Role& role, const Op& op, Findings& findings)
      : program_(program), role_(role), op_(op), findings_(findings) {}

  void run() {
    for (const auto& list : {reads_of(op_), writes_of(op_)}) {
      for (const BufferId b : list) same_record(role_.buffers[index(b)]);
    }
    const bool worldwide = op_.kind == OpKind::kCountTokens || op_.kind == OpKind::kReduceMetrics;
    if (worldwide && group_size() != program_.world) {
      report(findings_, role_, &op_, "bad_group", "its group is not the world");
    }
    switch (op_.kind) {
      case OpKind::kForward:
      case OpKind::kForwardTape:
        forward();
        break;
      case OpKind::kBackward:
        backward();
        break;
      case OpKind::kForwardBackward:
        loss();
        break;
      case OpKind::kAllGather:
      case OpKind::kUnshard:
        gather();
        break;
      case OpKind::kReduceScatter:
        reduce_scatter();
        break;
      case OpKind::kAllToAllV:
        rows();
        break;
      case OpKind::kAccumulate:
        accumulate();
        break;
      case OpKind::kAllReduce:
        buffer(op_.updates, 0);
        break;
      case OpKind::kExchangeCounts:
        exchange();
        break;
      case OpKind::kOptimizerStep:
        optimizer();
        break;
      case OpKind::kLoadBatch:
        batch(op_.out, 2);
        break;
      case OpKind::kCountTokens:
        batch(op_.in, 1);
        is(op_.out, 0, 1, DType::kFloat64, "the count of labels");
        break;
      case OpKind::kGradNorm:
        expect(op_.in.size() == role_.units.size() && op_.metrics >= 0, "a gradient a unit");
        break;
      case OpKind::kReduceMetrics:
        expect(op_.metrics >= 0 && role_.buffers[index(op_.metrics)].rows.c0 == kNumMetrics,
               "the metrics");
        break;
      case OpKind::kAddLoads:
      case OpKind::kUpdateBias:
      case OpKind::kJoin:
        step_end();
        break;
      case OpKind::kAllToAll:
      case OpKind::kAllGatherRows:
      case OpKind::kReduceScatterRows:
      case OpKind::kCopyToHost:
      case OpKind::kCopyToDevice:
        moved();
        break;
    }
  }

 private:
  void expect(bool condition, const std::string& message) {
    if (!condition) report(findings_, role_, &op_, "size_mismatch", message);
  }
  const Buffer* buffer(const std::vector<BufferId>& list, std::size_t i) {
    if (i >= list.size() || list[i] < 0) {
      expect(false, "operand " + std::to_string(i) + " is missing");
      return nullptr;
    }
    return &role_.buffers[index(list[i])];
  }
  // Does operand i hold `elements` of `dtype`?
  void is(const std::vector<BufferId>& list, std::size_t i, std::int64_t elements, DType dtype,
          const std::string& what) {
    const Buffer* b = buffer(list, i);
    expect(b != nullptr && b->rows.is_constant() && b->rows.c0 * b->cols == elements &&
               b->dtype == dtype,
           what + " has another size or dtype");
  }
  const Unit& unit() const { return role_.units[index(op_.unit)]; }
  std::int64_t tokens() const {
    return program_.step.sequences * (program_.step.sequence_tokens / program_.step.sp);
  }
  std::int64_t group_size() const { return program_.groups[index(op_.group)].size; }

  // Rows that depend on routing depend on that of the op's own layer and micro-batch.
  void same_record(const Buffer& b) {
    const bool routed = b.bytes.c1 != 0 && b.bytes.scope == VarScope::kRoute;
    if (routed && b.vars.route != op_.vars.route) {
      report(findings_, role_, &op_, "bad_size", b.name + " has the rows of another record");
    }
  }

  // Does operand b hold value v of the op's block?
  void holds(BufferId b, const Block& block, ValueId v, bool optional) {
    const Value& value = block.values[index(v)];
    if (b < 0) {
      expect(optional, block.name + " lacks " + value.name);
      return;
    }
    const Buffer& have = role_.buffers[index(b)];
    const bool slice = op_.row_end > 0;
    const bool rows_fit = slice ? have.rows.is_constant() && have.rows.c0 >= op_.row_end &&
                                      op_.row_end - op_.row_begin == value.rows.c0
                                : have.rows.c0 == value.rows.c0 && have.rows.c1 == value.rows.c1;
    expect(rows_fit && have.cols == value.cols && have.dtype == value.dtype,
           have.name + " does not fit " + block.name + "'s " + value.name);
  }

  void forward() {
    const Block& block = role_.blocks[index(op_.block)];
    const std::size_t tape = op_.kind == OpKind::kForwardTape ? 1 : 0;
    expect(op_.in.size() >= block.inputs.size() && op_.out.size() == block.outputs.size() + tape,
           "operands of block " + block.name);
    if (op_.in.size() < block.inputs.size() || op_.out.size() < block.outputs.size()) return;
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      holds(op_.in[i], block, block.inputs[i], false);
    }
    for (std::size_t i = 0; i < block.outputs.size(); ++i) {
      holds(op_.out[i], block, block.outputs[i], false);
    }
    const bool loss = std::any_of(block.outputs.begin(), block.outputs.end(),
                                  [&](ValueId v) { return is_loss_output(block, v); });
    expect((op_.metrics >= 0) == (loss && op_.phase == Phase::kForward),
           "a loss is added to the metrics once, where it is first computed");
    received(block, block.inputs.size());
    if (tape == 1) holds_tape(op_.out.back(), block);
    parameters(block);
  }

  void holds_tape(BufferId b, const Block& block) {
    const SizeExpr kept = tape_bytes(block);
    const bool keeps = kept.c0 > 0 || kept.c1 > 0;
    const bool fits = b >= 0 ? keeps && role_.buffers[index(b)].bytes == kept &&
                                   role_.buffers[index(b)].cls == BufferClass::kSaved
                             : !keeps;
    expect(fits, "the tape of " + block.name + " is missing or has another size");
  }

  // Blocks that work on routed rows have the received counts as operand `i`, others end there.
  void received(const Block& block, std::size_t i) {
    const bool routes = std::any_of(block.prims.begin(), block.prims.end(), [](const Prim& p) {
      return p.kind == PrimKind::kGroupedLinear || p.kind == PrimKind::kToExpertMajor ||
             p.kind == PrimKind::kSelectSort;
    });
    expect(op_.in.size() == i + (routes ? 1 : 0), "operands of block " + block.name);
    if (routes) {
      is(op_.in, i, std::int64_t{role_.route.ep} * role_.route.local_experts * op_.parts,
         DType::kInt64, "received counts");
    }
  }

  // Are the parameters of the block in the units, and the units' gradient buffers whole?
  void parameters(const Block& block) {
    for (const BlockParam& want : block.params) {
      int found = 0;
      for (const std::int32_t u : op_.units) {
        const Unit& unit = role_.units[index(u)];
        for (const Param& have : unit.params) {
          const bool ours = have.layer < 0 || op_.layer < 0 || have.layer == op_.layer;
          const bool same = ours && have.short_name == want.name && holds_part(have, want);
          found += same && unit.grad_dtype == want.grad_dtype ? 1 : 0;
        }
      }
      expect(found == 1, block.name + "'s " + want.name + " is not in the op's units");
    }
    for (std::size_t i = 0; i < op_.updates.size(); ++i) {
      if (op_.updates[i] < 0 || i >= op_.units.size()) continue;
      const Unit& unit = role_.units[index(op_.units[i])];
      is(op_.updates, i, unit.shard_numel * program_.groups[index(unit.shard_group)].size,
         unit.grad_dtype, "the gradient of " + unit.name);
    }
  }

  // A part of an exchange uses its share of the experts.
  bool holds_part(const Param& have, const BlockParam& want) const {
    std::vector<std::int64_t> shape = want.shape;
    if (have.is_expert && !shape.empty()) shape[0] *= op_.parts;
    return have.shape == shape;
  }

  void backward() {
    const Block& block = role_.blocks[index(op_.block)];
    const std::size_t fixed = block.outputs.size() + 1 + block.saved_inputs.size() +
                              block.saved_outputs.size() + block.inputs.size();
    expect(op_.in.size() >= fixed && op_.out.size() == block.inputs.size(),
           "operands of block " + block.name + "'s backward");
    if (op_.in.size() < fixed || op_.out.size() != block.inputs.size()) return;
    std::size_t at = 0;
    for (const ValueId v : block.outputs) holds(op_.in[at++], block, v, true);
    holds_tape(op_.in[at++], block);
    for (const ValueId v : block.saved_inputs) holds(op_.in[at++], block, v, false);
    for (const ValueId v : block.saved_outputs) holds(op_.in[at++], block, v, false);
    for (const ValueId v : block.inputs) holds(op_.in[at++], block, v, true);
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      const bool wanted = has_grad(block.values[index(block.inputs[i])]);
      holds(op_.out[i], block, block.inputs[i], !wanted);
      expect(wanted || op_.out[i] < 0, "a gradient of an input that has none");
    }
    received(block, fixed);
    parameters(block);
  }

  void loss() {
    const Block& block = role_.blocks[index(op_.block)];
    expect(op_.in.size() >= block.inputs.size() && op_.out.size() == block.inputs.size() &&
               op_.metrics >= 0,
           "operands of block " + block.name);
    if (op_.in.size() < block.inputs.size() || op_.out.size() != block.inputs.size()) return;
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      holds(op_.in[i], block, block.inputs[i], false);
      holds(op_.out[i], block, block.inputs[i], !has_grad(block.values[index(block.inputs[i])]));
    }
    const bool counted = std::any_of(block.prims.begin(), block.prims.end(), [](const Prim& p) {
      return p.kind == PrimKind::kCrossEntropy;
    });
    expect(op_.in.size() == block.inputs.size() + (counted ? 1 : 0), "the count of labels");
    if (counted) is(op_.in, block.inputs.size(), 1, DType::kFloat64, "the count of labels");
    parameters(block);
  }

  void gather() {
    const std::int64_t n = op_.kind == OpKind::kUnshard ? 1 : group_size();
    expect(op_.in.size() == 1 && op_.in[0] == unit().shard &&
               (op_.kind == OpKind::kUnshard || op_.group == unit().shard_group),
           "gathers something else than the shards of " + unit().name);
    is(op_.out, 0, unit().shard_numel * n, program_.step.compute, "parameters of " + unit().name);
  }

  void reduce_scatter() {
    is(op_.in, 0, unit().shard_numel * group_size(), unit().grad_dtype, "gradients");
    is(op_.out, 0, unit().shard_numel, unit().grad_dtype, "reduced shard");
  }

  void rows() {
    const Buffer* in = buffer(op_.in, 0);
    const Buffer* out = buffer(op_.out, 0);
    const Buffer* counts = buffer(op_.in, 1);
    if (in == nullptr || out == nullptr || counts == nullptr) return;
    expect(in->cols == out->cols && in->dtype == out->dtype, "rows in and out differ in width");
    expect(counts->rows.c0 == group_size() &&
               counts->cols == std::int64_t{role_.route.local_experts} * op_.parts,
           "received counts are not [ep, local experts]");
    const bool dispatch = op_.direction == Direction::kDispatch;
    expect((dispatch ? out : in)->rows.c1 == 1 && (dispatch ? in : out)->rows.is_constant(),
           "the side of the experts has as many rows as were routed there");
  }

  void accumulate() {
    is(op_.in, 0, unit().shard_numel, unit().grad_dtype, "gradient");
    is(op_.updates, 0, unit().shard_numel, program_.step.master, "the step's gradient");
  }

  void optimizer() {
    expect(op_.in.size() == 4 && op_.metrics >= 0, "gradient, shard, two moments, metrics");
    for (std::size_t i = 0; i < 4; ++i) {
      is(op_.in, i, unit().shard_numel, program_.step.master,
         "operand " + std::to_string(i) + " of " + unit().name);
    }
  }

  void step_end() {
    if (op_.kind == OpKind::kAddLoads) {
      loads();
    } else if (op_.kind == OpKind::kUpdateBias) {
      biases();
    } else {
      expect(!op_.deps.empty(), "waits for nothing");
    }
  }

  // Activations between ranks, or between memory spaces.
  void moved() {
    if (op_.kind == OpKind::kAllToAll) {
      scaled_rows(1, kGroupIds.sp);
    } else if (op_.kind == OpKind::kAllGatherRows) {
      scaled_rows(group_size(), kGroupIds.ep);
    } else if (op_.kind == OpKind::kReduceScatterRows) {
      scaled_rows(-group_size(), kGroupIds.ep);
    } else {
      copy();
    }
  }

  // Rows out are `factor` times the rows in, or the other way round where it is negative.
  void scaled_rows(std::int64_t factor, std::int32_t group) {
    if (op_.group != group) report(findings_, role_, &op_, "bad_group", "its group is another's");
    const Buffer* in = buffer(op_.in, 0);
    const Buffer* out = buffer(op_.out, 0);
    if (in == nullptr || out == nullptr) return;
    const std::int64_t up = std::max<std::int64_t>(1, factor);
    const std::int64_t down = std::max<std::int64_t>(1, -factor);
    expect(in->rows.is_constant() && out->rows.is_constant() &&
               in->rows.c0 * up == out->rows.c0 * down && in->cols == out->cols &&
               in->dtype == out->dtype && in->rows.c0 * up % group_size() == 0,
           "rows in and out do not fit the group");
  }

  void copy() {
    const Buffer* from = buffer(op_.in, 0);
    const Buffer* to = op_.out.empty() ? buffer(op_.updates, 0) : buffer(op_.out, 0);
    if (from == nullptr || to == nullptr) return;
    const bool up = op_.kind == OpKind::kCopyToDevice;
    const MemorySpace source = up ? MemorySpace::kHost : MemorySpace::kDevice;
    const MemorySpace target = up ? MemorySpace::kDevice : MemorySpace::kHost;
    expect(from->space == source && to->space == target, "copies between other memory spaces");
    expect(from->bytes == to->bytes && from->dtype == to->dtype && from->cols == to->cols,
           to->name + " is not the size of " + from->name);
  }

  void loads() {
    const Buffer* counts = buffer(op_.in, 0);
    const Buffer* sums = buffer(op_.updates, 0);
    if (counts == nullptr || sums == nullptr) return;
    expect(counts->cols == sums->cols && counts->dtype == sums->dtype && op_.row_begin >= 0 &&
               op_.row_begin < sums->rows.c0,
           "counts do not fit the loads of their layer");
  }

  void biases() {
    const Buffer* sums = buffer(op_.in, 0);
    if (sums == nullptr) return;
    expect(sums->rows.c0 == static_cast<std::int64_t>(op_.updates.size()) && op_.metrics >= 0,
           "a bias a row of the loads");
    for (std::size_t i = 0; i < op_.updates.size(); ++i) {
      is(op_.updates, i, sums->cols, sums->dtype, "a router bias");
    }
  }

  // Ids and labels, or labels, of each micro-batch.
  void batch(const std::vector<BufferId>& list, std::int64_t each) {
    expect(static_cast<std::int64_t>(list.size()) == each * program_.step.micro_batches,
           "one a micro-batch");
    for (std::size_t i = 0; i < list.size(); ++i) {
      is(list, i, tokens(), DType::kInt64, "tokens");
    }
  }

  void exchange() {
    const std::int64_t all = std::int64_t{role_.route.ep} * role_.route.local_experts * op_.parts;
    expect(group_size() == role_.route.ep, "the group is not the experts'");
    is(op_.in, 0, all, DType::kInt64, "rows per expert");
    is(op_.out, 0, all, DType::kInt64, "received counts");
  }

  const Program& program_;
  const Role& role_;
  const Op& op_;
  Findings& findings_;
};

}  // namespace

void check_sizes(const Program& program, const Role& role, Findings& findings) {
  for (const Op& op : role.ops) SizeCheck(program, role, op, findings).run();
}

}  // namespace orrery
