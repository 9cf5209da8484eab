// Lowering, the dispatcher that sends every token to every rank of the expert group: each rank
// selects the rows of its own experts, and partial sums go back by reduce-scatter. Traffic does not
// depend on routing, only the rows that are computed do.
#include "core/program/lowering.h"

namespace orrery {

BufferId Lowering::gather_rows(std::int32_t j, std::int64_t layer, Phase phase, const char* name,
                               BufferId rows) {
  Op o = op(OpKind::kAllGatherRows, phase, Lane::kEp, layer_path(layer) + "/moe/" + name,
            micro_batch(j));
  o.group = kGroupIds.ep;
  return move_rows(std::move(o), rows, at(rows).rows * plan_.layout.ep, "");
}

BufferId Lowering::scatter_rows(std::int32_t j, std::int64_t layer, Phase phase, const char* name,
                                BufferId rows) {
  Op o = op(OpKind::kReduceScatterRows, phase, Lane::kEp, layer_path(layer) + "/moe/" + name,
            micro_batch(j));
  o.group = kGroupIds.ep;
  return move_rows(std::move(o), rows, SizeExpr::constant(at(rows).rows.c0 / plan_.layout.ep), "");
}

void Lowering::gather_dispatch(std::int32_t j, std::int64_t layer, Phase phase) {
  LayerState& s = state(j, layer);
  s.normed_all = gather_rows(j, layer, phase, "gather_tokens", s.normed);
  s.weights_all = gather_rows(j, layer, phase, "gather_weights", s.weights);
  // Which experts the tokens of all ranks chose is kept as the order of the local rows.
  if (phase == Phase::kForward) s.ids_all = gather_rows(j, layer, phase, "gather_ids", s.ids);
}

void Lowering::select(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  LayerState& s = state(j, layer);
  const bool first = phase == Phase::kForward;
  s.select_block = first ? block_ids_.select : block_ids_.select_replay;
  BlockCall c = layer_call(s.select_block, j, layer, "/moe/select", phase, false);
  if (first) c.received = s.received;
  const auto out = call(c, {s.normed_all, first ? s.ids_all : s.local_order}, tape);
  s.parts.resize(1);
  s.parts[0].expert_in = out[0];
  if (first) s.local_order = out[1];
  s.select_tape = out.back();
}

void Lowering::spread(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  LayerState& s = state(j, layer);
  const auto out = call(layer_call(block_ids_.spread, j, layer, "/moe/spread", phase, false),
                        {s.parts[0].expert_out, s.weights_all, s.local_order}, tape);
  s.spread_out = out[0];
  s.spread_tape = out[1];
  s.merge_rows = scatter_rows(j, layer, phase, "scatter_tokens", out[0]);
}

void Lowering::spread_backward(std::int32_t j, std::int64_t layer) {
  const LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  const auto d =
      call_backward(layer_call(block_ids_.spread, j, layer, "/moe/spread", Phase::kBackward, false),
                    {g.d_combined}, s.spread_tape,
                    {s.parts[0].expert_out, s.weights_all, s.local_order}, {s.spread_out}, {});
  g.d_out[0] = d[0];
  g.d_weights_all = d[1];
}

void Lowering::select_backward(std::int32_t j, std::int64_t layer) {
  const LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  BlockCall c = layer_call(s.select_block, j, layer, "/moe/select", Phase::kBackward, false);
  const bool first = s.select_block == block_ids_.select;
  if (first) c.received = s.received;
  std::vector<BufferId> grads = {g.d_in[0]}, outputs = {s.parts[0].expert_in};
  if (first) {
    grads.push_back(-1);
    outputs.push_back(s.local_order);
  }
  const auto d = call_backward(c, grads, s.select_tape,
                               {s.normed_all, first ? s.ids_all : s.local_order}, outputs, {});
  g.d_rows = scatter_rows(j, layer, Phase::kBackward, "gather_tokens", d[0]);
  g.d_weights = scatter_rows(j, layer, Phase::kBackward, "gather_weights", g.d_weights_all);
}

}  // namespace orrery
