// Checks of one role: every forward has its backward, a backward reads what its own forward (or
// recompute) made, and a recompute starts from what the forward started from.
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "core/program/verify_checks.h"

namespace orrery {
namespace {

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

BufferId at(const std::vector<BufferId>& list, std::size_t i) {
  return i < list.size() ? list[i] : -1;
}

using Run = std::tuple<std::string, std::int32_t, std::int32_t>;  // path, micro-batch, part

Run run_of(const Op& op) {
  return {op.path, op.micro_batch, op.chunk};
}

bool is_forward(const Op& op) {
  return op.kind == OpKind::kForward || op.kind == OpKind::kForwardTape;
}

// Which buffers hold one value: copies, and what a recompute makes again. A value is named by the
// first buffer that held it.
class Values {
 public:
  Values(const Role& role, Findings& findings) : role_(role), findings_(findings) {
    for (const Op& op : role.ops) visit(op);
  }
  BufferId of(BufferId b) const {
    const auto found = first_.find(b);
    return found == first_.end() ? b : found->second;
  }

 private:
  void visit(const Op& op) {
    if (op.kind == OpKind::kCopyToHost || op.kind == OpKind::kCopyToDevice) {
      if (!op.out.empty()) first_[op.out[0]] = of(at(op.in, 0));
    } else if (op.phase == Phase::kForward && !op.out.empty()) {
      forward_.emplace(run_of(op), &op);
    } else if (op.phase == Phase::kRecompute) {
      const auto found = forward_.find(run_of(op));
      if (found == forward_.end()) {
        report(findings_, role_, &op, "wrong_operand", "runs again what has not run");
      } else if (op.block >= 0) {
        again(*found->second, op);
      } else {
        first_[at(op.out, 0)] = of(at(found->second->out, 0));
        same(op, at(found->second->in, 0), at(op.in, 0), "operand");
      }
    }
  }

  // A replayed router is another block than the router: its values go by name.
  void again(const Op& made, const Op& op) {
    const Block& before = role_.blocks[index(made.block)];
    const Block& now = role_.blocks[index(op.block)];
    for (std::size_t i = 0; i < now.inputs.size(); ++i) {
      const std::string& name = now.values[index(now.inputs[i])].name;
      same(op, named(before, made, name), at(op.in, i), name);
    }
    for (std::size_t i = 0; i < now.outputs.size(); ++i) {
      const BufferId old = named(before, made, now.values[index(now.outputs[i])].name);
      if (old >= 0 && at(op.out, i) >= 0) first_[op.out[i]] = of(old);
    }
  }

  static BufferId named(const Block& block, const Op& op, const std::string& name) {
    for (std::size_t i = 0; i < block.outputs.size(); ++i) {
      if (block.values[index(block.outputs[i])].name == name) return at(op.out, i);
    }
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      if (block.values[index(block.inputs[i])].name == name) return at(op.in, i);
    }
    return -1;
  }

  void same(const Op& op, BufferId before, BufferId now, const std::string& name) {
    if (of(before) == of(now)) return;
    report(findings_, role_, &op, "wrong_operand", "runs again with another " + name);
  }

  const Role& role_;
  Findings& findings_;
  std::map<BufferId, BufferId> first_;
  std::map<Run, const Op*> forward_;
};

// What `made` had as operand v of its block, as input or as output.
BufferId operand(const Block& block, const Op& made, ValueId v) {
  for (std::size_t i = 0; i < block.inputs.size(); ++i) {
    if (block.inputs[i] == v) return at(made.in, i);
  }
  for (std::size_t i = 0; i < block.outputs.size(); ++i) {
    if (block.outputs[i] == v) return at(made.out, i);
  }
  return -1;
}

// `made` wrote the tape that `op` reads: the values kept beside it are the ones of that run.
void check_tape(const Role& role, const Values& values, const Op& made, const Op& op,
                Findings& findings) {
  if (made.path != op.path || made.micro_batch != op.micro_batch || made.chunk != op.chunk ||
      made.block != op.block) {
    report(findings, role, &op, "wrong_operand", "reads the tape of " + made.path);
    return;
  }
  const Block& block = role.blocks[index(op.block)];
  std::size_t i = block.outputs.size() + 1;
  for (const auto* list : {&block.saved_inputs, &block.saved_outputs}) {
    for (const ValueId v : *list) {
      if (values.of(at(op.in, i++)) == values.of(operand(block, made, v))) continue;
      report(findings, role, &op, "wrong_operand",
             "its " + block.values[index(v)].name + " is not the one that forward made");
    }
  }
}

}  // namespace

void check_backward(const Role& role, Findings& findings) {
  const Values values(role, findings);
  std::map<Run, std::pair<int, int>> runs;  // forward, backward
  std::map<BufferId, const Op*> tapes;
  std::map<BufferId, int> read;
  for (const Op& op : role.ops) {
    if (is_forward(op) && op.phase == Phase::kForward) ++runs[run_of(op)].first;
    if (op.kind == OpKind::kForwardTape && !op.out.empty()) tapes[op.out.back()] = &op;
    if (op.kind != OpKind::kBackward) continue;
    ++runs[run_of(op)].second;
    const BufferId tape = at(op.in, role.blocks[index(op.block)].outputs.size());
    ++read[tape];
    const auto made = tapes.find(tape);
    if (made != tapes.end()) check_tape(role, values, *made->second, op, findings);
  }
  for (const auto& [run, counts] : runs) {
    if (counts.first == 1 && counts.second == 1) continue;
    report(findings, role, nullptr, "missing_backward",
           std::get<0>(run) + " of micro-batch " + std::to_string(std::get<1>(run)) +
               " runs forward " + std::to_string(counts.first) + " times, backward " +
               std::to_string(counts.second));
  }
  for (const auto& [tape, op] : tapes) {
    if (read[tape] != 1) report(findings, role, op, "missing_backward", "its tape is not read");
  }
}

}  // namespace orrery
