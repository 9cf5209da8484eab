// Cases: every primitive alone, the blocks of a transformer layer, and random graphs with fan-out.

#include <algorithm>
#include <map>
#include <random>

#include "tests/engine/primitives_builder.h"

namespace orrery::engine {
namespace {

Matrix random_order(Builder& b) {
  Matrix order(b.z.tokens() * b.z.top_k, 1);
  for (std::size_t i = 0; i < order.data.size(); ++i) order.data[i] = static_cast<double>(i);
  std::shuffle(order.data.begin(), order.data.end(), b.rng());
  return order;
}

std::vector<ValueId> replay(Builder& b) {
  const ValueId logits = b.input("logits", b.tokens(), b.z.experts);
  const ValueId ids = b.given("ids", b.tokens(), random_ids(b, b.z.tokens()), DType::kInt64);
  Block& block = b.c.block;
  const DType dtype = block.values[0].dtype;
  const std::vector<ValueId> out = {
      block.add("weights", b.tokens(), b.z.top_k, dtype),
      block.add("prob_sum", SizeExpr::constant(b.z.sequences), b.z.experts, b.stat())};
  block.prims.push_back({.kind = PrimKind::kTopKReplay,
                         .in = {logits, ids},
                         .out = out,
                         .top_k = b.z.top_k,
                         .experts = b.z.experts,
                         .sequences = b.z.sequences,
                         .normalize = true});
  return out;
}

std::vector<ValueId> attention_block(Builder& b) {
  const ValueId x = b.input("x", b.tokens(), b.z.hidden);
  const ValueId n = b.norm(x, "norm", b.z.hidden);
  const std::int64_t d = b.z.head_dim;
  ValueId q = b.norm(b.linear(n, "q", b.z.heads * d), "q_norm", d);
  ValueId k = b.norm(b.linear(n, "k", b.z.kv_heads * d), "k_norm", d);
  const ValueId v = b.linear(n, "v", b.z.kv_heads * d);
  q = b.rope(q, b.z.heads);
  k = b.rope(k, b.z.kv_heads);
  const ValueId o = b.linear(b.attention(q, k, v), "o", b.z.hidden);
  return {b.pair(PrimKind::kAdd, x, o, "h")};
}

std::vector<ValueId> mlp_block(Builder& b) {
  const ValueId h = b.input("h", b.tokens(), b.z.hidden);
  const ValueId n = b.norm(h, "norm", b.z.hidden);
  const ValueId gate = b.linear(n, "gate", b.z.ffn), up = b.linear(n, "up", b.z.ffn);
  const ValueId act = b.pair(PrimKind::kSwiGlu, gate, up, "act");
  return {b.pair(PrimKind::kAdd, h, b.linear(act, "down", b.z.hidden), "y")};
}

std::vector<ValueId> router_block(Builder& b) {
  const ValueId h = b.input("h", b.tokens(), b.z.hidden);
  const ValueId n = b.norm(h, "norm", b.z.hidden);
  const auto top = b.top_k(b.linear(n, "router", b.z.experts), true);
  const auto sorted = b.sort(top[2]);
  const ValueId rows = b.permute(n, sorted[0]);
  return {rows, top[0], top[2], sorted[0], sorted[1], b.balance(top[1], top[3])};
}

std::vector<ValueId> experts_block(Builder& b) {
  const ValueId rows = b.input("rows", Builder::routed(), b.z.hidden);
  const ValueId x = b.op({.kind = PrimKind::kToExpertMajor, .in = {rows}}, "x");
  const ValueId gate = b.grouped(x, "gate", b.z.ffn), up = b.grouped(x, "up", b.z.ffn);
  const ValueId act = b.pair(PrimKind::kSwiGlu, gate, up, "act");
  const ValueId y = b.grouped(act, "down", b.z.hidden);
  return {b.op({.kind = PrimKind::kToSourceMajor, .in = {y}}, "out")};
}

std::vector<ValueId> merge_block(Builder& b) {
  const ValueId rows = b.input("rows", b.tokens() * b.z.top_k, b.z.hidden);
  const ValueId weights = b.input("weights", b.tokens(), b.z.top_k);
  const ValueId order = b.given("order", b.tokens() * b.z.top_k, random_order(b), DType::kInt64);
  const ValueId h = b.input("h", b.tokens(), b.z.hidden);
  return {b.pair(PrimKind::kAdd, h, b.unpermute(rows, weights, order), "y")};
}

std::vector<ValueId> head_block(Builder& b) {
  const ValueId h = b.input("h", b.tokens(), b.z.hidden);
  const ValueId labels = b.integers("labels", b.z.vocab - 1, true);
  return {b.cross_entropy(b.linear(b.norm(h, "norm", b.z.hidden), "head", b.z.vocab), labels)};
}

// A random graph over [T,H] values with fan-out, sums of a value with itself, and outputs that are
// read again.
std::vector<ValueId> random_block(Builder& b) {
  std::vector<ValueId> live = {b.input("a", b.tokens(), b.z.hidden),
                               b.input("b", b.tokens(), b.z.hidden)};
  const auto any = [&] {
    return live[static_cast<std::size_t>(b.pick(0, static_cast<std::int64_t>(live.size()) - 1))];
  };
  for (std::int64_t i = 0; i < 9; ++i) {
    const std::string name = "v" + std::to_string(i);
    switch (b.pick(0, 5)) {
      case 0:
        live.push_back(b.linear(any(), name, b.z.hidden));
        break;
      case 1:
        live.push_back(b.norm(any(), name, b.z.hidden));
        break;
      case 2:
        live.push_back(b.pair(PrimKind::kSwiGlu, any(), any(), name));
        break;
      default:
        live.push_back(b.pair(PrimKind::kAdd, any(), any(), name));
    }
  }
  std::vector<ValueId> outputs = {live.back()};
  const ValueId other = live[static_cast<std::size_t>(b.pick(2, 6))];
  if (other != outputs[0]) outputs.push_back(other);
  return outputs;
}

std::vector<ValueId> embedding(Builder& b) {
  const ValueId ids = b.integers("ids", b.z.vocab - 1);
  return {b.op(
      {.kind = PrimKind::kEmbedding, .in = {ids}, .param = b.weight("w", {b.z.vocab, b.z.hidden})},
      "x", b.z.hidden)};
}

std::vector<ValueId> rms_norm(Builder& b) {
  return {b.norm(b.input("x", b.tokens(), b.z.heads * b.z.head_dim), "n", b.z.head_dim)};
}

std::vector<ValueId> linear(Builder& b) {
  return {b.linear(b.input("x", b.tokens(), b.z.hidden), "y", b.z.ffn)};
}

std::vector<ValueId> rope(Builder& b) {
  return {b.rope(b.input("x", b.tokens(), b.z.heads * b.z.head_dim), b.z.heads)};
}

std::vector<ValueId> attention(Builder& b) {
  const ValueId q = b.input("q", b.tokens(), b.z.heads * b.z.head_dim);
  const ValueId k = b.input("k", b.tokens(), b.z.kv_heads * b.z.head_dim);
  const ValueId v = b.input("v", b.tokens(), b.z.kv_heads * b.z.head_dim);
  return {b.attention(q, k, v)};
}

std::vector<ValueId> add(Builder& b) {
  const ValueId x = b.input("a", b.tokens(), b.z.hidden);
  return {b.pair(PrimKind::kAdd, x, b.input("b", b.tokens(), b.z.hidden), "y")};
}

std::vector<ValueId> add_itself(Builder& b) {
  const ValueId x = b.input("a", b.tokens(), b.z.hidden);
  return {b.pair(PrimKind::kAdd, x, x, "y")};
}

std::vector<ValueId> swiglu(Builder& b) {
  const ValueId gate = b.input("gate", b.tokens(), b.z.ffn);
  return {b.pair(PrimKind::kSwiGlu, gate, b.input("up", b.tokens(), b.z.ffn), "y")};
}

std::vector<ValueId> top_k(Builder& b) {
  return b.top_k(b.input("logits", b.tokens(), b.z.experts), true);
}

std::vector<ValueId> top_k_plain(Builder& b) {
  return b.top_k(b.input("logits", b.tokens(), b.z.experts), false);
}

std::vector<ValueId> sort(Builder& b) {
  return b.sort(b.given("ids", b.tokens(), random_ids(b, b.z.tokens()), DType::kInt64));
}

std::vector<ValueId> permute(Builder& b) {
  const ValueId x = b.input("x", b.tokens(), b.z.hidden);
  return {b.permute(x, b.given("order", b.tokens() * b.z.top_k, random_order(b), DType::kInt64))};
}

std::vector<ValueId> to_expert_major(Builder& b) {
  const ValueId rows = b.input("rows", Builder::routed(), b.z.hidden);
  return {b.op({.kind = PrimKind::kToExpertMajor, .in = {rows}}, "y")};
}

std::vector<ValueId> to_source_major(Builder& b) {
  const ValueId rows = b.input("rows", Builder::routed(), b.z.hidden);
  return {b.op({.kind = PrimKind::kToSourceMajor, .in = {rows}}, "y")};
}

std::vector<ValueId> grouped_linear(Builder& b) {
  return {b.grouped(b.input("rows", Builder::routed(), b.z.hidden), "y", b.z.ffn)};
}

std::vector<ValueId> balance_loss(Builder& b) {
  Matrix sums(b.z.sequences, b.z.experts), counts(b.z.sequences, b.z.experts);
  for (double& x : sums.data) x = static_cast<double>(b.pick(0, 64)) / 16;
  for (double& x : counts.data) x = static_cast<double>(b.pick(0, 9));
  const SizeExpr rows = SizeExpr::constant(b.z.sequences);
  const ValueId sum = b.given("prob_sum", rows, sums, b.stat());
  const ValueId count = b.given("counts", rows, counts, b.stat());
  b.c.block.values[static_cast<std::size_t>(count)].needs_grad = false;
  return {b.balance(sum, count)};
}

std::vector<ValueId> cross_entropy(Builder& b) {
  const ValueId logits = b.input("logits", b.tokens(), b.z.vocab);
  return {b.cross_entropy(logits, b.integers("labels", b.z.vocab - 1, true))};
}

const std::map<std::string, Maker>& makers() {
  static const std::map<std::string, Maker> kMakers = {
      {"embedding", embedding},
      {"rms_norm", rms_norm},
      {"linear", linear},
      {"rope", rope},
      {"attention", attention},
      {"add", add},
      {"add_itself", add_itself},
      {"swiglu", swiglu},
      {"top_k", top_k},
      {"top_k_plain", top_k_plain},
      {"top_k_replay", replay},
      {"sort", sort},
      {"permute", permute},
      {"to_expert_major", to_expert_major},
      {"to_source_major", to_source_major},
      {"grouped_linear", grouped_linear},
      {"balance_loss", balance_loss},
      {"cross_entropy", cross_entropy},
      {"attention_block", attention_block},
      {"mlp_block", mlp_block},
      {"router_block", router_block},
      {"experts_block", experts_block},
      {"merge_block", merge_block},
      {"head_block", head_block},
      {"random_block", random_block},
  };
  static const std::map<std::string, Maker> kAll = [] {
    std::map<std::string, Maker> all = kMakers;
    all.insert(parallel_makers().begin(), parallel_makers().end());
    return all;
  }();
  return kAll;
}

Case make(const std::string& name, Sizes sizes, DType dtype, std::uint64_t seed, bool one) {
  fit_sizes(name, sizes);
  Builder b(sizes, dtype, seed, one);
  std::vector<ValueId> outputs = makers().at(name)(b);
  return b.finish(name, std::move(outputs));
}

}  // namespace

Matrix random_ids(Builder& b, std::int64_t rows) {
  Matrix ids(rows, b.z.top_k);
  for (std::int64_t t = 0; t < ids.rows; ++t) {
    std::vector<std::int64_t> experts;
    for (std::int64_t e = 0; e < b.z.experts; ++e) experts.push_back(e);
    std::shuffle(experts.begin(), experts.end(), b.rng());
    for (std::int64_t i = 0; i < ids.cols; ++i) {
      ids.at(t, i) = static_cast<double>(experts[static_cast<std::size_t>(i)]);
    }
  }
  return ids;
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& [name, maker] : makers()) names.push_back(name);
  return names;
}

Case make_case(const std::string& name, DType dtype, std::uint64_t seed) {
  std::mt19937_64 rng(seed * 7919 + 17);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(rng);
  };
  Sizes z{};
  z.sequences = pick(1, 2);
  z.sequence_tokens = pick(1, 6);
  z.hidden = pick(2, 5);
  z.kv_heads = pick(1, 2);
  z.heads = z.kv_heads * pick(1, 3);
  z.head_dim = 2 * pick(1, 2);
  z.ffn = pick(1, 5);
  z.vocab = pick(2, 9);
  z.experts = pick(2, 6);
  z.top_k = pick(1, 2);
  z.peers = pick(1, 3);
  z.local_experts = pick(1, 3);
  z.chunk = pick(0, 4);
  return make(name, z, dtype, seed, false);
}

Case make_contract_case(const std::string& name, DType dtype, std::uint64_t seed) {
  Sizes z{};
  z.sequences = 2;
  z.sequence_tokens = 192;
  z.hidden = 160;
  z.kv_heads = 2;
  z.heads = 6;
  z.head_dim = 32;
  z.ffn = 352;
  z.vocab = 6000;
  z.experts = 24;
  z.top_k = 4;
  z.peers = 3;
  z.local_experts = 5;
  z.chunk = seed % 2 == 0 ? 0 : 64;
  return make(name, z, dtype, seed, true);
}

std::vector<std::string> wide_case_names() {
  return {"embedding",         "rms_norm",      "rope",   "swiglu",      "permute",
          "merge_block",       "cross_entropy", "linear", "select_rows", "spread_rows",
          "pack_heads_shared", "z_loss"};
}

Case make_wide_case(const std::string& name, DType dtype) {
  Sizes z{};
  z.sequences = 2;
  z.sequence_tokens = name == "linear" ? 8 : 150;
  z.hidden = name == "linear" ? 1100 : 8000;
  z.kv_heads = 1;
  z.heads = 125;
  z.head_dim = 64;
  if (name == "pack_heads_shared") z.head_dim = 8000;
  z.ffn = 8000;
  z.vocab = name == "embedding" ? 30 : 8000;
  z.experts = name == "z_loss" ? 8000 : 4;
  z.top_k = 2;
  z.peers = name == "select_rows" || name == "spread_rows" ? 3 : 1;
  z.local_experts = 1;
  return make(name, z, dtype, 1, false);
}

}  // namespace orrery::engine
