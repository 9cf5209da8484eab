// The router of the reference; see the header.
#include "tests/parity/reference_router.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace orrery::reference {
namespace {

double total(Values values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// Indices by falling value, equal ones in order.
std::vector<std::int64_t> best_first(Values values) {
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return values[a] > values[b]; });
  return order;
}

// Which experts stand in one of the best groups.
std::vector<bool> allowed(const Model& model, Values choice) {
  const std::int64_t each = model.experts / model.expert_groups;
  if (model.expert_groups == 1) return std::vector<bool>(choice.size(), true);
  Vector sums;
  for (std::int64_t g = 0; g < model.expert_groups; ++g) {
    const Values group = choice.subspan(g * each, each);
    const std::vector<std::int64_t> order = best_first(group);
    sums.push_back(group[order[0]] + group[order[1]]);
  }
  const std::vector<std::int64_t> order = best_first(sums);
  std::vector<bool> result(choice.size(), false);
  for (std::int64_t i = 0; i < model.top_groups; ++i) {
    std::fill_n(result.begin() + order[i] * each, each, true);
  }
  return result;
}

// What the chosen scores are divided by.
double divisor(const Model& model, const Route& route) {
  if (!model.norm_topk) return 1;
  double sum = model.sigmoid_router ? 1e-20 : 0;
  for (const std::int64_t e : route.experts) sum += route.scores[e];
  return sum;
}

}  // namespace

Route route_token(const Model& model, Values logits, Values bias) {
  Route r;
  r.softmax = softmax(logits);
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double z : logits) sum += std::exp(z - largest);
  r.log_sum = largest + std::log(sum);
  r.scores = r.softmax;
  if (model.sigmoid_router) {
    for (std::size_t e = 0; e < logits.size(); ++e) r.scores[e] = 1 / (1 + std::exp(-logits[e]));
  }
  r.probs = r.scores;
  const double all = model.sigmoid_router ? total(r.scores) : 1;
  for (double& p : r.probs) p /= all;
  Vector choice = r.scores;
  for (std::size_t e = 0; e < choice.size(); ++e) choice[e] += bias[e];
  const std::vector<bool> may = allowed(model, choice);
  for (const std::int64_t e : best_first(choice)) {
    if (may[e] && static_cast<std::int64_t>(r.experts.size()) < model.top_k) r.experts.push_back(e);
  }
  const double by = divisor(model, r);
  for (const std::int64_t e : r.experts) {
    r.weights.push_back(model.routed_scale * r.scores[e] / by);
  }
  return r;
}

Vector route_token_backward(const Model& model, const Route& route, Values dweights, Values dprobs,
                            double dlog_sum) {
  const std::size_t experts = route.scores.size();
  // Of the scores, through probs: p = s / S gives ds_e = (dp_e - sum_f dp_f p_f) / S.
  Vector dscores(dprobs.begin(), dprobs.end());
  if (model.sigmoid_router) {
    double mean = 0;
    for (std::size_t e = 0; e < experts; ++e) mean += dprobs[e] * route.probs[e];
    for (double& d : dscores) d = (d - mean) / total(route.scores);
  }
  // Through the weights: w_j = c s_j / D gives ds_j = (c dw_j - sum_i dw_i w_i) / D where D is the
  // sum, else c dw_j.
  const double by = divisor(model, route);
  double along = 0;
  for (std::size_t j = 0; j < route.experts.size() && model.norm_topk; ++j) {
    along += dweights[j] * route.weights[j];
  }
  for (std::size_t j = 0; j < route.experts.size(); ++j) {
    dscores[route.experts[j]] += (model.routed_scale * dweights[j] - along) / by;
  }
  double mean = 0;  // softmax: dz_e = s_e (ds_e - sum_f s_f ds_f); sigmoid: ds_e s_e (1 - s_e)
  for (std::size_t e = 0; e < experts; ++e) mean += route.scores[e] * dscores[e];
  Vector dlogits(experts);
  for (std::size_t e = 0; e < experts; ++e) {
    const double s = route.scores[e];
    dlogits[e] = model.sigmoid_router ? dscores[e] * s * (1 - s) : s * (dscores[e] - mean);
    dlogits[e] += dlog_sum * route.softmax[e];
  }
  return dlogits;
}

}  // namespace orrery::reference
