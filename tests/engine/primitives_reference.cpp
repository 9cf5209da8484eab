// The loops. Nothing here uses ATen.
#include "tests/engine/primitives_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/torch/compat.h"
#include "tests/engine/primitives_reference_kinds.h"

namespace orrery::engine {
namespace {

// For each row: index of the first row of its document.
std::vector<std::int64_t> document_starts(const BlockContext& context) {
  std::vector<std::int64_t> starts;
  for (const auto& sequence : context.documents) {
    for (std::int64_t length : sequence) {
      starts.insert(starts.end(), static_cast<std::size_t>(length),
                    static_cast<std::int64_t>(starts.size()));
    }
  }
  return starts;
}

// Rows of a whole sequence.
std::int64_t whole_sequence(const BlockContext& context) {
  const auto& first = context.documents.at(0);
  return std::accumulate(first.begin(), first.end(), std::int64_t{0});
}

Matrix embedding(const Matrix& ids, const Matrix& w) {
  Matrix y(ids.rows, w.cols);
  for (std::int64_t t = 0; t < ids.rows; ++t) {
    for (std::int64_t c = 0; c < w.cols; ++c) y.at(t, c) = w.at(whole(ids.at(t, 0)), c);
  }
  return y;
}

Matrix rms_norm(const Prim& p, const Matrix& x, const Matrix& w) {
  Matrix y(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t g = 0; g < x.cols; g += p.head_dim) {
      double sum = 0;
      for (std::int64_t i = 0; i < p.head_dim; ++i) sum += x.at(t, g + i) * x.at(t, g + i);
      const double rms = std::sqrt(sum / static_cast<double>(p.head_dim) + p.scalar);
      for (std::int64_t i = 0; i < p.head_dim; ++i) {
        y.at(t, g + i) = w.data[static_cast<std::size_t>(i)] * x.at(t, g + i) / rms;
      }
    }
  }
  return y;
}

// Rows begin..end of y = x w^T, where w's rows start at `row`.
void product(const Matrix& x, const Matrix& w, std::int64_t row, std::int64_t begin,
             std::int64_t end, Matrix& y) {
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t n = 0; n < y.cols; ++n) {
      for (std::int64_t k = 0; k < x.cols; ++k) y.at(t, n) += x.at(t, k) * w.at(row + n, k);
    }
  }
}

Matrix grouped_linear(const Site& s, std::int64_t cols, const Matrix& x, const Matrix& w) {
  Matrix y(x.rows, cols);
  std::int64_t begin = 0, row = 0;
  for (std::int64_t rows : s.context.expert_rows) {
    product(x, w, row, begin, begin + rows, y);
    begin += rows;
    row += cols;
  }
  return y;
}

Matrix rope(const Site& s, const Matrix& x) {
  const Prim& p = s.prim;
  const std::vector<std::int64_t> starts = document_starts(s.context);
  const std::int64_t half = p.head_dim / 2, local = p.sequence_tokens;
  Matrix y(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    // The row of the whole sequences that row t is.
    const std::int64_t row =
        local == 0 ? t
                   : t / local * whole_sequence(s.context) + s.context.first_position + t % local;
    const auto position = static_cast<double>(row - starts[static_cast<std::size_t>(row)]);
    for (std::int64_t h = 0; h < x.cols; h += p.head_dim) {
      for (std::int64_t i = 0; i < half; ++i) {
        const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(p.head_dim);
        const double angle = position / std::pow(p.scalar, exponent);
        const double a = x.at(t, h + i), b = x.at(t, h + half + i);
        y.at(t, h + i) = a * std::cos(angle) - b * std::sin(angle);
        y.at(t, h + half + i) = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return y;
}

Matrix attention(const Site& s, const Matrix& q, const Matrix& k, const Matrix& v) {
  const Prim& p = s.prim;
  const std::vector<std::int64_t> starts = document_starts(s.context);
  const std::int64_t d = p.head_dim, group = p.heads / p.kv_heads;
  Matrix o(q.rows, q.cols);
  for (std::int64_t h = 0; h < p.heads; ++h) {
    const std::int64_t qc = h * d, kc = h / group * d;
    for (std::int64_t t = 0; t < q.rows; ++t) {
      const std::int64_t first = starts[static_cast<std::size_t>(t)];
      std::vector<double> score;
      for (std::int64_t u = first; u <= t; ++u) {
        double dot = 0;
        for (std::int64_t i = 0; i < d; ++i) dot += q.at(t, qc + i) * k.at(u, kc + i);
        score.push_back(dot / std::sqrt(static_cast<double>(d)));
      }
      const double most = *std::max_element(score.begin(), score.end());
      double sum = 0;
      for (double& x : score) sum += x = std::exp(x - most);
      for (std::int64_t u = first; u <= t; ++u) {
        const double weight = score[static_cast<std::size_t>(u - first)] / sum;
        for (std::int64_t i = 0; i < d; ++i) o.at(t, qc + i) += weight * v.at(u, kc + i);
      }
    }
  }
  return o;
}

Matrix permute(const Prim& p, const Matrix& x, const Matrix& order) {
  Matrix y(order.rows, x.cols);
  for (std::int64_t r = 0; r < order.rows; ++r) {
    for (std::int64_t c = 0; c < x.cols; ++c) {
      y.at(r, c) = x.at(whole(order.at(r, 0)) / p.top_k, c);
    }
  }
  return y;
}

Matrix unpermute(const Prim& p, const Matrix& rows, const Matrix& w, const Matrix& order) {
  Matrix y(w.rows, rows.cols);
  for (std::int64_t r = 0; r < order.rows; ++r) {
    const std::int64_t pair = whole(order.at(r, 0));
    for (std::int64_t c = 0; c < rows.cols; ++c) {
      y.at(pair / p.top_k, c) += w.at(pair / p.top_k, pair % p.top_k) * rows.at(r, c);
    }
  }
  return y;
}

// Row r of the source-major order goes to row position[r] of the expert-major order.
std::vector<std::int64_t> expert_major_positions(const BlockContext& context) {
  std::vector<std::int64_t> position;
  for (std::size_t peer = 0; peer < context.received.size(); ++peer) {
    for (std::size_t e = 0; e < context.received[peer].size(); ++e) {
      std::int64_t first = 0;
      for (std::size_t other = 0; other < context.received.size(); ++other) {
        for (std::size_t f = 0; f < e; ++f) first += context.received[other][f];
        if (other < peer) first += context.received[other][e];
      }
      for (std::int64_t i = 0; i < context.received[peer][e]; ++i) position.push_back(first + i);
    }
  }
  return position;
}

Matrix regroup(const Site& s, const Matrix& x, bool to_expert) {
  const std::vector<std::int64_t> position = expert_major_positions(s.context);
  Matrix y(x.rows, x.cols);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const std::int64_t other = position[static_cast<std::size_t>(r)];
    for (std::int64_t c = 0; c < x.cols; ++c) {
      (to_expert ? y.at(other, c) : y.at(r, c)) = to_expert ? x.at(r, c) : x.at(other, c);
    }
  }
  return y;
}

Matrix elementwise(PrimKind kind, const Matrix& a, const Matrix& b) {
  Matrix y(a.rows, a.cols);
  for (std::size_t i = 0; i < y.data.size(); ++i) {
    y.data[i] = kind == PrimKind::kAdd ? a.data[i] + b.data[i]
                                       : a.data[i] / (1 + std::exp(-a.data[i])) * b.data[i];
  }
  return y;
}

Matrix balance_loss(const Prim& p, const Matrix& sums, const Matrix& counts) {
  Matrix y(1, 1);
  for (std::size_t i = 0; i < sums.data.size(); ++i) y.data[0] += sums.data[i] * counts.data[i];
  y.data[0] *= p.scalar;
  return y;
}

Matrix cross_entropy(const Site& s, const Matrix& logits, const Matrix& labels) {
  Matrix y(1, 1);
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    const std::int64_t label = whole(labels.at(t, 0));
    if (label == -100) continue;
    y.data[0] -=
        s.context.loss_scale * std::log(softmax_row(logits, t)[static_cast<std::size_t>(label)]);
  }
  return y;
}

Matrices evaluate(const Site& s, std::int64_t cols, const Matrices& in, const Matrix& w) {
  const Prim& p = s.prim;
  switch (p.kind) {
    case PrimKind::kEmbedding:
      return {embedding(in[0], w)};
    case PrimKind::kRmsNorm:
      return {rms_norm(p, in[0], w)};
    case PrimKind::kLinear: {
      Matrix y(in[0].rows, cols);
      product(in[0], w, 0, 0, y.rows, y);
      return {y};
    }
    case PrimKind::kRope:
      return {rope(s, in[0])};
    case PrimKind::kAttention:
      return {attention(s, in[0], in[1], in[2])};
    case PrimKind::kAdd:
    case PrimKind::kSwiGlu:
      return {elementwise(p.kind, in[0], in[1])};
    case PrimKind::kPermute:
      return {permute(p, in[0], in[1])};
    case PrimKind::kToExpertMajor:
    case PrimKind::kToSourceMajor:
      return {regroup(s, in[0], p.kind == PrimKind::kToExpertMajor)};
    case PrimKind::kGroupedLinear:
      return {grouped_linear(s, cols, in[0], w)};
    case PrimKind::kUnpermute:
      return {unpermute(p, in[0], in[1], in[2])};
    case PrimKind::kBalanceLoss:
      return {balance_loss(p, in[0], in[1])};
    case PrimKind::kCrossEntropy:
      return {cross_entropy(s, in[0], in[1])};
    case PrimKind::kTopK:
    case PrimKind::kTopKReplay:
    case PrimKind::kSortByExpert:
    case PrimKind::kZLoss:
    case PrimKind::kSelectSort:
    case PrimKind::kSelectRows:
    case PrimKind::kSpreadRows:
      return evaluate_routing(s, in);
    case PrimKind::kPackHeads:
    case PrimKind::kUnpackSequence:
    case PrimKind::kPackSequence:
    case PrimKind::kUnpackHeads:
      return evaluate_sequence(s, in);
  }
  CHECK(false, "unknown primitive");
}

}  // namespace

std::vector<Matrix> reference_forward(const Block& block, const BlockContext& context,
                                      const std::vector<Matrix>& inputs,
                                      const std::vector<Matrix>& params) {
  Matrices values(block.values.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    values[static_cast<std::size_t>(block.inputs[i])] = inputs[i];
  }
  for (const Prim& prim : block.prims) {
    Matrices in;
    for (ValueId v : prim.in) in.push_back(values[static_cast<std::size_t>(v)]);
    const Matrix weight = prim.param >= 0 ? params[static_cast<std::size_t>(prim.param)] : Matrix();
    const std::int64_t cols = block.values[static_cast<std::size_t>(prim.out[0])].cols;
    const Matrices out = evaluate({prim, context}, cols, in, weight);
    for (std::size_t i = 0; i < out.size(); ++i) {
      values[static_cast<std::size_t>(prim.out[i])] = out[i];
    }
  }
  Matrices outputs;
  for (ValueId v : block.outputs) outputs.push_back(values[static_cast<std::size_t>(v)]);
  return outputs;
}

}  // namespace orrery::engine
