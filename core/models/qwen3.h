// Qwen3 dense and MoE as blocks and units; reached through the table in family.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "core/models/family.h"

namespace orrery {

ModelBlocks qwen3_blocks(const Model& model, const BlockShape& shape);
std::vector<Unit> qwen3_units(const Model& model, std::int64_t ep);

}  // namespace orrery
