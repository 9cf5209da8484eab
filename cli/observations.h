// Measured steps of a run, as calibration and blame read them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/plan.h"
#include "core/program/program.h"
#include "core/result.h"
#include "simulator/calibration/fit.h"
#include "tracer/trace_db.h"

namespace orrery::cli {

struct MeasuredRun {
  std::string path;
  std::unique_ptr<Plan> plan;  // of the run; observations point to both
  std::unique_ptr<Program> program;
  double step_s = 0;  // median over its steps, warm-up left out
  std::vector<simulator::Observation> observations;
};

// Up to `most` steps about the median of the run's. kInvalid where it is no whole run of a plan of
// this version: a simulation, an import, a failed run, spans that were dropped.
Result<MeasuredRun> read_run(const std::string& path, std::size_t most = 3);

// All of them, in order. The runs must outlive it.
std::vector<simulator::Observation> observations_of(const std::vector<MeasuredRun>& runs);

}  // namespace orrery::cli
