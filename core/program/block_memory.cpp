// Replays a block's schedule in bytes: forward over the values, backward over the gradients. The
// same walk makes the backward plan, so that the plan that the interpreter obeys and the bytes that
// the simulator counts come from one place.
#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/program/block.h"

namespace orrery {
namespace {

std::size_t at(std::int32_t index) {
  return static_cast<std::size_t>(index);
}

bool contains(const std::vector<ValueId>& list, ValueId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

// Bytes of values and temporaries under one binding; none without a binding.
struct Meter {
  const std::vector<std::int64_t>* values;
  VarBase base;
  std::int64_t live = 0;
  std::int64_t peak = 0;

  std::int64_t eval(const SizeExpr& size) const {
    return values == nullptr ? 0 : size.eval(*values, base);
  }
  void take(std::int64_t bytes) {
    live += bytes;
    peak = std::max(peak, live);
  }
  void touch(std::int64_t bytes) { peak = std::max(peak, live + bytes); }
};

// Storage of gradients: a cell may be shared by several values (kAdd) or belong to the caller.
struct Cell {
  std::int32_t refs = 0;
  bool callers = false;
  std::int64_t bytes = 0;
};

class BackwardWalk {
 public:
  BackwardWalk(const Block& block, Meter meter, std::vector<TakenBuffer> taken = {})
      : block_(block), meter_(meter), taken_(std::move(taken)) {
    cell_of_.assign(block.values.size(), -1);
    first_reader_.assign(block.values.size(), -1);
    for (std::size_t i = block.prims.size(); i-- > 0;) {
      for (ValueId v : saved_by(block.prims[i])) first_reader_[at(v)] = static_cast<int>(i);
    }
  }

  void run(const std::vector<ValueId>& seeded, const std::vector<ValueId>& absent) {
    for (ValueId v : block_.outputs) {
      const bool given = !contains(absent, v) || is_loss_output(v);
      if (has_grad(value(v)) && given) give(v, new_cell(true, 0));
    }
    for (ValueId v : seeded) {
      CHECK(contains(block_.inputs, v) && has_grad(value(v)),
            block_.name + ": only an input that carries a gradient can be seeded");
      give(v, new_cell(true, 0));
    }
    for (std::size_t i = block_.prims.size(); i-- > 0;) step(static_cast<std::int32_t>(i));
    for (ValueId v : block_.inputs) finish_input(v);
  }

  const BackwardPlan& plan() const { return plan_; }
  BlockBytes bytes() const { return {outputs_, 0, meter_.peak}; }

 private:
  const Value& value(ValueId v) const { return block_.values[at(v)]; }
  bool is_loss_output(ValueId v) const {
    return std::any_of(block_.prims.begin(), block_.prims.end(),
                       [&](const Prim& p) { return is_loss(p.kind) && p.out[0] == v; });
  }
  std::int64_t bytes_of(ValueId v) const { return meter_.eval(value(v).bytes()); }

  std::int32_t new_cell(bool callers, std::int64_t bytes) {
    cells_.push_back({0, callers, bytes});
    if (!callers) meter_.take(bytes);
    return static_cast<std::int32_t>(cells_.size()) - 1;
  }
  void give(ValueId v, std::int32_t cell) {
    cell_of_[at(v)] = cell;
    ++cells_[at(cell)].refs;
  }
  void drop(ValueId v) {
    const std::int32_t cell = std::exchange(cell_of_[at(v)], -1);
    if (cell < 0) return;
    Cell& c = cells_[at(cell)];
    if (--c.refs == 0 && !c.callers) meter_.live -= c.bytes;
  }
  bool exclusive(std::int32_t cell) const {
    return !cells_[at(cell)].callers && cells_[at(cell)].refs == 1;
  }

  void step(std::int32_t index) {
    const Prim& prim = block_.prims[at(index)];
    const PrimMemory memory = memory_of(block_, prim);
    BackwardStep step;
    step.prim = index;
    step.skip = std::none_of(prim.out.begin(), prim.out.end(),
                             [&](ValueId v) { return cell_of_[at(v)] >= 0; });
    if (!step.skip) differentiate(prim, memory, step);
    for (ValueId v : prim.out) {
      if (cell_of_[at(v)] < 0) continue;
      step.release_grad.push_back(v);
      drop(v);
    }
    meter_.live -= meter_.eval(memory.saved_extra);
    std::vector<ValueId> readers = saved_by(prim);
    for (ValueId v : readers) {
      if (first_reader_[at(v)] != index || !contains(block_.saved, v)) continue;
      if (step.reuse_saved && v == prim.in[0]) continue;
      if (contains(step.release, v)) continue;
      step.release.push_back(v);
      meter_.live -= bytes_of(v);
    }
    plan_.steps.push_back(std::move(step));
  }

  void differentiate(const Prim& prim, const PrimMemory& memory, BackwardStep& step) {
    const bool alias = gradient_is_alias(prim.kind);
    const ValueId x = prim.in[0];
    step.reuse_saved = gradient_overwrites_saved(prim.kind) && contains(block_.saved, x) &&
                       has_grad(value(x)) && first_reader_[at(x)] == step.prim;
    std::vector<std::int32_t> fresh;  // one a join
    for (std::size_t i = 0; i < prim.in.size(); ++i) {
      const ValueId v = prim.in[i];
      if (!has_grad(value(v))) continue;
      step.joins.push_back({static_cast<std::int32_t>(i), GradJoinMode::kTake});
      if (alias) {
        fresh.push_back(cell_of_[at(prim.out[0])]);
      } else if (step.reuse_saved && i == 0) {
        cells_.push_back({0, false, bytes_of(v)});
        fresh.push_back(static_cast<std::int32_t>(cells_.size()) - 1);
      } else {
        fresh.push_back(new_cell(false, bytes_of(v)));
      }
    }
    if (prim.param >= 0 && !taken_.empty()) take_gradient(taken_[at(prim.param)]);
    meter_.touch(meter_.eval(memory.backward_temp));
    for (std::size_t j = 0; j < fresh.size(); ++j) {
      const ValueId v = prim.in[at(step.joins[j].operand)];
      step.joins[j].mode = join(v, fresh[j], alias);
    }
  }

  void take_gradient(const TakenBuffer& buffer) {
    if (contains(have_, buffer.id)) return;
    have_.push_back(buffer.id);
    meter_.take(buffer.bytes);
  }

  GradJoinMode join(ValueId v, std::int32_t fresh, bool alias) {
    const std::int32_t old = cell_of_[at(v)];
    if (old < 0) {
      give(v, fresh);
      return GradJoinMode::kTake;
    }
    if (!alias) {
      drop(v);
      give(v, fresh);
      return GradJoinMode::kIntoFresh;
    }
    if (exclusive(old)) return GradJoinMode::kIntoOld;
    const std::int32_t sum = new_cell(false, bytes_of(v));
    drop(v);
    give(v, sum);
    return GradJoinMode::kOutOfPlace;
  }

  void finish_input(ValueId v) {
    if (!has_grad(value(v))) return;
    outputs_ += bytes_of(v);
    const std::int32_t cell = cell_of_[at(v)];
    if (cell >= 0 && exclusive(cell)) return;
    (cell < 0 ? plan_.zeros : plan_.copies).push_back(v);
    const std::int32_t own = new_cell(false, bytes_of(v));
    drop(v);
    give(v, own);
  }

  const Block& block_;
  Meter meter_;
  std::vector<TakenBuffer> taken_;  // by parameter
  std::vector<std::int32_t> have_;  // ids of those that a primitive has used
  BackwardPlan plan_;
  std::vector<Cell> cells_;
  std::vector<std::int32_t> cell_of_;       // a value's gradient; -1: none
  std::vector<std::int32_t> first_reader_;  // in program order: the last one in backward
  std::int64_t outputs_ = 0;
};

}  // namespace

BackwardPlan plan_backward(const Block& block, const std::vector<ValueId>& seeded,
                           const std::vector<ValueId>& absent) {
  BackwardWalk walk(block, {nullptr, {}});
  walk.run(seeded, absent);
  return walk.plan();
}

BlockBytes backward_bytes(const Block& block, const std::vector<std::int64_t>& values, VarBase base,
                          const std::vector<ValueId>& seeded, const std::vector<ValueId>& absent,
                          const std::vector<TakenBuffer>& taken) {
  CHECK(taken.empty() || taken.size() == block.params.size(), block.name + ": one a parameter");
  BackwardWalk walk(block, {&values, base}, taken);
  walk.run(seeded, absent);
  return walk.bytes();
}

BlockBytes forward_bytes(const Block& block, bool tape, const std::vector<std::int64_t>& values,
                         VarBase base) {
  Meter meter{&values, base};
  BlockBytes bytes;
  for (const BlockStep& step : tape ? block.forward_tape : block.forward_only) {
    const Prim& prim = block.prims[at(step.prim)];
    const PrimMemory memory = memory_of(block, prim);
    const std::int64_t statistics = meter.eval(memory.saved_extra);
    for (ValueId v : prim.out) meter.take(meter.eval(block.values[at(v)].bytes()));
    meter.take(statistics);
    meter.touch(meter.eval(memory.forward_temp));
    if (tape) {
      bytes.saved += statistics;
    } else {
      meter.live -= statistics;
    }
    for (ValueId v : step.release) meter.live -= meter.eval(block.values[at(v)].bytes());
  }
  for (ValueId v : block.outputs) bytes.outputs += meter.eval(block.values[at(v)].bytes());
  if (tape) {
    for (ValueId v : block.saved) bytes.saved += meter.eval(block.values[at(v)].bytes());
  }
  bytes.peak = meter.peak;
  return bytes;
}

}  // namespace orrery
