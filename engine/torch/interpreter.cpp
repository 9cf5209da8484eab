// See the header. Backward follows plan_backward() of core step by step.
#include "engine/torch/interpreter.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

std::size_t at_index(std::int32_t index) {
  return static_cast<std::size_t>(index);
}

// `tensor` as the [rows, cols] of a value; CHECKs dtype and size where they are known.
at::Tensor as_value(const Block& block, ValueId id, const at::Tensor& tensor) {
  const Value& value = block.values[at_index(id)];
  const std::string where = block.name + ": " + value.name;
  CHECK(tensor.scalar_type() == scalar_type(value.dtype), where + " has another dtype");
  CHECK(tensor.is_contiguous() && tensor.numel() % value.cols == 0, where + " has another shape");
  CHECK(!value.rows.is_constant() || tensor.numel() == value.rows.c0 * value.cols,
        where + " has another number of rows");
  return tensor.view({tensor.numel() / value.cols, value.cols});
}

at::TensorOptions options_of(DType dtype, at::Device device) {
  return at::TensorOptions().dtype(scalar_type(dtype)).device(device);
}

at::Device device_of(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined()) return tensor.device();
  }
  return at::kCPU;
}

class Forward {
 public:
  Forward(const Block& block, ForwardArgs& args) : block_(block), args_(args) {
    CHECK(args.inputs.size() == block.inputs.size(), block.name + ": one tensor an input");
    device_ = device_of(args.inputs);
    values_.resize(block.values.size());
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      values_[at_index(block.inputs[i])] = as_value(block, block.inputs[i], args.inputs[i]);
    }
    if (args.tape == nullptr) return;
    args.tape->values.assign(block.values.size(), at::Tensor());
    args.tape->statistics.assign(block.prims.size(), at::Tensor());
  }

  std::vector<at::Tensor> run() {
    for (const BlockStep& step :
         args_.tape != nullptr ? block_.forward_tape : block_.forward_only) {
      run_step(step);
    }
    if (args_.tape != nullptr) {
      for (ValueId v : block_.saved) args_.tape->values[at_index(v)] = values_[at_index(v)];
    }
    std::vector<at::Tensor> outputs;
    for (ValueId v : block_.outputs) outputs.push_back(values_[at_index(v)]);
    return outputs;
  }

 private:
  void run_step(const BlockStep& step) {
    const Prim& prim = block_.prims[at_index(step.prim)];
    ForwardCall call{block_, prim, *args_.context, {}, {}, {}, {}};
    for (ValueId v : prim.in) call.in.push_back(values_[at_index(v)]);
    for (std::size_t i = 0; i < prim.out.size(); ++i) {
      const at::Device device = is_host_output(prim.kind, i) ? at::Device(at::kCPU) : device_;
      call.out.push_back(empty_value(prim, prim.out[i], device));
      values_[at_index(prim.out[i])] = call.out.back();
    }
    if (prim.param >= 0) call.weight = args_.param(prim.param);
    const std::int64_t cols = statistic_cols(block_, prim);
    if (cols > 0) {
      const DType stat = stat_dtype(block_.values[at_index(prim.in[0])].dtype);
      call.statistic = at::empty({call.in[0].size(0), cols}, options_of(stat, device_));
      if (args_.tape != nullptr) args_.tape->statistics[at_index(step.prim)] = call.statistic;
    }
    body_of(prim.kind).forward(call);
    for (ValueId v : step.release) values_[at_index(v)].reset();
  }

  // Rows that depend on data are the rows of an operand of the same size; those that kSelectSort
  // finds are what the context says.
  at::Tensor empty_value(const Prim& prim, ValueId id, at::Device device) const {
    const Value& value = block_.values[at_index(id)];
    std::int64_t rows = value.rows.is_constant() ? value.rows.c0 : -1;
    for (ValueId v : prim.in) {
      if (rows < 0 && block_.values[at_index(v)].rows == value.rows) {
        rows = values_[at_index(v)].size(0);
      }
    }
    if (rows < 0 && prim.kind == PrimKind::kSelectSort) {
      const std::vector<std::int64_t>& experts = args_.context->expert_rows;
      rows = std::accumulate(experts.begin(), experts.end(), std::int64_t{0});
    }
    CHECK(rows >= 0, block_.name + ": rows of " + value.name + " follow from no operand");
    return at::empty({rows, value.cols}, options_of(value.dtype, device));
  }

  const Block& block_;
  ForwardArgs& args_;
  at::Device device_ = at::kCPU;
  std::vector<at::Tensor> values_;
};

class Backward {
 public:
  Backward(const Block& block, BackwardArgs& args) : block_(block), args_(args) {
    device_ = device_of(args.grad_outputs);
    if (device_ == at::Device(at::kCPU)) device_ = device_of(args.inputs);
    args.seeds.resize(block.inputs.size());
    args.outputs.resize(block.outputs.size());
    CHECK(args.grad_outputs.size() == block.outputs.size(), block.name + ": a gradient an output");
    values_ = std::move(args.tape.values);
    values_.resize(block.values.size());
    statistics_ = std::move(args.tape.statistics);
    statistics_.resize(block.prims.size());
    grads_.resize(block.values.size());
    keep(block.inputs, block.saved_inputs, args.inputs);
    keep(block.outputs, block.saved_outputs, args.outputs);
    for (std::size_t i = 0; i < block.inputs.size(); ++i) {
      if (!args.seeds[i].defined()) continue;
      seeded_.push_back(block.inputs[i]);
      grads_[at_index(block.inputs[i])] = as_value(block, block.inputs[i], args.seeds[i]);
    }
    for (std::size_t i = 0; i < block.outputs.size(); ++i) {
      const ValueId v = block.outputs[i];
      if (args.grad_outputs[i].defined()) {
        grads_[at_index(v)] = as_value(block, v, args.grad_outputs[i]);
      } else if (!is_loss_output(v)) {
        absent_.push_back(v);
      }
    }
  }

  std::vector<at::Tensor> run() {
    const BackwardPlan plan = plan_backward(block_, seeded_, absent_);
    for (const BackwardStep& step : plan.steps) run_step(step);
    for (ValueId v : plan.copies) grads_[at_index(v)] = grads_[at_index(v)].clone();
    for (ValueId v : plan.zeros) grads_[at_index(v)] = empty_like(v).zero_();
    std::vector<at::Tensor> out;
    for (ValueId v : block_.inputs) out.push_back(std::move(grads_[at_index(v)]));
    return out;
  }

 private:
  void keep(const std::vector<ValueId>& ids, const std::vector<ValueId>& saved,
            const std::vector<at::Tensor>& tensors) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (std::find(saved.begin(), saved.end(), ids[i]) == saved.end()) continue;
      CHECK(i < tensors.size() && tensors[i].defined(),
            block_.name + ": backward reads " + block_.values[at_index(ids[i])].name);
      values_[at_index(ids[i])] = as_value(block_, ids[i], tensors[i]);
    }
  }

  bool is_loss_output(ValueId v) const {
    for (const Prim& prim : block_.prims) {
      if (is_loss(prim.kind) && prim.out[0] == v) return true;
    }
    return false;
  }

  void run_step(const BackwardStep& step) {
    const Prim& prim = block_.prims[at_index(step.prim)];
    if (!step.skip) differentiate(prim, step);
    for (ValueId v : step.release_grad) grads_[at_index(v)].reset();
    statistics_[at_index(step.prim)].reset();
    if (step.reuse_saved) values_[at_index(prim.in[0])].reset();
    for (ValueId v : step.release) values_[at_index(v)].reset();
  }

  void differentiate(const Prim& prim, const BackwardStep& step) {
    BackwardCall call{
        block_, prim, *args_.context, {}, {}, statistics_[at_index(step.prim)], {}, {}, {}, {}};
    for (ValueId v : prim.out) call.grad_out.push_back(grads_[at_index(v)]);
    call.grad_in.resize(prim.in.size());
    for (const GradJoin& join : step.joins) {
      call.grad_in[at_index(join.operand)] = fresh(prim, step, join.operand);
    }
    if (!gradient_is_alias(prim.kind)) run_body(call);
    call.in.clear();
    for (const GradJoin& join : step.joins) {
      at::Tensor& slot = grads_[at_index(prim.in[at_index(join.operand)])];
      at::Tensor gradient = std::move(call.grad_in[at_index(join.operand)]);
      switch (join.mode) {
        case GradJoinMode::kTake:
          slot = std::move(gradient);
          break;
        case GradJoinMode::kIntoFresh:
          gradient.add_(slot);
          slot = std::move(gradient);
          break;
        case GradJoinMode::kIntoOld:
          slot.add_(gradient);
          break;
        case GradJoinMode::kOutOfPlace:
          slot = at::add(slot, gradient);
          break;
      }
    }
  }

  void run_body(BackwardCall& call) {
    const Prim& prim = call.prim;
    for (ValueId v : prim.in) call.in.push_back(values_[at_index(v)]);
    for (ValueId v : prim.out) call.out.push_back(values_[at_index(v)]);
    if (prim.param >= 0) {
      if (args_.param_grad) call.grad_weight = args_.param_grad(prim.param);
      const bool reads = backward_reads_weight(prim.kind) &&
                         (call.grad_in[0].defined() || prim.kind == PrimKind::kRmsNorm);
      if (reads) call.weight = args_.param(prim.param);
    }
    body_of(prim.kind).backward(call);
  }

  at::Tensor fresh(const Prim& prim, const BackwardStep& step, std::int32_t operand) const {
    if (gradient_is_alias(prim.kind)) return grads_[at_index(prim.out[0])];
    if (step.reuse_saved && operand == 0) return values_[at_index(prim.in[0])];
    return empty_like(prim.in[at_index(operand)], &prim);
  }

  // Rows that depend on data are the rows of the gradient that came in, or of a kept value.
  at::Tensor empty_like(ValueId id, const Prim* prim = nullptr) const {
    const Value& value = block_.values[at_index(id)];
    std::int64_t rows = value.rows.is_constant() ? value.rows.c0 : -1;
    if (rows < 0 && prim != nullptr) {
      for (ValueId v : prim->out) {
        if (block_.values[at_index(v)].rows == value.rows && grads_[at_index(v)].defined()) {
          rows = grads_[at_index(v)].size(0);
        }
      }
    }
    if (rows < 0 && values_[at_index(id)].defined()) rows = values_[at_index(id)].size(0);
    if (rows < 0) rows = rows_of_input(id);
    CHECK(rows >= 0, block_.name + ": rows of " + value.name + " follow from no gradient");
    return at::empty({rows, value.cols}, options_of(value.dtype, device_));
  }

  std::int64_t rows_of_input(ValueId id) const {
    for (std::size_t i = 0; i < block_.inputs.size() && i < args_.inputs.size(); ++i) {
      if (block_.inputs[i] == id && args_.inputs[i].defined()) {
        return args_.inputs[i].numel() / block_.values[at_index(id)].cols;
      }
    }
    return -1;
  }

  const Block& block_;
  BackwardArgs& args_;
  at::Device device_ = at::kCPU;
  std::vector<ValueId> seeded_, absent_;
  std::vector<at::Tensor> values_, statistics_, grads_;
};

}  // namespace

void Tape::visit(const std::function<void(const at::Tensor&)>& visit) const {
  for (const at::Tensor& tensor : values) {
    if (tensor.defined()) visit(tensor);
  }
  for (const at::Tensor& tensor : statistics) {
    if (tensor.defined()) visit(tensor);
  }
}

Result<std::vector<at::Tensor>> run_forward(const Block& block, ForwardArgs args) {
  return guarded(block.name, [&]() -> Result<std::vector<at::Tensor>> {
    const at::NoGradGuard no_grad;
    return Forward(block, args).run();
  });
}

Result<std::vector<at::Tensor>> run_backward(const Block& block, BackwardArgs args) {
  return guarded(block.name, [&]() -> Result<std::vector<at::Tensor>> {
    const at::NoGradGuard no_grad;
    return Backward(block, args).run();
  });
}

}  // namespace orrery::engine
