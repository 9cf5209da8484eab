// Runs one child with everything it starts, and leaves no process behind: its own process group,
// its end with ours (PR_SET_PDEATHSIG), SIGINT and SIGTERM passed on, orphans adopted and ended.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace orrery::cli {

struct ChildSpec {
  std::vector<std::string> command;                              // the first is a path
  std::vector<std::pair<std::string, std::string>> environment;  // beside our own
  // Each line, without its newline, as soon as it is whole.
  std::function<void(std::string_view)> on_out, on_err;
  // After a signal: how long the child may take to end by itself.
  std::chrono::milliseconds grace{5000};
  // Where a process that the child started has ended: how long the child may outlive it. A launcher
  // that hangs after the death of a rank is ended. Without a value: for ever.
  std::optional<std::chrono::milliseconds> straggle = std::chrono::seconds(10);
};

struct ChildEnd {
  int code = 0;              // exit code, or 128 + signal
  bool interrupted = false;  // we had SIGINT or SIGTERM
  bool stuck = false;        // it was ended because it outlived one of its own
};

// stdin of the child is empty. kIo where it cannot be started.
Result<ChildEnd> run_child(const ChildSpec& spec);

}  // namespace orrery::cli
