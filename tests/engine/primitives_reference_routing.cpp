// Plain loops of the kinds that route tokens. Nothing here uses ATen.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/torch/compat.h"
#include "tests/engine/primitives_reference_kinds.h"

namespace orrery::engine {
namespace {

std::size_t at_index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

// Whether a row is no padding.
bool counts_row(const Site& s, std::int64_t row, std::int64_t rows) {
  const Prim& p = s.prim;
  if (p.valid_tokens == 0) return true;
  const std::int64_t local = p.sequence_tokens > 0 ? p.sequence_tokens : rows / p.sequences;
  return s.context.first_position + row % local < p.valid_tokens;
}

std::vector<double> scores_of(const Prim& p, const Matrix& logits, std::int64_t t) {
  if (!p.sigmoid) return softmax_row(logits, t);
  std::vector<double> scores;
  for (std::int64_t e = 0; e < logits.cols; ++e) {
    scores.push_back(1 / (1 + std::exp(-logits.at(t, e))));
  }
  return scores;
}

// Indices of `values` by falling value; equals keep their order.
std::vector<std::int64_t> falling(const std::vector<double>& values) {
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return values[at_index(a)] > values[at_index(b)];
  });
  return order;
}

// The choices; those outside the best groups are never taken.
std::vector<double> in_best_groups(const Prim& p, const std::vector<double>& choice) {
  const std::int64_t n = p.experts / p.groups;
  std::vector<double> strength;
  for (std::int64_t g = 0; g < p.groups; ++g) {
    std::vector<double> own(choice.begin() + g * n, choice.begin() + (g + 1) * n);
    std::sort(own.rbegin(), own.rend());
    strength.push_back(own[0] + own[1]);
  }
  const std::vector<std::int64_t> best = falling(strength);
  std::vector<double> out(choice.size(), -std::numeric_limits<double>::infinity());
  for (std::int64_t i = 0; i < p.top_groups; ++i) {
    const std::int64_t g = best[at_index(i)];
    for (std::int64_t e = g * n; e < (g + 1) * n; ++e) out[at_index(e)] = choice[at_index(e)];
  }
  return out;
}

std::vector<std::int64_t> chosen_experts(const Prim& p, const std::vector<double>& scores,
                                         const Matrix* bias) {
  std::vector<double> choice = scores;
  if (bias != nullptr) {
    for (std::int64_t e = 0; e < p.experts; ++e) choice[at_index(e)] += bias->at(0, e);
  }
  if (p.groups > 1) choice = in_best_groups(p, choice);
  return falling(choice);
}

// Outputs of kTopK; `given` replaces the choice (kTopKReplay).
Matrices top_k(const Site& s, const Matrix& logits, const Matrix* bias, const Matrix* given) {
  const Prim& p = s.prim;
  Matrix weights(logits.rows, p.top_k), sums(p.sequences, p.experts), ids(logits.rows, p.top_k),
      counts(p.sequences, p.experts);
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    const std::vector<double> scores = scores_of(p, logits, t);
    const std::int64_t sequence = t / (logits.rows / p.sequences);
    const std::vector<std::int64_t> order = chosen_experts(p, scores, bias);
    const bool valid = counts_row(s, t, logits.rows);
    double sum = 0;
    for (std::int64_t i = 0; i < p.top_k; ++i) {
      const std::int64_t e = given != nullptr ? whole(given->at(t, i)) : order[at_index(i)];
      ids.at(t, i) = static_cast<double>(e);
      if (valid) counts.at(sequence, e) += 1;
      sum += weights.at(t, i) = scores[at_index(e)];
    }
    for (std::int64_t i = 0; i < p.top_k; ++i) {
      if (p.normalize) weights.at(t, i) /= sum;
      weights.at(t, i) *= p.scalar == 0 ? 1 : p.scalar;
    }
    const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
    for (std::int64_t e = 0; e < p.experts && valid; ++e) {
      sums.at(sequence, e) += p.sigmoid ? scores[at_index(e)] / total : scores[at_index(e)];
    }
  }
  return {weights, sums, ids, counts};
}

// Experts in the order in which their rows travel.
std::vector<std::int64_t> travelling(const Prim& p) {
  const std::int64_t local = p.experts / p.peers, each = local / p.parts;
  std::vector<std::int64_t> out;
  for (std::int64_t part = 0; part < p.parts; ++part) {
    for (std::int64_t peer = 0; peer < p.peers; ++peer) {
      for (std::int64_t i = 0; i < each; ++i) out.push_back(peer * local + part * each + i);
    }
  }
  return out;
}

Matrices sort_by_expert(const Prim& p, const Matrix& ids) {
  Matrix order(ids.rows * ids.cols, 1), counts(p.experts, 1);
  std::int64_t next = 0;
  for (const std::int64_t e : travelling(p)) {
    for (std::size_t pair = 0; pair < ids.data.size(); ++pair) {
      if (whole(ids.data[pair]) != e) continue;
      order.at(next++, 0) = static_cast<double>(pair);
      counts.at(e, 0) += 1;
    }
  }
  return {order, counts};
}

Matrix select_sort(const Site& s, const Matrix& ids) {
  Matrix order(0, 1);
  for (std::int64_t e = 0; e < s.prim.experts; ++e) {
    for (std::size_t slot = 0; slot < ids.data.size(); ++slot) {
      if (whole(ids.data[slot]) != s.context.first_expert + e) continue;
      order.data.push_back(static_cast<double>(slot));
      ++order.rows;
    }
  }
  return order;
}

Matrix select_rows(const Prim& p, const Matrix& x, const Matrix& order) {
  Matrix y(order.rows, x.cols);
  for (std::int64_t r = 0; r < order.rows; ++r) {
    for (std::int64_t c = 0; c < x.cols; ++c) {
      y.at(r, c) = x.at(whole(order.at(r, 0)) / p.top_k, c);
    }
  }
  return y;
}

Matrix spread_rows(const Prim& p, const Matrix& rows, const Matrix& w, const Matrix& order) {
  Matrix y(w.rows, rows.cols);
  for (std::int64_t token = 0; token < w.rows; ++token) {
    for (std::int64_t r = 0; r < order.rows; ++r) {
      const std::int64_t slot = whole(order.at(r, 0));
      if (slot / p.top_k != token) continue;
      for (std::int64_t c = 0; c < y.cols; ++c) {
        y.at(token, c) += w.at(token, slot % p.top_k) * rows.at(r, c);
      }
    }
  }
  return y;
}

Matrix z_loss(const Site& s, const Matrix& logits) {
  Matrix y(1, 1);
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    if (!counts_row(s, t, logits.rows)) continue;
    double sum = 0;
    for (std::int64_t e = 0; e < logits.cols; ++e) sum += std::exp(logits.at(t, e));
    y.data[0] += s.prim.scalar * std::log(sum) * std::log(sum);
  }
  return y;
}

}  // namespace

std::vector<double> softmax_row(const Matrix& logits, std::int64_t row) {
  std::vector<double> p;
  double sum = 0;
  for (std::int64_t e = 0; e < logits.cols; ++e) p.push_back(std::exp(logits.at(row, e)));
  for (double x : p) sum += x;
  for (double& x : p) x /= sum;
  return p;
}

Matrices evaluate_routing(const Site& s, const Matrices& in) {
  switch (s.prim.kind) {
    case PrimKind::kTopK:
      return top_k(s, in[0], in.size() > 1 ? &in[1] : nullptr, nullptr);
    case PrimKind::kTopKReplay: {
      Matrices out = top_k(s, in[0], nullptr, &in[1]);
      out.resize(2);
      return out;
    }
    case PrimKind::kSortByExpert:
      return sort_by_expert(s.prim, in[0]);
    case PrimKind::kSelectSort:
      return {select_sort(s, in[0])};
    case PrimKind::kSelectRows:
      return {select_rows(s.prim, in[0], in[1])};
    case PrimKind::kSpreadRows:
      return {spread_rows(s.prim, in[0], in[1], in[2])};
    case PrimKind::kZLoss:
      return {z_loss(s, in[0])};
    default:
      CHECK(false, "not a kind that routes");
  }
}

}  // namespace orrery::engine
