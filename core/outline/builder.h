// Small helpers so that an outline reads like its formulas.
#pragma once

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "core/outline/task.h"

namespace orrery::outline {

// Bytes of an activation's element.
inline double width(const Job& job) {
  return job.precision == Precision::kFp32 || job.precision == Precision::kTf32 ? 4 : 2;
}

class Builder {
 public:
  explicit Builder(const Job& job)
      : job_(job),
        width_(width(job)),
        weight_casts_(job.sharding == Sharding::kParameters
                          ? 1
                          : std::max(1.0, static_cast<double>(job.micro_batches()))) {}

  // Tasks from here on are of this module.
  void in(Module module) { module_ = module; }

  // [m,k] x [k,n]; keeps its input for the weight's gradient unless another task does. `low`: in
  // 8 bit where the job is: both operands are read in 16 bit and written twice, as they are and
  // turned around; rows before they are gathered, and weights that stay on the rank once a step
  // (Transformer Engine's is_first_microbatch).
  Task& product(const char* name, double m, double n, double k, bool saves_input = true,
                bool low = true) {
    low = low && job_.precision == Precision::kFp8;
    if (low) cast(m * k / input_parts + n * k / weight_casts_);
    Task& t = add(TaskKind::kProduct, name);
    t.m = m;
    t.n = n;
    t.k = k;
    t.flops = 2 * m * n * k;
    t.bytes = width_ * (m * n + m * k + n * k);
    t.low_precision = low;
    for (const double columns : {n, k}) {
      t.aligned = std::gcd(t.aligned, static_cast<std::int64_t>(columns * (low ? 1 : width_)));
    }
    t.saves = saves_input ? m * k * (t.low_precision ? 1 : width_) / input_parts : 0;
    t.gathered = input_parts > 1 ? m * k * width_ : 0;
    if (job_.trains_adapters && !has_adapter()) t.saves = 0;
    // An adapter reads the rows again, and adds its own output.
    if (job_.trains_adapters) {
      t.bytes += width_ * (m * k + 3 * m * n);
      t.kernels += 3;
    }
    return t;
  }
  void cast(double elements) {
    Task& t = add(TaskKind::kPass, "cast");
    t.pass = PassKind::kStream;
    t.bytes = 4 * elements;
    t.kernels = 2;
  }
  // The same for the rows of `groups` experts.
  Task& grouped(const char* name, double m, double n, double k, double groups) {
    Task& t = product(name, m, n, k);
    t.kind = TaskKind::kGrouped;
    t.groups = groups;
    t.bytes = width_ * (m * n + m * k + groups * n * k);
    return t;
  }
  // Reads `read` and writes `written` elements.
  Task& pass(const char* name, PassKind kind, double read, double written, double saved = 0) {
    Task& t = add(TaskKind::kPass, name);
    t.pass = kind;
    t.bytes = width_ * (read + written);
    t.saves = saved * width_;
    t.kernels = job_.stack.fused_passes ? 1 : 3;
    return t;
  }
  // `elements`: of the whole buffer.
  Task& collective(const char* name, CollectiveKind kind, Axis axis, double elements,
                   bool beside = false) {
    Task& t = add(TaskKind::kCollective, name);
    t.collective = kind;
    t.axis = axis;
    t.bytes = width_ * elements;
    t.kernels = 2;  // the host also makes two streams wait for each other
    t.beside = beside;
    return t;
  }
  Task& add(TaskKind kind, const char* name) {
    Task t;
    t.kind = kind;
    t.name = name;
    t.module = module_;
    outline.forward.push_back(t);
    return outline.forward.back();
  }

  Outline outline;
  double input_parts = 1;  // ranks that part what a product keeps of its input

 private:
  // The weights of attention's projections have one (Hu 2021); of frozen weights nobody needs the
  // gradient, nor so the input.
  bool has_adapter() const {
    return module_ == Module::kProjections || module_ == Module::kLatentUp ||
           module_ == Module::kOutput || module_ == Module::kCoreAttention;
  }

  const Job& job_;
  double width_, weight_casts_;
  Module module_ = Module::kNorm;
};

// The layer's halves, each from the residual rows to their sum with its output.
void attention(const Job& job, std::int64_t layer, Builder& b, Parameters& p);
void dense_mlp(const Job& job, Builder& b, Parameters& p);
void experts(const Job& job, Builder& b, Parameters& p);
// Products of one MLP of `ffn` columns on this rank, over `rows`.
void mlp_products(const Job& job, Builder& b, double rows, double ffn, Parameters& p);
// Columns that are kept of an activation besides its input: op by op, the activated gate beside the
// two halves that the fused kernel keeps.
double unfused_gate(const Job& job, double ffn);

// tensor.cpp.
// Rows of the residual stream on one rank: a tensor rank's part where sequences are parallel.
double residual_rows(const Job& job);
// Before products on all rows of the tensor group, and after products that are partial sums.
void enter(const Job& job, Builder& b, const char* name);
void leave(const Job& job, Builder& b, const char* name);
// Rows of the tensor axis are gathered in 8 bit where products are in it.
double gathered_share(const Job& job, const Task& t);
// Norm over the residual rows.
void norm(const Job& job, Builder& b, const char* name, Parameters& p);

// context.cpp.
// Keys that a query of the layer sees at most; 0: all.
double window_of(const Job& job, std::int64_t layer);
// Pairs of queries and keys of the first `tokens` of a sequence with documents.
double pairs_before(const Job& job, std::int64_t layer, double tokens);
// Pairs of the fullest rank of a context group, over the mean.
double fullest_share(const Job& job, std::int64_t layer);
struct Heads {
  double q = 0, kv = 0;            // whose core this rank computes
  double made_q = 0, made_kv = 0;  // that it projects its rows to: its tensor rank's
  double qk_cols = 0, v_cols = 0;  // of a head
};
// Before attention's core: queries' rows see the keys of the whole sequence; and after it.
void share_keys(const Job& job, Builder& b, const Heads& h);
void return_heads(const Job& job, Builder& b, const Heads& h);

// backward.cpp.
std::vector<Task> backward_of(const Job& job, const std::vector<Task>& forward);
// recompute.cpp: fills what `forward` leaves open. `whole`: all of it is run again; `input`: bytes
// that the layer's input takes; 0: of an end, which is not run again.
void finish(const Job& job, Outline& o, bool whole, double input);

}  // namespace orrery::outline
