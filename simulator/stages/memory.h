// Peak memory of a job: the fullest stage's states, activations and reserves.
#pragma once

#include <vector>

#include "simulator/stages/stage.h"
#include "simulator/stages/step.h"

namespace orrery::simulator {

// Fills the memory fields of `out`.
void predict_memory(const Job& job, const std::vector<Chunk>& chunks, JobPrediction& out);

// Bytes of a chunk with so many parameters on a rank, the largest of its units with `unit`: what is
// there all through a step, and what the update takes beside it.
struct ChunkStates {
  double states = 0, scratch = 0;
};
ChunkStates chunk_states(const Job& job, double dense, double expert, double unit);

// That a job which needs so many bytes of `usable` ones fits: predictions of memory spread.
double probability_fits(double needed, double usable);

}  // namespace orrery::simulator
