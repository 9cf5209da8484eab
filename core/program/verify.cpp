// The verifier's entry, and its checks over the world: groups, collectives, cycles.
#include "core/program/verify.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <queue>
#include <set>

#include "core/program/verify_checks.h"

namespace orrery {
namespace {

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

// The collectives a role issues on one (lane, group), in order.
std::vector<OpId> collectives_on(const Role& role, Lane lane, std::int32_t group) {
  std::vector<OpId> ops;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (is_collective(op.kind) && op.lane == lane && op.group == group) {
      ops.push_back(static_cast<OpId>(i));
    }
  }
  return ops;
}

// Calls visit(lane, group, set of roles) for every distinct set of roles that share an instance.
template <class Visit>
void for_shared_groups(const Program& program, Visit visit) {
  std::vector<std::size_t> role_of(index(program.world));
  for (std::size_t r = 0; r < program.roles.size(); ++r) {
    for (const std::int32_t rank : program.roles[r].ranks) role_of[index(rank)] = r;
  }
  for (std::size_t g = 0; g < program.groups.size(); ++g) {
    const Group& group = program.groups[g];
    std::set<std::set<std::size_t>> seen;
    for (std::int32_t rank = 0; rank < program.world; ++rank) {
      if (group.index_of(rank) != 0) continue;
      std::set<std::size_t> members;
      for (std::int32_t i = 0; i < group.size; ++i) {
        members.insert(role_of[index(rank + i * group.stride)]);
      }
      if (!seen.insert(members).second) continue;
      for (const Lane lane : kNetworkLanes) {
        visit(lane, static_cast<std::int32_t>(g), members);
      }
    }
  }
}

}  // namespace

void check_groups(const Program& program, Findings& findings) {
  if (program.world < 1) {
    findings.push_back({"role_ranks", "a world of " + std::to_string(program.world) + " ranks"});
    return;
  }
  for (const Group& g : program.groups) {
    const std::int64_t span = std::int64_t{g.size} * g.stride;
    if (g.size < 1 || g.stride < 1 || program.world % span != 0) {
      findings.push_back({"bad_group", "group " + g.name + " of " + std::to_string(g.size) +
                                           " ranks at stride " + std::to_string(g.stride) +
                                           " does not partition " + std::to_string(program.world) +
                                           " ranks"});
    }
  }
  std::vector<int> owners(index(program.world), 0);
  for (const Role& role : program.roles) {
    for (const std::int32_t rank : role.ranks) {
      if (rank >= 0 && rank < program.world) {
        ++owners[index(rank)];
      } else {
        findings.push_back({"role_ranks", "rank " + std::to_string(rank) + " is not in the world"});
      }
    }
  }
  for (std::size_t r = 0; r < owners.size(); ++r) {
    if (owners[r] != 1) {
      findings.push_back({"role_ranks", "rank " + std::to_string(r) + " has " +
                                            std::to_string(owners[r]) + " roles"});
    }
  }
}

void check_collectives(const Program& program, Findings& findings) {
  for_shared_groups(program, [&](Lane lane, std::int32_t g, const std::set<std::size_t>& members) {
    const Role& first = program.roles[*members.begin()];
    const std::vector<OpId> expected = collectives_on(first, lane, g);
    for (const std::size_t r : members) {
      const Role& role = program.roles[r];
      const std::vector<OpId> issued = collectives_on(role, lane, g);
      const std::string place = std::string(name_of(lane)) + "/" + program.groups[index(g)].name;
      if (issued.size() != expected.size()) {
        findings.push_back(
            {"collective_members", "on " + place + " role " + role.name + " takes part in " +
                                       std::to_string(issued.size()) + " collectives, role " +
                                       first.name + " in " + std::to_string(expected.size())});
      }
      for (std::size_t i = 0; i < std::min(issued.size(), expected.size()); ++i) {
        const Op& a = first.ops[index(expected[i])];
        const Op& b = role.ops[index(issued[i])];
        if (a.key != b.key || a.kind != b.kind) {
          report(findings, role, &b, "collective_order",
                 "meets " + a.path + " of role " + first.name + " on " + place);
          break;
        }
      }
    }
  });
}

// Merges the k-th collectives of all roles of a group into one node and sorts topologically.
void check_cycles(const Program& program, Findings& findings) {
  std::vector<std::size_t> first_node;
  std::size_t nodes = 0;
  for (const Role& role : program.roles) {
    first_node.push_back(nodes);
    nodes += role.ops.size();
  }
  std::vector<std::size_t> parent(nodes);
  std::iota(parent.begin(), parent.end(), std::size_t{0});
  const auto root = [&](std::size_t n) {
    while (parent[n] != n) n = parent[n] = parent[parent[n]];
    return n;
  };
  for_shared_groups(program, [&](Lane lane, std::int32_t g, const std::set<std::size_t>& members) {
    const std::size_t first = *members.begin();
    const std::vector<OpId> expected = collectives_on(program.roles[first], lane, g);
    for (const std::size_t r : members) {
      const std::vector<OpId> issued = collectives_on(program.roles[r], lane, g);
      for (std::size_t i = 0; i < std::min(issued.size(), expected.size()); ++i) {
        parent[root(first_node[r] + index(issued[i]))] =
            root(first_node[first] + index(expected[i]));
      }
    }
  });
  std::vector<std::vector<std::size_t>> next(nodes);
  std::vector<int> waiting(nodes, 0);
  const auto edge = [&](std::size_t a, std::size_t b) {
    next[root(a)].push_back(root(b));
    ++waiting[root(b)];
  };
  for (std::size_t r = 0; r < program.roles.size(); ++r) {
    const Role& role = program.roles[r];
    std::array<OpId, kNumLanes> previous;
    previous.fill(-1);
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      OpId& last = previous[static_cast<std::size_t>(role.ops[i].lane)];
      if (last >= 0) edge(first_node[r] + index(last), first_node[r] + i);
      last = static_cast<OpId>(i);
      for (const OpId dep : role.ops[i].deps) {
        if (dep >= 0 && index(dep) < role.ops.size()) {
          edge(first_node[r] + index(dep), first_node[r] + i);
        }
      }
    }
  }
  std::queue<std::size_t> ready;
  std::size_t roots = 0, done = 0;
  for (std::size_t n = 0; n < nodes; ++n) {
    if (root(n) != n) continue;
    ++roots;
    if (waiting[n] == 0) ready.push(n);
  }
  while (!ready.empty()) {
    const std::size_t n = ready.front();
    ready.pop();
    ++done;
    for (const std::size_t m : next[n]) {
      if (--waiting[m] == 0) ready.push(m);
    }
  }
  if (done != roots) {
    findings.push_back({"cycle", std::to_string(roots - done) +
                                     " ops wait for each other through lanes, dependencies and "
                                     "collectives"});
  }
}

std::vector<Finding> verify(const Program& program) {
  Findings findings;
  check_groups(program, findings);
  for (const Role& role : program.roles) check_operands(program, role, findings);
  if (!findings.empty()) return findings;  // the other checks follow these indexes
  for (const Role& role : program.roles) check_order(role, findings);
  check_collectives(program, findings);
  check_cycles(program, findings);
  for (const Role& role : program.roles) {
    check_buffers(role, findings);
    check_lifetimes(role, findings);
    check_units(program, role, findings);
    check_backward(role, findings);
    check_balance(program, role, findings);
    check_sizes(program, role, findings);
  }
  return findings;
}

}  // namespace orrery
