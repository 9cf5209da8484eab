// RMSNorm, rotary positions, SwiGLU and addition. Bodies work in the statistics' dtype by slices of
// rows, so that temporaries are bounded and sums are not rounded to bf16.
#include <ATen/ops/add.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

void mean_to(at::Tensor out, const at::Tensor& a) {
  at::mean_out(out, a, {-1}, true);
}

// x in the dtype of `buffer`: itself, or a copy there.
at::Tensor widened(const at::Tensor& buffer, const at::Tensor& x) {
  if (x.scalar_type() == buffer.scalar_type()) return x;
  return carve(buffer, x.sizes()).copy_(x);
}

// Where a result for `out` is made: there, or in the buffer when `out` has another dtype; put()
// then copies it.
at::Tensor place(const at::Tensor& buffer, const at::Tensor& out) {
  return out.scalar_type() == buffer.scalar_type() ? out : carve(buffer, out.sizes());
}
void put(const at::Tensor& out, const at::Tensor& made) {
  if (made.scalar_type() != out.scalar_type()) out.copy_(made);
}

// Positions of the rows, which restart at each document: of whole sequences, or of the rows
// [first, first + rows) of each where ranks share a sequence.
class Positions {
 public:
  Positions(const BlockContext& context, std::int64_t rows) {
    for (const auto& sequence : context.documents) {
      if (rows == 0) {
        for (std::int64_t length : sequence) spans_.push_back({0, length});
        continue;
      }
      const std::int64_t first = context.first_position, end = first + rows;
      std::int64_t start = 0;
      for (std::int64_t length : sequence) {
        const std::int64_t low = std::max(start, first), high = std::min(start + length, end);
        if (high > low) spans_.push_back({low - start, high - start});
        start += length;
      }
      CHECK(start >= end, "the documents do not cover the rows");
    }
  }
  // Fills `out` with the next positions; rows are asked for in order.
  template <class T>
  void next(T* out, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      while (span_ < spans_.size() && spans_[span_].next == spans_[span_].end) ++span_;
      CHECK(span_ < spans_.size(), "the documents do not cover the rows");
      out[i] = static_cast<T>(spans_[span_].next++);
    }
  }

 private:
  struct Span {
    std::int64_t next, end;  // positions in one document
  };
  std::vector<Span> spans_;
  std::size_t span_ = 0;
};

at::Tensor host_empty(std::int64_t count, at::ScalarType dtype) {
  return at::empty({count}, at::TensorOptions().dtype(dtype));
}

// theta^(-2i/d), Su et al. 2021 (RoFormer), section 3.4.2.
at::Tensor inverse_frequencies(std::int64_t half, double theta, const at::Tensor& like,
                               at::ScalarType stat) {
  at::Tensor table = host_empty(half, stat);
  for (std::int64_t i = 0; i < half; ++i) {
    const double f = std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
    if (stat == at::kDouble) {
      table.data_ptr<double>()[i] = f;
    } else {
      table.data_ptr<float>()[i] = static_cast<float>(f);
    }
  }
  return table.to(like.device());
}

// y = x rotated by +angle (sign 1) or -angle (sign -1).
void rotate(const BlockContext& context, const Prim& prim, const at::Tensor& x, const at::Tensor& y,
            std::int64_t step, double sign) {
  const at::ScalarType stat = stat_type(x);
  const std::int64_t cols = x.size(1), half = prim.head_dim / 2;
  const at::Tensor a = scratch(x, {step * cols}, stat), b = scratch(x, {step * cols}, stat);
  const at::Tensor angle = scratch(x, {step * half}, stat);
  const at::Tensor cosine = scratch(x, {step * half}, stat);
  const at::Tensor frequency = inverse_frequencies(half, prim.scalar, x, stat);
  const at::Tensor host = host_empty(step, stat);
  Positions positions(context, prim.sequence_tokens);
  for_slices(x.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    if (stat == at::kDouble) {
      positions.next(host.data_ptr<double>(), n);
    } else {
      positions.next(host.data_ptr<float>(), n);
    }
    const at::Tensor position = host.narrow(0, 0, n).to(x.device());
    at::Tensor sine = carve(angle, {n, 1, half}), c = carve(cosine, {n, 1, half});
    mul_to(sine, position.view({n, 1, 1}), frequency.view({1, 1, half}));
    at::cos_out(c, sine);
    sine.sin_();
    const std::int64_t by_head[] = {n, prim.heads, prim.head_dim};
    const at::Tensor out = y.narrow(0, begin, n), made = place(b, out);
    const at::Tensor from = widened(a, x.narrow(0, begin, n)).view(by_head);
    const at::Tensor to = made.view(by_head);
    const at::Tensor x1 = from.narrow(2, 0, half), x2 = from.narrow(2, half, half);
    const at::Tensor y1 = to.narrow(2, 0, half), y2 = to.narrow(2, half, half);
    mul_to(y1, x1, c);
    y1.addcmul_(x2, sine, -sign);
    mul_to(y2, x2, c);
    y2.addcmul_(x1, sine, sign);
    put(out, made);
  });
}

}  // namespace

// y = w * x / rms(x), rms over groups of d columns (Zhang and Sennrich 2019, equation 4).
void rms_norm_forward(ForwardCall& call) {
  const at::Tensor& x = call.in[0];
  const at::ScalarType stat = stat_type(x);
  const std::int64_t cols = x.size(1), d = call.prim.head_dim, groups = cols / d;
  const std::int64_t step = slice_of(call.block, call.prim.in[0]);
  const at::Tensor a = scratch(x, {step * cols}, stat), b = scratch(x, {step * cols}, stat);
  for_slices(x.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    const at::Tensor wide = widened(a, x.narrow(0, begin, n)).view({n * groups, d});
    const at::Tensor square = carve(b, {n * groups, d});
    mul_to(square, wide, wide);
    const at::Tensor scale = call.statistic.narrow(0, begin, n).view({n * groups, 1});
    mean_to(scale, square);
    scale.add_(call.prim.scalar).rsqrt_();
    const at::Tensor y = call.out[0].narrow(0, begin, n).view({n * groups, d});
    const at::Tensor hat = place(b, y);
    mul_to(hat, wide, scale);
    put(y, hat);
    y.mul_(call.weight);
  });
}

// With h = x / rms and g = dy * w: dx = (g - h * mean(g * h)) / rms; dw = sum over rows of dy * h.
void rms_norm_backward(BackwardCall& call) {
  const at::Tensor& x = call.in[0];
  const at::ScalarType stat = stat_type(x);
  const std::int64_t cols = x.size(1), d = call.prim.head_dim, groups = cols / d;
  const std::int64_t step = slice_of(call.block, call.prim.in[0]);
  const at::Tensor a = scratch(x, {step * cols}, stat), b = scratch(x, {step * cols}, stat),
                   c = scratch(x, {step * cols}, stat), v = scratch(x, {step * groups}, stat);
  const at::Tensor weight = call.weight.to(stat);
  const at::Tensor total = at::zeros({d}, weight.options());
  const at::Tensor part = scratch(x, {d}, stat);
  for_slices(x.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    const at::Tensor hat = carve(a, {n * groups, d}), g = carve(b, {n * groups, d}),
                     product = carve(c, {n * groups, d}), mean = carve(v, {n * groups, 1});
    const at::Tensor scale = call.statistic.narrow(0, begin, n).view({n * groups, 1});
    mul_to(hat, widened(a, x.narrow(0, begin, n)).view({n * groups, d}), scale);
    const at::Tensor dy = widened(b, call.grad_out[0].narrow(0, begin, n)).view({n * groups, d});
    if (call.grad_weight.defined()) {
      mul_to(product, dy, hat);
      sum_to(part, product, 0, false);
      total.add_(part);
    }
    if (!call.grad_in[0].defined()) return;
    mul_to(g, dy, weight);
    mul_to(product, g, hat);
    mean_to(mean, product);
    g.sub_(hat.mul_(mean));
    const at::Tensor dx = call.grad_in[0].narrow(0, begin, n).view({n * groups, d});
    const at::Tensor made = place(c, dx);
    mul_to(made, g, scale);
    put(dx, made);
  });
  if (call.grad_weight.defined()) {
    call.grad_weight.add_(total.to(call.grad_weight.scalar_type()));
  }
}

void rope_forward(ForwardCall& call) {
  rotate(call.context, call.prim, call.in[0], call.out[0], slice_of(call.block, call.prim.in[0]),
         1);
}

void rope_backward(BackwardCall& call) {
  rotate(call.context, call.prim, call.grad_out[0], call.grad_in[0],
         slice_of(call.block, call.prim.in[0]), -1);
}

void add_forward(ForwardCall& call) {
  at::add_out(call.out[0], call.in[0], call.in[1]);
}

void swiglu_forward(ForwardCall& call) {
  const at::Tensor& gate = call.in[0];
  const at::ScalarType stat = stat_type(gate);
  const std::int64_t cols = gate.size(1), step = slice_of(call.block, call.prim.in[0]);
  const at::Tensor a = scratch(gate, {step * cols}, stat), b = scratch(gate, {step * cols}, stat);
  for_slices(gate.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    at::Tensor silu = carve(b, {n, cols});
    at::silu_out(silu, widened(a, gate.narrow(0, begin, n)));
    const at::Tensor up = widened(a, call.in[1].narrow(0, begin, n));
    const at::Tensor out = call.out[0].narrow(0, begin, n), made = place(b, out);
    mul_to(made, silu, up);
    put(out, made);
  });
}

// d up = dy * silu(gate); d gate = dy * up * silu'(gate).
void swiglu_backward(BackwardCall& call) {
  const at::Tensor& gate = call.in[0];
  const at::ScalarType stat = stat_type(gate);
  const std::int64_t cols = gate.size(1), step = slice_of(call.block, call.prim.in[0]);
  const at::Tensor a = scratch(gate, {step * cols}, stat), b = scratch(gate, {step * cols}, stat),
                   c = scratch(gate, {step * cols}, stat), d = scratch(gate, {step * cols}, stat);
  for_slices(gate.size(0), step, [&](std::int64_t begin, std::int64_t n) {
    const at::Tensor x = widened(a, gate.narrow(0, begin, n));
    const at::Tensor dy = widened(c, call.grad_out[0].narrow(0, begin, n));
    if (call.grad_in[1].defined()) {
      at::Tensor silu = carve(b, {n, cols});
      at::silu_out(silu, x);
      const at::Tensor out = call.grad_in[1].narrow(0, begin, n), made = place(b, out);
      mul_to(made, silu, dy);
      put(out, made);
    }
    if (!call.grad_in[0].defined()) return;
    const at::Tensor d_silu = carve(d, {n, cols});
    mul_to(d_silu, dy, widened(d, call.in[1].narrow(0, begin, n)));
    const at::Tensor out = call.grad_in[0].narrow(0, begin, n);
    at::Tensor made = place(b, out);
    at::silu_backward_out(made, d_silu, x);
    put(out, made);
  });
}

}  // namespace orrery::engine
