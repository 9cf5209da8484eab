// Cases: every primitive alone, the blocks of a transformer layer, and random graphs with fan-out.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <random>

#include "engine/torch/compat.h"
#include "tests/engine/primitives_reference.h"

namespace orrery::engine {
namespace {

struct Sizes {
  std::int64_t sequences, sequence_tokens, hidden, heads, kv_heads, head_dim, ffn, vocab, experts,
      top_k, peers, local_experts, chunk;
  std::int64_t tokens() const { return sequences * sequence_tokens; }
};

class Builder {
 public:
  Builder(const Sizes& sizes, DType dtype, std::uint64_t seed, bool one_document)
      : z(sizes), dtype_(dtype), stat_(stat_dtype(dtype)), rng_(seed) {
    for (std::int64_t s = 0; s < z.sequences; ++s) draw_documents(one_document);
    c.context.received.assign(static_cast<std::size_t>(z.peers), {});
    c.context.expert_rows.assign(static_cast<std::size_t>(z.local_experts), 0);
    for (auto& peer : c.context.received) {
      for (auto& rows : c.context.expert_rows) {
        // Some experts get nothing from some peers.
        peer.push_back(pick(0, 2) == 0 ? 0 : pick(0, 2 * z.tokens() / z.local_experts));
        rows += peer.back();
        routed_ += peer.back();
      }
    }
    c.context.loss_scale = 1.0 / 7;
    c.values = {routed_};
    c.base.route = 0;
  }

  std::int64_t pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(rng_);
  }
  SizeExpr tokens() const { return SizeExpr::constant(z.tokens()); }
  static SizeExpr routed() { return {0, 1, VarScope::kRoute, RouteVars::rows()}; }
  std::int64_t count(const SizeExpr& rows) const { return rows.eval(c.values, c.base); }

  ValueId input(const std::string& name, SizeExpr rows, std::int64_t cols) {
    std::normal_distribution<double> normal;
    Matrix m(count(rows), cols);
    for (double& x : m.data) x = normal(rng_);
    return give(name, rows, m, dtype_);
  }
  // Integers in [low, high]; `ignore`: every third row is the label without a loss.
  ValueId integers(const std::string& name, std::int64_t high, bool ignore = false) {
    Matrix m(z.tokens(), 1);
    for (std::int64_t t = 0; t < m.rows; ++t) {
      m.at(t, 0) = ignore && t % 3 == 1 ? -100.0 : static_cast<double>(pick(0, high));
    }
    return give(name, tokens(), m, DType::kInt64);
  }
  ValueId given(const std::string& name, SizeExpr rows, const Matrix& m, DType dtype) {
    return give(name, rows, m, dtype);
  }
  std::int32_t weight(const std::string& name, std::vector<std::int64_t> shape, double mean = 0) {
    std::int64_t rows = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
    Matrix m(rows, shape.back());
    std::normal_distribution<double> normal(
        mean, mean > 0 ? 0.2 : 1 / std::sqrt(static_cast<double>(shape.back())));
    for (double& x : m.data) x = normal(rng_);
    c.params.push_back(m);
    return c.block.param(name, std::move(shape),
                         dtype_ == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
  }
  // A primitive with one output shaped like its first operand unless said.
  ValueId op(Prim prim, const std::string& name, std::int64_t cols = 0) {
    const Value first = c.block.values[static_cast<std::size_t>(prim.in[0])];
    return op_rows(std::move(prim), name, first.rows, cols == 0 ? first.cols : cols);
  }
  ValueId op_rows(Prim prim, const std::string& name, SizeExpr rows, std::int64_t cols) {
    const ValueId v = c.block.add(name, rows, cols, dtype_);
    prim.out = {v};
    c.block.prims.push_back(std::move(prim));
    return v;
  }
  ValueId norm(ValueId x, const std::string& name, std::int64_t d) {
    return op({.kind = PrimKind::kRmsNorm,
               .in = {x},
               .param = weight(name, {d}, 1),
               .head_dim = d,
               .scalar = 1e-5},
              name);
  }
  ValueId linear(ValueId x, const std::string& name, std::int64_t n) {
    const std::int64_t k = c.block.values[static_cast<std::size_t>(x)].cols;
    return op({.kind = PrimKind::kLinear, .in = {x}, .param = weight(name, {n, k})}, name, n);
  }
  ValueId grouped(ValueId x, const std::string& name, std::int64_t n) {
    const std::int64_t k = c.block.values[static_cast<std::size_t>(x)].cols;
    return op({.kind = PrimKind::kGroupedLinear,
               .in = {x},
               .param = weight(name, {z.local_experts, n, k})},
              name, n);
  }
  ValueId pair(PrimKind kind, ValueId a, ValueId b, const std::string& name) {
    return op({.kind = kind, .in = {a, b}}, name);
  }
  ValueId rope(ValueId x, std::int64_t heads) {
    return op(
        {.kind = PrimKind::kRope, .in = {x}, .heads = heads, .head_dim = z.head_dim, .scalar = 100},
        "rope");
  }
  ValueId attention(ValueId q, ValueId k, ValueId v) {
    return op({.kind = PrimKind::kAttention,
               .in = {q, k, v},
               .heads = z.heads,
               .kv_heads = z.kv_heads,
               .head_dim = z.head_dim,
               .sequences = z.sequences,
               .sequence_tokens = z.sequence_tokens,
               .chunk = z.chunk},
              "attention");
  }
  // weights, prob_sum, ids, counts.
  std::vector<ValueId> top_k(ValueId logits, bool normalize) {
    Block& b = c.block;
    const SizeExpr sequences = SizeExpr::constant(z.sequences);
    const std::vector<ValueId> out = {b.add("weights", tokens(), z.top_k, dtype_),
                                      b.add("prob_sum", sequences, z.experts, stat_),
                                      b.add("ids", tokens(), z.top_k, DType::kInt64, false),
                                      b.add("counts", sequences, z.experts, stat_, false)};
    b.prims.push_back({.kind = PrimKind::kTopK,
                       .in = {logits},
                       .out = out,
                       .top_k = z.top_k,
                       .experts = z.experts,
                       .sequences = z.sequences,
                       .normalize = normalize});
    return out;
  }
  // order, expert_counts.
  std::vector<ValueId> sort(ValueId ids) {
    Block& b = c.block;
    const std::vector<ValueId> out = {
        b.add("order", tokens() * z.top_k, 1, DType::kInt64, false),
        b.add("expert_counts", SizeExpr::constant(z.experts), 1, DType::kInt64, false)};
    b.prims.push_back(
        {.kind = PrimKind::kSortByExpert, .in = {ids}, .out = out, .experts = z.experts});
    return out;
  }
  ValueId permute(ValueId x, ValueId order) {
    return op_rows({.kind = PrimKind::kPermute, .in = {x, order}, .top_k = z.top_k}, "rows",
                   tokens() * z.top_k, z.hidden);
  }
  ValueId unpermute(ValueId rows, ValueId weights, ValueId order) {
    return op_rows({.kind = PrimKind::kUnpermute, .in = {rows, weights, order}, .top_k = z.top_k},
                   "merged", tokens(), z.hidden);
  }
  ValueId balance(ValueId sums, ValueId counts) {
    const ValueId loss = c.block.add("balance", SizeExpr::constant(1), 1, stat_);
    c.block.prims.push_back(
        {.kind = PrimKind::kBalanceLoss, .in = {sums, counts}, .out = {loss}, .scalar = 0.03});
    return loss;
  }
  ValueId cross_entropy(ValueId logits, ValueId labels) {
    const ValueId loss = c.block.add("loss", SizeExpr::constant(1), 1, stat_);
    c.block.prims.push_back(
        {.kind = PrimKind::kCrossEntropy, .in = {logits, labels}, .out = {loss}});
    return loss;
  }
  Case finish(const std::string& name, std::vector<ValueId> outputs) {
    c.block.name = name;
    c.block.outputs = std::move(outputs);
    c.block.finish();
    return std::move(c);
  }
  DType stat() const { return stat_; }
  std::mt19937_64& rng() { return rng_; }

  const Sizes z;
  Case c;

 private:
  ValueId give(const std::string& name, SizeExpr rows, const Matrix& m, DType dtype) {
    const ValueId v = c.block.add(name, rows, m.cols, dtype);
    c.block.inputs.push_back(v);
    c.inputs.push_back(m);
    return v;
  }
  void draw_documents(bool one) {
    std::vector<std::int64_t> lengths;
    std::int64_t left = z.sequence_tokens;
    while (left > 0) {
      lengths.push_back(one ? left : pick(1, left));
      left -= lengths.back();
    }
    c.context.documents.push_back(lengths);
  }

  DType dtype_, stat_;
  std::mt19937_64 rng_;
  std::int64_t routed_ = 0;
};

Matrix random_ids(Builder& b) {
  Matrix ids(b.z.tokens(), b.z.top_k);
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

Matrix random_order(Builder& b) {
  Matrix order(b.z.tokens() * b.z.top_k, 1);
  for (std::size_t i = 0; i < order.data.size(); ++i) order.data[i] = static_cast<double>(i);
  std::shuffle(order.data.begin(), order.data.end(), b.rng());
  return order;
}

using Maker = std::function<std::vector<ValueId>(Builder&)>;

std::vector<ValueId> replay(Builder& b) {
  const ValueId logits = b.input("logits", b.tokens(), b.z.experts);
  const ValueId ids = b.given("ids", b.tokens(), random_ids(b), DType::kInt64);
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

const std::map<std::string, Maker>& makers() {
  static const std::map<std::string, Maker> kMakers = {
      {"embedding",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId ids = b.integers("ids", b.z.vocab - 1);
         return {b.op({.kind = PrimKind::kEmbedding,
                       .in = {ids},
                       .param = b.weight("w", {b.z.vocab, b.z.hidden})},
                      "x", b.z.hidden)};
       }},
      {"rms_norm",
       [](Builder& b) -> std::vector<ValueId> {
         return {b.norm(b.input("x", b.tokens(), b.z.heads * b.z.head_dim), "n", b.z.head_dim)};
       }},
      {"linear",
       [](Builder& b) -> std::vector<ValueId> {
         return {b.linear(b.input("x", b.tokens(), b.z.hidden), "y", b.z.ffn)};
       }},
      {"rope",
       [](Builder& b) -> std::vector<ValueId> {
         return {b.rope(b.input("x", b.tokens(), b.z.heads * b.z.head_dim), b.z.heads)};
       }},
      {"attention",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId q = b.input("q", b.tokens(), b.z.heads * b.z.head_dim);
         const ValueId k = b.input("k", b.tokens(), b.z.kv_heads * b.z.head_dim);
         const ValueId v = b.input("v", b.tokens(), b.z.kv_heads * b.z.head_dim);
         return {b.attention(q, k, v)};
       }},
      {"add",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId x = b.input("a", b.tokens(), b.z.hidden);
         return {b.pair(PrimKind::kAdd, x, b.input("b", b.tokens(), b.z.hidden), "y")};
       }},
      {"add_itself",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId x = b.input("a", b.tokens(), b.z.hidden);
         return {b.pair(PrimKind::kAdd, x, x, "y")};
       }},
      {"swiglu",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId gate = b.input("gate", b.tokens(), b.z.ffn);
         return {b.pair(PrimKind::kSwiGlu, gate, b.input("up", b.tokens(), b.z.ffn), "y")};
       }},
      {"top_k",
       [](Builder& b) { return b.top_k(b.input("logits", b.tokens(), b.z.experts), true); }},
      {"top_k_plain",
       [](Builder& b) { return b.top_k(b.input("logits", b.tokens(), b.z.experts), false); }},
      {"top_k_replay", replay},
      {"sort",
       [](Builder& b) { return b.sort(b.given("ids", b.tokens(), random_ids(b), DType::kInt64)); }},
      {"permute",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId x = b.input("x", b.tokens(), b.z.hidden);
         return {b.permute(
             x, b.given("order", b.tokens() * b.z.top_k, random_order(b), DType::kInt64))};
       }},
      {"to_expert_major",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId rows = b.input("rows", Builder::routed(), b.z.hidden);
         return {b.op({.kind = PrimKind::kToExpertMajor, .in = {rows}}, "y")};
       }},
      {"to_source_major",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId rows = b.input("rows", Builder::routed(), b.z.hidden);
         return {b.op({.kind = PrimKind::kToSourceMajor, .in = {rows}}, "y")};
       }},
      {"grouped_linear",
       [](Builder& b) -> std::vector<ValueId> {
         return {b.grouped(b.input("rows", Builder::routed(), b.z.hidden), "y", b.z.ffn)};
       }},
      {"balance_loss",
       [](Builder& b) -> std::vector<ValueId> {
         Matrix sums(b.z.sequences, b.z.experts), counts(b.z.sequences, b.z.experts);
         for (double& x : sums.data) x = static_cast<double>(b.pick(0, 64)) / 16;
         for (double& x : counts.data) x = static_cast<double>(b.pick(0, 9));
         const SizeExpr rows = SizeExpr::constant(b.z.sequences);
         const ValueId sum = b.given("prob_sum", rows, sums, b.stat());
         const ValueId count = b.given("counts", rows, counts, b.stat());
         b.c.block.values[static_cast<std::size_t>(count)].needs_grad = false;
         return {b.balance(sum, count)};
       }},
      {"cross_entropy",
       [](Builder& b) -> std::vector<ValueId> {
         const ValueId logits = b.input("logits", b.tokens(), b.z.vocab);
         return {b.cross_entropy(logits, b.integers("labels", b.z.vocab - 1, true))};
       }},
      {"attention_block", attention_block},
      {"mlp_block", mlp_block},
      {"router_block", router_block},
      {"experts_block", experts_block},
      {"merge_block", merge_block},
      {"head_block", head_block},
      {"random_block", random_block},
  };
  return kMakers;
}

Case make(const std::string& name, const Sizes& sizes, DType dtype, std::uint64_t seed, bool one) {
  Builder b(sizes, dtype, seed, one);
  std::vector<ValueId> outputs = makers().at(name)(b);
  return b.finish(name, std::move(outputs));
}

}  // namespace

at::Tensor to_tensor(const Matrix& m, DType dtype) {
  std::vector<double> copy = m.data;
  const at::Tensor host = at::from_blob(copy.data(), {m.rows, m.cols}, at::kDouble);
  at::Tensor out = at::empty({m.rows, m.cols}, at::TensorOptions().dtype(scalar_type(dtype)));
  return out.copy_(host);
}

Matrix to_matrix(const at::Tensor& tensor, std::int64_t cols) {
  const at::Tensor wide = tensor.to(at::kDouble).contiguous();
  Matrix m(wide.numel() / cols, cols);
  const double* data = wide.data_ptr<double>();
  m.data.assign(data, data + wide.numel());
  return m;
}

std::vector<at::Tensor> input_tensors(const Case& c) {
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const Value& value = c.block.values[static_cast<std::size_t>(c.block.inputs[i])];
    out.push_back(to_tensor(c.inputs[i], value.dtype));
  }
  return out;
}

// Parameters have the dtype of the block's first real value.
std::vector<at::Tensor> param_tensors(const Case& c) {
  DType dtype = DType::kInt64;
  for (const Value& value : c.block.values) {
    if (dtype == DType::kInt64) dtype = value.dtype;
  }
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i < c.params.size(); ++i) {
    out.push_back(to_tensor(c.params[i], dtype).view(c.block.params[i].shape));
  }
  return out;
}

std::vector<at::Tensor> grad_buffers(const Block& block) {
  std::vector<at::Tensor> out;
  for (const BlockParam& param : block.params) {
    out.push_back(at::zeros(param.shape, at::TensorOptions().dtype(scalar_type(param.grad_dtype))));
  }
  return out;
}

ParamResolver resolver(const Block& block, const std::vector<at::Tensor>& tensors) {
  CHECK(tensors.size() == block.params.size(), "one tensor a parameter");
  return [&tensors](std::int32_t param) { return tensors[static_cast<std::size_t>(param)]; };
}

std::vector<at::Tensor> random_grads(const Block& block, const std::vector<at::Tensor>& outputs,
                                     std::uint64_t seed) {
  std::mt19937_64 rng(seed + 99);
  std::normal_distribution<double> normal;
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Value& value = block.values[static_cast<std::size_t>(block.outputs[i])];
    if (!has_grad(value)) {
      out.emplace_back();
      continue;
    }
    Matrix m(outputs[i].size(0), outputs[i].size(1));
    for (double& x : m.data) x = normal(rng);
    out.push_back(to_tensor(m, value.dtype));
  }
  return out;
}

BackwardResult run_both(const Case& c, const std::vector<at::Tensor>& grad_outputs,
                        const std::vector<at::Tensor>& seeds) {
  const std::vector<at::Tensor> inputs = input_tensors(c), params = param_tensors(c);
  BackwardResult result;
  result.param_grads = grad_buffers(c.block);
  Tape tape;
  result.outputs =
      run_forward(c.block, {inputs, resolver(c.block, params), &c.context, &tape}).value();
  result.grads = run_backward(c.block, {std::move(tape), inputs, result.outputs, grad_outputs,
                                        seeds, resolver(c.block, params),
                                        resolver(c.block, result.param_grads), &c.context})
                     .value();
  return result;
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

}  // namespace orrery::engine
