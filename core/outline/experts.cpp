// The expert axis and its tensor axis: rows choose experts, travel to their ranks, and come back;
// three dispatchers (core/job.h). Ranks of the expert tensor axis part each expert's columns and
// share the rows that come to it.
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

// Rows of this rank that choose, those that it sends (one for each choice), and those that come to
// its experts, all ranks of its expert tensor group together; `fullness` over the mean.
struct Rows {
  double own = 0, chosen = 0, fullness = 1, arrived = 0;
};

Rows rows_to_experts(const Job& job) {
  const Layout& l = job.layout;
  const auto ep = static_cast<double>(l.ep), etp = static_cast<double>(l.etp);
  Rows r;
  r.own = residual_rows(job);
  r.chosen = r.own * static_cast<double>(job.model.top_k);
  r.fullness = fullest(job.expert_load_cv, ep, static_cast<double>(job.model.experts) / ep);
  r.arrived = r.chosen * etp * r.fullness;
  return r;
}

// To the experts, or back.
void move(const Job& job, Builder& b, const char* name, bool in) {
  const Rows r = rows_to_experts(job);
  const auto hidden = static_cast<double>(job.model.hidden);
  const auto gathered = in ? CollectiveKind::kAllGather : CollectiveKind::kReduceScatter;
  if (job.layout.ep > 1 && job.dispatcher == Dispatcher::kAllGather) {
    b.collective(name, gathered, Axis::kExpert, r.own * hidden * static_cast<double>(job.layout.ep),
                 job.stack.overlaps_experts);
  } else if (job.layout.ep > 1) {
    b.collective(name, CollectiveKind::kAllToAll, Axis::kExpert, r.chosen * hidden * r.fullness);
  }
  if (job.layout.etp > 1) b.collective(name, gathered, Axis::kExpertTensor, r.arrived * hidden);
}

void routed(const Job& job, Builder& b, Parameters& p) {
  const Model& m = job.model;
  const Layout& l = job.layout;
  const auto hidden = static_cast<double>(m.hidden);
  const auto ep = static_cast<double>(l.ep), etp = static_cast<double>(l.etp);
  const double local = static_cast<double>(m.experts) / ep;
  const Rows r = rows_to_experts(job);
  const double own = r.own, chosen = r.chosen, arrived = r.arrived;
  b.in(Module::kRouter);
  b.product("router", own, static_cast<double>(m.experts), hidden, false, false);
  Task& choose = b.pass("choose", PassKind::kRouting, own * static_cast<double>(m.experts) * 2,
                        own * static_cast<double>(m.experts));
  choose.kernels = 8;
  const double router = (hidden + (m.linear_bias ? 1 : 0)) * static_cast<double>(m.experts);
  p.dense += router;
  p.replicated += router;
  b.in(Module::kDispatch);
  b.pass("permute", PassKind::kRows, chosen * hidden, chosen * hidden).kernels = 4;
  move(job, b, "dispatch", true);
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
  p.expert_replicated += m.linear_bias ? local * hidden : 0;
  b.in(Module::kDispatch);
  if (l.ep > 1) b.pass("unsort", PassKind::kRows, arrived * hidden, arrived * hidden).kernels = 2;
  move(job, b, "combine", false);
  const double outputs = job.stack.keeps_expert_outputs ? chosen * hidden : 0;
  b.pass("unpermute", PassKind::kRows, chosen * hidden, own * hidden, outputs).kernels = 3;
}

}  // namespace

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
