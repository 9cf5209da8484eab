// See metrics.h.
#include "validation/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.h"

namespace orrery::validation {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

}  // namespace

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return kNone;
  std::sort(values.begin(), values.end());
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

double median(std::vector<double> values) {
  return quantile(std::move(values), 0.5);
}

// Summed in order of size, so that it does not depend on the order of the rows.
double mean(const std::vector<double>& values) {
  if (values.empty()) return kNone;
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  double sum = 0;
  for (const double v : sorted) sum += v;
  return sum / static_cast<double>(sorted.size());
}

double log_error(const Pair& pair) {
  CHECK(pair.predicted > 0 && pair.measured > 0, "times are more than 0");
  return std::log(pair.predicted / pair.measured);
}

double pinball(double q, double predicted, double measured) {
  const double above = measured - predicted;
  return above >= 0 ? q * above : (q - 1) * above;
}

Accuracy accuracy(const std::vector<Pair>& pairs) {
  Accuracy out;
  out.rows = pairs.size();
  std::vector<double> errors, sizes, inside, widths, losses[3];
  for (const Pair& pair : pairs) {
    errors.push_back(log_error(pair));
    sizes.push_back(std::abs(errors.back()));
    inside.push_back(pair.p10 <= pair.measured && pair.measured <= pair.p90 ? 1 : 0);
    widths.push_back(std::log(pair.p90 / pair.p10));
    const double said[3] = {pair.p10, pair.predicted, pair.p90};
    const double q[3] = {0.1, 0.5, 0.9};
    for (int i = 0; i < 3; ++i) {
      losses[i].push_back(pinball(q[i], std::log(said[i]), std::log(pair.measured)));
    }
  }
  out.median_error = median(sizes);
  out.bias = median(errors);
  out.p90_error = quantile(sizes, 0.9);
  out.coverage = mean(inside);
  out.width = median(widths);
  for (int i = 0; i < 3; ++i) out.pinball[i] = mean(losses[i]);
  out.pinball_mean = (out.pinball[0] + out.pinball[1] + out.pinball[2]) / 3;
  return out;
}

double regret(const std::vector<Choice>& choices) {
  if (choices.empty()) return kNone;
  double best = choices.front().measured;
  const Choice* chosen = &choices.front();
  for (const Choice& c : choices) {
    best = std::min(best, c.measured);
    const bool tied = c.predicted == chosen->predicted && c.measured > chosen->measured;
    if (c.predicted < chosen->predicted || tied) chosen = &c;
  }
  return chosen->measured / best - 1;
}

double kendall_tau(const std::vector<Choice>& choices, double apart) {
  std::int64_t pairs = 0, agreed = 0;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    for (std::size_t j = i + 1; j < choices.size(); ++j) {
      const Choice &a = choices[i], &b = choices[j];
      const double low = std::min(a.measured, b.measured);
      if (std::abs(a.measured - b.measured) <= apart * low) continue;
      ++pairs;
      if (a.predicted == b.predicted) continue;
      agreed += (a.predicted < b.predicted) == (a.measured < b.measured) ? 1 : -1;
    }
  }
  return pairs == 0 ? kNone : static_cast<double>(agreed) / static_cast<double>(pairs);
}

bool best_in_top_quarter(const std::vector<Choice>& choices) {
  if (choices.empty()) return false;
  const auto best =
      std::min_element(choices.begin(), choices.end(),
                       [](const Choice& a, const Choice& b) { return a.measured < b.measured; });
  // How many are predicted to be faster than the best one, or as fast.
  std::size_t rank = 0;
  for (const Choice& c : choices) rank += c.predicted <= best->predicted ? 1U : 0U;
  return rank <= (choices.size() + 3) / 4;
}

}  // namespace orrery::validation
