// What a program means to hide its communication with.
#pragma once

#include <vector>

#include "core/program/program.h"

namespace orrery {

// The compute ops issued after communication op `id` and before the first compute op that waits for
// it (or for a later op of its lane, which comes after it): what may run while it travels.
std::vector<OpId> cover_of(const Role& role, OpId id);

}  // namespace orrery
