// The functions of which the reference model is made, each with its derivative. Matrices are
// row-major vectors; the number of rows follows from the size. Every *_backward takes the same
// inputs as its function and the gradient `dy` of the result; it returns the gradient of the first
// input and adds to the gradients of the weights.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace orrery::reference {

using Vector = std::vector<double>;
using Values = std::span<const double>;
using Gradient = std::span<double>;

// a += b.
void add(Vector& a, const Vector& b);

// softmax(logits) of one row.
Vector softmax(Values logits);

// y[n,o] = sum_i x[n,i] w[o,i], with `in` columns of x and w.
Vector linear(Values x, Values w, std::int64_t in);
Vector linear_backward(Values x, Values w, std::int64_t in, Values dy, Gradient dw);

// y = w * x / sqrt(mean(x^2) + eps) over rows of w.size() columns.
Vector rms_norm(Values x, Values w, double eps);
Vector rms_norm_backward(Values x, Values w, double eps, Values dy, Gradient dw);

// down(silu(gate x) * up x): gate, up [F,hidden], down [hidden,F].
struct SwiGlu {
  Values gate, up, down;
};
struct SwiGluGradient {
  Gradient gate, up, down;
};
Vector swiglu(Values x, const SwiGlu& w, std::int64_t hidden);
Vector swiglu_backward(Values x, const SwiGlu& w, std::int64_t hidden, Values dy,
                       const SwiGluGradient& dw);

// Turns the pair (i, i + d/2) of every head of row r by the angle
// sign * position[r] * theta^(-2i/d). The derivative is the turn back: sign = -1.
Vector rope(Values x, const std::vector<std::int64_t>& positions, std::int64_t heads,
            std::int64_t head_dim, double theta, double sign = 1);

// Causal attention inside each document [begin, end) of rows: query head h reads kv head
// h / (heads / kv_heads); scale head_dim^(-1/2). q, result [N,heads,d]; k, v [N,kv_heads,d].
struct Attention {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> documents;
};
Vector attention(Values q, Values k, Values v, const Attention& shape);
struct AttentionGradient {
  Vector q, k, v;
};
AttentionGradient attention_backward(Values q, Values k, Values v, const Attention& shape,
                                     Values dy);

// Mean of -log softmax(logits)[label] over the rows whose label is >= 0, and its gradient.
struct CrossEntropy {
  double loss = 0;
  Vector dlogits;
};
CrossEntropy cross_entropy(Values logits, const std::vector<std::int64_t>& labels,
                           std::int64_t vocab);

}  // namespace orrery::reference
