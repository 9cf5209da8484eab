// Coordinate descent in the logarithms of the parameters, with steps that shrink: each parameter
// acts on few rows, and only these are predicted again.
#include "validation/fit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "core/check.h"
#include "validation/jobs.h"

namespace orrery::validation {
namespace {

using simulator::FreeParameter;
using simulator::Owner;
using simulator::ParameterValue;

// Memory that is so far off is not of the job that the row's words describe (something is kept on
// the host, another batch is meant): there is nothing to learn from it.
constexpr double kMisread = 0.4;
constexpr double kHuber = 0.1;  // errors beyond it count linearly
// Loss of a parameter one deviation from its prior. A reading of memory says more than one of time:
// it is the same in every run.
constexpr double kStepPrior = 5e-4, kMemoryPrior = 1e-3;
constexpr double kFirstStep = 0.25, kLastStep = 0.01;

double huber(double error) {
  const double e = std::abs(error);
  return e < kHuber ? e * e / (2 * kHuber) : e - kHuber / 2;
}

// One number that is fitted.
struct Fitted {
  ParameterValue value;
  double prior = 0, min = 0, max = 0, spread = 0;
  bool frozen = false;
};

// Rows of one owner: how many, of which sources and models.
struct Support {
  std::size_t rows = 0;
  std::set<std::string> sources;
  std::set<std::tuple<std::int64_t, std::int64_t, std::int64_t>> models;
};

void add(Support& s, const FitRow& row) {
  ++s.rows;
  s.sources.insert(row.source);
  const Model& m = row.job.model;
  s.models.insert({m.hidden, m.ffn, m.experts});
}

// What is fitted to: the step or the memory of a row.
enum class Quantity : std::uint8_t { kStep, kMemory };

bool has(const FitRow& row, Quantity quantity) {
  return (quantity == Quantity::kStep ? row.measured_s : row.measured_bytes) > 0;
}

double error_of(const FitRow& row, Quantity quantity, const simulator::JobPrediction& p) {
  if (quantity == Quantity::kStep) return std::log(p.step.value() / row.measured_s);
  return std::log((row.allocated ? p.allocated_bytes : p.peak_bytes) / row.measured_bytes);
}

double loss_of(double error, Quantity quantity) {
  return huber(quantity == Quantity::kStep ? error : std::clamp(error, -kMisread, kMisread));
}

class Fitter {
 public:
  Fitter(const std::vector<FitRow>& rows, Quantity quantity, const Predictor& predict)
      : rows_(rows), quantity_(quantity), predict_(predict), errors_(rows.size()) {
    std::map<std::string, double> counts;
    for (const FitRow& r : rows) ++counts[r.source];
    for (const FitRow& r : rows) {
      weights_.push_back(1 / counts[r.source] / static_cast<double>(counts.size()));
    }
    for (std::size_t i = 0; i < rows.size(); ++i) errors_[i] = error_of(i);
  }

  std::vector<ParameterValue> values;

  double loss() const {
    double sum = 0;
    for (std::size_t i = 0; i < rows_.size(); ++i)
      sum += weights_[i] * loss_of(errors_[i], quantity_);
    return sum;
  }

  // Adds a parameter; its rows are found.
  void add_value(Fitted p) {
    std::vector<std::size_t> own;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (belongs(p.value, rows_[i].job)) own.push_back(i);
    }
    p.value.rows = own.size();
    if (own.empty()) return;
    values.push_back(p.value);
    limits_.push_back(std::move(p));
    acts_.push_back(std::move(own));
  }

  // Values of this owner are not moved any more.
  void freeze(Owner owner) {
    for (std::size_t v = 0; v < values.size(); ++v) {
      if (values[v].owner == owner) limits_[v].frozen = true;
    }
  }

  // How far each value of this owner that is not frozen may move, the others held, before the loss
  // is higher by as much as one deviation from its prior costs. So a value that rows say
  // nothing about has the interval of its prior.
  void find_intervals(Owner owner) {
    for (std::size_t v = 0; v < values.size(); ++v) {
      if (values[v].owner != owner || limits_[v].frozen) continue;
      const double low = edge(v, -1), high = edge(v, 1);
      values[v].low = low;
      values[v].high = high;
    }
  }

  // Twice: far steps may help only where the others have settled.
  void descend(int turns) {
    for (int round = 0; round < 2; ++round) {
      scan();
      settle(turns);
    }
  }

 private:
  double error_of(std::size_t i) const {
    Job job = rows_[i].job;
    simulator::apply(values, job);
    return validation::error_of(rows_[i], quantity_, predict_(job));
  }

  // Some parameters act only beyond a threshold, such as the host's.
  void scan() {
    for (std::size_t v = 0; v < values.size(); ++v) {
      for (const double far : {0.5, 1.0, -0.5, -1.0}) (void)try_step(v, far);
    }
  }

  void settle(int turns) {
    double step = kFirstStep;
    for (int turn = 0; turn < turns && step > kLastStep; ++turn) {
      bool moved = false;
      for (std::size_t v = 0; v < values.size(); ++v) {
        const bool up = walk(v, step);
        moved = up || walk(v, -step) || moved;
      }
      if (!moved || turn % 3 == 2) step /= 2;
    }
  }

  // Steps in one direction for as long as they help.
  bool walk(std::size_t v, double step) {
    bool moved = false;
    while (try_step(v, step)) moved = true;
    return moved;
  }

  double prior_loss(std::size_t v) const {
    const double deviations = std::log(values[v].value / limits_[v].prior) / limits_[v].spread;
    return deviation_cost() * deviations * deviations;
  }

  double deviation_cost() const { return quantity_ == Quantity::kStep ? kStepPrior : kMemoryPrior; }

  // What the loss is higher by with this value, which is set; the errors of its rows.
  double rise(std::size_t v, double value, std::vector<double>& fresh) {
    double before = prior_loss(v);
    values[v].value = value;
    double after = prior_loss(v);
    fresh.clear();
    for (const std::size_t i : acts_[v]) {
      fresh.push_back(error_of(i));
      before += weights_[i] * loss_of(errors_[i], quantity_);
      after += weights_[i] * loss_of(fresh.back(), quantity_);
    }
    return after - before;
  }

  // The first value in a direction at which the loss has risen by that much, or the end of its
  // range.
  double edge(std::size_t v, double direction) {
    constexpr double kStride = 0.25;  // of the prior's deviation
    constexpr int kHalvings = 5;
    const double best = values[v].value;
    std::vector<double> fresh;
    double inside = 0, outside = 0;
    const auto at = [&](double deviations) {
      return std::clamp(best * std::exp(direction * deviations * limits_[v].spread), limits_[v].min,
                        limits_[v].max);
    };
    while (outside == 0) {
      const double next = inside + kStride;
      if (at(next) == at(inside)) break;  // the range ends
      (rise(v, at(next), fresh) < deviation_cost() ? inside : outside) = next;
      values[v].value = best;
    }
    for (int i = 0; outside > 0 && i < kHalvings; ++i) {
      const double middle = (inside + outside) / 2;
      (rise(v, at(middle), fresh) < deviation_cost() ? inside : outside) = middle;
      values[v].value = best;
    }
    return at(inside);
  }

  bool try_step(std::size_t v, double step) {
    ParameterValue& p = values[v];
    if (limits_[v].frozen) return false;
    const double old = p.value;
    const double next =
        std::clamp(old * std::exp(step * limits_[v].spread * 2), limits_[v].min, limits_[v].max);
    if (next == old) return false;
    std::vector<double> fresh;
    const bool worse = rise(v, next, fresh) >= 0;
    if (worse) {
      p.value = old;
      return false;
    }
    for (std::size_t k = 0; k < fresh.size(); ++k) errors_[acts_[v][k]] = fresh[k];
    return true;
  }

  const std::vector<FitRow>& rows_;
  const Quantity quantity_;
  const Predictor& predict_;
  std::vector<double> errors_, weights_;
  std::vector<Fitted> limits_;
  std::vector<std::vector<std::size_t>> acts_;
};

Fitted fitted(const FreeParameter& p, const std::string& of, double prior) {
  return {{p.owner, of, p.name, prior, 0}, prior, p.min, p.max, p.spread};
}

// Of the rows that have it, at most so many of each source, evenly spread.
std::vector<FitRow> thinned(const std::vector<FitRow>& rows, Quantity quantity, std::size_t most) {
  std::map<std::string, std::size_t> counts, seen;
  for (const FitRow& r : rows) counts[r.source] += has(r, quantity) ? 1 : 0;
  std::vector<FitRow> out;
  for (const FitRow& r : rows) {
    if (!has(r, quantity)) continue;
    const std::size_t count = counts[r.source], i = seen[r.source]++;
    if (count <= most || i * most / count != (i + 1) * most / count) out.push_back(r);
  }
  return out;
}

// The mean losses before and after; values are added.
std::pair<double, double> fit_quantity(const std::vector<FitRow>& all, Quantity quantity,
                                       const Predictor& predict, const FitOptions& options,
                                       std::vector<ParameterValue>& values) {
  const std::vector<FitRow> rows = thinned(all, quantity, options.rows_of_a_source);
  const auto acts = [&](const FreeParameter& p) {
    return p.of_time == (quantity == Quantity::kStep);
  };
  std::map<std::string, Support> devices, links, families, stacks;
  std::map<std::string, std::string> family_of;
  for (const FitRow& row : rows) {
    add(devices[row.job.cluster.device.family], row);
    for (const LinkTier& t : row.job.cluster.tiers) add(links[t.name], row);
    add(families[row.job.stack.family], row);
    add(stacks[row.job.stack.name], row);
    family_of[row.job.stack.name] = row.job.stack.family;
  }
  Fitter fitter(rows, quantity, predict);
  const double before = fitter.loss();
  const auto& owners = [&](Owner owner) -> const std::map<std::string, Support>& {
    if (owner == Owner::kDevice) return devices;
    return owner == Owner::kLink ? links : families;
  };
  for (const FreeParameter& p : simulator::free_parameters()) {
    if (!acts(p)) continue;
    for (const auto& [name, support] : owners(p.owner)) {
      fitter.add_value(fitted(p, name, p.prior));
    }
  }
  fitter.descend(options.turns);
  // Stacks with rows enough: from their family's values, which stay those of all its stacks. Their
  // intervals are found before, while all rows of the family rest on them.
  fitter.find_intervals(Owner::kStack);
  fitter.freeze(Owner::kStack);
  const std::vector<ParameterValue> shared = fitter.values;
  for (const auto& [stack, support] : stacks) {
    const bool enough = support.rows >= options.own_rows &&
                        (support.sources.size() >= 2 || support.models.size() >= 3);
    if (!enough || stack == family_of[stack]) continue;
    for (const FreeParameter& p : simulator::free_parameters()) {
      if (p.owner != Owner::kStack || !acts(p)) continue;
      for (const ParameterValue& f : shared) {
        if (f.owner != Owner::kStack || f.of != family_of[stack] || f.name != p.name) continue;
        Fitted own = fitted(p, stack, f.value);
        own.spread = p.spread * simulator::kWithinFamily;
        fitter.add_value(std::move(own));
      }
    }
  }
  fitter.descend(options.turns);
  for (const Owner o : {Owner::kDevice, Owner::kLink, Owner::kStack}) fitter.find_intervals(o);
  values.insert(values.end(), fitter.values.begin(), fitter.values.end());
  return {before, fitter.loss()};
}

}  // namespace

FitResult fit(const std::vector<FitRow>& rows, const Predictor& predict,
              const FitOptions& options) {
  FitResult result;
  std::tie(result.before, result.after) =
      fit_quantity(rows, Quantity::kStep, predict, options, result.values);
  std::tie(result.memory_before, result.memory_after) =
      fit_quantity(rows, Quantity::kMemory, predict, options, result.values);
  return result;
}

std::vector<FitRow> fit_rows(const std::vector<PublishedRow>& rows,
                             const std::vector<Stack>& stacks) {
  std::vector<FitRow> out;
  for (const PublishedRow& row : rows) {
    const auto step = row.step_s(), memory = row.memory_bytes();
    if (!step && !memory) continue;
    const RowJob made = job_of(row, stacks);
    if (!made.job) continue;
    out.push_back({*made.job, step.value_or(0), row.source, memory.value_or(0),
                   row.measured.memory_allocated});
  }
  return out;
}

Predictor with(std::vector<ParameterValue> values, const Predictor& predict) {
  return [values = std::move(values), predict](const Job& job) {
    Job changed = job;
    simulator::apply(values, changed);
    return predict(changed);
  };
}

Predictor with(simulator::ParameterSet set) {
  return [set = std::move(set)](const Job& job) { return simulator::predict_with(set, job); };
}

}  // namespace orrery::validation
