// Peak memory of a job: the fullest stage's states, activations and reserves.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "simulator/stages/stage.h"
#include "simulator/stages/step.h"

namespace orrery::simulator {

// Fills the memory fields of `out`.
void predict_memory(const Job& job, const std::vector<Chunk>& chunks, JobPrediction& out);

// What memory is taken by. Activations are what is kept from forward to backward, by the layer that
// keeps it.
enum MemoryClass : std::uint8_t {
  kWeights,          // as products read them; where sharded, the shards (fp32 with FSDP)
  kGradients,        // sums over micro-batches, or their shards
  kOptimizerStates,  // master weights where they stand beside the weights, moments
  kGathered,         // parameters gathered, gradients on their way to be reduced
  kDenseLayers,      // kept for backward; also what the embedding keeps
  kMoeLayers,
  kLogits,             // kept by the head and its loss, and while these go backward
  kRunning,            // while a layer goes backward: what is run again, and gradients of rows
  kStageOutputs,       // what was sent to the next stage
  kUpdateTemporaries,  // of the optimizer while it updates
  kReserve,            // context, communicators, libraries
};
inline constexpr std::size_t kNumMemoryClasses = 11;
const char* name_of(MemoryClass cls);  // "optimizer states", "MoE layers"

// The fullest stage at its fullest moment.
struct MemoryParts {
  std::int64_t stage = 0;
  bool in_update = false;  // of the weights; else while micro-batches are on their way
  std::int64_t cells = 0;  // chunks of micro-batches whose activations are kept then
  std::array<double, kNumMemoryClasses> bytes = {};
  std::vector<double> stage_bytes;  // of each stage, all classes
  double total() const;             // JobPrediction::allocated_bytes and the reserve
};
MemoryParts memory_parts(const Job& job);

// Bytes of a chunk with so many parameters on a rank, the largest of its units with `unit`: what is
// there all through a step, and what the update takes beside it.
struct ChunkStates {
  double states = 0, scratch = 0;
};
ChunkStates chunk_states(const Job& job, double dense, double expert, double unit);

// That a job which needs so many bytes of `usable` ones fits: predictions of memory spread.
double probability_fits(double needed, double usable);

}  // namespace orrery::simulator
