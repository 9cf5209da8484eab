// A plan over all axes for tests of its page: two jobs, made-up figures.
#pragma once

#include <cstdint>
#include <string>

#include "core/job.h"
#include "ui-export/html/schedule.h"

namespace orrery::testing {

Job winning_job();  // tp 2, two stages
Job rival_job();    // of the same nouns, without a pipeline

// What `orrery plan --for simulate -o` writes: a winner of 2 s, a family that takes 3 s, one of
// which nothing fits and whose name is hostile, a frontier of two steps, two rules, a closed
// search.
std::string job_plan_text();

// GPipe of equal cells of a second each.
html::PipelinePicture pipeline_picture(std::int32_t stages, std::int32_t micro_batches);

}  // namespace orrery::testing
