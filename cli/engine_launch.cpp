// See engine_launch.h.
#include "cli/engine_launch.h"

#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <system_error>

namespace orrery::cli {
namespace {

namespace fs = std::filesystem;

bool is_program(const fs::path& path) {
  std::error_code ec;
  return fs::is_regular_file(path, ec) && ::access(path.c_str(), X_OK) == 0;
}

// The number that follows `mark`; the text goes on behind it.
std::optional<std::int64_t> number_after(std::string_view& text, std::string_view mark) {
  const std::size_t at = text.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view rest = text.substr(at + mark.size());
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (error != std::errc()) return std::nullopt;
  text = rest.substr(static_cast<std::size_t>(end - rest.data()));
  return value;
}

// What stands behind `name` in its line: "Node: a".
std::string field_of(std::string_view text, std::string_view name) {
  const std::size_t at = text.find(name);
  if (at == std::string_view::npos) return "";
  std::string_view rest = text.substr(at + name.size());
  rest = rest.substr(0, rest.find('\n'));
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  return std::string(rest);
}

// Open MPI frames its remarks with two lines of dashes.
bool is_frame(std::string_view line) {
  return line.size() > 40 && line.find_first_not_of('-') == std::string_view::npos;
}

// "error: ...", "rank 3: error: ..." and their hints.
bool is_problem(std::string_view line) {
  const bool of_rank = line.starts_with("rank ") && line.find(": error:") != std::string::npos;
  return of_rank || line.starts_with("error:") || line.starts_with("  hint:");
}

// Takes the launcher's remarks out of the stream of lines.
class RemarkFilter {
 public:
  // True where the line is a rank's.
  bool take(std::string_view line) {
    if (is_frame(line)) {
      inside_ = !inside_;
      return false;
    }
    // "[host:123] 2 more processes have sent help message ..."; setpgid: a race that means nothing.
    const auto has = [line](const char* text) { return line.find(text) != std::string_view::npos; };
    const bool aside = line.starts_with('[') && (has("help message") || has("ORTE_ERROR_LOG") ||
                                                 has("plm:rsh: Warning: setpgid"));
    if (!inside_ && !aside) return true;
    if (!aside) remarks_ += std::string(line) + "\n";
    return false;
  }
  const std::string& remarks() const { return remarks_; }

 private:
  bool inside_ = false;
  std::string remarks_;
};

// Ranks on several hosts, one host after the other, as the plan counts them.
std::vector<std::string> spread_words(const Placement& placement) {
  // TCP without Open MPI's "put": there the go-ahead for one direction waits in the same socket
  // behind all of the other direction's data, and two ranks that exchange take twice the time.
  std::vector<std::string> words = {"--map-by", "slot", "--mca", "btl_tcp_flags",
                                    "send,inplace,need-ack,need-csum,hetero-rdma"};
  const auto add = [&words](const std::vector<std::string>& more) {
    words.insert(words.end(), more.begin(), more.end());
  };
  if (!placement.remote_shell.empty()) {
    // Else one host would have to start the next, with a shell that may be known only here.
    add({"--mca", "plm", "rsh", "--mca", "plm_rsh_agent", placement.remote_shell, "--mca",
         "plm_rsh_no_tree_spawn", "1"});
  }
  if (!placement.interface_name.empty()) {
    add({"--mca", "pml", "ob1", "--mca", "btl", "self,vader,tcp", "--mca", "btl_tcp_if_include",
         placement.interface_name, "--mca", "oob_tcp_if_include", placement.interface_name});
  }
  // Without it a host that lacks the folder would quietly start its ranks in another one.
  std::error_code ec;
  add({"--wdir", fs::current_path(ec).string()});
  for (const auto& [name, value] : launch_environment()) add({"-x", name});  // to other hosts too
  if (placement.kind == Placement::Kind::kHosts) {
    std::string list;
    for (const Host& host : placement.hosts) {
      list += (list.empty() ? "" : ",") + host.name + ":" + std::to_string(host.slots);
    }
    add({"--host", list});
  }
  return words;
}

}  // namespace

Result<std::string> find_engine() {
  if (const char* named = std::getenv("ORRERY_ENGINE"); named != nullptr && *named != '\0') {
    if (is_program(named)) return std::string(named);
    return Error::of(ErrorCode::kIo, named, "$ORRERY_ENGINE does not name a program",
                     "unset it, or build the engine: cmake --build --preset release");
  }
  std::error_code ec;
  const fs::path beside = fs::read_symlink("/proc/self/exe", ec).parent_path() / "orrery-engine";
  if (is_program(beside)) return beside.string();
  return Error::of(ErrorCode::kIo, beside.string(), "the engine is not built",
                   "scripts/install-deps && cmake --preset release && cmake --build --preset "
                   "release; or set ORRERY_ENGINE");
}

Result<std::string> find_program(const std::string& name) {
  if (name.find('/') != std::string::npos && is_program(name)) return name;
  const char* path = std::getenv("PATH");
  std::string_view folders = path != nullptr ? path : "";
  while (name.find('/') == std::string::npos && !folders.empty()) {
    const std::size_t colon = std::min(folders.find(':'), folders.size());
    const fs::path program = fs::path(folders.substr(0, colon)) / name;
    if (colon > 0 && is_program(program)) return program.string();
    folders.remove_prefix(std::min(colon + 1, folders.size()));
  }
  return Error::of(ErrorCode::kIo, name, "is no program");
}

Result<std::string> find_launcher() {
  if (const Result<std::string> found = find_program("mpirun"); found.ok()) return found;
  return Error::of(ErrorCode::kIo, "mpirun", "is not in $PATH: the ranks cannot be started",
                   "apt-get install openmpi-bin (scripts/install-deps does)");
}

std::vector<std::string> launch_line(const std::string& launcher, const std::string& engine,
                                     std::int64_t ranks, const std::vector<std::string>& words,
                                     const Placement& placement) {
  std::vector<std::string> line = {launcher, "--allow-run-as-root"};
  const auto add = [&line](const std::vector<std::string>& more) {
    line.insert(line.end(), more.begin(), more.end());
  };
  // Root in a container; more ranks than cores; no pinning, since ranks have helper threads; and no
  // busy waiting, which costs a thousandfold where ranks share cores.
  if (!placement.spread()) add({"--oversubscribe"});
  add({"--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"});
  if (placement.spread()) add(spread_words(placement));
  add({"-np", std::to_string(ranks), engine});
  add(words);
  return line;
}

std::vector<std::pair<std::string, std::string>> launch_environment() {
  return {{"OMP_NUM_THREADS", "1"}, {"OMP_WAIT_POLICY", "passive"}, {"OPENBLAS_NUM_THREADS", "1"}};
}

std::optional<DeadRank> dead_rank_of(std::string_view remarks) {
  std::string_view text = remarks;
  if (const auto rank = number_after(text, "process rank ")) {
    if (const auto signal = number_after(text, "exited on signal ")) {
      return DeadRank{*rank, static_cast<int>(*signal), 0, ""};
    }
  }
  text = remarks;
  if (const auto rank = number_after(text, "MPI_ABORT was invoked on rank ")) {
    if (const auto code = number_after(text, "with errorcode ")) {
      return DeadRank{*rank, 0, static_cast<int>(*code), ""};
    }
  }
  text = remarks;
  // "Process name: [[560,1],1]" and "Exit code:    3"
  if (number_after(text, "Process name: [[") && number_after(text, ",")) {
    if (const auto rank = number_after(text, "],")) {
      if (const auto code = number_after(text, "Exit code:")) {
        return DeadRank{*rank, 0, static_cast<int>(*code), ""};
      }
    }
  }
  return std::nullopt;
}

std::string missing_of(std::string_view remarks) {
  const std::string host = field_of(remarks, "Node:");
  for (const char* name : {"Executable:", "Working directory:"}) {
    const std::string path = field_of(remarks, name);
    if (!path.empty() && !host.empty()) return path + " is not on " + host;
  }
  return "";
}

Result<EngineEnd> run_engine(const std::vector<std::string>& line, Output& out, bool spread) {
  EngineEnd end;
  RemarkFilter filter;
  std::set<std::string> said;
  ChildSpec spec;
  spec.command = line;
  spec.environment = launch_environment();
  // The remote shells of other hosts end once they have started theirs: that means nothing.
  if (spread) spec.straggle.reset();
  spec.on_out = [&](std::string_view text) {
    // Of the launcher's own; it says more on stderr.
    if (text.ends_with(" total processes failed to start")) return;
    if (out.json()) {
      out.note(text);
    } else {
      out.line(text);
      (void)out.flush();  // a step is seen when it ends
    }
  };
  spec.on_err = [&](std::string_view text) {
    if (!filter.take(text)) return;
    const bool problem = is_problem(text);
    end.engine_spoke = end.engine_spoke || problem;
    if (problem && !said.insert(std::string(text)).second) return;  // ranks agree
    out.note(text);
  };
  TRY(end.child, run_child(spec));
  end.dead = dead_rank_of(filter.remarks());
  if (spread && end.dead && end.dead->signal > 0) {
    end.dead->host = field_of(filter.remarks(), " on node ");
    end.dead->host.resize(std::min(end.dead->host.find(' '), end.dead->host.size()));
  }
  end.missing = missing_of(filter.remarks());
  const bool known = end.dead || !end.missing.empty();
  const bool silent = !end.engine_spoke && !known && !end.child.interrupted;
  if (end.child.code != 0 && silent && !filter.remarks().empty()) out.note(filter.remarks());
  return end;
}

int exit_code_of(const ChildEnd& end) {
  if (end.interrupted) return static_cast<int>(ErrorCode::kInterrupted);
  switch (end.code) {
    case 0:
    case static_cast<int>(ErrorCode::kInvalid):
    case static_cast<int>(ErrorCode::kIo):
    case 70:
      return end.code;
    default:
      return static_cast<int>(ErrorCode::kRun);
  }
}

}  // namespace orrery::cli
