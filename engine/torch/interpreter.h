// Runs a block (core/program/block.h): forward with or without a tape, and backward. It obeys the
// schedules that core made, so the bytes it takes and gives back are the bytes that core counts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "core/program/block.h"
#include "core/result.h"
#include "engine/torch/primitives.h"

namespace orrery::engine {

// Resolves a block's parameter when it is needed; nothing of it outlives the call.
using ParamResolver = std::function<at::Tensor(std::int32_t param)>;

// What forward keeps for backward: the values in Block::saved and the primitives' statistics.
struct Tape {
  std::vector<at::Tensor> values;      // by value id
  std::vector<at::Tensor> statistics;  // by primitive
  // Calls visit(tensor) for each tensor held.
  void visit(const std::function<void(const at::Tensor&)>& visit) const;
};

struct ForwardArgs {
  std::vector<at::Tensor> inputs;  // in the order of Block::inputs; any contiguous shape
  ParamResolver param;             // the parameter in compute dtype, of BlockParam::shape
  const BlockContext* context = nullptr;
  Tape* tape = nullptr;  // filled when given
};

struct BackwardArgs {
  Tape tape;                        // moved in: its memory goes as backward proceeds
  std::vector<at::Tensor> inputs;   // Block::inputs; only saved_inputs need be defined
  std::vector<at::Tensor> outputs;  // Block::outputs; only saved_outputs need be defined, or empty
  // Block::outputs; undefined: zero (one, of a loss). Read, never written.
  std::vector<at::Tensor> grad_outputs;
  // Block::inputs, or empty; defined: a gradient begun elsewhere, added to. Read, never written.
  std::vector<at::Tensor> seeds;
  ParamResolver param;
  ParamResolver param_grad;  // a view of BlockParam::shape and grad_dtype; undefined: frozen
  const BlockContext* context = nullptr;
};

// The outputs as [rows, cols] tensors. Errors (kRun): whatever the library throws.
Result<std::vector<at::Tensor>> run_forward(const Block& block, ForwardArgs args);

// The gradients of Block::inputs, each with its own storage; undefined where has_grad() is false.
Result<std::vector<at::Tensor>> run_backward(const Block& block, BackwardArgs args);

}  // namespace orrery::engine
