// How the engine's ranks are started, and what their end means.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/hosts.h"
#include "cli/output.h"
#include "cli/process.h"
#include "core/result.h"

namespace orrery::cli {

// $ORRERY_ENGINE, else `orrery-engine` beside this executable. kIo with the fix where there is
// none.
Result<std::string> find_engine();
// A program by its path, or by its name in $PATH. kIo where there is none.
Result<std::string> find_program(const std::string& name);
// mpirun in $PATH. kIo with the fix where there is none.
Result<std::string> find_launcher();

// The whole command line of `ranks` ranks of the engine with these words.
std::vector<std::string> launch_line(const std::string& launcher, const std::string& engine,
                                     std::int64_t ranks, const std::vector<std::string>& words,
                                     const Placement& placement = {});
// One thread a rank and no spinning: ranks share the cores.
std::vector<std::pair<std::string, std::string>> launch_environment();

// What the launcher says about the rank that ended first.
struct DeadRank {
  std::int64_t rank = -1;
  int signal = 0;  // 0: it ended by itself
  int code = 0;
  std::string host;  // empty where all ranks are on one, and where it is not said
};

struct EngineEnd {
  ChildEnd child;
  std::optional<DeadRank> dead;
  std::string missing;        // what a host lacks, so that no rank could start there
  bool engine_spoke = false;  // a line "error: ..." of a rank reached stderr
};

// Runs the line; `spread`: over several hosts. Lines of the ranks go to stdout, or to stderr where
// `out` is --json; the launcher's own remarks are shown only where the ranks said nothing.
Result<EngineEnd> run_engine(const std::vector<std::string>& line, Output& out,
                             bool spread = false);

// Reads the launcher's remarks (Open MPI's texts).
std::optional<DeadRank> dead_rank_of(std::string_view remarks);
// "PATH is not on HOST", empty where the launcher says no such thing.
std::string missing_of(std::string_view remarks);

// The exit code of `orrery` for an engine that ended so: 0, a documented code, or 6.
int exit_code_of(const ChildEnd& end);

}  // namespace orrery::cli
