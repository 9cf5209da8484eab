// How fast a job trains, in words of the field.
#pragma once

#include "core/job.h"
#include "core/units.h"

namespace orrery::simulator {

double tokens_a_step(const Job& job);

// Of one device, in the precision that the job's products run in; 0 where it has none.
FlopsPerSecond peak_of(const Job& job);

// Seconds of one device for one token, were every product of the model at the peak: the model's
// FLOPs alone, nothing run again (PaLM, arXiv:2204.02311, appendix B).
double least_device_seconds_a_token(const Job& job);

// Model FLOPs utilization of a step: the above over what the step takes; 0 where there is no peak.
double mfu(const Job& job, Seconds step);

}  // namespace orrery::simulator
