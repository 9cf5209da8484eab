// The second half of a layer without experts: one MLP.
#include "core/outline/builder.h"

namespace orrery::outline {

double unfused_gate(const Job& job, double ffn) {
  return job.model.gated && !job.stack.fused_passes ? ffn : 0;
}

void mlp_products(const Job& job, Builder& b, double rows, double ffn, Parameters& p) {
  const Model& m = job.model;
  const auto hidden = static_cast<double>(m.hidden);
  const double in = m.gated ? 2 * ffn : ffn;
  b.product("up", rows, in, hidden);
  b.pass("activation", PassKind::kActivation, rows * in, rows * ffn,
         rows * (in + unfused_gate(job, ffn)));
  b.product("down", rows, hidden, ffn);
  p.dense += hidden * (in + ffn) + (m.linear_bias ? in + hidden : 0);
  p.replicated += m.linear_bias ? hidden : 0;
}

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

}  // namespace orrery::outline
