// Lowering, units: gather ahead of use, reduce after the last use, accumulate.
#include <algorithm>
#include <utility>

#include "core/program/lowering.h"

namespace orrery {
namespace {

bool contains(const std::vector<std::int32_t>& units, std::int32_t unit) {
  return std::find(units.begin(), units.end(), unit) != units.end();
}

}  // namespace

void Lowering::gather(std::int32_t u, Phase phase, std::int32_t m) {
  const Unit& unit = role_.units[static_cast<std::size_t>(u)];
  const auto found = gathered_.find(u);
  if (unit.resident || (found != gathered_.end() && found->second >= 0)) return;
  const std::int32_t shards = program_.groups[static_cast<std::size_t>(unit.shard_group)].size;
  Op o = op(shards > 1 ? OpKind::kAllGather : OpKind::kUnshard, phase,
            shards > 1 ? Lane::kFsdp : Lane::kCompute, unit.name + "/gather", m);
  o.unit = u;
  o.group = unit.shard_group;
  o.in = {unit.shard};
  // A tied embedding may be gathered twice in one forward: for its rows and for the head.
  o.chunk = gathers_[{u, phase, m}]++;
  const BufferId out = buffer(o.path + "/" + name_of(phase) + "/mb." + std::to_string(m),
                              BufferClass::kGatheredParameter,
                              SizeExpr::constant(unit.shard_numel * shards), 1, shape_.compute);
  o.out = {out};
  gathered_[u] = out;
  add(std::move(o));
}

void Lowering::begin_segment() {
  const auto per_pass = static_cast<std::size_t>(2 * plan_.model.layers + 3);
  std::int64_t ahead = 0;  // buckets after the one in use
  for (std::size_t s = segment_; s < segments_.size(); ++s) {
    if (s > segment_ && segments_[s] != segments_[s - 1]) ++ahead;
    if (ahead > plan_.chunks.prefetch_depth) break;
    // A gather belongs to the pass and the phase that it serves. A unit at hand for an earlier
    // segment is skipped; if that segment drops it, a later begin_segment gathers it again.
    const bool backward = s % per_pass > static_cast<std::size_t>(plan_.model.layers) + 1;
    for (const std::int32_t u : segments_[s]) {
      gather(u, backward ? Phase::kBackward : Phase::kForward,
             static_cast<std::int32_t>(s / per_pass) * domino_);
    }
  }
  // What was copied away two segments ago may go once the next compute op has waited for it.
  std::vector<Copy> later;
  for (const Copy& c : copies_) {
    if (c.segment + 2 <= segment_) {
      due_.push_back(c.op);
    } else {
      later.push_back(c);
    }
  }
  copies_ = std::move(later);
}

void Lowering::end_segment() {
  const auto per_pass = static_cast<std::size_t>(2 * plan_.model.layers + 3);
  const bool forward = segment_ % per_pass <= static_cast<std::size_t>(plan_.model.layers);
  for (const std::int32_t u : segments_[segment_]) {
    // The last layer's parameters stay for its backward, which follows at once.
    bool soon = forward && kept_units_[static_cast<std::size_t>(u)];
    for (std::size_t s = segment_ + 1; s <= segment_ + 2 && s < segments_.size(); ++s) {
      soon = soon || contains(segments_[s], u);
    }
    if (!soon) gathered_[u] = -1;
  }
  flush_accumulates();
  ++segment_;
}

BufferId Lowering::gradient_of(std::int32_t u) {
  const auto found = gradients_.find(u);
  if (found != gradients_.end()) return found->second;
  const Unit& unit = role_.units[static_cast<std::size_t>(u)];
  const std::int32_t shards = program_.groups[static_cast<std::size_t>(unit.shard_group)].size;
  const BufferId b =
      buffer(unit.name + "/gradient/mb." + std::to_string(first_), BufferClass::kGradient,
             SizeExpr::constant(unit.shard_numel * shards), 1, unit.grad_dtype);
  gradients_[u] = b;
  return b;
}

// A bucket is reduced after the backward of its first layer, the last to add to it.
void Lowering::reduce_layer(std::int64_t layer) {
  const std::int32_t u = layer_units_[static_cast<std::size_t>(layer)];
  if (unit_layer_[static_cast<std::size_t>(u)] == layer) reduce(u);
}

void Lowering::reduce_experts(std::int64_t layer) {
  const std::int32_t u = expert_units_[static_cast<std::size_t>(layer)];
  for (std::int64_t i = unit_layer_[static_cast<std::size_t>(u)]; i < layer; ++i) {
    if (is_moe(i)) return;
  }
  reduce(u);
}

void Lowering::reduce(std::int32_t u) {
  const Unit& unit = role_.units[static_cast<std::size_t>(u)];
  const std::int32_t m = first_;
  const BufferId gradient = gradient_of(u);
  if (program_.groups[static_cast<std::size_t>(unit.shard_group)].size == 1) {
    accumulate(u, m, gradient);
    return;
  }
  Op o = op(OpKind::kReduceScatter, Phase::kBackward, Lane::kFsdp, unit.name + "/reduce", m);
  o.unit = u;
  o.group = unit.shard_group;
  o.in = {gradient};
  const BufferId reduced =
      buffer(unit.name + "/reduced/mb." + std::to_string(m), BufferClass::kCommunication,
             SizeExpr::constant(unit.shard_numel), 1, unit.grad_dtype);
  o.out = {reduced};
  add(std::move(o));
  pending_.push_back({u, m, reduced, segment_});
}

void Lowering::accumulate(std::int32_t u, std::int32_t m, BufferId reduced) {
  const Unit& unit = role_.units[static_cast<std::size_t>(u)];
  Op o = op(OpKind::kAccumulate, Phase::kBackward, Lane::kCompute, unit.name + "/accumulate", m);
  o.unit = u;
  o.in = {reduced};
  if (step_gradients_.find(u) == step_gradients_.end()) {
    step_gradients_[u] = buffer(unit.name + "/step_gradient", BufferClass::kGradient,
                                SizeExpr::constant(unit.shard_numel), 1, plan_.workload.master);
  }
  o.updates = {step_gradients_[u]};
  add(std::move(o));
  const bool last = m + domino_ == static_cast<std::int32_t>(shape_.micro_batches);
  const Group& replicas = program_.groups[static_cast<std::size_t>(unit.replicate_group)];
  if (!last || replicas.size == 1) return;
  Op sum = op(OpKind::kAllReduce, Phase::kBackward, Lane::kFsdp, unit.name + "/replicate", m);
  sum.unit = u;
  sum.group = unit.replicate_group;
  sum.updates = {step_gradients_[u]};
  add(std::move(sum));
}

// Accumulates what earlier segments reduced: a reduction has one segment of compute to hide in.
void Lowering::flush_accumulates() {
  std::vector<Pending> ready, later;
  for (const Pending& p : pending_) (p.segment < segment_ ? ready : later).push_back(p);
  pending_ = std::move(later);
  for (const Pending& p : ready) accumulate(p.unit, p.m, p.reduced);
}

}  // namespace orrery
