// The probe's blocks and stopwatch.
#include "engine/torch/probe_blocks.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/torch/executor.h"
#include "engine/torch/interpreter.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

SizeExpr rows_of(std::int64_t n) {
  return SizeExpr::constant(n);
}

ValueId input(Block& b, const char* name, std::int64_t rows, std::int64_t cols, DType dtype) {
  const ValueId id = b.add(name, rows_of(rows), cols, dtype);
  b.inputs.push_back(id);
  return id;
}

Prim& prim(Block& b, PrimKind kind, std::vector<ValueId> in, std::vector<ValueId> out) {
  Prim p;
  p.kind = kind;
  p.in = std::move(in);
  p.out = std::move(out);
  b.prims.push_back(std::move(p));
  return b.prims.back();
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

Block linear_block(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype) {
  Block b;
  b.name = "linear";
  const ValueId x = input(b, "x", m, k, dtype);
  const ValueId y = b.add("y", rows_of(m), n, dtype);
  const std::int32_t w = b.param("w", {n, k}, dtype);
  prim(b, PrimKind::kLinear, {x}, {y}).param = w;
  b.outputs = {y};
  b.finish();
  return b;
}

Block grouped_block(std::int64_t experts, std::int64_t rows, std::int64_t n, std::int64_t k) {
  Block b;
  b.name = "grouped";
  const ValueId x = input(b, "x", experts * rows, k, DType::kFloat32);
  const ValueId y = b.add("y", rows_of(experts * rows), n, DType::kFloat32);
  const std::int32_t w = b.param("w", {experts, n, k}, DType::kFloat32);
  Prim& p = prim(b, PrimKind::kGroupedLinear, {x}, {y});
  p.param = w;
  p.experts = experts;
  b.outputs = {y};
  b.finish();
  return b;
}

Block attention_probe_block(std::int64_t sequences, std::int64_t tokens, std::int64_t heads,
                            std::int64_t kv_heads, std::int64_t head_dim) {
  Block b;
  b.name = "attention";
  const std::int64_t rows = sequences * tokens;
  const ValueId q = input(b, "q", rows, heads * head_dim, DType::kFloat32);
  const ValueId k = input(b, "k", rows, kv_heads * head_dim, DType::kFloat32);
  const ValueId v = input(b, "v", rows, kv_heads * head_dim, DType::kFloat32);
  const ValueId o = b.add("o", rows_of(rows), heads * head_dim, DType::kFloat32);
  Prim& p = prim(b, PrimKind::kAttention, {q, k, v}, {o});
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.head_dim = head_dim;
  p.sequences = sequences;
  p.sequence_tokens = tokens;
  b.outputs = {o};
  b.finish();
  return b;
}

Block pass_block(PassKind kind, std::int64_t rows, std::int64_t cols) {
  Block b;
  b.name = name_of(kind);
  constexpr std::int64_t kHead = 32;
  const ValueId x = input(b, "x", rows, cols, DType::kFloat32);
  const bool two = kind == PassKind::kActivation || kind == PassKind::kStream;
  const ValueId z = two ? input(b, "z", rows, cols, DType::kFloat32) : x;
  const ValueId y = b.add("y", rows_of(rows), cols, DType::kFloat32);
  switch (kind) {
    case PassKind::kNorm: {
      const std::int32_t w = b.param("w", {cols}, DType::kFloat32);
      Prim& norm = prim(b, PrimKind::kRmsNorm, {x}, {y});
      norm.param = w;
      norm.head_dim = cols;
      norm.scalar = 1e-6;
      break;
    }
    case PassKind::kRope: {
      Prim& rope = prim(b, PrimKind::kRope, {x}, {y});
      rope.heads = cols / kHead;
      rope.head_dim = kHead;
      rope.scalar = 1e4;
      break;
    }
    case PassKind::kActivation:
      prim(b, PrimKind::kSwiGlu, {x, z}, {y});
      break;
    case PassKind::kStream:
      prim(b, PrimKind::kAdd, {x, z}, {y});
      break;
    default:
      CHECK(false, std::string("no probe of ") + name_of(kind));
  }
  b.outputs = {y};
  b.finish();
  return b;
}

namespace {

// A block with its inputs, weights and gradients.
class Bench {
 public:
  explicit Bench(const Block& block) : block_(block) {
    for (const ValueId v : block.inputs) inputs_.push_back(filled(v));
    for (const ValueId v : block.outputs) grads_.push_back(filled(v));
    for (const BlockParam& p : block.params) {
      weights_.push_back(
          at::full(p.shape, 0.01, at::TensorOptions().dtype(scalar_type(block.values[0].dtype))));
      weight_grads_.push_back(
          at::zeros(p.shape, at::TensorOptions().dtype(scalar_type(p.grad_dtype))));
    }
    const Prim& first = block.prims[0];
    const std::int64_t rows = block.values[0].rows.c0;
    const std::int64_t tokens = first.sequence_tokens > 0 ? first.sequence_tokens : rows;
    context_.documents.assign(static_cast<std::size_t>(rows / tokens), {tokens});
    if (first.kind == PrimKind::kGroupedLinear) {
      context_.expert_rows.assign(static_cast<std::size_t>(first.experts), rows / first.experts);
    }
  }

  // Seconds of one forward and one backward.
  struct Times {
    double forward_s = 0, backward_s = 0;
  };
  Times run() {
    const at::NoGradGuard no_grad;
    const auto weight = [&](std::int32_t p) { return weights_[static_cast<std::size_t>(p)]; };
    Tape tape;
    const std::int64_t t0 = now_ns();
    auto outputs = run_forward(block_, {inputs_, weight, &context_, &tape});
    const std::int64_t t1 = now_ns();
    CHECK(outputs.ok(), "probe: " + outputs.error().text());
    BackwardArgs args;
    args.tape = std::move(tape);
    args.inputs = inputs_;
    args.outputs = std::move(outputs).value();
    args.grad_outputs = grads_;
    args.param = weight;
    args.param_grad = [&](std::int32_t p) { return weight_grads_[static_cast<std::size_t>(p)]; };
    args.context = &context_;
    const auto done = run_backward(block_, std::move(args));
    const std::int64_t t2 = now_ns();
    CHECK(done.ok(), "probe: " + done.error().text());
    return {static_cast<double>(t1 - t0) * 1e-9, static_cast<double>(t2 - t1) * 1e-9};
  }

 private:
  at::Tensor filled(ValueId v) const {
    const Value& value = block_.values[static_cast<std::size_t>(v)];
    return at::full({value.rows.c0, value.cols}, 0.01,
                    at::TensorOptions().dtype(scalar_type(value.dtype)));
  }

  const Block& block_;
  BlockContext context_;
  std::vector<at::Tensor> inputs_, grads_, weights_, weight_grads_;
};

}  // namespace

BlockTime time_block(const Block& block, double budget_s, const std::function<void()>& ready) {
  Bench bench(block);
  std::vector<double> forward, backward;
  ready();
  const std::int64_t begin = now_ns();
  while (forward.size() < 3 || static_cast<double>(now_ns() - begin) * 1e-9 < budget_s) {
    const Bench::Times times = bench.run();
    forward.push_back(times.forward_s);
    backward.push_back(times.backward_s);
  }
  BlockTime time;
  const auto half = forward.begin() + static_cast<std::ptrdiff_t>(forward.size() / 2);
  time.forward_s = median(forward);
  time.backward_s = median(backward);
  time.spread =
      std::abs(median({forward.begin(), half}) - median({half, forward.end()})) / time.forward_s;
  return time;
}

std::int64_t repeat_block(const Block& block, const std::function<bool()>& more) {
  Bench bench(block);
  (void)bench.run();  // the first makes the memory
  std::int64_t times = 0;
  while (more()) {
    (void)bench.run();
    ++times;
  }
  return times;
}

}  // namespace orrery::engine
