// See launch.h.
#include "tests/engine/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "core/check.h"

namespace orrery::engine {
namespace {

namespace fs = std::filesystem;

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

// One thread a rank, and waiting threads that sleep: ranks share cores.
std::vector<std::string> environment() {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) all.emplace_back(*entry);
  for (const char* setting :
       {"OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=passive", "OPENBLAS_NUM_THREADS=1"}) {
    all.emplace_back(setting);
  }
  return all;
}

// Of a process: its words or its environment, each behind a zero byte.
std::string proc_text(pid_t pid, const char* name) {
  return contents("/proc/" + std::to_string(pid) + "/" + name);
}

}  // namespace

Folder::Folder() {
  std::string pattern = fs::temp_directory_path() / "orrery-test-XXXXXX";
  CHECK(::mkdtemp(pattern.data()) != nullptr, "cannot make a folder for the test");
  path_ = pattern;
}

Folder::~Folder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string Folder::write(const std::string& name, const std::string& bytes) const {
  std::ofstream(file(name), std::ios::binary) << bytes;
  return file(name);
}

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> mpirun(std::int32_t ranks, const std::vector<std::string>& program,
                                const std::vector<std::string>& options) {
  std::vector<std::string> words = {ORRERY_MPIRUN,
                                    "--allow-run-as-root",
                                    "--oversubscribe",
                                    "--bind-to",
                                    "none",
                                    "--mca",
                                    "mpi_yield_when_idle",
                                    "1"};
  words.insert(words.end(), options.begin(), options.end());
  words.insert(words.end(), {"-np", std::to_string(ranks)});
  words.insert(words.end(), program.begin(), program.end());
  return words;
}

bool poll(std::chrono::seconds limit, const std::function<bool()>& holds) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

std::vector<pid_t> processes_with(const std::string& mark) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      continue;
    }
    const pid_t pid = std::stoi(name);
    if (pid != ::getpid() && proc_text(pid, "cmdline").find(mark) != std::string::npos) {
      found.push_back(pid);
    }
  }
  return found;
}

std::optional<pid_t> process_of_rank(const std::string& mark, std::int32_t rank) {
  using std::string_literals::operator""s;
  const std::string wanted = "\0OMPI_COMM_WORLD_RANK="s + std::to_string(rank) + '\0';
  for (const pid_t pid : processes_with(mark)) {
    if (("\0"s + proc_text(pid, "environ")).find(wanted) != std::string::npos) return pid;
  }
  return std::nullopt;
}

Launch::Launch(const std::vector<std::string>& words, const Folder& folder)
    : mark_(folder.path()), out_(folder.file("out.txt")), err_(folder.file("err.txt")) {
  std::vector<std::string> arguments = words, settings = environment();
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  for (const auto& [fd, path] : {std::pair{1, &out_}, std::pair{2, &err_}}) {
    posix_spawn_file_actions_addopen(&files, fd, path->c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  }
  const int failed = posix_spawn(&pid_, words[0].c_str(), &files, nullptr,
                                 pointers(arguments).data(), pointers(settings).data());
  posix_spawn_file_actions_destroy(&files);
  CHECK(failed == 0, "cannot start " + words[0]);
}

Launch::~Launch() {
  if (!has_ended()) {
    ::kill(pid_, SIGKILL);
    wait();
  }
  for (const pid_t pid : processes_with(mark_)) ::kill(pid, SIGKILL);
}

bool Launch::has_ended() {
  int status = 0;
  if (!code_ && ::waitpid(pid_, &status, WNOHANG) == pid_) {
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return code_.has_value();
}

std::optional<int> Launch::wait(std::chrono::seconds limit) {
  poll(limit, [&] { return has_ended(); });
  return code_;
}

}  // namespace orrery::engine
