// Peak memory in the closed form of the stages' states and cells in flight. See memory.h.
#include "simulator/stages/memory.h"

#include <algorithm>
#include <cmath>

#include "simulator/stages/pipeline.h"

namespace orrery::simulator {
namespace {

constexpr double kSpread = 0.06;  // relative deviation of peaks, for the probability to fit

struct States {
  double weights = 0, gradients = 0, optimizer = 0;  // bytes a parameter
};

// Mixed precision: 16 bit weights, fp32 master weights and moments.
States states_of(const Job& job) {
  const bool fp32 = job.precision == Precision::kFp32;
  return {fp32 ? 4.0 : 2.0, job.stack.fp32_gradients || fp32 ? 4.0 : 2.0, fp32 ? 8.0 : 12.0};
}

double state_bytes(const Job& job, double parameters, double shards) {
  const States s = states_of(job);
  const bool all = job.sharding == Sharding::kParameters;
  const double weights = all ? 1 / shards : 1;
  const double gradients = all || job.sharding == Sharding::kGradients ? 1 / shards : 1;
  const double optimizer = job.sharding == Sharding::kNone ? 1 : 1 / shards;
  if (job.trains_adapters) return parameters * s.weights * weights;
  // FSDP's shards are fp32 themselves: no 16 bit copy is kept.
  const double own = all ? 0 : s.weights * weights;
  return parameters * (own + s.gradients * gradients + s.optimizer * optimizer);
}

}  // namespace

void predict_memory(const Job& job, const std::vector<Chunk>& chunks, JobPrediction& out) {
  const auto stages = static_cast<std::int32_t>(job.layout.pp);
  const auto virtual_stages = static_cast<std::int32_t>(job.virtual_stages);
  const auto micro_batches =
      static_cast<std::int32_t>(std::max<std::int64_t>(1, job.micro_batches()));
  const auto shards = static_cast<double>(job.layout.fsdp_d);
  const Layout& l = job.layout;
  const double expert_shards = std::max(
      1.0, static_cast<double>(l.tp * l.cp * l.sp * l.dp) / static_cast<double>(l.ep * l.etp));
  double fullest = 0;
  for (std::int32_t s = 0; s < stages; ++s) {
    double states = 0, saves = 0, worst = 0, unit = 0;
    for (std::int32_t c = 0; c < virtual_stages; ++c) {
      const Chunk& chunk = chunks[static_cast<std::size_t>(s * virtual_stages + c)];
      states +=
          state_bytes(job, chunk.dense, shards) + state_bytes(job, chunk.expert, expert_shards);
      saves += chunk.saves;
      worst = std::max(worst, chunk.worst);
      unit = std::max(unit, chunk.largest_unit);
    }
    const double cells = in_flight(job.schedule, s, stages, virtual_stages, micro_batches);
    const double activations = saves / static_cast<double>(virtual_stages) * cells + worst;
    double gathered = 0;
    if (job.sharding == Sharding::kParameters) {
      gathered = unit * (2 * 2 + states_of(job).gradients);  // one more ahead, and its gradient
    }
    fullest = std::max(fullest, states + activations + gathered);
  }
  const DeviceProfile& device = job.cluster.device;
  out.peak_bytes = fullest + job.stack.reserve_bytes;
  out.usable_bytes = static_cast<double>(device.memory.value());
  out.fits = out.peak_bytes <= out.usable_bytes;
  const double deviation = (out.usable_bytes - out.peak_bytes) / (kSpread * out.peak_bytes);
  out.probability_fits = 0.5 * std::erfc(-deviation / std::sqrt(2.0));
}

}  // namespace orrery::simulator
