// What a document costs in a pack, from the plan alone: the plan carries it, so that the engine can
// balance ranks without a simulator.
#pragma once

#include "core/packing.h"
#include "core/plan.h"
#include "core/program/program.h"

namespace orrery::simulator {

// Seconds of a rank's compute in one micro-batch, recompute and backward included, by its tokens
// and by its query-key pairs: differences of the blocks' prices between two lengths of the row, and
// between half and one and a half times the expected pairs. Experts are taken to be
// loaded as drawn with seed 0, in proportion to the tokens.
DocumentCost document_cost(const Plan& plan);

// Seconds that `rank`'s blocks take in micro-batch `m` under `binding`.
Seconds micro_batch_compute(const Cluster& cluster, const Program& program, std::int32_t rank,
                            std::int32_t m, const std::vector<std::int64_t>& binding);

}  // namespace orrery::simulator
