// Calibration from runs: the speeds of a profile that explain what the ops of measured steps took.
//
// Each op's time is a sum of terms, each linear in one entry's time (cost_terms.h), stretched by
// what runs beside it; the measured counterpart is the duration that the clock would need
// (core/clock/implied.h). Entries are moved by the multiplicative update that maximises the Poisson
// likelihood of such sums (Richardson 1972, Lucy 1974; Shepp and Vardi 1982 for its convergence):
// an entry's time is multiplied by its ops' mean of measured / predicted, weighted by its part of
// each. It keeps times positive and makes the sums of both sides equal. The prior holds an entry
// with as much weight as kPriorShare of all time, so one that no op rests on stays what it was.
#pragma once

#include <string>
#include <vector>

#include "core/plan.h"
#include "core/program/program.h"
#include "core/result.h"
#include "simulator/cost_terms.h"

namespace orrery::simulator {

// One measured step.
struct Observation {
  std::string name;            // of its run
  const Plan* plan = nullptr;  // whose cluster gives the topology
  const Program* program = nullptr;
  std::vector<Binding> bindings;             // every rank's, in order
  std::vector<std::vector<double>> seconds;  // implied duration, by rank and op
  double step_s = 0;
};

// What one entry explained, over all observations.
struct EntryReport {
  Entry entry;
  std::int64_t ops = 0;        // that rest on it
  double predicted_s = 0;      // its part of what they were predicted to take
  double measured_s = 0;       // the same part of what they took
  double least = 0, most = 0;  // seconds of a single op's part: the range it was seen in
  double difference_s() const { return predicted_s - measured_s; }
};

struct StepReport {
  std::string name;
  double measured_s = 0, before_s = 0, after_s = 0;
};

struct Fit {
  Cluster profile;
  std::vector<EntryReport> before, after;  // by absolute difference, largest first
  std::vector<StepReport> steps;
};

// kInvalid without an observation, or where one does not fit its program.
Result<Fit> fit_profile(const Cluster& prior, const std::vector<Observation>& observations);

// Whom to blame: of each entry what the profile predicts it to take (predicted_s), and what the
// profile that explains these observations would (measured_s).
Result<std::vector<EntryReport>> blame(const Cluster& profile,
                                       const std::vector<Observation>& observations);

}  // namespace orrery::simulator
