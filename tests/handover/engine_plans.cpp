// See engine_plans.h.
#include "tests/handover/engine_plans.h"

#include <algorithm>

#include "tests/support/plans.h"

namespace orrery {
namespace {

void spread_experts(const Model& model, Layout& l, std::int64_t replicas) {
  const std::int64_t ranks = l.dp * l.cp * l.sp * l.tp / (l.ep * l.etp);
  l.replicate_e = replicas;
  l.fsdp_e = ranks / replicas;
  l.expert_inner = "ep";
  if (!model.is_moe()) l.replicate_e = 1, l.fsdp_e = l.world();
}

}  // namespace

Plan random_engine_plan(std::uint64_t seed) {
  Plan plan = random_mechanism_plan(seed);
  Draw draw(seed + 77);
  if (draw.coin()) return plan;
  Layout& l = plan.layout;
  const Model& m = plan.model;
  const bool axes = draw.between(0, 3) == 0;
  l.tp = axes ? draw.between(1, 2) : 1;
  l.cp = axes ? draw.between(1, 2) : 1;
  l.pp = axes ? draw.between(1, 2) : 1;
  l.dp = 4 * draw.between(1, 4);
  l.sp = draw.between(1, 2);
  l.ep = m.is_moe() ? (draw.coin() ? 1 : draw.between(1, 2) * 2) : 1;
  l.etp = 1;
  const std::int64_t data = l.dp * l.cp * l.sp;
  if (draw.coin()) l.dispatcher = "all_to_all";
  l.dense_inner = "fsdp";
  switch (draw.between(0, 2)) {
    case 0:
      l.replicate_d = data;
      l.fsdp_d = 1;
      spread_experts(m, l, data * l.tp / (l.ep * l.etp));
      break;
    case 1:
      l.replicate_d = draw.between(1, 2);
      l.fsdp_d = data / l.replicate_d;
      if (m.is_moe() && data * l.tp / l.ep % l.replicate_d != 0) l.ep = 1;
      spread_experts(m, l, l.replicate_d);
      break;
    default:
      l.replicate_d = l.ep;
      l.fsdp_d = data / l.ep;
      l.dense_inner = l.ep > 1 ? "replicate" : "fsdp";
      spread_experts(m, l, 1);
  }
  if (draw.coin()) plan.policy.recompute_layers = m.layers;
  if (draw.coin()) plan.policy.swap_layers = plan.policy.recompute_layers;
  if (draw.coin()) plan.policy.keep_layers = m.is_moe() ? 1 : 0;
  const std::int64_t rows = l.micro_batch * ((plan.workload.sequence_tokens + l.sp - 1) / l.sp);
  plan.chunks.loss_tokens = std::min(plan.chunks.loss_tokens, rows);
  plan.cluster.devices = l.world();
  plan.workload.global_sequences = l.dp * l.micro_batch * l.accumulation * plan.chunks.domino;
  return plan;
}

}  // namespace orrery
