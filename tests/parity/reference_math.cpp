// The functions of the reference model and their derivatives, in plain loops.
#include "tests/parity/reference_math.h"

#include <algorithm>
#include <cmath>

namespace orrery::reference {
namespace {

std::int64_t size(Values x) {
  return static_cast<std::int64_t>(x.size());
}

double dot(Values a, Values b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Row `index` of `width` columns.
Values row(Values x, std::int64_t index, std::int64_t width) {
  return x.subspan(index * width, width);
}
Gradient row(Vector& x, std::int64_t index, std::int64_t width) {
  return Gradient(x).subspan(index * width, width);
}

// a += factor * b.
void add_scaled(Gradient a, double factor, Values b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += factor * b[i];
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

// The probabilities with which query row i, head h, reads the keys begin..i.
Vector attention_row(Values q, Values k, const Attention& shape, std::int64_t begin, std::int64_t i,
                     std::int64_t h) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t g = h / (shape.heads / shape.kv_heads);
  Vector scores;
  for (std::int64_t j = begin; j <= i; ++j) {
    const double score = dot(row(q, i * shape.heads + h, d), row(k, j * shape.kv_heads + g, d));
    scores.push_back(score / std::sqrt(static_cast<double>(d)));
  }
  return softmax(scores);
}

}  // namespace

void add(Vector& a, const Vector& b) {
  add_scaled(a, 1, b);
}

Vector softmax(Values logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  Vector p;
  double sum = 0;
  for (const double logit : logits) {
    p.push_back(std::exp(logit - largest));
    sum += p.back();
  }
  for (double& value : p) value /= sum;
  return p;
}

Vector linear(Values x, Values w, std::int64_t in) {
  const std::int64_t rows = size(x) / in, out = size(w) / in;
  Vector y(rows * out);
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t o = 0; o < out; ++o) y[n * out + o] = dot(row(x, n, in), row(w, o, in));
  }
  return y;
}

Vector linear_backward(Values x, Values w, std::int64_t in, Values dy, Gradient dw) {
  const std::int64_t rows = size(x) / in, out = size(w) / in;
  Vector dx(x.size());
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t o = 0; o < out; ++o) {
      add_scaled(row(dx, n, in), dy[n * out + o], row(w, o, in));
      add_scaled(dw.subspan(o * in, in), dy[n * out + o], row(x, n, in));
    }
  }
  return dx;
}

Vector rms_norm(Values x, Values w, double eps) {
  const std::int64_t width = size(w), rows = size(x) / width;
  Vector y(x.size());
  for (std::int64_t n = 0; n < rows; ++n) {
    const Values xn = row(x, n, width);
    const double root = std::sqrt(dot(xn, xn) / static_cast<double>(width) + eps);
    for (std::int64_t i = 0; i < width; ++i) y[n * width + i] = w[i] * xn[i] / root;
  }
  return y;
}

// With r = sqrt(mean(x^2) + eps) and g = w * dy: dx = g / r - x * (g . x) / (width * r^3).
Vector rms_norm_backward(Values x, Values w, double eps, Values dy, Gradient dw) {
  const std::int64_t width = size(w), rows = size(x) / width;
  Vector dx(x.size());
  for (std::int64_t n = 0; n < rows; ++n) {
    const Values xn = row(x, n, width), dyn = row(dy, n, width);
    const double root = std::sqrt(dot(xn, xn) / static_cast<double>(width) + eps);
    double along = 0;  // g . x
    for (std::int64_t i = 0; i < width; ++i) along += w[i] * dyn[i] * xn[i];
    for (std::int64_t i = 0; i < width; ++i) {
      dw[i] += dyn[i] * xn[i] / root;
      dx[n * width + i] =
          w[i] * dyn[i] / root - xn[i] * along / (static_cast<double>(width) * root * root * root);
    }
  }
  return dx;
}

Vector swiglu(Values x, const SwiGlu& w, std::int64_t hidden) {
  const Vector gate = linear(x, w.gate, hidden), up = linear(x, w.up, hidden);
  Vector inner(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) inner[i] = gate[i] * sigmoid(gate[i]) * up[i];
  return linear(inner, w.down, size(w.down) / hidden);
}

// silu'(a) = s (1 + a (1 - s)) with s = sigmoid(a).
Vector swiglu_backward(Values x, const SwiGlu& w, std::int64_t hidden, Values dy,
                       const SwiGluGradient& dw) {
  const Vector gate = linear(x, w.gate, hidden), up = linear(x, w.up, hidden);
  Vector inner(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) inner[i] = gate[i] * sigmoid(gate[i]) * up[i];
  const Vector dinner = linear_backward(inner, w.down, size(w.down) / hidden, dy, dw.down);
  Vector dgate(gate.size()), dup(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double s = sigmoid(gate[i]);
    dgate[i] = dinner[i] * up[i] * s * (1 + gate[i] * (1 - s));
    dup[i] = dinner[i] * gate[i] * s;
  }
  Vector dx = linear_backward(x, w.gate, hidden, dgate, dw.gate);
  add(dx, linear_backward(x, w.up, hidden, dup, dw.up));
  return dx;
}

Vector rope(Values x, const std::vector<std::int64_t>& positions, std::int64_t heads,
            std::int64_t head_dim, double theta, double sign) {
  const std::int64_t half = head_dim / 2;
  Vector y(x.size());
  for (std::int64_t r = 0; r < size(x) / (heads * head_dim); ++r) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double frequency =
          std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(head_dim));
      const double angle = sign * static_cast<double>(positions[r]) * frequency;
      const double c = std::cos(angle), s = std::sin(angle);
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t first = (r * heads + h) * head_dim + i, second = first + half;
        y[first] = x[first] * c - x[second] * s;
        y[second] = x[second] * c + x[first] * s;
      }
    }
  }
  return y;
}

Vector attention(Values q, Values k, Values v, const Attention& shape) {
  const std::int64_t d = shape.head_dim;
  Vector y(q.size());
  for (const auto& [begin, end] : shape.documents) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        const std::int64_t g = h / (shape.heads / shape.kv_heads);
        const Vector p = attention_row(q, k, shape, begin, i, h);
        for (std::int64_t j = begin; j <= i; ++j) {
          add_scaled(row(y, i * shape.heads + h, d), p[j - begin],
                     row(v, j * shape.kv_heads + g, d));
        }
      }
    }
  }
  return y;
}

// dp_j = dy . v_j and, through the softmax, dscore_j = p_j (dp_j - sum_l p_l dp_l).
AttentionGradient attention_backward(Values q, Values k, Values v, const Attention& shape,
                                     Values dy) {
  const std::int64_t d = shape.head_dim;
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  AttentionGradient grad{Vector(q.size()), Vector(k.size()), Vector(v.size())};
  for (const auto& [begin, end] : shape.documents) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        const std::int64_t g = h / (shape.heads / shape.kv_heads), query = i * shape.heads + h;
        const Vector p = attention_row(q, k, shape, begin, i, h);
        Vector dp;
        for (std::int64_t j = begin; j <= i; ++j) {
          dp.push_back(dot(row(dy, query, d), row(v, j * shape.kv_heads + g, d)));
        }
        const double mean = dot(p, dp);
        for (std::int64_t j = begin; j <= i; ++j) {
          const std::int64_t key = j * shape.kv_heads + g;
          const double dscore = p[j - begin] * (dp[j - begin] - mean) * scale;
          add_scaled(row(grad.q, query, d), dscore, row(k, key, d));
          add_scaled(row(grad.k, key, d), dscore, row(q, query, d));
          add_scaled(row(grad.v, key, d), p[j - begin], row(dy, query, d));
        }
      }
    }
  }
  return grad;
}

CrossEntropy cross_entropy(Values logits, const std::vector<std::int64_t>& labels,
                           std::int64_t vocab) {
  CrossEntropy result{0, Vector(logits.size())};
  const auto rows = static_cast<std::int64_t>(labels.size());
  const auto counted = std::count_if(labels.begin(), labels.end(), [](auto l) { return l >= 0; });
  for (std::int64_t n = 0; n < rows; ++n) {
    if (labels[n] < 0) continue;
    const Values z = row(logits, n, vocab);
    const double largest = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (const double value : z) sum += std::exp(value - largest);
    const double share = 1 / static_cast<double>(counted);
    result.loss += share * (std::log(sum) + largest - z[labels[n]]);
    const Vector p = softmax(z);
    for (std::int64_t c = 0; c < vocab; ++c) result.dlogits[n * vocab + c] = share * p[c];
    result.dlogits[n * vocab + labels[n]] -= share;
  }
  return result;
}

}  // namespace orrery::reference
