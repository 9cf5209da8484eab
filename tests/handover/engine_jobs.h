// Jobs whose layouts the engines of handover/ have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/job.h"

namespace orrery {

// A legal job of one of `models`, shaped towards what `engine` ("megatron", "torchtitan", "xtuner",
// "deepspeed") can do; not always legal there.
Job random_engine_job(const std::vector<Model>& models, const std::string& engine,
                      std::uint64_t seed);

}  // namespace orrery
