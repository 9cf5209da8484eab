// Data, accumulation, router biases, gradient norm and AdamW. Host loops over contiguous memory: on
// the CPU one pass over gradient, weight and moments is what bounds the optimizer.
#include <ATen/ops/empty.h>

#include <cmath>
#include <stdexcept>

#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {
namespace {

void add_into(at::Tensor& sum, const at::Tensor& part) {
  at::Tensor to = sum.view(-1);
  const at::Tensor from = part.view(-1);
  if (from.scalar_type() == to.scalar_type()) {
    to.add_(from);
    return;
  }
  for (std::int64_t i = 0; i < to.numel(); i += kSumSlice) {
    const std::int64_t n = std::min(kSumSlice, to.numel() - i);
    to.narrow(0, i, n).add_(from.narrow(0, i, n).to(to.scalar_type()));
  }
}

template <class T>
double sum_of_squares(const T* p, std::int64_t n) {
  double sum[4] = {0, 0, 0, 0};
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (int j = 0; j < 4; ++j)
      sum[j] += static_cast<double>(p[i + j]) * static_cast<double>(p[i + j]);
  }
  for (; i < n; ++i) sum[0] += static_cast<double>(p[i]) * static_cast<double>(p[i]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// w -= lr * (decay * w + (m / c1) / (sqrt(v / c2) + eps)), as in Loshchilov and Hutter 2019.
template <class T>
void adamw(const AdamStep& s, double decay, std::int64_t n, const T* g, T* w, T* m, T* v) {
  const T clip = static_cast<T>(s.clip), b1 = static_cast<T>(s.beta1), b2 = static_cast<T>(s.beta2);
  const T c1 = static_cast<T>(1 / s.correction1), c2 = static_cast<T>(1 / s.correction2);
  const T lr = static_cast<T>(s.lr), eps = static_cast<T>(s.eps);
  const T keep = static_cast<T>(1 - s.lr * decay);
  for (std::int64_t i = 0; i < n; ++i) {
    const T grad = g[i] * clip;
    m[i] = b1 * m[i] + (1 - b1) * grad;
    v[i] = b2 * v[i] + (1 - b2) * grad * grad;
    w[i] = w[i] * keep - lr * (m[i] * c1) / (std::sqrt(v[i] * c2) + eps);
  }
}

// Rows that all routers of one layer send in a step; 0 where no block routes.
double routed_rows(const Program& program, const Role& role) {
  for (const Block& block : role.blocks) {
    for (const Prim& prim : block.prims) {
      if (prim.kind != PrimKind::kTopK) continue;
      return static_cast<double>(program.step.global_sequences * program.step.valid_tokens *
                                 prim.top_k);
    }
  }
  return 0;
}

template <class T>
void move_bias(double speed, std::int64_t experts, double rows, const T* loads, T* bias) {
  double sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) sum += static_cast<double>(loads[e]);
  if (rows > 0 && std::abs(sum - rows) > 1e-5 * rows) {
    throw std::runtime_error("the loads of a layer are not those of the whole step");
  }
  for (std::int64_t e = 0; e < experts; ++e) {
    // mean - load, times the number of experts: whole numbers, so that equal is equal.
    const double below = sum - static_cast<double>(loads[e]) * static_cast<double>(experts);
    const double sign = below > 0 ? 1 : below < 0 ? -1 : 0;
    bias[e] = static_cast<T>(static_cast<double>(bias[e]) + speed * sign);
  }
}

}  // namespace

// This rank's part of each sequence, padded first; where nothing is padded or shared, all of it.
std::vector<std::int64_t> ExecutorImpl::own_part(const std::vector<std::int64_t>& rows,
                                                 std::int64_t padding) const {
  const StepConstants& step = program_.step;
  if (std::ssize(rows) != step.sequences * step.valid_tokens) {
    throw std::runtime_error("a micro-batch of " + std::to_string(rows.size()) + " tokens, not " +
                             std::to_string(step.sequences * step.valid_tokens));
  }
  const std::int64_t part = step.sequence_tokens / step.sp;
  const std::int64_t first = step.sp > 1 ? program_.sp_group().index_of(rank_) * part : 0;
  std::vector<std::int64_t> own;
  for (std::int64_t s = 0; s < step.sequences; ++s) {
    for (std::int64_t t = first; t < first + part; ++t) {
      own.push_back(t < step.valid_tokens
                        ? rows[static_cast<std::size_t>(s * step.valid_tokens + t)]
                        : padding);
    }
  }
  return own;
}

void ExecutorImpl::load_batch(const Op& op, const std::vector<MicroBatch>& batch) {
  const std::int64_t padding = program_.step.sequence_tokens - program_.step.valid_tokens;
  documents_.clear();
  for (std::size_t m = 0; m < batch.size(); ++m) {
    const auto copy = [&](BufferId b, const std::vector<std::int64_t>& tokens) {
      at::Tensor t = allocate(b);
      if (t.numel() != static_cast<std::int64_t>(tokens.size())) {
        throw std::runtime_error("a micro-batch of " + std::to_string(tokens.size()) + " tokens");
      }
      at::Tensor host = t.device().is_cpu() ? t : at::empty(t.sizes(), t.dtype());
      std::copy(tokens.begin(), tokens.end(), host.data_ptr<std::int64_t>());
      if (!t.is_same(host)) t.copy_(host);
      put(b, std::move(t));
    };
    copy(op.out[2 * m], own_part(batch[m].ids, 0));
    copy(op.out[2 * m + 1], own_part(batch[m].labels, -100));
    documents_.push_back(batch[m].documents);
    std::int64_t pairs = 0;
    for (auto& sequence : documents_.back()) {
      if (padding > 0) sequence.push_back(padding);
      for (const std::int64_t length : sequence) pairs += length * (length + 1) / 2;
    }
    const std::string name = "batch/mb." + std::to_string(m);
    for (std::size_t v = 0; v < role_.var_names.size(); ++v) {
      if (role_.var_names[v] == name) binding_.values[v + BatchVars::pairs()] = pairs;
    }
  }
}

void ExecutorImpl::unshard(const Op& op) {
  at::Tensor out = allocate(op.out[0]);
  out.view(-1).copy_(value(op.in[0]).view(-1));
  put(op.out[0], std::move(out));
}

void ExecutorImpl::accumulate(const Op& op) {
  add_into(accumulator(op.updates[0]), value(op.in[0]));
}

// Rows a router sent to each expert, over all sequences of the micro-batch.
void ExecutorImpl::add_loads(const Op& op) {
  const at::Tensor& counts = value(op.in[0]);
  const at::Tensor loads = accumulator(op.updates[0]).narrow(0, op.row_begin, 1);
  for (std::int64_t s = 0; s < counts.size(0); ++s) loads.add_(counts.narrow(0, s, 1));
}

// Every parameter once in the world: ranks that hold a copy of a shard leave it to the first.
void ExecutorImpl::grad_norm(const Op& op) {
  const bool launches = device_->launches();
  double sum = 0;
  for (std::size_t u = 0; u < op.in.size(); ++u) {
    const at::Tensor& g = value(op.in[u]);
    if (options_.observe) {
      const MeterScope unmetered(nullptr);
      options_.observe(op, op.in[u], g);
    }
    if (launches || group(role_.units[u].replicate_group).index_of(rank_) != 0) continue;
    sum += g.scalar_type() == at::kDouble ? sum_of_squares(g.data_ptr<double>(), g.numel())
                                          : sum_of_squares(g.data_ptr<float>(), g.numel());
  }
  if (launches) return launch_norm(op);
  auto* sums = accumulator(op.metrics).data_ptr<double>();
  sums[kSquaredNorm] += sum;
  sums[kWorldCheck] = 1.0 / static_cast<double>(program_.world);
}

// Whether this step's gradients may be used; keeps the metrics for the step's result.
bool ExecutorImpl::finite_norm(const Op& op) {
  const at::Tensor& metrics = device_->launches() ? host_metrics_ : value(op.metrics);
  const double* sums = metrics.data_ptr<double>();
  if (std::abs(sums[kWorldCheck] - 1) > 1e-6) {
    throw std::runtime_error("the metrics were not reduced");
  }
  std::copy(sums, sums + kNumMetrics, result_sums_.begin());
  updated_ = std::isfinite(sums[kSquaredNorm]);
  return updated_;
}

// bias += speed * sign(mean load - load), as in Wang et al. 2024 (2408.15664).
void ExecutorImpl::update_bias(const Op& op) {
  if (!finite_norm(op)) return;
  if (device_->launches()) return launch_bias(op);
  const at::Tensor& loads = value(op.in[0]);
  const std::int64_t experts = loads.size(1);
  const double speed = program_.step.bias_speed, rows = routed_rows(program_, role_);
  for (std::size_t i = 0; i < op.updates.size(); ++i) {
    const at::Tensor row = loads.narrow(0, static_cast<std::int64_t>(i), 1);
    const at::Tensor& bias = value(op.updates[i]);
    if (bias.scalar_type() == at::kDouble) {
      move_bias(speed, experts, rows, row.data_ptr<double>(), bias.data_ptr<double>());
    } else {
      move_bias(speed, experts, rows, row.data_ptr<float>(), bias.data_ptr<float>());
    }
  }
}

void ExecutorImpl::optimizer_step(const Op& op) {
  if (!finite_norm(op)) return;
  if (!counted_) ++updates_;
  counted_ = true;
  const double norm = std::sqrt(result_sums_[kSquaredNorm]);
  const Unit& u = unit(op.unit);
  const AdamW& a = options_.optimizer;
  AdamStep s;
  s.clip = a.clip_norm > 0 ? std::min(1.0, a.clip_norm / (norm + 1e-6)) : 1.0;
  s.lr = learning_rate(a, step_);
  s.beta1 = a.beta1;
  s.beta2 = a.beta2;
  s.eps = a.eps;
  s.correction1 = 1 - std::pow(a.beta1, static_cast<double>(updates_));
  s.correction2 = 1 - std::pow(a.beta2, static_cast<double>(updates_));
  const at::Tensor& g = value(op.in[0]);
  const at::Tensor& w = value(op.in[1]);
  const at::Tensor& m = value(op.in[2]);
  const at::Tensor& v = value(op.in[3]);
  // The shard is a window of the unit's flat storage; norms in it are not decayed.
  const std::int64_t begin = group(u.shard_group).index_of(rank_) * u.shard_numel;
  const std::int64_t end = begin + u.shard_numel;
  std::int64_t first = 0;
  for (const Param& p : u.params) {
    const std::int64_t from = std::max(begin, first), to = std::min(end, first + p.numel());
    first += p.numel();
    if (from >= to) continue;
    const double decay = p.is_norm ? 0 : a.weight_decay;
    const std::int64_t at = from - begin, n = to - from;
    if (device_->launches()) {
      launch_adamw(s, decay, g.view(-1).narrow(0, at, n), w.view(-1).narrow(0, at, n),
                   m.view(-1).narrow(0, at, n), v.view(-1).narrow(0, at, n));
    } else if (w.scalar_type() == at::kDouble) {
      adamw(s, decay, n, g.data_ptr<double>() + at, w.data_ptr<double>() + at,
            m.data_ptr<double>() + at, v.data_ptr<double>() + at);
    } else {
      adamw(s, decay, n, g.data_ptr<float>() + at, w.data_ptr<float>() + at,
            m.data_ptr<float>() + at, v.data_ptr<float>() + at);
    }
  }
}

}  // namespace orrery::engine
