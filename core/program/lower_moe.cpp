// Lowering, the mixture of experts: router, count exchange, dispatch, experts, combine, merge.
// Routing (ids, order, counts) is saved, never recomputed; the collectives are.
#include <utility>

#include "core/program/lowering.h"

namespace orrery {

BufferId Lowering::exchange(std::int32_t m, std::int64_t layer, Phase phase, const char* name,
                            Direction direction, BufferId rows) {
  if (plan_.layout.ep == 1) return rows;
  const VarBase vars = vars_of(m, layer);
  Op o = op(OpKind::kAllToAllV, phase, Lane::kEp, layer_path(layer) + "/moe/" + name, m);
  o.vars = vars;
  o.group = kGroupIds.ep;
  o.direction = direction;
  o.in = {rows, state(layer).received};
  const SizeExpr n = direction == Direction::kDispatch
                         ? SizeExpr{0, 1, VarScope::kRoute, RouteVars::rows()}
                         : SizeExpr::constant(shape_.tokens() * plan_.model.top_k);
  const BufferId out = buffer(o.path + "/" + name_of(phase) + "/rows", BufferClass::kCommunication,
                              n, plan_.model.hidden, shape_.compute, vars);
  o.out = {out};
  add(std::move(o));
  return out;
}

void Lowering::balance(std::int32_t m, std::int64_t layer) {
  LayerState& s = state(layer);
  const Block& block = role_.blocks[static_cast<std::size_t>(block_ids_.balance)];
  const Value& prob_sum = block.values[static_cast<std::size_t>(block.inputs[0])];
  const std::string path = layer_path(layer) + "/moe/balance";
  s.d_prob_sum = value_buffer(path + "/mb." + std::to_string(m), prob_sum, vars_of(m), ".grad");
  call_loss({block_ids_.balance, path, Phase::kForward, m, vars_of(m, layer), {}},
            {s.prob_sum, s.counts}, {s.d_prob_sum, -1}, 0);
}

BufferId Lowering::moe_forward(std::int32_t m, std::int64_t layer, bool tape) {
  LayerState& s = state(layer);
  const std::string path = layer_path(layer) + "/moe/";
  const std::int32_t unit = layer_units_[static_cast<std::size_t>(layer)];
  const VarBase vars = vars_of(m, layer);
  s.router_block = block_ids_.router;
  const auto routed =
      call({block_ids_.router, path + "router", Phase::kForward, m, vars, {unit}}, {s.x1}, tape);
  s.rows = routed[0];
  s.weights = routed[1];
  s.prob_sum = routed[2];
  s.counts = routed[3];
  s.ids = routed[4];
  s.order = routed[5];
  s.expert_counts = routed[6];
  s.router_tape = routed[7];

  const bool balanced = block_ids_.balance >= 0;
  const bool global = plan_.workload.balance_scope == BalanceScope::kMicrobatchGlobal;
  if (balanced && global) {
    Op sum = op(OpKind::kAllReduce, Phase::kForward, Lane::kEp, path + "balance_counts", m);
    sum.group = kGroupIds.world;
    sum.updates = {s.counts};
    add(std::move(sum));
  }
  const bool exchanged = plan_.layout.ep > 1;
  Op counts = op(OpKind::kExchangeCounts, Phase::kForward, exchanged ? Lane::kEp : Lane::kCompute,
                 path + "counts", m);
  counts.vars = vars;
  counts.group = kGroupIds.ep;
  counts.host_sync = true;
  counts.in = {s.expert_counts};
  s.received =
      buffer(counts.path + "/mb." + std::to_string(m), BufferClass::kActivation,
             SizeExpr::constant(plan_.layout.ep), role_.route.local_experts, DType::kInt64);
  counts.out = {s.received};
  add(std::move(counts));
  if (balanced && !global) balance(m, layer);
  moe_experts(m, layer, Phase::kForward, tape);
  // Global counts have arrived by now: the collective hides behind the experts.
  if (balanced && global) balance(m, layer);
  const auto merged = call({block_ids_.merge, path + "merge", Phase::kForward, m, vars, {}},
                           {s.x1, s.merge_rows, s.weights, s.order}, tape);
  s.merge_tape = merged[1];
  return merged[0];
}

void Lowering::moe_experts(std::int32_t m, std::int64_t layer, Phase phase, bool tape) {
  LayerState& s = state(layer);
  const std::int32_t unit = expert_units_[static_cast<std::size_t>(layer)];
  s.expert_in = exchange(m, layer, phase, "dispatch", Direction::kDispatch, s.rows);
  const auto out = call({block_ids_.experts,
                         layer_path(layer) + "/moe/experts",
                         phase,
                         m,
                         vars_of(m, layer),
                         {unit},
                         s.received},
                        {s.expert_in}, tape);
  s.expert_out = out[0];
  s.experts_tape = out[1];
  s.merge_rows = exchange(m, layer, phase, "combine", Direction::kCombine, s.expert_out);
}

void Lowering::moe_recompute(std::int32_t m, std::int64_t layer) {
  LayerState& s = state(layer);
  const std::int32_t unit = layer_units_[static_cast<std::size_t>(layer)];
  s.router_block = block_ids_.router_replay;
  const auto routed = call({block_ids_.router_replay,
                            layer_path(layer) + "/moe/router",
                            Phase::kRecompute,
                            m,
                            vars_of(m, layer),
                            {unit}},
                           {s.x1, s.ids, s.order}, true);
  s.rows = routed[0];
  s.weights = routed[1];
  s.prob_sum = routed[2];
  s.router_tape = routed[3];
  moe_experts(m, layer, Phase::kRecompute, true);
  // Merge is not run again: its backward reads only its inputs.
  s.merge_tape = -1;
}

BufferId Lowering::moe_backward(std::int32_t m, std::int64_t layer, BufferId d_x2) {
  const LayerState& s = state(layer);
  const std::string path = layer_path(layer) + "/moe/";
  const VarBase vars = vars_of(m, layer);
  const std::int32_t unit = layer_units_[static_cast<std::size_t>(layer)];
  const std::int32_t experts = expert_units_[static_cast<std::size_t>(layer)];
  const std::vector<BufferId> merge_in = {s.x1, s.merge_rows, s.weights, s.order};
  const auto d_merge =
      call_backward({block_ids_.merge, path + "merge", Phase::kBackward, m, vars, {}}, {d_x2},
                    s.merge_tape, merge_in, {}, {});
  const BufferId d_out =
      exchange(m, layer, Phase::kBackward, "combine", Direction::kDispatch, d_merge[1]);
  const BufferId d_in = call_backward(
      {block_ids_.experts, path + "experts", Phase::kBackward, m, vars, {experts}, s.received},
      {d_out}, s.experts_tape, {s.expert_in}, {s.expert_out}, {})[0];
  reduce(experts, m);
  const BufferId d_rows =
      exchange(m, layer, Phase::kBackward, "dispatch", Direction::kCombine, d_in);
  std::vector<BufferId> grads = {d_rows, d_merge[2], s.d_prob_sum};
  std::vector<BufferId> outputs = {s.rows, s.weights, s.prob_sum};
  std::vector<BufferId> inputs = {s.x1};
  if (s.router_block == block_ids_.router) {
    grads.resize(7, -1);
    outputs.insert(outputs.end(), {s.counts, s.ids, s.order, s.expert_counts});
  } else {
    inputs.insert(inputs.end(), {s.ids, s.order});
  }
  // x1 feeds the router and the residual of merge: the second gradient seeds the first.
  return call_backward({s.router_block, path + "router", Phase::kBackward, m, vars, {unit}}, grads,
                       s.router_tape, inputs, outputs, {d_merge[0]})[0];
}

}  // namespace orrery
