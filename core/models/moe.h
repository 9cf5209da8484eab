// The blocks of a mixture of experts; what they take and give is in family.h.
#pragma once

#include "core/models/family.h"

namespace orrery {

// Fills the blocks from router to balance that the model and the shape use.
void fill_moe_blocks(const Model& model, const BlockShape& shape, ModelBlocks& blocks);

}  // namespace orrery
