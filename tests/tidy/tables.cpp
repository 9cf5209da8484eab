// The house rules as data. A change here is a change of the design: say why in its commit.
#include "tests/tidy/tables.h"

namespace orrery::tidy {

const std::vector<Layer>& layers() {
  static const std::vector<Layer> rows = {
      {"core/", {"core/"}},
      {"simulator/", {"simulator/", "core/"}},
      {"planner/", {"planner/", "simulator/", "core/"}},
      {"validation/", {"validation/", "simulator/", "core/"}},
      {"handover/", {"handover/", "core/"}},
      {"tracer/", {"tracer/", "core/"}},
      {"ui-export/", {"ui-export/", "tracer/", "core/"}},
      {"engine/", {"engine/", "tracer/", "core/"}},
      // The transport knows nothing of tensors, blocks or traces.
      {"engine/comm/", {"engine/comm/", "core/"}},
      {"cli/",
       {"cli/", "core/", "simulator/", "planner/", "tracer/", "ui-export/", "validation/",
        "handover/"}},
      // Tests and benchmarks sit above all but the command line; of them, only these see the
      // engine.
      {"tests/",
       {"tests/", "core/", "simulator/", "planner/", "tracer/", "ui-export/", "validation/",
        "handover/"}},
      {"tests/engine/", {"tests/", "core/", "simulator/", "planner/", "tracer/", "engine/"}},
      {"tests/parity/", {"tests/", "core/", "simulator/", "planner/", "tracer/", "engine/"}},
      {"benchmarks/",
       {"benchmarks/", "core/", "simulator/", "planner/", "tracer/", "ui-export/", "engine/"}},
  };
  return rows;
}

const std::vector<Owner>& owners() {
  static const std::vector<std::string> torch = {"engine/torch/", "tests/engine/", "tests/parity/",
                                                 "benchmarks/"};
  static const std::vector<std::string> protobuf = {"ui-export/", "tests/ui-export/"};
  static const std::vector<std::string> mpi = {"engine/comm/", "tests/engine/", "tests/parity/"};
  static const std::vector<Owner> rows = {
      {"nlohmann/", {"core/", "tests/core/"}, false},
      {"sqlite3.h", {"tracer/", "tests/tracer/"}, false},
      {"ATen/", torch},
      {"c10/", torch},
      {"torch/", torch},
      {"mpi.h", mpi, false},
      {"CLI/", {"cli/"}},
      {"toml++/", {"handover/"}, false},
      {"google/protobuf/", protobuf},
      {"curl/", {"ui-export/"}, false},
      {"gtest/", {"tests/"}},
      {"gmock/", {"tests/"}},
      {"benchmark/", {"benchmarks/"}},
      {"fmt/", {""}},
  };
  return rows;
}

const std::vector<std::string>& system_headers() {
  static const std::vector<std::string> rows = {
      "arpa/",      "cxxabi.h", "dirent.h",    "dlfcn.h",     "errno.h",   "fcntl.h",   "limits.h",
      "linux/",     "net/",     "netdb.h",     "netinet/",    "poll.h",    "pthread.h", "pwd.h",
      "sched.h",    "signal.h", "spawn.h",     "sys/",        "termios.h", "time.h",    "unistd.h",
      "execinfo.h", "cpuid.h",  "immintrin.h", "xmmintrin.h", "malloc.h",  "link.h"};
  return rows;
}

const std::vector<Ban>& banned_code() {
  using Kind = Ban::Kind;
  static const std::vector<Ban> rows = {
      {Kind::kWord,
       "std::views",
       "a plain loop: g++ 12 compiles views slowly and reports badly",
       {}},
      {Kind::kWord, "std::ranges::views", "a plain loop", {}},
      {Kind::kWord, "std::source_location", "CHECK(cond, message): it names file and line", {}},
      {Kind::kWord,
       "std::cout",
       "a returned string or core's reports: stdout is the cli's",
       {"cli/"}},
      {Kind::kWord, "std::cerr", "Result<T> or CHECK: stderr is the cli's", {"cli/"}},
      {Kind::kWord, "std::clog", "Result<T> or CHECK: stderr is the cli's", {"cli/"}},
      {Kind::kWord, "using namespace std", "the prefix std::", {}},
      {Kind::kWord,
       "std::random_device",
       "a seed from the workload, plan or test: runs repeat",
       {}},
      {Kind::kWord, "std::high_resolution_clock", "std::chrono::steady_clock", {}},
      {Kind::kWord, "std::chrono::high_resolution_clock", "std::chrono::steady_clock", {}},
      {Kind::kCall, "assert", "CHECK(cond, message): it is always on", {}},
      {Kind::kCall, "rand", "a seeded generator: runs repeat", {}},
      {Kind::kCall, "srand", "a seeded generator: runs repeat", {}},
      {Kind::kCall, "sprintf", "fmt::format", {}},
      {Kind::kCall, "vsprintf", "fmt::format", {}},
      {Kind::kCall, "strcpy", "std::string", {}},
      {Kind::kCall, "strcat", "std::string", {}},
      {Kind::kCall, "strtok", "a loop over std::string_view", {}},
      {Kind::kCall, "atoi", "std::from_chars: atoi cannot report an error", {}},
      {Kind::kCall, "atof", "std::from_chars: atof cannot report an error", {}},
      {Kind::kCall, "system", "posix_spawn with an argument list: a shell reads file names", {}},
      {Kind::kCall, "popen", "posix_spawn with an argument list: a shell reads file names", {}},
      {Kind::kCall, "tmpnam", "mkstemp", {}},
      {Kind::kCall, "localtime", "localtime_r: threads share the buffer", {}},
      {Kind::kCall, "gmtime", "gmtime_r: threads share the buffer", {}},
  };
  return rows;
}

const std::vector<TextBan>& banned_text() {
  // The words stand here in two halves, so that this table does not break its own rules.
  static const std::string step =
      "\"step\" of training, or \"round\", \"pass\", \"turn\" of a loop";
  static const std::string relative = "a path relative to the root of the project, or a variable";
  static const std::vector<TextBan> rows = {
      {"FIX"
       "ME",
       true,
       "the fix itself, or a sentence on the limit it leaves",
       {}},
      {"TO"
       "DO",
       true,
       "the work itself, or a sentence on the limit it leaves",
       {}},
      {"/ho"
       "me/",
       false,
       relative,
       {}},
      {"/ro"
       "ot/",
       false,
       relative,
       {}},
      {"/wo"
       "rk/",
       false,
       relative,
       {}},
      // Where the rule itself is told, the word stands.
      {"itera"
       "tion",
       true,
       step,
       {"docs/glossary.md", "CONTRIBUTING.md", "configs/"}},
      {"itera"
       "tions",
       true,
       step,
       {"configs/"}},
  };
  return rows;
}

const std::vector<LongFile>& long_files() {
  static const std::vector<LongFile> rows = {};
  return rows;
}

const std::vector<LongFunction>& long_functions() {
  static const std::vector<LongFunction> rows = {};
  return rows;
}

}  // namespace orrery::tidy
