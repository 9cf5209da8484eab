// The rules a block must keep: single assignment, operands defined before use, and for each kind of
// primitive its operands, shapes and dtypes. A block that breaks one is a bug of its builder.
#pragma once

#include "core/program/block.h"

namespace orrery {

// CHECKs every rule.
void check_block(const Block& block);

}  // namespace orrery
