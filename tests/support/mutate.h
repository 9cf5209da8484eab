// Ways to damage or to split a lowered program, for tests of what must be refused.
#pragma once

#include <cstddef>
#include <string>

#include "core/program/program.h"

namespace orrery {

// The op of this path, phase and micro-batch (chunk 0); CHECKs that there is one.
std::size_t find_op(const Role& role, const std::string& path, Phase phase, std::int32_t m = 0);
// The first op of this kind at or after `from`; CHECKs that there is one.
std::size_t find_op(const Role& role, OpKind kind, std::size_t from = 0);
// The buffer of this name; CHECKs that there is one.
BufferId find_buffer(const Role& role, const std::string& name);

// Moves op `from` to position `to`; every reference to an op follows.
void move_op(Role& role, std::size_t from, std::size_t to);
// Removes an op: dependencies on it and its frees are lost, buffers it took or freed have none.
void drop_op(Role& role, std::size_t op);
// Takes, dependencies and frees as lowering would assign them to the ops as they are now.
void relower(Role& role);

// Two roles "even" and "odd" in place of the only one, each with every second rank.
Program split_roles(Program program);

}  // namespace orrery
