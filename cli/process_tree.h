// Who is whose child, from /proc.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace orrery::cli {

// Children of `parent` that run (zombies do not).
std::size_t living_children(pid_t parent);

// Kills and reaps every descendant of this process; as a subreaper it inherits all orphans.
void end_all_descendants();

}  // namespace orrery::cli
