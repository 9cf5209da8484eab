// Figures of accuracy: pure functions of predictions and measurements. Errors are
// ln(predicted / measured): too fast by half and too slow by twice weigh the same.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace orrery::validation {

// One step: predicted quantiles and the measurement, all > 0, in one unit.
struct Pair {
  double p10 = 0, predicted = 0, p90 = 0, measured = 0;
};

// Of an unsorted list; the mean of the two in the middle of an even count. NaN of none.
double median(std::vector<double> values);
// Linear between the closest ranks: q = 0 is the least, 1 the largest. NaN of none.
double quantile(std::vector<double> values, double q);
double mean(const std::vector<double>& values);

double log_error(const Pair& pair);  // ln(predicted / measured)

struct Accuracy {
  std::size_t rows = 0;
  double median_error = 0;  // of |ln(predicted / measured)|
  double bias = 0;          // median of ln(predicted / measured)
  double p90_error = 0;     // of |ln(predicted / measured)|
  double coverage = 0;      // share of the measurements inside [p10, p90]; 0.8 where it is honest
  double width = 0;         // median of ln(p90 / p10)
  // Mean pinball loss of ln(quantile) against ln(measured): for 0.1, 0.5, 0.9, and their mean.
  double pinball[3] = {0, 0, 0};
  double pinball_mean = 0;
};
// NaN in every figure where there are no pairs.
Accuracy accuracy(const std::vector<Pair>& pairs);

// Loss of saying `predicted` for the quantile q of a value: q (m - p) above, (1 - q) (p - m) below.
double pinball(double q, double predicted, double measured);

// Alternatives of one job, with what was predicted and measured for each.
struct Choice {
  double predicted = 0, measured = 0;
};
// Measured time of what is predicted best over the best measured, minus 1. Ties in the prediction
// are taken at their worst.
double regret(const std::vector<Choice>& choices);
// Kendall's tau over pairs whose measurements are more than `apart` apart: (concordant -
// discordant) / pairs, a tie in the prediction counts as neither. NaN without such a pair.
double kendall_tau(const std::vector<Choice>& choices, double apart = 0.02);
// Is the best measured one among the quarter (rounded up) that is predicted best?
bool best_in_top_quarter(const std::vector<Choice>& choices);

}  // namespace orrery::validation
