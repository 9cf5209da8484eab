// Random legal jobs over all axes, of the models that configs has: from a seed, the same on every
// platform.
#pragma once

#include <cstdint>
#include <vector>

#include "core/job.h"

namespace orrery {

// All of configs/models.
std::vector<Model> published_models();
// Any factors of the axes that the model allows, both halves of every switch; of at most 128 ranks
// a stage.
Job random_job(const std::vector<Model>& models, std::uint64_t seed);
// "qwen3-8b: dp 2 cp 1 ..." for messages.
std::string describe(const Job& job);

}  // namespace orrery
