// Router, exchange order, experts and their sums, for both ways that rows reach experts: each row
// to the ranks of the experts it chose, or every token to every rank of the expert group.
#include "core/models/moe.h"

#include <utility>

#include "core/models/builder.h"

namespace orrery {
namespace {

constexpr const char* kUnit = "layer";

// Sequences over which the balancing loss sums expert counts.
std::int64_t balance_rows(const BlockShape& s) {
  return s.balance_scope == BalanceScope::kSequence ? s.sequences : 1;
}

// Rows that came to this rank's experts (of one part): how many depends on routing.
SizeExpr routed_rows() {
  return {0, 1, VarScope::kRoute, RouteVars::rows()};
}

std::int64_t group_rows(const BlockShape& s) {
  return s.ep * s.tokens();
}

// Rows of padding at the end of a sequence enter no statistic.
void mask_padding(const BlockShape& s, Prim& p) {
  if (s.valid_tokens == s.sequence_tokens) return;
  p.valid_tokens = s.valid_tokens;
  p.sequence_tokens = s.sequence_tokens / s.sp;
}

class RouterBuilder {
 public:
  // With `replay` the choice of experts (ids, order) is an input: routing is never recomputed.
  RouterBuilder(const Model& m, const BlockShape& s, bool replay)
      : m_(m),
        s_(s),
        replay_(replay),
        slots_(s.tokens() * m.top_k),
        b_(replay ? "router_replay" : "router", rows_of(s.tokens()), s.compute,
           gradient_dtype(m, s, kUnit)) {}

  Block build() {
    const ValueId x1 = b_.input("x1", m_.hidden);
    if (!replay_ && m_.router_bias) bias_ = b_.statistic_input("bias", rows_of(1), m_.experts);
    if (replay_) ids_ = b_.integer_input("ids", rows_of(s_.tokens()), m_.top_k);
    if (replay_ && !s_.gather_dispatch) order_ = b_.integer_input("order", rows_of(slots_), 1);
    const ValueId n = b_.norm("normed", x1, "post_norm", m_.hidden, m_.hidden, m_.rms_eps);
    const ValueId logits = b_.linear("logits", n, "router", m_.experts, m_.hidden);
    choose(logits);
    if (!replay_) sort();
    std::vector<ValueId> outputs;
    if (!s_.gather_dispatch) {
      const ValueId rows = b_.value("rows", rows_of(slots_), m_.hidden);
      b_.prim(PrimKind::kPermute, {n, order_}, {rows}).top_k = m_.top_k;
      outputs.push_back(rows);
    }
    outputs.insert(outputs.end(), {weights_, prob_sum_});
    if (!replay_) {
      outputs.insert(outputs.end(), {counts_, ids_});
      if (!s_.gather_dispatch) outputs.push_back(order_);
      outputs.push_back(expert_counts_);
    }
    if (s_.gather_dispatch || m_.shared_ffn > 0) outputs.push_back(n);
    if (s_.z_loss > 0) outputs.push_back(z_loss(logits));
    return b_.finish(std::move(outputs));
  }

 private:
  void choose(ValueId logits) {
    weights_ = b_.value("weights", m_.top_k);
    prob_sum_ = b_.statistic("prob_sum", rows_of(balance_rows(s_)), m_.experts, true);
    if (!replay_) {
      counts_ = b_.statistic("counts", rows_of(balance_rows(s_)), m_.experts, false);
      ids_ = b_.integers("ids", rows_of(s_.tokens()), m_.top_k);
    }
    std::vector<ValueId> in = {logits}, out = {weights_, prob_sum_};
    if (replay_) in.push_back(ids_);
    if (bias_ >= 0) in.push_back(bias_);
    if (!replay_) out.insert(out.end(), {ids_, counts_});
    Prim& top = b_.prim(replay_ ? PrimKind::kTopKReplay : PrimKind::kTopK, in, out);
    top.top_k = m_.top_k;
    top.experts = m_.experts;
    top.sequences = balance_rows(s_);
    top.normalize = m_.norm_topk;
    top.sigmoid = m_.sigmoid_router;
    top.groups = m_.expert_groups;
    top.top_groups = m_.top_groups;
    top.scalar = m_.routed_scale == 1 ? 0 : m_.routed_scale;
    mask_padding(s_, top);
  }

  void sort() {
    order_ = b_.integers("order", rows_of(slots_), 1);
    expert_counts_ = b_.integers("expert_counts", rows_of(m_.experts), 1);
    Prim& sort = b_.prim(PrimKind::kSortByExpert, {ids_}, {order_, expert_counts_});
    sort.experts = m_.experts;
    sort.top_k = m_.top_k;
    if (s_.exchange_parts == 1) return;
    sort.parts = s_.exchange_parts;
    sort.peers = s_.ep;
  }

  // Mean over the tokens of the step, summed over layers (ST-MoE, arXiv 2202.08906, equation 5).
  ValueId z_loss(ValueId logits) {
    const ValueId loss = b_.statistic("z_loss", rows_of(1), 1, true);
    Prim& p = b_.prim(PrimKind::kZLoss, {logits}, {loss});
    p.scalar = s_.z_loss / static_cast<double>(s_.global_sequences * s_.valid_tokens);
    mask_padding(s_, p);
    return loss;
  }

  const Model& m_;
  const BlockShape& s_;
  bool replay_;
  std::int64_t slots_;
  Builder b_;
  ValueId bias_ = -1, ids_ = -1, order_ = -1, weights_ = -1, prob_sum_ = -1, counts_ = -1,
          expert_counts_ = -1;
};

Block select_block(const Model& m, const BlockShape& s, bool replay) {
  const SizeExpr group = rows_of(group_rows(s));
  Builder b(replay ? "select_replay" : "select", routed_rows(), s.compute, s.compute);
  const ValueId normed = b.input("normed", group, m.hidden);
  ValueId order = -1;
  if (replay) {
    order = b.integer_input("order", routed_rows(), 1);
  } else {
    const ValueId ids = b.integer_input("ids", group, m.top_k);
    order = b.integers("order", routed_rows(), 1);
    Prim& sort = b.prim(PrimKind::kSelectSort, {ids}, {order});
    sort.experts = m.experts / s.ep;
    sort.top_k = m.top_k;
  }
  const ValueId rows = b.value("rows", m.hidden);
  b.prim(PrimKind::kSelectRows, {normed, order}, {rows}).top_k = m.top_k;
  if (replay) return b.finish({rows});
  return b.finish({rows, order});
}

Block experts_block(const Model& m, const BlockShape& s) {
  const std::int64_t local = m.experts / s.ep / s.exchange_parts;
  // Without exchange and parts every row stays here.
  const bool all_here = s.ep == 1 && s.exchange_parts == 1 && !s.gather_dispatch;
  const bool by_source = s.ep > 1 && !s.gather_dispatch;
  const SizeExpr rows = all_here ? rows_of(s.tokens() * m.top_k) : routed_rows();
  Builder b("experts", rows, s.compute, gradient_dtype(m, s, std::string(kUnit) + "/experts"));
  ValueId x = b.input("rows", m.hidden);
  if (by_source) {
    const ValueId sorted = b.value("by_expert", m.hidden);
    b.prim(PrimKind::kToExpertMajor, {x}, {sorted}).experts = local;
    x = sorted;
  }
  const ValueId gate = b.grouped("gate", x, "experts.gate_proj", local, m.moe_ffn, m.hidden);
  const ValueId up = b.grouped("up", x, "experts.up_proj", local, m.moe_ffn, m.hidden);
  const ValueId a = b.swiglu(gate, up, m.moe_ffn);
  ValueId y = b.grouped("down", a, "experts.down_proj", local, m.hidden, m.moe_ffn);
  if (by_source) {
    const ValueId back = b.value("by_source", m.hidden);
    b.prim(PrimKind::kToSourceMajor, {y}, {back}).experts = local;
    y = back;
  }
  return b.finish({y});
}

Block spread_block(const Model& m, const BlockShape& s) {
  Builder b("spread", rows_of(group_rows(s)), s.compute, s.compute);
  const ValueId rows = b.input("rows", routed_rows(), m.hidden);
  const ValueId weights = b.input("weights", m.top_k);
  const ValueId order = b.integer_input("order", routed_rows(), 1);
  const ValueId y = b.value("partial", m.hidden);
  b.prim(PrimKind::kSpreadRows, {rows, weights, order}, {y}).top_k = m.top_k;
  return b.finish({y});
}

Block shared_block(const Model& m, const BlockShape& s) {
  Builder b("shared", rows_of(s.tokens()), s.compute, gradient_dtype(m, s, kUnit));
  const ValueId n = b.input("normed", m.hidden);
  const ValueId gate = b.linear("gate", n, "shared.gate_proj", m.shared_ffn, m.hidden);
  const ValueId up = b.linear("up", n, "shared.up_proj", m.shared_ffn, m.hidden);
  const ValueId a = b.swiglu(gate, up, m.shared_ffn);
  return b.finish({b.linear("down", a, "shared.down_proj", m.hidden, m.shared_ffn)});
}

Block merge_block(const Model& m, const BlockShape& s) {
  const SizeExpr slots = rows_of(s.tokens() * m.top_k);
  Builder b("merge", rows_of(s.tokens()), s.compute, s.compute);
  const ValueId x1 = b.input("x1", m.hidden);
  ValueId y = -1, rows = -1, weights = -1, order = -1, shared = -1;
  if (s.gather_dispatch) {
    y = b.input("y", m.hidden);
  } else {
    rows = b.input("rows", slots, m.hidden);
    weights = b.input("weights", m.top_k);
    order = b.integer_input("order", slots, 1);
  }
  if (m.shared_ffn > 0) shared = b.input("shared", m.hidden);
  if (!s.gather_dispatch) {
    y = b.value("merged", m.hidden);
    b.prim(PrimKind::kUnpermute, {rows, weights, order}, {y}).top_k = m.top_k;
  }
  if (shared >= 0) y = b.add("with_shared", y, shared, m.hidden);
  return b.finish({b.add("x2", x1, y, m.hidden)});
}

// Mean over sequences (or micro-batches of the world) of coef * E * sum_e f_e P_e, with f_e the
// share of (token, slot) picks and P_e the mean probability; summed over layers.
Block balance_block(const Model& m, const BlockShape& s) {
  const DType stats = stat_dtype(s.compute);
  Builder b("balance", rows_of(balance_rows(s)), stats, stats);
  const ValueId prob_sum = b.input("prob_sum", m.experts);
  const ValueId counts = b.statistic_input("counts", rows_of(balance_rows(s)), m.experts);
  const bool by_sequence = s.balance_scope == BalanceScope::kSequence;
  const auto group_tokens =
      static_cast<double>(by_sequence ? s.valid_tokens : s.sequences * s.valid_tokens * s.dp);
  const auto groups = static_cast<double>(by_sequence ? s.global_sequences : s.micro_batches);
  const ValueId loss = b.block.add("loss", rows_of(1), 1, stats);
  Prim& p = b.prim(PrimKind::kBalanceLoss, {prob_sum, counts}, {loss});
  p.scalar = m.balance_coefficient * static_cast<double>(m.experts) /
             (static_cast<double>(m.top_k) * group_tokens * group_tokens * groups);
  p.sequences = balance_rows(s);
  p.experts = m.experts;
  return b.finish({loss});
}

}  // namespace

void fill_moe_blocks(const Model& m, const BlockShape& s, ModelBlocks& blocks) {
  blocks.router = RouterBuilder(m, s, false).build();
  blocks.router_replay = RouterBuilder(m, s, true).build();
  if (s.gather_dispatch) {
    blocks.select = select_block(m, s, false);
    blocks.select_replay = select_block(m, s, true);
    blocks.spread = spread_block(m, s);
  }
  blocks.experts = experts_block(m, s);
  if (m.shared_ffn > 0) blocks.shared = shared_block(m, s);
  blocks.merge = merge_block(m, s);
  if (m.balance_coefficient > 0) blocks.balance = balance_block(m, s);
}

}  // namespace orrery
