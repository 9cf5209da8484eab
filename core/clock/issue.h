// When the host lets an op go. The walk issues a role's ops in order: before an op whose sizes the
// host must know it waits for the op that brings them; and where the host itself computes (a CPU),
// nothing is issued while it does.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program/program.h"

namespace orrery {

// By op: the earlier op whose end the host awaits before it issues this one; -1: none.
std::vector<OpId> host_waits(const Role& role);

}  // namespace orrery
