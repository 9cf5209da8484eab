// Backward: what each task of forward calls for, from the last to the first.
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
  weight.of_weights = !activations;
  // Sums of several micro-batches: read and written, in fp32 where the stack keeps them so.
  if (!activations) {
    const double groups = t.kind == TaskKind::kGrouped ? t.groups : 1;
    const double each = job.stack.fp32_gradients ? 8 : 2 * width(job);
    weight.bytes += groups * t.n * t.k * (each - width(job));
    ++weight.kernels;
  }
  out.push_back(weight);
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

}  // namespace

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

}  // namespace orrery::outline
