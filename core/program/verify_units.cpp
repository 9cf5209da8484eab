// Checks of one role: what happens to parameters and gradients. Every use of a unit finds its own
// parameters, every contribution to a gradient is reduced, accumulated, summed over the replicas
// and measured before the one optimizer step, and every forward has its backward.
#include <map>
#include <set>
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

// The backward of an embedding reads no parameter.
bool reads_parameters(const Role& role, const Op& op) {
  const Block& block = role.blocks[index(op.block)];
  return !(op.kind == OpKind::kBackward && block.prims.size() == 1 &&
           block.prims[0].kind == PrimKind::kEmbedding);
}

class UnitWalk {
 public:
  UnitWalk(const Program& program, const Role& role, Findings& findings)
      : program_(program), role_(role), findings_(findings), units_(role.units.size()) {}

  void run() {
    for (const Op& op : role_.ops) {
      switch (op.kind) {
        case OpKind::kAllGather:
        case OpKind::kUnshard:
          gathered_[at(op.out, 0)] = op.unit;
          break;
        case OpKind::kForward:
        case OpKind::kForwardTape:
        case OpKind::kBackward:
        case OpKind::kForwardBackward:
          block(op);
          break;
        case OpKind::kReduceScatter:
          reduce(op);
          break;
        case OpKind::kExchangeCounts:
          counted_[at(op.out, 0)] = op.group;
          break;
        case OpKind::kAllToAllV:
          route(op);
          break;
        case OpKind::kAccumulate:
          accumulate(op);
          break;
        case OpKind::kAllReduce:
          replicate(op);
          break;
        case OpKind::kGradNorm:
          norm(op);
          break;
        case OpKind::kReduceMetrics:
          summed_ = summed_ || normed_;
          break;
        case OpKind::kOptimizerStep:
          update(op);
          break;
        case OpKind::kCopyToHost:
        case OpKind::kCopyToDevice:
          copy(op);
          break;
        default:
          break;
      }
    }
    finish();
  }

 private:
  enum class Stage { kAdded, kScattered, kDone };
  struct Gradient {
    std::int32_t unit = -1;
    Stage stage = Stage::kAdded;
    const Op* reduced_by = nullptr;
  };
  struct State {
    BufferId step_gradient = -1;
    bool replicated = false;
    bool normed = false;
    int updates = 0;
  };

  const std::string& name(BufferId b) const { return role_.buffers[index(b)].name; }
  bool alone(std::int32_t group) const { return program_.groups[index(group)].size == 1; }
  void say(const Op& op, const char* rule, const std::string& message) {
    report(findings_, role_, &op, rule, message);
  }

  void block(const Op& op) {
    const bool differentiates = op.kind == OpKind::kBackward || op.kind == OpKind::kForwardBackward;
    for (std::size_t i = 0; i < op.units.size(); ++i) {
      const std::int32_t u = op.units[i];
      const Unit& unit = role_.units[index(u)];
      const auto found = gathered_.find(at(op.params, i));
      const bool at_hand = unit.resident ? at(op.params, i) == unit.shard
                                         : found != gathered_.end() && found->second == u;
      if (!at_hand && reads_parameters(role_, op)) say(op, "not_gathered", unit.name);
      const BufferId b = at(op.updates, i);
      if (differentiates != (b >= 0)) say(op, "not_reduced", "no gradient buffer of " + unit.name);
      if (b < 0) continue;
      Gradient& gradient = gradients_.emplace(b, Gradient{u}).first->second;
      if (gradient.unit != u) say(op, "not_reduced", name(b) + " is not of " + unit.name);
      if (gradient.stage != Stage::kAdded) {
        say(op, "reduced_too_early", "adds to " + name(b) + " after " + gradient.reduced_by->path);
      }
    }
  }

  // The gradient that `op` takes on, at the stage where it must be; nullptr where it is not.
  Gradient* take(const Op& op, Stage stage) {
    const auto found = gradients_.find(at(op.in, 0));
    if (found == gradients_.end() || found->second.unit != op.unit ||
        found->second.stage != stage) {
      say(op, "not_reduced", "its operand is not the next gradient of its unit");
      return nullptr;
    }
    found->second.stage = Stage::kDone;
    found->second.reduced_by = &op;
    return &found->second;
  }

  void reduce(const Op& op) {
    if (op.group != role_.units[index(op.unit)].shard_group) {
      say(op, "not_reduced", "the group is not the one over which its unit is sharded");
    }
    if (take(op, Stage::kAdded) == nullptr) return;
    gradients_[at(op.out, 0)] = {op.unit, Stage::kScattered, &op};
  }

  void route(const Op& op) {
    const auto counted = counted_.find(at(op.in, 1));
    if (counted == counted_.end() || counted->second != op.group) {
      say(op, "bad_group", "its counts were not exchanged in its group");
    }
  }

  void accumulate(const Op& op) {
    const Unit& unit = role_.units[index(op.unit)];
    take(op, alone(unit.shard_group) ? Stage::kAdded : Stage::kScattered);
    State& state = units_[index(op.unit)];
    if (state.step_gradient < 0) state.step_gradient = at(op.updates, 0);
    if (state.step_gradient != at(op.updates, 0)) {
      say(op, "not_reduced", unit.name + " has two gradients of the step");
    }
    if (state.replicated || state.normed) {
      say(op, "reduced_too_early", "adds to the gradient of " + unit.name + " after its sum");
    }
  }

  void replicate(const Op& op) {
    if (op.unit < 0) return;  // not a gradient
    const Unit& unit = role_.units[index(op.unit)];
    State& state = units_[index(op.unit)];
    if (at(op.updates, 0) != state.step_gradient || op.group != unit.replicate_group ||
        state.replicated) {
      say(op, "not_reduced", "is not the one sum of " + unit.name + " over its replicas");
    }
    state.replicated = true;
  }

  void norm(const Op& op) {
    normed_ = true;
    for (const BufferId b : op.in) {
      bool known = false;
      for (std::size_t u = 0; u < units_.size(); ++u) {
        if (b < 0 || units_[u].step_gradient != b) continue;
        known = units_[u].normed = true;
        if (!units_[u].replicated && !alone(role_.units[u].replicate_group)) {
          say(op, "not_reduced", role_.units[u].name + " is not summed over its replicas");
        }
      }
      if (!known) say(op, "not_updated", "measures what is no gradient of the step");
    }
  }

  void update(const Op& op) {
    const Unit& unit = role_.units[index(op.unit)];
    State& state = units_[index(op.unit)];
    ++state.updates;
    if (at(op.in, 0) < 0 || at(op.in, 0) != state.step_gradient || !state.normed || !summed_) {
      say(op, "not_updated",
          unit.name + " is updated before its gradient is complete and measured");
    }
    if (at(op.in, 1) != unit.shard || source(at(op.in, 2)) != unit.moment1 ||
        source(at(op.in, 3)) != unit.moment2) {
      say(op, "not_updated", "the shard and moments are not those of " + unit.name);
    }
    updated_.insert({at(op.in, 2), at(op.in, 3)});
  }

  // The persistent buffer that a buffer on the device is a copy of, or itself.
  BufferId source(BufferId b) const {
    const auto found = copied_.find(b);
    return found == copied_.end() ? b : found->second;
  }

  // Moments that live on the host come, are updated, and go back where they came from.
  void copy(const Op& op) {
    if (op.kind == OpKind::kCopyToDevice) {
      copied_[at(op.out, 0)] = at(op.in, 0);
    } else if (!op.updates.empty()) {
      if (source(at(op.in, 0)) != at(op.updates, 0) || updated_.count(at(op.in, 0)) == 0) {
        say(op, "not_updated", "writes back what is not the updated copy of its target");
      }
      written_.insert(at(op.updates, 0));
    }
  }

  void finish() {
    for (const Unit& unit : role_.units) {
      for (const BufferId b : {unit.moment1, unit.moment2}) {
        const bool away = role_.buffers[index(b)].space == MemorySpace::kHost;
        if (away == (written_.count(b) > 0)) continue;
        report(findings_, role_, nullptr, "not_updated", name(b) + " does not go back to the host");
      }
    }
    for (const auto& [b, gradient] : gradients_) {
      if (gradient.stage == Stage::kDone || b < 0) continue;
      report(findings_, role_, nullptr, "not_reduced", name(b) + " is used by nothing");
    }
    for (std::size_t u = 0; u < units_.size(); ++u) {
      if (units_[u].updates == 1) continue;
      report(
          findings_, role_, nullptr, "not_updated",
          role_.units[u].name + " has " + std::to_string(units_[u].updates) + " optimizer steps");
    }
  }

  const Program& program_;
  const Role& role_;
  Findings& findings_;
  std::vector<State> units_;
  std::map<BufferId, std::int32_t> gathered_;  // the unit whose parameters these are
  std::map<BufferId, std::int32_t> counted_;   // the group that exchanged these counts
  std::map<BufferId, Gradient> gradients_;
  bool normed_ = false, summed_ = false;
  std::map<BufferId, BufferId> copied_;  // device buffer -> the host buffer it was copied from
  std::set<BufferId> updated_, written_;
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
void check_tape(const Role& role, const Op& made, const Op& op, Findings& findings) {
  if (made.path != op.path || made.micro_batch != op.micro_batch || made.chunk != op.chunk ||
      made.block != op.block) {
    report(findings, role, &op, "wrong_operand", "reads the tape of " + made.path);
    return;
  }
  const Block& block = role.blocks[index(op.block)];
  std::size_t i = block.outputs.size() + 1;
  for (const auto* list : {&block.saved_inputs, &block.saved_outputs}) {
    for (const ValueId v : *list) {
      if (at(op.in, i++) == operand(block, made, v)) continue;
      report(findings, role, &op, "wrong_operand",
             "its " + block.values[index(v)].name + " is not the one that forward made");
    }
  }
}

}  // namespace

void check_units(const Program& program, const Role& role, Findings& findings) {
  UnitWalk(program, role, findings).run();
}

void check_backward(const Role& role, Findings& findings) {
  using Run = std::tuple<std::string, std::int32_t, std::int32_t>;  // path, micro-batch, part
  std::map<Run, std::pair<int, int>> runs;                          // forward, backward
  std::map<BufferId, const Op*> tapes;
  std::map<BufferId, int> read;
  for (const Op& op : role.ops) {
    const bool forward = op.kind == OpKind::kForward || op.kind == OpKind::kForwardTape;
    if (forward && op.phase == Phase::kForward) ++runs[{op.path, op.micro_batch, op.chunk}].first;
    if (op.kind == OpKind::kForwardTape && !op.out.empty()) tapes[op.out.back()] = &op;
    if (op.kind != OpKind::kBackward) continue;
    ++runs[{op.path, op.micro_batch, op.chunk}].second;
    const BufferId tape = at(op.in, role.blocks[index(op.block)].outputs.size());
    ++read[tape];
    const auto made = tapes.find(tape);
    if (made != tapes.end()) check_tape(role, *made->second, op, findings);
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
