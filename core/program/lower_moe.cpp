// Lowering, the mixture of experts forward: router, count exchange, dispatch, experts, combine,
// merge. Routing (ids, order, counts) is saved, never recomputed; the collectives are.
//
// An exchange may go in parts, each with a group of the local experts: one part's rows travel while
// another part computes. An expert's rows are all in one part, so its product stays whole.
#include <utility>

#include "core/program/lowering.h"

namespace orrery {

// `out`: the buffer that earlier parts have begun, or -1.
BufferId Lowering::exchange(std::int32_t j, std::int64_t layer, Phase phase, const char* name,
                            Direction direction, BufferId rows, std::int32_t part, BufferId out) {
  if (plan_.layout.ep == 1) return rows;
  const std::int32_t m = micro_batch(j);
  const VarBase vars = vars_of(m, layer, part);
  Op o = op(OpKind::kAllToAllV, phase, Lane::kEp, layer_path(layer) + "/moe/" + name, m);
  o.vars = vars;
  o.group = kGroupIds.ep;
  o.direction = direction;
  o.chunk = part;
  o.parts = parts_;
  o.in = {rows, state(j, layer).received};
  const bool dispatch = direction == Direction::kDispatch;
  if (out < 0) {
    const SizeExpr n = dispatch ? SizeExpr{0, 1, VarScope::kRoute, RouteVars::rows()}
                                : SizeExpr::constant(shape_.tokens() * plan_.model.top_k);
    const std::string suffix = parts_ > 1 && dispatch ? "/part." + std::to_string(part) : "";
    out = buffer(o.path + "/" + name_of(phase) + "/rows" + suffix, BufferClass::kCommunication, n,
                 plan_.model.hidden, shape_.compute, vars);
  }
  o.out = {out};
  add(std::move(o));
  return out;
}

// Global or shared counts arrive while the experts run: the loss over them waits until then.
bool Lowering::balances_late() const {
  return plan_.workload.balance_scope == BalanceScope::kMicrobatchGlobal || shape_.sp > 1;
}

void Lowering::balance(std::int32_t j, std::int64_t layer) {
  LayerState& s = state(j, layer);
  const std::int32_t m = micro_batch(j);
  const Block& b = block(block_ids_.balance);
  const Value& prob_sum = b.values[static_cast<std::size_t>(b.inputs[0])];
  const std::string path = layer_path(layer) + "/moe/balance";
  s.d_prob_sum = value_buffer(path + "/mb." + std::to_string(m), prob_sum, vars_of(m), ".grad");
  call_loss({block_ids_.balance, path, Phase::kForward, m, vars_of(m, layer), {}},
            {s.prob_sum, s.counts}, {s.d_prob_sum, -1}, 0);
}

void Lowering::route(std::int32_t j, std::int64_t layer, bool tape) {
  LayerState& s = state(j, layer);
  s.router_block = block_ids_.router;
  BlockCall c = layer_call(block_ids_.router, j, layer, "/moe/router", Phase::kForward);
  c.adds_loss = shape_.z_loss > 0;
  std::vector<BufferId> in = {s.x1};
  const BufferId bias = biases_[static_cast<std::size_t>(layer)];
  if (bias >= 0) in.push_back(bias);
  const auto out = call(c, in, tape);
  auto next = out.begin();
  if (!gathers()) s.rows = *next++;
  s.weights = *next++;
  s.prob_sum = *next++;
  s.counts = *next++;
  s.ids = *next++;
  if (!gathers()) s.order = *next++;
  s.expert_counts = *next++;
  if (gathers() || block_ids_.shared >= 0) s.normed = *next++;
  if (shape_.z_loss > 0) s.z_loss = *next++;
  s.router_tape = out.back();
  if (loads_ < 0) return;
  Op sum = op(OpKind::kAddLoads, Phase::kForward, Lane::kCompute, layer_path(layer) + "/moe/loads",
              micro_batch(j));
  sum.in = {s.counts};
  sum.updates = {loads_};
  for (std::int64_t i = 0; i < layer; ++i) sum.row_begin += is_moe(i) ? 1 : 0;
  sum.row_end = sum.row_begin + 1;
  add(std::move(sum));
}

void Lowering::count(std::int32_t j, std::int64_t layer) {
  LayerState& s = state(j, layer);
  const std::int32_t m = micro_batch(j);
  const std::string path = layer_path(layer) + "/moe/";
  const bool balanced = block_ids_.balance >= 0;
  if (balanced && balances_late()) {
    const bool global = plan_.workload.balance_scope == BalanceScope::kMicrobatchGlobal;
    Op sum = op(OpKind::kAllReduce, Phase::kForward, global ? Lane::kEp : Lane::kSp,
                path + "balance_counts", m);
    sum.group = global ? kGroupIds.world : kGroupIds.sp;
    sum.updates = {s.counts};
    add(std::move(sum));
  }
  const bool exchanged = plan_.layout.ep > 1;
  Op counts = op(OpKind::kExchangeCounts, Phase::kForward, exchanged ? Lane::kEp : Lane::kCompute,
                 path + "counts", m);
  counts.vars = vars_of(m, layer);
  counts.group = kGroupIds.ep;
  counts.host_sync = true;
  counts.in = {s.expert_counts};
  counts.parts = parts_;
  s.received = buffer(counts.path + "/mb." + std::to_string(m), BufferClass::kActivation,
                      SizeExpr::constant(plan_.layout.ep),
                      std::int64_t{role_.route.local_experts} * parts_, DType::kInt64);
  counts.out = {s.received};
  add(std::move(counts));
  if (balanced && !balances_late()) balance(j, layer);
}

void Lowering::replay(std::int32_t j, std::int64_t layer) {
  LayerState& s = state(j, layer);
  s.router_block = block_ids_.router_replay;
  std::vector<BufferId> in = {s.x1, s.ids};
  if (!gathers()) in.push_back(s.order);
  const auto out = call(
      layer_call(block_ids_.router_replay, j, layer, "/moe/router", Phase::kRecompute), in, true);
  auto next = out.begin();
  if (!gathers()) s.rows = *next++;
  s.weights = *next++;
  s.prob_sum = *next++;
  if (gathers() || block_ids_.shared >= 0) s.normed = *next++;
  if (shape_.z_loss > 0) s.z_loss = *next++;
  s.router_tape = out.back();
}

void Lowering::dispatch(std::int32_t j, std::int64_t layer, Phase phase) {
  if (gathers()) {
    gather_dispatch(j, layer, phase);
    return;
  }
  LayerState& s = state(j, layer);
  s.parts.resize(static_cast<std::size_t>(parts_));
  for (std::int32_t p = 0; p < parts_; ++p) {
    s.parts[static_cast<std::size_t>(p)].expert_in =
        exchange(j, layer, phase, "dispatch", Direction::kDispatch, s.rows, p, -1);
  }
}

void Lowering::shared(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  if (block_ids_.shared < 0) return;
  LayerState& s = state(j, layer);
  const auto out =
      call(layer_call(block_ids_.shared, j, layer, "/moe/shared", phase), {s.normed}, tape);
  s.shared_out = out[0];
  s.shared_tape = out[1];
}

void Lowering::moe_begin(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  if (phase == Phase::kForward) {
    route(j, layer, tape);
    count(j, layer);
  } else {
    replay(j, layer);
  }
  dispatch(j, layer, phase);
  shared(j, layer, phase, tape);  // while the rows travel
}

void Lowering::experts(std::int32_t j, std::int64_t layer, Phase phase, bool tape,
                       std::int32_t part) {
  LayerState& s = state(j, layer);
  PartState& p = s.parts[static_cast<std::size_t>(part)];
  BlockCall c = layer_call(block_ids_.experts, j, layer, "/moe/experts", phase);
  c.vars = vars_of(micro_batch(j), layer, part);
  c.units = {expert_units_[static_cast<std::size_t>(layer)]};
  c.received = s.received;
  c.part = part;
  c.parts = parts_;
  const auto out = call(c, {p.expert_in}, tape);
  p.expert_out = out[0];
  p.tape = out[1];
}

void Lowering::combine(std::int32_t j, std::int64_t layer, Phase phase, std::int32_t part) {
  LayerState& s = state(j, layer);
  const BufferId begun = part == 0 ? -1 : s.merge_rows;
  s.merge_rows = exchange(j, layer, phase, "combine", Direction::kCombine,
                          s.parts[static_cast<std::size_t>(part)].expert_out, part, begun);
}

void Lowering::moe_end(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  if (gathers()) {
    select(j, layer, phase, phase == Phase::kRecompute || !again_ffn(layer));
    experts(j, layer, phase, tape, 0);
    // Backward reads the rows and weights that went in, not the sums that came out.
    if (phase == Phase::kForward) spread(j, layer, phase, !again_ffn(layer));
  } else {
    for (std::int32_t p = 0; p < parts_; ++p) {
      experts(j, layer, phase, tape, p);
      combine(j, layer, phase, p);
    }
  }
  const bool balanced = block_ids_.balance >= 0 && phase == Phase::kForward;
  if (balanced && balances_late()) balance(j, layer);
  // Merge is not run again: its backward reads only its inputs.
  if (phase == Phase::kRecompute) state(j, layer).merge_tape = -1;
}

void Lowering::merge(std::int32_t j, std::int64_t layer, bool tape) {
  LayerState& s = state(j, layer);
  std::vector<BufferId> in = {s.x1, s.merge_rows};
  if (!gathers()) in.insert(in.end(), {s.weights, s.order});
  if (block_ids_.shared >= 0) in.push_back(s.shared_out);
  const auto out =
      call(layer_call(block_ids_.merge, j, layer, "/moe/merge", Phase::kForward, false), in, tape);
  s.x2 = out[0];
  s.merge_tape = out[1];
}

}  // namespace orrery
