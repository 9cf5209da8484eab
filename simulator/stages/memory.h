// Peak memory of a job: the fullest stage's states, activations and reserves.
#pragma once

#include <vector>

#include "simulator/stages/stage.h"
#include "simulator/stages/step.h"

namespace orrery::simulator {

// Fills the memory fields of `out`.
void predict_memory(const Job& job, const std::vector<Chunk>& chunks, JobPrediction& out);

}  // namespace orrery::simulator
