// Checks of one role: the sizes and dtypes of every op's operands fit its kind, or its block.
#include "core/program/verify_checks.h"

namespace orrery {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

class SizeCheck {
 public:
  SizeCheck(const Program& program, const Role& role, const Op& op, Findings& findings)
      : program_(program), role_(role), op_(op), findings_(findings) {}

  void run() {
    switch (op_.kind) {
      case OpKind::kForward:
      case OpKind::kForwardTape: forward(); break;
      case OpKind::kBackward: backward(); break;
      case OpKind::kForwardBackward: loss(); break;
      case OpKind::kAllGather:
      case OpKind::kUnshard: scaled(1, 1, "shard", "gathered parameters"); break;
      case OpKind::kReduceScatter: reduce_scatter(); break;
      case OpKind::kAllToAllV: rows(); break;
      case OpKind::kAccumulate: accumulate(); break;
      case OpKind::kAllReduce: expect(op_.updates.size() == 1, "one buffer to sum"); break;
      case OpKind::kExchangeCounts:
        expect(op_.in.size() == 1 && op_.out.size() == 1, "counts in, counts out");
        break;
      case OpKind::kOptimizerStep: optimizer(); break;
      default: break;
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
  std::int64_t group_size() const { return program_.groups[index(op_.group)].size; }

  // Does operand b hold value v of the op's block?
  void holds(BufferId b, const Block& block, ValueId v, bool optional) {
    const Value& value = block.values[index(v)];
    if (b < 0) {
      expect(optional, block.name + " lacks " + value.name);
      return;
    }
    const Buffer& have = role_.buffers[index(b)];
    const bool slice = op_.row_end > 0;
    const bool rows_fit =
        slice ? have.rows.is_constant() && have.rows.c0 >= op_.row_end &&
                    op_.row_end - op_.row_begin == value.rows.c0
              : have.rows.c0 == value.rows.c0 && have.rows.c1 == value.rows.c1;
    expect(rows_fit && have.cols == value.cols && have.dtype == value.dtype,
           have.name + " does not fit " + block.name + "'s " + value.name);
  }

  void forward() {
    const Block& block = role_.blocks[index(op_.block)];
    const std::size_t tape = op_.kind == OpKind::kForwardTape ? 1 : 0;
    expect(op_.in.size() >= block.inputs.size() &&
               op_.out.size() == block.outputs.size() + tape,
           "operands of block " + block.name);
    if (op_.in.size() < block.inputs.size() || op_.out.size() < block.outputs.size()) return;
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      holds(op_.in[i], block, block.inputs[i], false);
    }
    for (std::size_t i = 0; i < block.outputs.size(); ++i) {
      holds(op_.out[i], block, block.outputs[i], false);
    }
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
    const bool keeps = !block.saved.empty();
    expect(!keeps || op_.in[at] >= 0, "the tape of " + block.name + " is missing");
    ++at;
    for (const ValueId v : block.saved_inputs) holds(op_.in[at++], block, v, false);
    for (const ValueId v : block.saved_outputs) holds(op_.in[at++], block, v, false);
    for (const ValueId v : block.inputs) holds(op_.in[at++], block, v, true);
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      holds(op_.out[i], block, block.inputs[i], true);
    }
  }

  void loss() {
    const Block& block = role_.blocks[index(op_.block)];
    expect(op_.in.size() >= block.inputs.size() && op_.out.size() == block.inputs.size() &&
               op_.metrics >= 0,
           "operands of block " + block.name);
    if (op_.in.size() < block.inputs.size() || op_.out.size() != block.inputs.size()) return;
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      holds(op_.in[i], block, block.inputs[i], false);
      holds(op_.out[i], block, block.inputs[i], true);
    }
  }

  // out holds `num / den` times the elements of in, over the group where there is one.
  void scaled(std::int64_t num, std::int64_t den, const char* in_name, const char* out_name) {
    const Buffer* in = buffer(op_.in, 0);
    const Buffer* out = buffer(op_.out, 0);
    if (in == nullptr || out == nullptr) return;
    const std::int64_t n = op_.kind == OpKind::kUnshard ? 1 : group_size();
    expect(out->rows.c0 * out->cols * den == in->rows.c0 * in->cols * num * n,
           std::string(in_name) + " and " + out_name + " do not fit the group");
  }

  void reduce_scatter() {
    const Buffer* in = buffer(op_.in, 0);
    const Buffer* out = buffer(op_.out, 0);
    if (in == nullptr || out == nullptr) return;
    expect(in->rows.c0 * in->cols == out->rows.c0 * out->cols * group_size() &&
               in->dtype == out->dtype,
           "gradients and reduced shard do not fit the group");
  }

  void rows() {
    const Buffer* in = buffer(op_.in, 0);
    const Buffer* out = buffer(op_.out, 0);
    const Buffer* counts = buffer(op_.in, 1);
    if (in == nullptr || out == nullptr || counts == nullptr) return;
    expect(in->cols == out->cols && in->dtype == out->dtype, "rows in and out differ in width");
    expect(counts->rows.c0 == group_size() && counts->cols == role_.route.local_experts,
           "received counts are not [ep, local experts]");
    const bool dispatch = op_.direction == Direction::kDispatch;
    expect((dispatch ? out : in)->rows.c1 == 1 && (dispatch ? in : out)->rows.is_constant(),
           "the side of the experts has as many rows as were routed there");
  }

  void accumulate() {
    const Buffer* in = buffer(op_.in, 0);
    const Buffer* out = buffer(op_.updates, 0);
    if (in == nullptr || out == nullptr) return;
    expect(in->rows.c0 * in->cols == out->rows.c0 * out->cols, "gradient and shard differ");
  }

  void optimizer() {
    expect(op_.in.size() == 4, "gradient, shard and two moments");
    if (op_.in.size() != 4) return;
    for (std::size_t i = 0; i < 4; ++i) {
      const Buffer* b = buffer(op_.in, i);
      expect(b != nullptr && b->rows.c0 == role_.units[index(op_.unit)].shard_numel,
             "operand " + std::to_string(i) + " is not a shard of " +
                 role_.units[index(op_.unit)].name);
    }
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
