// See cores.h. Linux's own calls; where they are refused, nothing changes.
#include "engine/cores.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>

#include "core/check.h"

namespace orrery::engine {
namespace {

// The first of the names that the environment has; `fallback` where it has none.
std::int32_t number_of(std::initializer_list<const char*> names, std::int32_t fallback) {
  for (const char* name : names) {
    const char* text = std::getenv(name);
    if (text != nullptr) return static_cast<std::int32_t>(std::strtol(text, nullptr, 10));
  }
  return fallback;
}

}  // namespace

LocalRank local_rank() {
  LocalRank local;
  local.rank = number_of({"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "LOCAL_RANK"}, 0);
  local.count = number_of({"OMPI_COMM_WORLD_LOCAL_SIZE", "LOCAL_WORLD_SIZE"}, 1);
  return local;
}

std::vector<int> cores_of(const std::vector<int>& cores, LocalRank local) {
  CHECK(!cores.empty() && local.count > 0, "no cores or no ranks to part");
  const auto count = static_cast<std::size_t>(local.count);
  const auto rank = static_cast<std::size_t>(local.rank);
  if (count > cores.size() && count % cores.size() != 0) return cores;
  if (count >= cores.size()) return {cores[rank * cores.size() / count]};
  const std::size_t each = cores.size() / count;
  const auto first = cores.begin() + static_cast<std::ptrdiff_t>(rank * each);
  return {first, first + static_cast<std::ptrdiff_t>(each)};
}

CoreShare hold_to_cores(LocalRank local) {
  CoreShare share;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return share;
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed)) cores.push_back(core);
  }
  if (cores.empty() || local.rank < 0 || local.rank >= local.count) return share;
  const std::vector<int> part = cores_of(cores, local);
  share.cores = static_cast<double>(cores.size()) / local.count;
  share.first = local.rank == 0 || cores_of(cores, {local.rank - 1, local.count}) != part;
  cpu_set_t mine;
  CPU_ZERO(&mine);
  for (const int core : part) CPU_SET(core, &mine);
  (void)sched_setaffinity(0, sizeof mine, &mine);
  return share;
}

// Where ranks share cores, small exchanges beside compute took a fraction of the time by it.
void give_way() {
  constexpr int kNiceness = 10;
  (void)setpriority(PRIO_PROCESS, 0, kNiceness);
}

// By a short slice: a thread that wakes interrupts one whose slice is longer, where otherwise it
// waits for the end of that slice, up to 4 ms. glibc has no declaration of the call.
void be_prompt() {
  struct {
    std::uint32_t size = 48;
    std::uint32_t policy = SCHED_OTHER;
    std::uint64_t flags = 0;
    std::int32_t nice = 0;
    std::uint32_t priority = 0;
    std::uint64_t slice_ns = 100'000;  // the shortest
    std::uint64_t deadline_ns = 0, period_ns = 0;
  } attributes;
  attributes.nice = getpriority(PRIO_PROCESS, 0);
  (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace orrery::engine
