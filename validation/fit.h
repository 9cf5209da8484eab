// Fitting free parameters to published rows: those of devices, of links, of families of stacks, and
// of stacks with rows enough. Nothing else is free, and nothing depends on a single row's names.
// Those that act on time are fitted to step times, those that act on memory alone to memory.
//
// Errors are ln(predicted / measured), by a loss that is square near zero and linear beyond (Huber
// 1964), meaned over the rows of a source, then over sources: a source of a thousand rows counts as
// one. Each parameter is held to its prior by a normal deviation of its logarithm.
#pragma once

#include <string>
#include <vector>

#include "core/job.h"
#include "simulator/stages/parameter_set.h"
#include "validation/validate.h"

namespace orrery::validation {

struct FitRow {
  Job job;
  double measured_s = 0;  // 0: no step time
  std::string source;
  double measured_bytes = 0;  // 0: no memory
  bool allocated = false;     // of the bytes: as Measured::memory_allocated
};

struct FitOptions {
  int turns = 12;  // through all parameters, at most
  // Of a source with more rows, as many of them, evenly spread: it counts as one source anyway.
  std::size_t rows_of_a_source = 60;
  // A stack has values of its own with this many rows, of two sources or three models at least.
  std::size_t own_rows = 20;
};

struct FitResult {
  std::vector<simulator::ParameterValue> values;
  double before = 0, after = 0;  // the mean loss over sources, of the step
  double memory_before = 0, memory_after = 0;
};

FitResult fit(const std::vector<FitRow>& rows, const Predictor& predict,
              const FitOptions& options = {});

// The rows that have a step time or memory, as what is fitted to.
std::vector<FitRow> fit_rows(const std::vector<PublishedRow>& rows,
                             const std::vector<Stack>& stacks);

// `predict` with these parameters.
Predictor with(std::vector<simulator::ParameterValue> values, const Predictor& predict);
// The simulator's prediction with a set's values and its interval.
Predictor with(simulator::ParameterSet set);

}  // namespace orrery::validation
