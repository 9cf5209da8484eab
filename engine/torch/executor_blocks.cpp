// Ops that run a block: operands to the interpreter, results to their buffers.
#include <ATen/ops/empty.h>

#include <stdexcept>
#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {
namespace {

template <class T>
T unwrap(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.error().problems.at(0).message);
  return std::move(result).value();
}

}  // namespace

BlockContext ExecutorImpl::context_of(const Op& op, BufferId received) const {
  BlockContext context;
  const StepConstants& step = program_.step;
  context.documents = documents_.at(static_cast<std::size_t>(op.micro_batch));
  if (step.sp > 1) {
    context.first_position = program_.sp_group().index_of(rank_) * (step.sequence_tokens / step.sp);
  }
  if (all_local_experts_ > 0) {
    context.first_expert = program_.ep_group().index_of(rank_) * all_local_experts_;
  }
  if (received >= 0) {
    const at::Tensor& counts = value(received);  // [ep, local experts of all parts]
    const std::int32_t local = role_.route.local_experts;
    const auto* row =
        counts.data_ptr<std::int64_t>() + (op.parts > 1 ? std::int64_t{op.chunk} * local : 0);
    for (std::int32_t p = 0; p < role_.route.ep; ++p, row += counts.size(1)) {
      context.received.emplace_back(row, row + local);
    }
    for (std::int32_t e = 0; e < local; ++e) {
      context.expert_rows.push_back(
          binding_.values[static_cast<std::size_t>(op.vars.route + role_.route.expert_rows(e))]);
    }
  }
  return context;
}

// An op of one part of an exchange uses the experts of that part.
ParamPlace ExecutorImpl::place_of(const Op& op, const BlockParam& wanted) const {
  std::int64_t numel = 1;
  for (const std::int64_t extent : wanted.shape) numel *= extent;
  for (std::size_t i = 0; i < op.units.size(); ++i) {
    std::int64_t offset = 0;
    for (const Param& param : unit(op.units[i]).params) {
      const bool layer_fits = op.layer < 0 || param.layer < 0 || op.layer == param.layer;
      if (param.short_name == wanted.name && layer_fits) {
        const std::int64_t part = param.is_expert && op.parts > 1 ? op.chunk : 0;
        CHECK((part + 1) * numel <= param.numel(), "a parameter smaller than its block's");
        return {i, offset + part * numel, numel};
      }
      offset += param.numel();
    }
  }
  throw std::runtime_error("no unit of the op has the parameter " + wanted.name);
}

ParamResolver ExecutorImpl::params_of(const Op& op, const Block& b) const {
  return [this, &op, &b](std::int32_t p) -> at::Tensor {
    const BlockParam& wanted = b.params[static_cast<std::size_t>(p)];
    const ParamPlace at = place_of(op, wanted);
    return value(op.params[at.unit]).view(-1).narrow(0, at.offset, at.numel).view(wanted.shape);
  };
}

ParamResolver ExecutorImpl::grads_of(const Op& op, const Block& b) {
  return [this, &op, &b](std::int32_t p) -> at::Tensor {
    const BlockParam& wanted = b.params[static_cast<std::size_t>(p)];
    const ParamPlace at = place_of(op, wanted);
    const at::Tensor& sum = accumulator(op.updates[at.unit]);
    return sum.view(-1).narrow(0, at.offset, at.numel).view(wanted.shape);
  };
}

void ExecutorImpl::add_loss(const Op& op, const Block& b, const std::vector<at::Tensor>& outputs) {
  const at::Tensor sums = accumulator(op.metrics).view(-1);
  bool found = false;
  for (const Prim& prim : b.prims) {
    for (std::size_t i = 0; is_loss(prim.kind) && i < outputs.size(); ++i) {
      if (b.outputs[i] != prim.out[0]) continue;
      const Metric metric = prim.kind == PrimKind::kCrossEntropy  ? kLoss
                            : prim.kind == PrimKind::kBalanceLoss ? kBalance
                                                                  : kZ;
      sums.narrow(0, static_cast<std::int64_t>(metric), 1).add_(outputs[i].view(-1));
      found = true;
    }
  }
  CHECK(found, "an op adds the loss of a block that has none: " + b.name);
}

void ExecutorImpl::forward(const Op& op) {
  const Block& b = block(op);
  ForwardArgs args;
  for (std::size_t i = 0; i < b.inputs.size(); ++i) args.inputs.push_back(value(op.in[i]));
  const bool routed = op.in.size() > b.inputs.size();
  const BlockContext context = context_of(op, routed ? op.in.back() : -1);
  args.context = &context;
  args.param = params_of(op, b);
  auto tape = std::make_unique<Tape>();
  const bool keeps = op.kind == OpKind::kForwardTape;
  if (keeps) args.tape = tape.get();
  std::vector<at::Tensor> outputs = unwrap(run_forward(b, std::move(args)));
  if (op.metrics >= 0) add_loss(op, b, outputs);
  for (std::size_t i = 0; i < outputs.size(); ++i) put(op.out[i], std::move(outputs[i]));
  if (!keeps) return;
  Slot& slot = slots_[static_cast<std::size_t>(op.out.back())];
  tape->visit([&](const at::Tensor& t) { slot.bytes += classify(t, BufferClass::kSaved); });
  slot.tape = std::move(tape);
  op_taken_ += slot.bytes;
  record_alloc(op.out.back(), slot.bytes);
}

void ExecutorImpl::backward(const Op& op) {
  const Block& b = block(op);
  BackwardArgs args;
  std::size_t at = 0;
  const auto optional = [&](BufferId id) { return id < 0 ? at::Tensor() : value(id); };
  for (std::size_t i = 0; i < b.outputs.size(); ++i) {
    args.grad_outputs.push_back(optional(op.in[at++]));
  }
  const BufferId tape = op.in[at++];
  if (tape >= 0) {
    Slot& slot = slots_[static_cast<std::size_t>(tape)];
    if (slot.tape == nullptr) throw std::runtime_error("nothing wrote " + buffer(tape).name);
    args.tape = std::move(*slot.tape);
  }
  const auto operands = [&](const std::vector<ValueId>& all, const std::vector<ValueId>& saved) {
    std::vector<at::Tensor> tensors(all.size());
    for (const ValueId v : saved) {
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i] == v) tensors[i] = value(op.in[at]);
      }
      ++at;
    }
    return tensors;
  };
  args.inputs = operands(b.inputs, b.saved_inputs);
  args.outputs = operands(b.outputs, b.saved_outputs);
  for (std::size_t i = 0; i < b.inputs.size(); ++i) args.seeds.push_back(optional(op.in[at++]));
  const BlockContext context = context_of(op, at < op.in.size() ? op.in[at] : -1);
  args.context = &context;
  args.param = params_of(op, b);
  args.param_grad = grads_of(op, b);
  std::vector<at::Tensor> grads = unwrap(run_backward(b, std::move(args)));
  for (std::size_t i = 0; i < grads.size(); ++i) {
    if (op.out[i] >= 0) put(op.out[i], std::move(grads[i]));
  }
}

void ExecutorImpl::forward_backward(const Op& op) {
  const Block& b = block(op);
  const bool slice = op.row_end > 0;
  const std::int64_t rows = op.row_end - op.row_begin;
  const auto part = [&](const at::Tensor& t) {
    return slice ? t.narrow(0, op.row_begin, rows) : t;
  };
  std::vector<at::Tensor> inputs;
  for (std::size_t i = 0; i < b.inputs.size(); ++i) inputs.push_back(part(value(op.in[i])));
  BlockContext context = context_of(op, -1);
  if (op.in.size() > b.inputs.size()) {
    labels_ = value(op.in.back()).data_ptr<double>()[0];
    context.loss_scale = 1.0 / labels_;
  }
  Tape tape;
  std::vector<at::Tensor> outputs =
      unwrap(run_forward(b, {inputs, params_of(op, b), &context, &tape}));
  add_loss(op, b, outputs);
  BackwardArgs args;
  args.tape = std::move(tape);
  args.inputs = std::move(inputs);
  args.outputs = std::move(outputs);
  args.grad_outputs.resize(b.outputs.size());
  args.param = params_of(op, b);
  args.param_grad = grads_of(op, b);
  args.context = &context;
  std::vector<at::Tensor> grads = unwrap(run_backward(b, std::move(args)));
  for (std::size_t i = 0; i < grads.size(); ++i) {
    if (op.out[i] < 0) continue;
    if (!slice) {
      put(op.out[i], std::move(grads[i]));
      continue;
    }
    // Chunks fill disjoint rows; the first takes the whole buffer.
    if (!slots_[static_cast<std::size_t>(op.out[i])].tensor.defined()) {
      put(op.out[i], allocate(op.out[i]));
    }
    value(op.out[i]).narrow(0, op.row_begin, rows).copy_(grads[i]);
  }
}

}  // namespace orrery::engine
