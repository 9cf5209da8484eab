// The second half of a layer: one MLP, or a router and experts.
#include <algorithm>
#include <cmath>

#include "core/outline/builder.h"

namespace orrery::outline {
namespace {

// What a group waits for is its fullest rank: the mean's excess over `ranks` of loads with this
// coefficient of variation, each the sum of `local` experts (normal order statistics, Blom 1958).
double fullest(double cv, double ranks, double local) {
  if (cv <= 0 || ranks <= 1) return 1;
  return 1 + cv / std::sqrt(local) * std::sqrt(2 * std::log(ranks));
}

// Op by op, the activated gate is kept beside the two halves that the fused kernel keeps.
double unfused_gate(const Job& job, double ffn) {
  return job.model.gated && !job.stack.fused_passes ? ffn : 0;
}

// Rows, width of the activations; one MLP of `ffn` columns on this rank.
void mlp_products(const Job& job, Builder& b, double rows, double ffn, Parameters& p) {
  const Model& m = job.model;
  const auto hidden = static_cast<double>(m.hidden);
  const double in = m.gated ? 2 * ffn : ffn;
  b.product("up", rows, in, hidden);
  b.pass("activation", PassKind::kActivation, rows * in, rows * ffn,
         rows * (in + unfused_gate(job, ffn)));
  b.product("down", rows, hidden, ffn);
  p.dense += hidden * (in + ffn) + (m.linear_bias ? in + hidden : 0);
}

void routed(const Job& job, Builder& b, Parameters& p) {
  const Model& m = job.model;
  const Layout& l = job.layout;
  const auto hidden = static_cast<double>(m.hidden), top_k = static_cast<double>(m.top_k);
  const auto ep = static_cast<double>(l.ep), etp = static_cast<double>(l.etp);
  const double local = static_cast<double>(m.experts) / ep;
  // Rows of this rank that choose, and rows that come to the experts of it (of its etp group).
  const double own = residual_rows(job);
  const double chosen = own * top_k;
  const double fullness = fullest(job.expert_load_cv, ep, local);
  const double arrived = chosen * etp * fullness;
  b.in(Module::kRouter);
  b.product("router", own, static_cast<double>(m.experts), hidden, false, false);
  Task& choose = b.pass("choose", PassKind::kRouting, own * static_cast<double>(m.experts) * 2,
                        own * static_cast<double>(m.experts));
  choose.kernels = 8;
  p.dense += hidden * static_cast<double>(m.experts);
  p.replicated += hidden * static_cast<double>(m.experts);
  b.in(Module::kDispatch);
  b.pass("permute", PassKind::kRows, chosen * hidden, chosen * hidden).kernels = 4;
  const bool all = job.dispatcher == Dispatcher::kAllGather;
  const auto move = [&](const char* name, bool in) {
    if (l.ep > 1) {
      if (all) {
        b.collective(name, in ? CollectiveKind::kAllGather : CollectiveKind::kReduceScatter,
                     Axis::kExpert, own * hidden * ep, job.stack.overlaps_experts);
      } else {
        b.collective(name, CollectiveKind::kAllToAll, Axis::kExpert, chosen * hidden * fullness);
      }
    }
    if (l.etp > 1) {
      b.collective(name, in ? CollectiveKind::kAllGather : CollectiveKind::kReduceScatter,
                   Axis::kExpertTensor, arrived * hidden);
    }
  };
  move("dispatch", true);
  if (l.ep > 1) b.pass("sort", PassKind::kRows, arrived * hidden, arrived * hidden).kernels = 2;
  b.in(Module::kExperts);
  const double ffn = static_cast<double>(m.moe_ffn) / etp, in = m.gated ? 2 * ffn : ffn;
  b.grouped("experts_up", arrived, in, hidden, local);
  b.in(Module::kExpertActivation);
  b.pass("expert_activation", PassKind::kActivation, arrived * in, arrived * ffn,
         arrived * (in + unfused_gate(job, ffn)));
  b.in(Module::kExperts);
  b.grouped("experts_down", arrived, hidden, ffn, local);
  p.expert += local * (hidden * (in + ffn) + (m.linear_bias ? in + hidden : 0));
  b.in(Module::kDispatch);
  if (l.ep > 1) b.pass("unsort", PassKind::kRows, arrived * hidden, arrived * hidden).kernels = 2;
  move("combine", false);
  const double outputs = job.stack.keeps_expert_outputs ? chosen * hidden : 0;
  b.pass("unpermute", PassKind::kRows, chosen * hidden, own * hidden, outputs).kernels = 3;
}

}  // namespace

void dense_mlp(const Job& job, Builder& b, Parameters& p) {
  norm(job, b, "mlp_norm", p);
  enter(job, b, "gather_rows");
  b.in(Module::kMlp);
  const auto hidden = static_cast<double>(job.model.hidden);
  mlp_products(job, b, rows_of(job),
               static_cast<double>(job.model.ffn) / static_cast<double>(job.layout.tp), p);
  leave(job, b, "sum_rows");
  const double residual = residual_rows(job) * hidden;
  b.pass("residual", PassKind::kStream, 2 * residual, residual);
}

void experts(const Job& job, Builder& b, Parameters& p) {
  const Model& m = job.model;
  norm(job, b, "mlp_norm", p);
  routed(job, b, p);
  const auto hidden = static_cast<double>(m.hidden);
  if (m.shared_ffn > 0) {
    b.in(Module::kSharedExperts);
    enter(job, b, "gather_shared");
    mlp_products(job, b, rows_of(job),
                 static_cast<double>(m.shared_ffn) / static_cast<double>(job.layout.tp), p);
    leave(job, b, "sum_shared");
  }
  const double residual = residual_rows(job) * hidden;
  b.pass("residual", PassKind::kStream, 2 * residual, residual);
}

}  // namespace orrery::outline
