// See fit.h.
#include "simulator/calibration/fit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/clock/clock.h"
#include "simulator/binding.h"
#include "simulator/calibration/profile.h"
#include "simulator/op_cost.h"

namespace orrery::simulator {
namespace {

constexpr int kRounds = 100;
constexpr double kPriorShare = 1e-3;
constexpr double kMostPerRound = 4;  // an entry's time moves by no more than this at once

// Of one entry: its part of predicted and measured time.
struct Sums {
  std::int64_t ops = 0;
  double predicted = 0, measured = 0;
  double least = std::numeric_limits<double>::infinity(), most = 0;
};

struct Round {
  std::map<Entry, Sums> entries;
  std::vector<double> steps;  // predicted, by observation
  double predicted = 0;       // all time
};

// Adds the ops of one rank.
void add_rank(const Cluster& cluster, const Observation& o, const Role& role,
              const Binding& binding, const std::vector<OpTimes>& times,
              const std::vector<double>& seconds, Round& round) {
  Terms terms;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    terms.clear();
    const double base =
        op_time(cluster, *o.program, role, role.ops[i], binding.rank, binding.values, &terms)
            .value();
    const double span = static_cast<double>(times[i].end_ns - times[i].start_ns) * 1e-9;
    if (base <= 0 || span <= 0) continue;
    round.predicted += span;
    for (const auto& [entry, part] : terms.seconds()) {
      if (part <= 0) continue;
      Sums& sums = round.entries[entry];
      const double share = part / base;
      ++sums.ops;
      sums.predicted += share * span;
      sums.measured += share * seconds[i];
      sums.least = std::min(sums.least, part);
      sums.most = std::max(sums.most, part);
    }
  }
}

Replay replay_of(const Cluster& cluster, const Observation& o) {
  std::vector<RankDurations> durations;
  for (const Binding& b : o.bindings) {
    durations.push_back(
        rank_durations(cluster, *o.program, o.program->role_of(b.rank), b.rank, b.values));
  }
  const auto ranks = static_cast<std::int32_t>(o.bindings.size());
  return replay(*o.program, durations, clock_rates(cluster, ranks));
}

Round measure(const Cluster& profile, const std::vector<Observation>& observations) {
  Round round;
  for (const Observation& o : observations) {
    const Cluster cluster = with_profile(o.plan->cluster, profile);
    const Replay run = replay_of(cluster, o);
    round.steps.push_back(to_seconds(run.end).value());
    for (std::size_t r = 0; r < o.bindings.size(); ++r) {
      const Binding& b = o.bindings[r];
      add_rank(cluster, o, o.program->role_of(b.rank), b, run.times[r], o.seconds[r], round);
    }
  }
  return round;
}

void sort_by_difference(std::vector<EntryReport>& rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const EntryReport& a, const EntryReport& b) {
    return std::abs(a.difference_s()) > std::abs(b.difference_s());
  });
}

std::vector<EntryReport> report_of(const Round& round) {
  std::vector<EntryReport> rows;
  for (const auto& [entry, sums] : round.entries) {
    rows.push_back({entry, sums.ops, sums.predicted, sums.measured, sums.least, sums.most});
  }
  sort_by_difference(rows);
  return rows;
}

// Sum of squares of the steps' logarithmic errors.
double step_errors(const Cluster& profile, const std::vector<Observation>& observations) {
  double squares = 0;
  for (const Observation& o : observations) {
    const Cluster cluster = with_profile(o.plan->cluster, profile);
    const double error = std::log(to_seconds(replay_of(cluster, o).end).value() / o.step_s);
    squares += error * error;
  }
  return squares;
}

// Ops explain what ops took, not that at every collective the last is waited for: the spreads of
// compute and of each tier, one after the other, coarse and then fine, that bring the steps
// nearest.
void fit_spreads(Cluster& profile, const std::vector<Observation>& observations) {
  constexpr double kMost = 0.6;
  std::vector<double*> spreads = {&profile.spread};
  for (LinkTier& tier : profile.tiers) spreads.push_back(&tier.spread);
  double least = step_errors(profile, observations);
  for (const double width : {0.1, 0.1, 0.02}) {
    for (double* spread : spreads) {
      double best = *spread;
      const double middle = best;
      for (int k = -4; k <= 4; ++k) {
        *spread = std::clamp(middle + k * width, 0.0, kMost);
        if (*spread == best) continue;
        const double errors = step_errors(profile, observations);
        if (errors < least) {
          least = errors;
          best = *spread;
        }
      }
      *spread = best;
    }
  }
}

Status check(const std::vector<Observation>& observations) {
  if (observations.empty()) {
    return Error::of(ErrorCode::kInvalid, "calibration", "no step was measured",
                     "give runs of at least two steps");
  }
  for (const Observation& o : observations) {
    CHECK(o.bindings.size() == o.seconds.size(), "one binding a rank");
    for (const Binding& b : o.bindings) {
      const std::string reason = misfit(*o.plan, *o.program, b);
      if (!reason.empty()) {
        return Error::of(ErrorCode::kInvalid, o.name, "its sizes do not fit its plan: " + reason);
      }
    }
  }
  return Ok{};
}

}  // namespace

Result<std::vector<EntryReport>> blame(const Cluster& profile,
                                       const std::vector<Observation>& observations) {
  TRY(const Fit fit, fit_profile(profile, observations));
  std::vector<EntryReport> rows = fit.before;
  for (EntryReport& row : rows) {
    const auto fitted =
        std::find_if(fit.after.begin(), fit.after.end(),
                     [&](const EntryReport& after) { return after.entry == row.entry; });
    if (fitted != fit.after.end()) row.measured_s = fitted->predicted_s;
  }
  sort_by_difference(rows);
  return rows;
}

Result<Fit> fit_profile(const Cluster& prior, const std::vector<Observation>& observations) {
  TRY_OK(check(observations));
  Fit fit;
  Cluster profile = expanded(prior);
  profile.spread = 0;
  for (LinkTier& tier : profile.tiers) tier.spread = 0;
  Round round = measure(profile, observations);
  fit.before = report_of(round);
  for (std::size_t i = 0; i < observations.size(); ++i) {
    fit.steps.push_back({observations[i].name, observations[i].step_s, round.steps[i], 0});
  }
  // Weight and place of the prior: an entry's time over its time before.
  std::map<Entry, double> moved;
  for (int n = 0; n < kRounds; ++n) {
    const double weight = kPriorShare * round.predicted;
    for (const auto& [entry, sums] : round.entries) {
      double& from_prior = moved.try_emplace(entry, 1).first->second;
      const double wanted = (sums.measured + weight / from_prior) / (sums.predicted + weight);
      const double factor = std::clamp(wanted, 1 / kMostPerRound, kMostPerRound);
      scale_time(profile, entry, factor);
      from_prior *= factor;
    }
    round = measure(profile, observations);
  }
  fit.after = report_of(round);
  fit_spreads(profile, observations);
  round = measure(profile, observations);
  for (std::size_t i = 0; i < observations.size(); ++i) fit.steps[i].after_s = round.steps[i];
  fit.profile = settled(std::move(profile));
  return fit;
}

}  // namespace orrery::simulator
