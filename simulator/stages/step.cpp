// A stand-in until the stages are replayed: products at 45 % of the device's peak, and states and
// activations by their usual bytes. To be replaced.
#include "simulator/stages/step.h"

#include <cmath>

#include "core/check.h"

namespace orrery::simulator {

JobPrediction predict(const Job& job) {
  CHECK(violations(job).empty(), "a job that breaks a rule");
  const Model& m = job.model;
  const Layout& l = job.layout;
  const double h = static_cast<double>(m.hidden), layers = static_cast<double>(m.layers);
  const double attention = 4 * h * h * (m.is_latent() ? 0.5 : 1);
  const double mlp = (m.gated ? 3.0 : 2.0) * h;
  const double wide = static_cast<double>(m.is_moe() ? m.experts * m.moe_ffn : m.ffn);
  const double used = static_cast<double>(m.is_moe() ? m.top_k * m.moe_ffn + m.shared_ffn : m.ffn);
  const double ends = 2 * h * static_cast<double>(m.vocab);
  const double held = layers * (attention + mlp * wide) + ends;
  const double active = layers * (attention + mlp * used) + ends / 2;
  const double tokens =
      static_cast<double>(job.global_sequences) * static_cast<double>(job.sequence_tokens);
  const double squares = 2 * h * layers * static_cast<double>(job.sequence_tokens);
  const double flops = (job.recompute.full ? 8.0 : 6.0) * tokens * (active + squares / 2);
  const double peak = job.cluster.device.peak_bf16.value() * static_cast<double>(l.world()) *
                      (job.precision == Precision::kFp8 ? 1.6 : 1);
  JobPrediction out;
  out.step = Seconds(flops / (0.45 * peak) + job.stack.step_s);
  out.p10 = Seconds(out.step.value() * 0.75);
  out.p90 = Seconds(out.step.value() * 1.25);
  const double split = static_cast<double>(l.tp * l.pp * l.ep);
  out.peak_bytes = held / split * (6 + 12 / static_cast<double>(l.fsdp_d)) + 2e9;
  out.usable_bytes = static_cast<double>(job.cluster.device.memory.value());
  out.fits = out.peak_bytes <= out.usable_bytes;
  out.probability_fits = out.fits ? 0.9 : 0.1;
  return out;
}

}  // namespace orrery::simulator
