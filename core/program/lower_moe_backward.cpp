// Lowering, the mixture of experts backward: the forward's exchanges the other way round.
#include <utility>

#include "core/program/lowering.h"

namespace orrery {

void Lowering::merge_backward(std::int32_t j, std::int64_t layer) {
  const LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  std::vector<BufferId> in = {s.x1, s.merge_rows};
  if (!gathers()) in.insert(in.end(), {s.weights, s.order});
  if (block_ids_.shared >= 0) in.push_back(s.shared_out);
  const auto d =
      call_backward(layer_call(block_ids_.merge, j, layer, "/moe/merge", Phase::kBackward, false),
                    {g.d_x2}, s.merge_tape, in, {s.x2}, {});
  g.d_x1 = d[0];
  if (!gathers()) g.d_weights = d[2];
  if (block_ids_.shared >= 0) g.d_shared = d.back();
  g.d_out.assign(static_cast<std::size_t>(parts_), -1);
  g.d_in.assign(static_cast<std::size_t>(parts_), -1);
  g.d_rows = -1;
  if (gathers()) {
    g.d_combined = gather_rows(j, layer, Phase::kBackward, "scatter_tokens", d[1]);
    return;
  }
  for (std::int32_t p = 0; p < parts_; ++p) {
    g.d_out[static_cast<std::size_t>(p)] =
        exchange(j, layer, Phase::kBackward, "combine", Direction::kDispatch, d[1], p, -1);
  }
}

void Lowering::experts_backward(std::int32_t j, std::int64_t layer, std::int32_t part) {
  LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  if (gathers()) spread_backward(j, layer);
  if (again_experts(layer)) experts(j, layer, Phase::kRecompute, true, part);
  const PartState& p = s.parts[static_cast<std::size_t>(part)];
  BlockCall c = layer_call(block_ids_.experts, j, layer, "/moe/experts", Phase::kBackward);
  c.vars = vars_of(micro_batch(j), layer, part);
  c.units = {expert_units_[static_cast<std::size_t>(layer)]};
  c.received = s.received;
  c.part = part;
  c.parts = parts_;
  g.d_in[static_cast<std::size_t>(part)] = call_backward(
      c, {g.d_out[static_cast<std::size_t>(part)]}, p.tape, {p.expert_in}, {p.expert_out}, {})[0];
  if (j + 1 == domino_ && part + 1 == parts_) reduce_experts(layer);
  if (gathers()) {
    select_backward(j, layer);
    return;
  }
  g.d_rows = exchange(j, layer, Phase::kBackward, "dispatch", Direction::kCombine,
                      g.d_in[static_cast<std::size_t>(part)], part, g.d_rows);
}

// The gradient of the normed tokens: of the experts shared by all, and of the dispatch.
BufferId Lowering::shared_backward(std::int32_t j, std::int64_t layer, BufferId d_normed) {
  if (block_ids_.shared < 0) return d_normed;
  const LayerState& s = state(j, layer);
  return call_backward(layer_call(block_ids_.shared, j, layer, "/moe/shared", Phase::kBackward),
                       {gradients(j).d_shared}, s.shared_tape, {s.normed}, {s.shared_out},
                       {d_normed})[0];
}

void Lowering::router_backward(std::int32_t j, std::int64_t layer) {
  const LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  const bool normed = gathers() || block_ids_.shared >= 0;
  const BufferId d_normed =
      normed ? shared_backward(j, layer, gathers() ? g.d_rows : -1) : BufferId{-1};
  const bool first = s.router_block == block_ids_.router;
  std::vector<BufferId> grads, outputs, inputs = {s.x1};
  const auto output = [&](BufferId out, BufferId grad) {
    outputs.push_back(out);
    grads.push_back(grad);
  };
  if (!gathers()) output(s.rows, g.d_rows);
  output(s.weights, g.d_weights);
  output(s.prob_sum, s.d_prob_sum);
  if (first) {
    output(s.counts, -1);
    output(s.ids, -1);
    if (!gathers()) output(s.order, -1);
    output(s.expert_counts, -1);
    const BufferId bias = biases_[static_cast<std::size_t>(layer)];
    if (bias >= 0) inputs.push_back(bias);
  } else {
    inputs.push_back(s.ids);
    if (!gathers()) inputs.push_back(s.order);
  }
  if (normed) output(s.normed, d_normed);
  if (shape_.z_loss > 0) output(s.z_loss, -1);
  // x1 feeds the router and the residual of merge: the second gradient seeds the first.
  g.d_x1 = call_backward(layer_call(s.router_block, j, layer, "/moe/router", Phase::kBackward),
                         grads, s.router_tape, inputs, outputs, {g.d_x1})[0];
}

}  // namespace orrery
