// Pre-norm decoder layers as blocks and units: grouped-query attention with an RMS norm of each
// query and key head before rotary embedding, SwiGLU, and experts where a layer has them (moe.h).
// What differs between the families of the table is in the Model: how the router scores, its bias,
// groups, shared experts. Semantics as in the published configs and weights of Qwen3 (arXiv
// 2505.09388) and dots.llm1 (arXiv 2506.05767).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/models/family.h"

namespace orrery {

ModelBlocks decoder_blocks(const Model& model, const BlockShape& shape);
// With ep expert ranks. The experts of a rank are stored in order of their ids.
std::vector<Unit> decoder_units(const Model& model, std::int64_t ep);

}  // namespace orrery
