// Layers and ends of a model as outlines, and their backward.
#include <algorithm>

#include "core/outline/builder.h"

namespace orrery::outline {
namespace {

// Bytes that backward moves for each byte that forward does: gradients come and go, and what was
// kept is read.
double backward_bytes(PassKind kind) {
  switch (kind) {
    case PassKind::kNorm:
      return 1.75;
    case PassKind::kActivation:
      return 5.0 / 3;
    default:
      return 1;
  }
}

void product_backward(const Job& job, const Task& t, std::vector<Task>& out) {
  Task input = t;
  input.n = t.k;
  input.k = t.n;
  input.saves = 0;
  out.push_back(input);
  const bool activations = t.module == Module::kCoreAttention;  // both operands are
  if (job.trains_adapters && !activations) return;
  Task weight = t;
  weight.m = t.n;  // [n,k], the sum over m rows
  weight.n = t.k;
  weight.k = t.m / t.groups;
  weight.saves = 0;
  if (t.kind == TaskKind::kGrouped) weight.m = t.n * t.groups;  // each group's sum is its own
  // Sums of several micro-batches: read and written, in fp32 where the stack keeps them so.
  if (!activations) {
    const double groups = t.kind == TaskKind::kGrouped ? t.groups : 1;
    const double each = job.stack.fp32_gradients ? 8 : 2 * width(job);
    weight.bytes += groups * t.n * t.k * (each - width(job));
    ++weight.kernels;
  }
  out.push_back(weight);
}

// Rows of the tensor axis are gathered in 8 bit where products are in it.
double gathered_share(const Job& job, const Task& t) {
  return job.precision == Precision::kFp8 && t.axis == Axis::kTensor ? 0.5 : 1;
}

void collective_backward(const Job& job, const Task& t, std::vector<Task>& out) {
  Task back = t;
  back.backward_only = false;
  switch (t.collective) {
    case CollectiveKind::kAllGather:
      if (t.axis == Axis::kTensor) {
        // What was gathered is not kept: it is gathered again beside the input's gradient, whose
        // sum goes out beside the weight's.
        back.beside = true;
        out.push_back(back);
      }
      back.collective = CollectiveKind::kReduceScatter;
      back.bytes /= gathered_share(job, t);  // sums are in 16 bit
      out.push_back(back);
      return;
    case CollectiveKind::kReduceScatter:
      back.collective = CollectiveKind::kAllGather;
      back.bytes *= gathered_share(job, t);
      out.push_back(back);
      return;
    case CollectiveKind::kAllReduce:
      if (!t.backward_only) return;  // of a sum: its gradient is every member's
      back.beside = true;
      out.push_back(back);
      return;
    case CollectiveKind::kRing:
      back.bytes *= 2;  // keys and values, and their gradients
      out.push_back(back);
      return;
    case CollectiveKind::kAllToAll:
      out.push_back(back);
  }
}

std::vector<Task> backward_of(const Job& job, const std::vector<Task>& forward) {
  std::vector<Task> out;
  for (auto t = forward.rbegin(); t != forward.rend(); ++t) {
    switch (t->kind) {
      case TaskKind::kProduct:
      case TaskKind::kGrouped:
        product_backward(job, *t, out);
        break;
      case TaskKind::kAttention: {
        Task back = *t;
        back.flops *= 2.5;  // scores again, and four products
        back.bytes *= 2;
        back.saves = 0;
        back.backward = true;
        out.push_back(back);
        break;
      }
      case TaskKind::kPass: {
        Task back = *t;
        back.bytes *= backward_bytes(t->pass);
        back.saves = 0;
        out.push_back(back);
        break;
      }
      case TaskKind::kCollective:
        collective_backward(job, *t, out);
    }
  }
  return out;
}

// Bytes of what comes and goes while a task's backward runs: the gradients of its output and of
// its input, and the input where it is gathered again.
double transient_of(const Job& job, const Task& t) {
  switch (t.kind) {
    case TaskKind::kProduct:
    case TaskKind::kGrouped:
      return width(job) * t.m * (t.n + t.k) + t.gathered;
    case TaskKind::kAttention:
      return t.saves;  // of queries, keys, values and the output: as many as are kept
    case TaskKind::kPass:
      // Of an activation: of its input, which is kept, and of its output, half as wide with a gate.
      return t.pass == PassKind::kActivation ? t.saves * (job.model.gated ? 1.5 : 2) : 0;
    case TaskKind::kCollective:
      return 0;
  }
  return 0;
}

// Bytes a logit: from the loss to its backward, and beyond them at the fullest point, where the
// 16 bit gradient (of the product behind: transient_of) is not there yet.
struct LossBytes {
  double saves = 0, worst = 0;
};

LossBytes loss_bytes(const Job& job) {
  const double each = job.stack.fp32_loss ? 4 : width(job), half = width(job);
  switch (job.stack.loss) {
    case LossKernel::kTorch:
      // Log-probabilities; their gradient and that of the logits' copy. Split over ranks (PyTorch's
      // loss_parallel), the exponentials of the log-probabilities beside them.
      return {each, (job.layout.tp > 1 ? 3 : 2) * each - half};
    case LossKernel::kInPlace:
      return {each, 0};
    case LossKernel::kFused:
      return {half, 0};
    case LossKernel::kChunked:
      return {0, 3 * each};
  }
  return {};
}

// Of Recompute::ops, a task's part: every second product is half of each. `kept`: bytes of what
// it keeps of its output instead of its input.
bool op_again(const Job& job, Task& t, double& kept) {
  switch (t.kind) {
    case TaskKind::kProduct:
    case TaskKind::kGrouped:
      kept += width(job) * t.m * t.n / 2;
      t.n /= 2;
      t.flops /= 2;
      t.bytes /= 2;
      return true;
    case TaskKind::kAttention:
      kept += width(job) * t.m * t.n * t.k;
      return false;
    case TaskKind::kPass:
      return true;
    case TaskKind::kCollective:
      return t.collective == CollectiveKind::kAllGather ||
             t.collective == CollectiveKind::kAllToAll;
  }
  return false;
}

// `input`: bytes that the layer's input takes; 0: of an end, which is not run again.
void finish(const Job& job, Outline& o, bool whole, double input) {
  o.backward = backward_of(job, o.forward);
  o.forward.erase(std::remove_if(o.forward.begin(), o.forward.end(),
                                 [](const Task& t) { return t.backward_only; }),
                  o.forward.end());
  double kept = 0, dropped = 0, most = 0;
  const bool ops = job.recompute.ops && !whole && input > 0;
  if (ops) kept = input;
  for (const Task& t : o.forward) {
    Task part = t;
    const bool again = ops ? op_again(job, part, kept) : whole || job.recompute.again(t.module);
    if (again) o.again.push_back(part);
    (again || ops ? dropped : kept) += t.saves;
    most = std::max(most, transient_of(job, t));
  }
  o.saves = whole ? input : kept;
  o.worst = dropped;
  o.transient = most;
}

}  // namespace

double rows_of(const Job& job) {
  return static_cast<double>(job.layout.micro_batch * job.sequence_tokens) /
         static_cast<double>(job.layout.cp * job.layout.sp);
}

double residual_rows(const Job& job) {
  return rows_of(job) / (job.sequence_parallel ? static_cast<double>(job.layout.tp) : 1);
}

void enter(const Job& job, Builder& b, const char* name) {
  if (job.layout.tp == 1) return;
  const double elements = rows_of(job) * static_cast<double>(job.model.hidden);
  const bool beside = job.stack.overlaps_tensor;
  if (job.sequence_parallel) {
    Task& t = b.collective(name, CollectiveKind::kAllGather, Axis::kTensor, elements, beside);
    t.bytes *= gathered_share(job, t);
    b.input_parts = static_cast<double>(job.layout.tp);
  } else {
    b.collective(name, CollectiveKind::kAllReduce, Axis::kTensor, elements).backward_only = true;
  }
}

void leave(const Job& job, Builder& b, const char* name) {
  b.input_parts = 1;
  if (job.layout.tp == 1) return;
  const double elements = rows_of(job) * static_cast<double>(job.model.hidden);
  b.collective(name,
               job.sequence_parallel ? CollectiveKind::kReduceScatter : CollectiveKind::kAllReduce,
               Axis::kTensor, elements, job.stack.overlaps_tensor);
}

void norm(const Job& job, Builder& b, const char* name, Parameters& p) {
  b.in(Module::kNorm);
  const auto hidden = static_cast<double>(job.model.hidden);
  const double elements = residual_rows(job) * hidden;
  // Op by op, an RMS norm also keeps its input in fp32.
  const bool copies = job.model.norm == NormKind::kRms && !job.stack.fused_passes;
  b.pass(name, PassKind::kNorm, elements, elements, elements * (copies ? 3 : 1));
  const double weights = job.model.norm == NormKind::kLayer ? 2 * hidden : hidden;
  p.dense += weights;
  p.replicated += weights;
}

Piece layer(const Job& job, std::int64_t layer, bool again) {
  Builder b(job);
  Piece piece;
  attention(job, layer, b, piece.parameters);
  if (job.model.moe_layer[static_cast<std::size_t>(layer)]) {
    experts(job, b, piece.parameters);
  } else {
    dense_mlp(job, b, piece.parameters);
  }
  piece.outline = std::move(b.outline);
  const double input = residual_rows(job) * static_cast<double>(job.model.hidden) * width(job);
  finish(job, piece.outline, again, input);
  return piece;
}

Piece embedding(const Job& job) {
  Builder b(job);
  Piece piece;
  b.in(Module::kEnds);
  const Model& m = job.model;
  const double elements = rows_of(job) * static_cast<double>(m.hidden);
  b.pass("embed", PassKind::kRows, elements, elements);
  leave(job, b, "sum_rows");
  const double table = static_cast<double>(m.vocab) / static_cast<double>(job.layout.tp);
  piece.parameters.dense = table * static_cast<double>(m.hidden);
  if (m.positions == Positions::kLearned) {
    piece.parameters.dense += static_cast<double>(m.max_positions * m.hidden);
  }
  piece.outline = std::move(b.outline);
  finish(job, piece.outline, false, 0);
  return piece;
}

Piece head(const Job& job) {
  Builder b(job);
  Piece piece;
  const Model& m = job.model;
  norm(job, b, "final_norm", piece.parameters);
  enter(job, b, "gather_rows");
  b.in(Module::kEnds);
  const double rows = rows_of(job);
  const double columns = static_cast<double>(m.vocab) / static_cast<double>(job.layout.tp);
  b.product("logits", rows, columns, static_cast<double>(m.hidden), true, false);
  // The largest, the exponentials, their sum, the loss: and the logits' copy in fp32.
  Task& loss = b.pass("loss", PassKind::kLoss, 0, 0);
  const double each = job.stack.fp32_loss ? 6 + 4 * 4 : 3 * width(job);
  loss.bytes = rows * columns * each;
  loss.kernels = 8;
  const LossBytes bytes = loss_bytes(job);
  loss.saves = rows * columns * bytes.saves;
  if (job.layout.tp > 1) {
    Task& sums = b.collective("loss_sums", CollectiveKind::kAllReduce, Axis::kTensor, 0);
    sums.bytes = 3 * 4 * rows;
  }
  b.input_parts = 1;
  piece.parameters.dense += columns * static_cast<double>(m.hidden);
  piece.outline = std::move(b.outline);
  finish(job, piece.outline, false, 0);
  piece.outline.worst = rows * columns * bytes.worst;
  if (job.stack.loss == LossKernel::kChunked) {
    constexpr double kChunkRows = 1024;  // as is usual: gradients of the hidden rows are kept
    piece.outline.transient = std::min(rows, kChunkRows) * columns * bytes.worst +
                              2 * rows * static_cast<double>(m.hidden) * width(job);
    piece.outline.worst = 0;
  }
  return piece;
}

}  // namespace orrery::outline
