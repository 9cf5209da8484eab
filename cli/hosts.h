// Where the ranks of a plan run: on this machine, on the hosts of a file, or in the allocation of a
// scheduler; and whether that is what the plan was made for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/cluster.h"
#include "core/result.h"

namespace orrery::cli {

struct Host {
  std::string name;
  std::int64_t slots = 0;  // ranks that it takes
  std::string place;       // "file:line", for messages
};

struct Placement {
  enum class Kind {
    kHere,       // all ranks on this machine
    kHosts,      // on `hosts`
    kScheduler,  // the launcher asks the scheduler for the hosts
  };
  Kind kind = Kind::kHere;
  std::vector<Host> hosts;     // those with ranks, `slots` of them each; kHosts alone
  std::string remote_shell;    // what starts a command on another host; empty: the launcher's own
  std::string interface_name;  // of the network between the hosts; empty: the launcher's choice
  bool spread() const { return kind != Kind::kHere; }
};

// Lines `name`, `name:N` or `name slots=N`, and remarks from '#'. A host without slots has
// `default_slots`. kInvalid with all that is wrong.
Result<std::vector<Host>> parse_hosts(std::string_view text, const std::string& place,
                                      std::int64_t default_slots);

// Slots of each node in Slurm's form "4(x2),3": 4, 4, 3. kInvalid.
Result<std::vector<Host>> parse_slurm_tasks(std::string_view text);

// What to do where hosts are not as a plan has them.
struct HostAdvice {
  std::string source;      // the file, or the scheduler's job
  std::string for_slots;   // a host has other slots
  std::string for_number;  // hosts are missing
};

// The hosts that take `ranks` ranks, filled in their order, with the ranks of each. kInvalid where
// that is not as in the plan, in which every `devices_per_node` ranks share a node.
Result<std::vector<Host>> fill_hosts(const std::vector<Host>& hosts, std::int64_t ranks,
                                     std::int64_t devices_per_node, const HostAdvice& advice);

// The words of the command line; where one is empty its variable of the environment holds:
// ORRERY_HOSTS, ORRERY_REMOTE_SHELL, ORRERY_INTERFACE.
struct PlacementWords {
  std::string hosts, remote_shell, interface_name;
};

// Reads what is named there, or Slurm's variables where no hosts are. `plan` is the plan's path.
// kInvalid for hosts that are not as in the plan, kIo for a file or program that is not there.
Result<Placement> place_ranks(PlacementWords words, const Cluster& cluster, std::int64_t ranks,
                              const std::string& plan);

}  // namespace orrery::cli
