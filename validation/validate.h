// Prediction of published rows, and the summary: what a row became, how far off it is, and how well
// layouts of one job are put in order. Pure: the same rows in another order give the same figures.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/job.h"
#include "simulator/stages/step.h"
#include "validation/jobs.h"
#include "validation/metrics.h"
#include "validation/rows.h"

namespace orrery::validation {

using Predictor = std::function<simulator::JobPrediction(const Job&)>;

struct Outcome {
  PublishedRow row;
  std::string stack;  // "" where the row was refused
  std::vector<Refusal> refused;
  std::vector<std::string> completed;
  std::optional<simulator::JobPrediction> prediction;
  // Of the rows of one model, cluster, sequence, batch, precision and stack that differ in layout.
  std::string group;
  std::string layout;           // in words
  std::optional<Pair> step;     // where a step was predicted and measured
  double memory_bytes() const;  // predicted, of what the row measured; NaN without a prediction
  double memory_error() const;  // predicted / measured - 1; NaN where not both are known
};

Outcome validate_row(const PublishedRow& row, const std::vector<Stack>& stacks,
                     const Predictor& predict);
// In the order of the rows. `progress` is called after each, with how many are done.
std::vector<Outcome> validate_rows(const std::vector<PublishedRow>& rows,
                                   const std::vector<Stack>& stacks, const Predictor& predict,
                                   const std::function<void(std::size_t)>& progress = {});

struct SourceSummary {
  std::string source;
  std::size_t rows = 0, refused = 0;
  Accuracy step;
  std::size_t memory_rows = 0;
  double memory_error = 0, memory_bias = 0;  // medians of |predicted / measured - 1| and without ||
};

struct GroupSummary {
  std::string key, source;
  std::string job;  // for people: model, devices, sequence and batch of one of its rows
  std::size_t layouts = 0;
  double best_s = 0;
  double regret = 0, tau = 0;
  bool best_in_top_quarter = false;
};

struct Summary {
  std::size_t rows = 0, predicted = 0, judged = 0;       // judged: with a step time
  std::map<std::string, std::size_t> refused;            // rows by "field: reason"
  SourceSummary all;                                     // over rows
  std::vector<SourceSummary> sources;                    // by name
  double mean_of_sources = 0, mean_bias_of_sources = 0;  // of their median errors and biases
  std::size_t ran = 0, false_misfits = 0;  // ran, and did we say that it does not fit?
  std::size_t out_of_memory = 0, false_fits = 0;
  std::vector<GroupSummary> groups;
  double mean_regret = 0, worst_regret = 0, mean_tau = 0, top_quarter = 0;
  std::size_t free_parameters = 0;  // of the registry
};
Summary summarise(const std::vector<Outcome>& outcomes);

// Groups of at least this many layouts are judged.
inline constexpr std::size_t kSmallestGroup = 3;

}  // namespace orrery::validation
