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

namespace orrery::validation {
namespace {

using simulator::FreeParameter;
using simulator::Owner;

constexpr double kHuber = 0.1;   // errors beyond it count linearly
constexpr double kPrior = 2e-3;  // loss of a parameter one deviation from its prior
constexpr double kFirstStep = 0.25, kLastStep = 0.01;

double loss_of(double error) {
  const double e = std::abs(error);
  return e < kHuber ? e * e / (2 * kHuber) : e - kHuber / 2;
}

bool acts_on(const FitParameter& p, const Job& job) {
  switch (p.owner) {
    case Owner::kDevice:
      return p.of == job.cluster.device.family;
    case Owner::kLink:
      return std::any_of(job.cluster.tiers.begin(), job.cluster.tiers.end(),
                         [&](const LinkTier& t) { return t.name == p.of; });
    case Owner::kStack:
      return p.of == job.stack.name || p.of == job.stack.family;
  }
  return false;
}

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

class Fitter {
 public:
  Fitter(const std::vector<FitRow>& rows, const Predictor& predict)
      : rows_(rows), predict_(predict), errors_(rows.size()) {
    std::map<std::string, double> counts;
    for (const FitRow& r : rows) ++counts[r.source];
    for (const FitRow& r : rows) {
      weights_.push_back(1 / counts[r.source] / static_cast<double>(counts.size()));
    }
    for (std::size_t i = 0; i < rows.size(); ++i) errors_[i] = error_of(i);
  }

  std::vector<FitParameter> values;

  double loss() const {
    double sum = 0;
    for (std::size_t i = 0; i < rows_.size(); ++i) sum += weights_[i] * loss_of(errors_[i]);
    return sum;
  }

  // Adds a parameter; its rows are found.
  void add_value(FitParameter p) {
    std::vector<std::size_t> own;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (acts_on(p, rows_[i].job)) own.push_back(i);
    }
    p.rows = own.size();
    if (own.empty()) return;
    values.push_back(std::move(p));
    acts_.push_back(std::move(own));
  }

  void descend(int turns) {
    double step = kFirstStep;
    for (int turn = 0; turn < turns && step > kLastStep; ++turn) {
      bool moved = false;
      for (std::size_t v = 0; v < values.size(); ++v) {
        moved = try_step(v, step) || try_step(v, -step) || moved;
      }
      if (!moved || turn % 3 == 2) step /= 2;
    }
  }

 private:
  double error_of(std::size_t i) const {
    Job job = rows_[i].job;
    apply(values, job);
    return std::log(predict_(job).step.value() / rows_[i].measured_s);
  }

  double prior_loss(const FitParameter& p) const {
    const double deviations = std::log(p.value / p.prior) / p.spread;
    return kPrior * deviations * deviations;
  }

  bool try_step(std::size_t v, double step) {
    FitParameter& p = values[v];
    const double old = p.value;
    double before = prior_loss(p), after = 0;
    p.value = std::clamp(old * std::exp(step * p.spread * 2), p.min, p.max);
    if (p.value == old) return false;
    after = prior_loss(p);
    std::vector<double> fresh;
    for (const std::size_t i : acts_[v]) {
      fresh.push_back(error_of(i));
      before += weights_[i] * loss_of(errors_[i]);
      after += weights_[i] * loss_of(fresh.back());
    }
    if (after >= before) {
      p.value = old;
      return false;
    }
    for (std::size_t k = 0; k < fresh.size(); ++k) errors_[acts_[v][k]] = fresh[k];
    return true;
  }

  const std::vector<FitRow>& rows_;
  const Predictor& predict_;
  std::vector<double> errors_, weights_;
  std::vector<std::vector<std::size_t>> acts_;
};

FitParameter parameter_of(const FreeParameter& p, const std::string& of, double prior) {
  return {p.owner, of, p.name, prior, prior, p.min, p.max, p.spread, 0};
}

}  // namespace

void apply(const std::vector<FitParameter>& values, Job& job) {
  // Families come before their stacks, whose values win.
  for (const FitParameter& v : values) {
    if (acts_on(v, job)) simulator::set_parameter(v.owner, v.of, v.name, v.value, job);
  }
}

FitResult fit(const std::vector<FitRow>& rows, const Predictor& predict,
              const FitOptions& options) {
  std::map<std::string, Support> devices, links, families, stacks;
  std::map<std::string, std::string> family_of;
  for (const FitRow& row : rows) {
    add(devices[row.job.cluster.device.family], row);
    for (const LinkTier& t : row.job.cluster.tiers) add(links[t.name], row);
    add(families[row.job.stack.family], row);
    add(stacks[row.job.stack.name], row);
    family_of[row.job.stack.name] = row.job.stack.family;
  }
  Fitter fitter(rows, predict);
  FitResult result;
  result.before = fitter.loss();
  const auto& owners = [&](Owner owner) -> const std::map<std::string, Support>& {
    if (owner == Owner::kDevice) return devices;
    return owner == Owner::kLink ? links : families;
  };
  for (const FreeParameter& p : simulator::free_parameters()) {
    if (!p.of_time) continue;
    for (const auto& [name, support] : owners(p.owner)) {
      fitter.add_value(parameter_of(p, name, p.prior));
    }
  }
  fitter.descend(options.turns);
  // Stacks with rows enough: from their family's values.
  const std::vector<FitParameter> shared = fitter.values;
  for (const auto& [stack, support] : stacks) {
    const bool enough = support.rows >= options.own_rows &&
                        (support.sources.size() >= 2 || support.models.size() >= 3);
    if (!enough || stack == family_of[stack]) continue;
    for (const FreeParameter& p : simulator::free_parameters()) {
      if (p.owner != Owner::kStack || !p.of_time) continue;
      for (const FitParameter& f : shared) {
        if (f.owner != Owner::kStack || f.of != family_of[stack] || f.name != p.name) continue;
        FitParameter own = parameter_of(p, stack, f.value);
        own.spread = p.spread / 2;
        fitter.add_value(std::move(own));
      }
    }
  }
  fitter.descend(options.turns);
  result.values = fitter.values;
  result.after = fitter.loss();
  return result;
}

}  // namespace orrery::validation
