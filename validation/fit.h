// Fitting free parameters to published rows: those of devices, of links, of families of stacks, and
// of stacks with rows enough. Nothing else is free, and nothing depends on a single row's names.
//
// Errors are ln(predicted / measured), by a loss that is square near zero and linear beyond (Huber
// 1964), meaned over the rows of a source, then over sources: a source of a thousand rows counts as
// one. Each parameter is held to its prior by a normal deviation of its logarithm.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/job.h"
#include "simulator/stages/parameters.h"
#include "validation/validate.h"

namespace orrery::validation {

struct FitRow {
  Job job;
  double measured_s = 0;
  std::string source;
};

// One number that is fitted.
struct FitParameter {
  simulator::Owner owner = simulator::Owner::kStack;
  std::string of;    // "hopper", "nvlink", "megatron", "megatron-core-2024"
  std::string name;  // in its owner's file
  double value = 0, prior = 0, min = 0, max = 0;
  double spread = 0;     // deviation of the prior's logarithm
  std::size_t rows = 0;  // that it acts on
};

struct FitOptions {
  int turns = 12;  // through all parameters, at most
  // A stack has values of its own with this many rows, of two sources or three models at least.
  std::size_t own_rows = 20;
};

struct FitResult {
  std::vector<FitParameter> values;
  double before = 0, after = 0;  // the mean loss over sources
};

FitResult fit(const std::vector<FitRow>& rows, const Predictor& predict,
              const FitOptions& options = {});

// Sets the values that belong to the job's device, links and stack.
void apply(const std::vector<FitParameter>& values, Job& job);

}  // namespace orrery::validation
