// Lowering, the end of the step: gradient norm, sums over the world, AdamW on every unit's shard
// (its moments at hand or on the host), router biases.
#include <utility>

#include "core/program/lowering.h"

namespace orrery {

void Lowering::optimizer() {
  flush_accumulates();
  const std::int32_t m = static_cast<std::int32_t>(shape_.micro_batches) - 1;
  if (loads_ >= 0) {
    Op sum = op(OpKind::kAllReduce, Phase::kOptimizer, Lane::kFsdp, "optimizer/loads", m);
    sum.group = kGroupIds.world;
    sum.updates = {loads_};
    add(std::move(sum));
  }
  Op norm = op(OpKind::kGradNorm, Phase::kOptimizer, Lane::kCompute, "optimizer/norm", m);
  for (std::size_t u = 0; u < role_.units.size(); ++u) {
    norm.in.push_back(step_gradients_.at(static_cast<std::int32_t>(u)));
  }
  norm.metrics = metrics_;
  add(std::move(norm));
  Op sum = op(OpKind::kReduceMetrics, Phase::kOptimizer, Lane::kFsdp, "optimizer/metrics", m);
  sum.group = kGroupIds.world;
  sum.metrics = metrics_;
  sum.host_sync = true;
  add(std::move(sum));
  if (plan_.policy.host_optimizer) {
    host_optimizer();
  } else {
    for (std::size_t u = 0; u < role_.units.size(); ++u) {
      const Unit& unit = role_.units[u];
      optimizer_step(static_cast<std::int32_t>(u), unit.moment1, unit.moment2);
    }
  }
  if (loads_ >= 0) update_bias();
}

void Lowering::optimizer_step(std::int32_t u, BufferId moment1, BufferId moment2) {
  const Unit& unit = role_.units[static_cast<std::size_t>(u)];
  Op o = op(OpKind::kOptimizerStep, Phase::kOptimizer, Lane::kCompute, unit.name + "/adamw",
            static_cast<std::int32_t>(shape_.micro_batches) - 1);
  o.unit = u;
  o.in = {step_gradients_.at(u), unit.shard, moment1, moment2};
  o.metrics = metrics_;
  o.deps = std::exchange(due_, {});
  add(std::move(o));
}

// One unit's moments come while another is updated and a third one's go back.
void Lowering::host_optimizer() {
  const std::int32_t m = static_cast<std::int32_t>(shape_.micro_batches) - 1;
  const auto count = static_cast<std::int32_t>(role_.units.size());
  std::vector<std::pair<BufferId, BufferId>> staged;
  std::vector<OpId> going, gone;  // copies of the unit before, and of the one before it
  const auto bring = [&](std::int32_t u) {
    const Unit unit = role_.units[static_cast<std::size_t>(u)];
    BufferId on_device[2];
    for (std::int32_t i = 0; i < 2; ++i) {
      const BufferId host = i == 0 ? unit.moment1 : unit.moment2;
      const std::string path = unit.name + "/moments";
      on_device[i] = buffer(path + (i == 0 ? "/1" : "/2"), BufferClass::kCommunication,
                            at(host).rows, 1, at(host).dtype);
      copy(OpKind::kCopyToDevice, Phase::kOptimizer, path, m, host, on_device[i], i);
    }
    staged.emplace_back(on_device[0], on_device[1]);
  };
  bring(0);
  for (std::int32_t u = 0; u < count; ++u) {
    if (u + 1 < count) bring(u + 1);
    const auto [moment1, moment2] = staged[static_cast<std::size_t>(u)];
    due_ = std::exchange(gone, std::exchange(going, {}));
    optimizer_step(u, moment1, moment2);
    const Unit unit = role_.units[static_cast<std::size_t>(u)];
    for (std::int32_t i = 0; i < 2; ++i) {
      going.push_back(copy(OpKind::kCopyToHost, Phase::kOptimizer, unit.name + "/moments", m,
                           i == 0 ? moment1 : moment2, i == 0 ? unit.moment1 : unit.moment2, i));
    }
  }
  Op join = op(OpKind::kJoin, Phase::kOptimizer, Lane::kCompute, "optimizer/join", m);
  join.deps = going;
  add(std::move(join));
}

void Lowering::update_bias() {
  Op o = op(OpKind::kUpdateBias, Phase::kOptimizer, Lane::kCompute, "optimizer/router_bias",
            static_cast<std::int32_t>(shape_.micro_batches) - 1);
  o.in = {loads_};
  for (const BufferId bias : biases_) {
    if (bias >= 0) o.updates.push_back(bias);
  }
  o.metrics = metrics_;
  add(std::move(o));
}

}  // namespace orrery
