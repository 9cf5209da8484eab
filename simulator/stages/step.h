// A step of a job of several stages: cells priced, the pipeline replayed, what happens once a step
// added.
#pragma once

#include <string>
#include <vector>

#include "core/job.h"
#include "core/units.h"
#include "simulator/stages/pipeline.h"

namespace orrery::simulator {

// Where the time of the slowest stage goes, seconds of a step.
struct StepParts {
  double compute = 0;                                    // products, attention and passes
  double host = 0;                                       // the host is behind
  double tensor = 0, context = 0, expert = 0, data = 0;  // exposed, by axis
  double bubble = 0;  // waits of the pipeline, sends between its stages among them
  double optimizer = 0;
  double fixed = 0;  // Stack::step_s
  double straggle = 0;
};

inline constexpr double kUnmeasured = 5;  // as far as any distance counts
struct JobPrediction {
  Seconds step, p10, p90;
  double distance = kUnmeasured;  // from the nearest measured shape, doublings (spread.h)
  StepParts parts;
  // Of the fullest stage: allocated, what is alive at the peak; peak, what the process takes of the
  // device (allocator, communicators, context); usable: what a device has for it.
  double allocated_bytes = 0, peak_bytes = 0, usable_bytes = 0;
  bool fits = false;
  double probability_fits = 0;
};

// CHECKs that violations(job) is empty. The interval is that of a job of which nothing was measured
// and that may rest on any parameter; predict_with(parameter_set.h) has a narrower one.
JobPrediction predict(const Job& job);

// What the cells of the job's pipeline take.
CellTimes cell_times(const Job& job);

// Seconds of one message between stages; 0 where there is one stage.
class Price;
double send_seconds(const Job& job, const Price& price);
// What stragglers add, as a share of the slowest stage's time.
double straggle_of(const Job& job);

}  // namespace orrery::simulator
