// The verifier's checks, one a function. Not for other folders.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/program/verify.h"

namespace orrery {

using Findings = std::vector<Finding>;

inline void report(Findings& findings, const Role& role, const Op* op, const char* rule,
                   const std::string& message) {
  const std::string place =
      op == nullptr ? "" : " op " + op->path + " (" + name_of(op->phase) + ")";
  findings.push_back({rule, "role " + role.name + place + ": " + message});
}

// verify_role.cpp. check_operands must pass before the others may run.
void check_operands(const Program& program, const Role& role, Findings& findings);
void check_order(const Role& role, Findings& findings);
void check_buffers(const Role& role, Findings& findings);
void check_lifetimes(const Role& role, Findings& findings);
// verify_units.cpp
void check_units(const Program& program, const Role& role, Findings& findings);
void check_balance(const Program& program, const Role& role, Findings& findings);
// verify_backward.cpp
void check_backward(const Role& role, Findings& findings);
// verify_sizes.cpp
void check_sizes(const Program& program, const Role& role, Findings& findings);
// verify.cpp
void check_groups(const Program& program, Findings& findings);
void check_collectives(const Program& program, Findings& findings);
void check_cycles(const Program& program, Findings& findings);

// Every buffer an op refers to, reads first; -1 entries left out.
std::vector<BufferId> reads_of(const Op& op);
std::vector<BufferId> writes_of(const Op& op);

}  // namespace orrery
