// The bodies of the primitives of core/program/block.h, written by hand forward and backward with
// at:: operations only; no autograd anywhere. Every tensor is [rows, cols] and contiguous. Outputs,
// statistics and gradients are allocated by the interpreter and filled here; what a body allocates
// beside them is what memory_of() says.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "core/program/block.h"

namespace orrery::engine {

// What a block needs at run time beside tensors.
struct BlockContext {
  // Lengths of the documents of each whole sequence, in row order, padding included. Attention and
  // positions stay inside a document. All rows that rope and attention see are covered.
  std::vector<std::vector<std::int64_t>> documents;
  // Where in each sequence this rank's rows begin: not 0 where ranks share a sequence.
  std::int64_t first_position = 0;
  // The global number of the first local expert (kSelectSort).
  std::int64_t first_expert = 0;
  // Rows of each local expert, in expert order; they sum to the rows (kGroupedLinear, kSelectSort).
  std::vector<std::int64_t> expert_rows;
  // [source peer][local expert] rows received (kToExpertMajor, kToSourceMajor).
  std::vector<std::vector<std::int64_t>> received;
  double loss_scale = 1;  // one over the labels of the world in this step (kCrossEntropy)
};

struct ForwardCall {
  const Block& block;
  const Prim& prim;
  const BlockContext& context;
  std::vector<at::Tensor> in;
  std::vector<at::Tensor> out;
  at::Tensor weight;     // undefined without a parameter
  at::Tensor statistic;  // [rows of operand 0, statistic_cols]; undefined when there is none
};

struct BackwardCall {
  const Block& block;
  const Prim& prim;
  const BlockContext& context;
  std::vector<at::Tensor> in;   // undefined where not saved
  std::vector<at::Tensor> out;  // the same
  at::Tensor statistic;
  std::vector<at::Tensor> grad_out;  // undefined: zero (or one, of a loss)
  at::Tensor weight;                 // undefined when needs_weight() is false
  at::Tensor grad_weight;            // added to; undefined when the parameter is frozen
  std::vector<at::Tensor> grad_in;   // to fill; undefined where no gradient is asked for
};

struct PrimBody {
  void (*forward)(ForwardCall& call);
  void (*backward)(BackwardCall& call);  // null: no gradient, or an alias of the output's
};
const PrimBody& body_of(PrimKind kind);

// True when backward reads the parameter itself: a unit that is only added to is not gathered.
bool backward_reads_weight(PrimKind kind);
// True for an output that lives on the host whatever the device (expert_counts of kSortByExpert).
bool is_host_output(PrimKind kind, std::size_t index);

}  // namespace orrery::engine
