// The verifier: every lowered program passes it, and no engine runs a program that does not.
// It joins lane order, dependencies and the rendezvous of collectives over all roles.
#pragma once

#include <string>
#include <vector>

#include "core/program/program.h"

namespace orrery {

struct Finding {
  std::string rule;     // a stable name, e.g. "use_after_free"
  std::string message;  // role, op and buffer, with the values
};

// All findings, in a fixed order; empty when the program is sound.
//
//   unique_key          two ops of a role with one key
//   operand_range       an operand, unit, block or group that does not exist
//   dependency_order    a dependency on itself or on a later op
//   issue_order         communication that does not wait for the compute issued before it: then
//                       memory in issue order would not bound memory in time
//   cycle               lane order, dependencies and collectives wait for each other in a circle
//   not_written         a buffer read before anything wrote it, or all slices of it
//   written_twice       a buffer with two writers (updates and slices excepted)
//   race                a reader or writer that does not wait for the writer on another lane, or a
//                       writer that does not wait for a reader
//   use_after_free      a use that the op that frees does not wait for
//   leak                a buffer that nothing frees
//   free_mismatch       freed twice, by an op that does not list it, or off the compute lane
//   size_mismatch       operands whose sizes or dtypes do not fit the op
//   bad_size            a negative size, or a size variable without its record or of another's
//   lane_of_kind        a collective on the compute lane, or computation on another
//   bad_group           a group that does not partition the world, or is not the one of the op
//   role_ranks          a rank with no role or with two
//   collective_members  a member of a group that does not take part in its collective
//   collective_order    members of a group that issue different collectives
//   host_sync           counts read on the host without a host synchronisation
//   reduced_too_early   a gradient reduced before its last contribution
//   not_reduced         a gradient that is not reduced, accumulated and summed over its replicas
//   not_gathered        a block whose parameters are not at hand
//   not_balanced        a balancing loss over counts that are not of its scope
//   not_updated         a unit without exactly one optimizer step, after the norm of all gradients
//   missing_backward    a block that runs forward but not backward, or the other way round
//   wrong_operand       a backward that reads other values than its forward made
std::vector<Finding> verify(const Program& program);

}  // namespace orrery
