// Cases of what ranks that share sequences or experts do, and of the routers of other families.
#include <algorithm>

#include "tests/engine/primitives_builder.h"

namespace orrery::engine {
namespace {

ValueId bias(Builder& b) {
  Matrix m(1, b.z.experts);
  std::normal_distribution<double> normal(0, 0.5);
  for (double& x : m.data) x = normal(b.rng());
  const ValueId v = b.given("bias", SizeExpr::constant(1), m, b.stat());
  b.c.block.values[static_cast<std::size_t>(v)].needs_grad = false;
  return v;
}

// The last primitive, to set attributes on.
Prim& last(Builder& b) {
  return b.c.block.prims.back();
}

// Leaves out the rows of each sequence from a random position on: of all ranks', so that a rank may
// have no padding, or nothing else.
void pad(Builder& b) {
  last(b).sequence_tokens = b.z.sequence_tokens;
  last(b).valid_tokens = b.pick(1, b.z.sequence_tokens * b.z.sp);
}

void sigmoid_router(Builder& b, bool normalize) {
  last(b).sigmoid = true;
  last(b).normalize = normalize;
  last(b).scalar = 2.5;
}

std::vector<ValueId> top_k_sigmoid(Builder& b) {
  const auto out = b.top_k(b.input("logits", b.tokens(), b.z.experts), true);
  last(b).in.push_back(bias(b));
  sigmoid_router(b, true);
  return out;
}

std::vector<ValueId> top_k_sigmoid_plain(Builder& b) {
  const auto out = b.top_k(b.input("logits", b.tokens(), b.z.experts), false);
  sigmoid_router(b, false);
  return out;
}

std::vector<ValueId> top_k_groups(Builder& b) {
  const auto out = top_k_sigmoid(b);
  last(b).groups = b.z.groups;
  last(b).top_groups = b.pick(std::min<std::int64_t>(2, b.z.groups), b.z.groups);
  pad(b);
  return out;
}

std::vector<ValueId> top_k_groups_softmax(Builder& b) {
  const auto out = b.top_k(b.input("logits", b.tokens(), b.z.experts), true);
  last(b).groups = b.z.groups;
  last(b).top_groups = std::min<std::int64_t>(2, b.z.groups);
  return out;
}

// The balance over the micro-batch: padding of several sequences, one row of sums.
std::vector<ValueId> top_k_padded(Builder& b) {
  Block& block = b.c.block;
  const auto out = b.top_k(b.input("logits", b.tokens(), b.z.experts), true);
  pad(b);
  last(b).sequences = 1;
  for (const ValueId v : {out[1], out[3]}) {
    block.values[static_cast<std::size_t>(v)].rows = SizeExpr::constant(1);
  }
  return out;
}

std::vector<ValueId> top_k_replay_sigmoid(Builder& b) {
  const ValueId logits = b.input("logits", b.tokens(), b.z.experts);
  const ValueId ids = b.given("ids", b.tokens(), random_ids(b, b.z.tokens()), DType::kInt64);
  const auto out = b.top_k(logits, true);
  last(b).kind = PrimKind::kTopKReplay;
  last(b).in.push_back(ids);
  last(b).out.resize(2);
  b.c.block.values.resize(static_cast<std::size_t>(out[2]));
  sigmoid_router(b, true);
  pad(b);
  return {out[0], out[1]};
}

std::vector<ValueId> z_loss_of(Builder& b, ValueId logits) {
  const ValueId loss = b.c.block.add("z_loss", SizeExpr::constant(1), 1, b.stat());
  b.c.block.prims.push_back(
      {.kind = PrimKind::kZLoss, .in = {logits}, .out = {loss}, .scalar = 0.02});
  return {loss};
}

std::vector<ValueId> z_loss(Builder& b) {
  return z_loss_of(b, b.input("logits", b.tokens(), b.z.experts));
}

std::vector<ValueId> z_loss_padded(Builder& b) {
  const auto out = z_loss(b);
  pad(b);
  return out;
}

std::vector<ValueId> sort_parts(Builder& b) {
  const auto out = b.sort(b.given("ids", b.tokens(), random_ids(b, b.z.tokens()), DType::kInt64));
  last(b).parts = 2;
  last(b).peers = b.z.peers;
  return out;
}

// Draws which experts are local and says what rows they have.
void localise(Builder& b, const Matrix& ids) {
  const std::int64_t local = b.pick(1, b.z.experts), first = b.pick(0, b.z.experts - local);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(local), 0);
  for (const double id : ids.data) {
    const auto e = static_cast<std::int64_t>(id) - first;
    if (e >= 0 && e < local) ++rows[static_cast<std::size_t>(e)];
  }
  b.c.context.first_expert = first;
  b.route(std::move(rows));
}

std::vector<ValueId> select_sort(Builder& b) {
  const Matrix m = random_ids(b, b.count(b.gathered_rows()));
  localise(b, m);
  const ValueId ids = b.given("ids", b.gathered_rows(), m, DType::kInt64);
  const ValueId order = b.c.block.add("order", Builder::routed(), 1, DType::kInt64, false);
  b.c.block.prims.push_back({.kind = PrimKind::kSelectSort,
                             .in = {ids},
                             .out = {order},
                             .top_k = b.z.top_k,
                             .experts = static_cast<std::int64_t>(b.c.context.expert_rows.size())});
  return {order};
}

// Some of the slots, in some order.
ValueId some_slots(Builder& b) {
  std::vector<double> slots;
  for (std::int64_t i = 0; i < b.count(b.gathered_rows()) * b.z.top_k; ++i) {
    if (b.pick(0, 2) > 0) slots.push_back(static_cast<double>(i));
  }
  std::shuffle(slots.begin(), slots.end(), b.rng());
  b.route({static_cast<std::int64_t>(slots.size())});
  Matrix order(static_cast<std::int64_t>(slots.size()), 1);
  order.data = slots;
  return b.given("order", Builder::routed(), order, DType::kInt64);
}

ValueId select(Builder& b, ValueId x, ValueId order) {
  return b.op_rows({.kind = PrimKind::kSelectRows, .in = {x, order}, .top_k = b.z.top_k}, "rows",
                   Builder::routed(), b.z.hidden);
}

std::vector<ValueId> select_rows(Builder& b) {
  const ValueId x = b.input("x", b.gathered_rows(), b.z.hidden);
  return {select(b, x, some_slots(b))};
}

ValueId spread(Builder& b, ValueId rows, ValueId weights, ValueId order) {
  return b.op_rows(
      {.kind = PrimKind::kSpreadRows, .in = {rows, weights, order}, .top_k = b.z.top_k}, "y",
      b.gathered_rows(), b.z.hidden);
}

std::vector<ValueId> spread_rows(Builder& b) {
  const ValueId weights = b.input("weights", b.gathered_rows(), b.z.top_k);
  const ValueId order = some_slots(b);
  return {spread(b, b.input("rows", Builder::routed(), b.z.hidden), weights, order)};
}

std::vector<ValueId> select_block(Builder& b) {
  const ValueId x = b.input("normed", b.gathered_rows(), b.z.hidden);
  const ValueId order = select_sort(b)[0];
  return {select(b, x, order), order};
}

// Selected, through the experts and spread again, without a border between them.
std::vector<ValueId> gathered_experts_block(Builder& b) {
  const ValueId x = b.input("normed", b.gathered_rows(), b.z.hidden);
  const ValueId weights = b.input("weights", b.gathered_rows(), b.z.top_k);
  const ValueId order = select_sort(b)[0];
  const auto experts = static_cast<std::int64_t>(b.c.context.expert_rows.size());
  const ValueId y = b.op({.kind = PrimKind::kGroupedLinear,
                          .in = {select(b, x, order)},
                          .param = b.weight("w", {experts, b.z.hidden, b.z.hidden})},
                         "out");
  return {spread(b, y, weights, order)};
}

// A router with everything: sigmoid, bias, groups, padding, z-loss beside other outputs.
std::vector<ValueId> router_v3_block(Builder& b) {
  const ValueId x = b.input("x1", b.tokens(), b.z.hidden);
  const ValueId n = b.norm(x, "norm", b.z.hidden);
  const ValueId logits = b.linear(n, "router", b.z.experts);
  const auto top = b.top_k(logits, true);
  last(b).in.push_back(bias(b));
  sigmoid_router(b, true);
  last(b).groups = b.z.groups;
  last(b).top_groups = std::min<std::int64_t>(2, b.z.groups);
  pad(b);
  const ValueId loss = z_loss_of(b, logits)[0];
  pad(b);
  return {top[0], top[1], top[3], top[2], n, loss};
}

ValueId local_rope(Builder& b, ValueId x, std::int64_t heads) {
  return b.op({.kind = PrimKind::kRope,
               .in = {x},
               .heads = heads,
               .head_dim = b.z.head_dim,
               .sequence_tokens = b.z.sequence_tokens,
               .scalar = 100},
              "rope");
}

std::vector<ValueId> rope_local(Builder& b) {
  return {local_rope(b, b.input("x", b.tokens(), b.z.heads * b.z.head_dim), b.z.heads)};
}

Prim sequence_prim(Builder& b, PrimKind kind, std::vector<ValueId> in) {
  return {.kind = kind,
          .in = std::move(in),
          .heads = b.z.heads,
          .kv_heads = b.z.kv_heads,
          .head_dim = b.z.head_dim,
          .sequences = b.z.sequences,
          .parts = b.z.sp};
}

// Heads of one rank.
std::int64_t q_cols(Builder& b) {
  return b.z.heads / b.z.sp * b.z.head_dim;
}
std::int64_t kv_cols(Builder& b) {
  return std::max<std::int64_t>(1, b.z.kv_heads / b.z.sp) * b.z.head_dim;
}

ValueId pack(Builder& b, ValueId q, ValueId k, ValueId v) {
  return b.op_rows(sequence_prim(b, PrimKind::kPackHeads, {q, k, v}), "packed", b.whole_rows(),
                   q_cols(b) + 2 * kv_cols(b));
}

std::vector<ValueId> pack_heads(Builder& b) {
  const ValueId q = b.input("q", b.tokens(), b.z.heads * b.z.head_dim);
  const ValueId k = b.input("k", b.tokens(), b.z.kv_heads * b.z.head_dim);
  const ValueId v = b.input("v", b.tokens(), b.z.kv_heads * b.z.head_dim);
  return {pack(b, q, k, v)};
}

std::vector<ValueId> unpack(Builder& b, ValueId packed) {
  Block& block = b.c.block;
  Prim prim = sequence_prim(b, PrimKind::kUnpackSequence, {packed});
  const DType dtype = block.values[static_cast<std::size_t>(packed)].dtype;
  prim.out = {block.add("q", b.whole_rows(), q_cols(b), dtype),
              block.add("k", b.whole_rows(), kv_cols(b), dtype),
              block.add("v", b.whole_rows(), kv_cols(b), dtype)};
  block.prims.push_back(prim);
  return prim.out;
}

ValueId packed_input(Builder& b) {
  return b.input("packed", b.whole_rows(), q_cols(b) + 2 * kv_cols(b));
}

std::vector<ValueId> unpack_sequence(Builder& b) {
  return unpack(b, packed_input(b));
}

std::vector<ValueId> pack_sequence(Builder& b) {
  const ValueId o = b.input("o", b.whole_rows(), b.z.hidden);
  return {b.op(sequence_prim(b, PrimKind::kPackSequence, {o}), "packed")};
}

std::vector<ValueId> unpack_heads(Builder& b) {
  const ValueId x = b.input("x", b.whole_rows(), q_cols(b));
  return {b.op_rows(sequence_prim(b, PrimKind::kUnpackHeads, {x}), "y", b.tokens(),
                    q_cols(b) * b.z.sp)};
}

std::vector<ValueId> qkv_block(Builder& b) {
  const ValueId x = b.input("x", b.tokens(), b.z.hidden);
  const ValueId n = b.norm(x, "norm", b.z.hidden);
  const std::int64_t d = b.z.head_dim;
  const ValueId q = local_rope(b, b.linear(n, "q", b.z.heads * d), b.z.heads);
  const ValueId k = local_rope(b, b.linear(n, "k", b.z.kv_heads * d), b.z.kv_heads);
  return {pack(b, q, k, b.linear(n, "v", b.z.kv_heads * d))};
}

std::vector<ValueId> core_block(Builder& b) {
  const auto in = unpack(b, packed_input(b));
  const ValueId o = b.op({.kind = PrimKind::kAttention,
                          .in = in,
                          .heads = b.z.heads / b.z.sp,
                          .kv_heads = std::max<std::int64_t>(1, b.z.kv_heads / b.z.sp),
                          .head_dim = b.z.head_dim,
                          .sequences = b.z.sequences,
                          .sequence_tokens = b.z.sequence_tokens * b.z.sp,
                          .chunk = b.z.chunk},
                         "attended");
  return {b.op(sequence_prim(b, PrimKind::kPackSequence, {o}), "packed_out")};
}

std::vector<ValueId> out_block(Builder& b) {
  const ValueId x = b.input("x", b.tokens(), b.z.hidden);
  const ValueId attended = b.input("attended", b.whole_rows(), q_cols(b));
  const ValueId o = b.op_rows(sequence_prim(b, PrimKind::kUnpackHeads, {attended}), "o", b.tokens(),
                              q_cols(b) * b.z.sp);
  return {b.pair(PrimKind::kAdd, x, b.linear(o, "o_proj", b.z.hidden), "x1")};
}

bool is_one_of(const std::string& name, std::vector<std::string> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

const std::map<std::string, Maker>& parallel_makers() {
  static const std::map<std::string, Maker> kMakers = {
      {"top_k_sigmoid", top_k_sigmoid},
      {"top_k_sigmoid_plain", top_k_sigmoid_plain},
      {"top_k_groups", top_k_groups},
      {"top_k_groups_softmax", top_k_groups_softmax},
      {"top_k_padded", top_k_padded},
      {"top_k_replay_sigmoid", top_k_replay_sigmoid},
      {"z_loss", z_loss},
      {"z_loss_padded", z_loss_padded},
      {"sort_parts", sort_parts},
      {"select_sort", select_sort},
      {"select_rows", select_rows},
      {"spread_rows", spread_rows},
      {"select_block", select_block},
      {"gathered_experts_block", gathered_experts_block},
      {"router_v3_block", router_v3_block},
      {"rope_local", rope_local},
      {"pack_heads", pack_heads},
      {"pack_heads_shared", pack_heads},
      {"unpack_sequence", unpack_sequence},
      {"pack_sequence", pack_sequence},
      {"unpack_heads", unpack_heads},
      {"qkv_block", qkv_block},
      {"core_block", core_block},
      {"out_block", out_block},
  };
  return kMakers;
}

void fit_sizes(const std::string& name, Sizes& z) {
  if (name.find("padded") != std::string::npos ||
      is_one_of(name, {"top_k_groups", "top_k_replay_sigmoid", "router_v3_block", "rope_local"})) {
    z.sp = 3;
  }
  if (name.find("groups") != std::string::npos || name == "router_v3_block") {
    z.experts = std::max<std::int64_t>(4, z.experts / 2 * 2);
    z.groups = z.experts / 2;
  }
  if (name == "sort_parts") z.experts = 2 * z.peers * std::max<std::int64_t>(1, z.experts / 4);
  if (is_one_of(name, {"pack_heads", "unpack_sequence", "pack_sequence", "unpack_heads",
                       "core_block", "out_block"})) {
    z.sp = 2;
    z.kv_heads *= 2;
    z.heads *= 2;
  }
  if (is_one_of(name, {"pack_heads_shared", "qkv_block"})) {
    z.sp = 2 * z.kv_heads;
    z.heads = z.sp;
  }
}

}  // namespace orrery::engine
