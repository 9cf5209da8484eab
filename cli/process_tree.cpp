// See process_tree.h. /proc/PID/stat: "pid (name) state ppid ..."; proc(5).
#include "cli/process_tree.h"

#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace orrery::cli {
namespace {

struct Process {
  pid_t pid = 0, parent = 0;
  char state = ' ';
};

std::vector<Process> all_processes() {
  std::vector<Process> all;
  DIR* folder = ::opendir("/proc");
  if (folder == nullptr) return all;
  while (const dirent* entry = ::readdir(folder)) {
    const char* name = entry->d_name;
    Process process;
    if (std::from_chars(name, name + std::strlen(name), process.pid).ec != std::errc()) continue;
    std::ifstream file(std::string("/proc/") + name + "/stat");
    std::string line;
    if (!std::getline(file, line)) continue;
    const std::size_t behind_name = line.rfind(')');  // the name may hold anything
    if (behind_name == std::string::npos) continue;
    std::istringstream rest(line.substr(behind_name + 1));
    if (rest >> process.state >> process.parent) all.push_back(process);
  }
  ::closedir(folder);
  return all;
}

std::vector<pid_t> descendants(pid_t root) {
  const std::vector<Process> all = all_processes();
  std::set<pid_t> family = {root};
  for (std::size_t before = 0; before != family.size();) {
    before = family.size();
    for (const Process& process : all) {
      if (family.contains(process.parent)) family.insert(process.pid);
    }
  }
  family.erase(root);
  return {family.begin(), family.end()};
}

}  // namespace

std::size_t living_children(pid_t parent) {
  std::size_t count = 0;
  for (const Process& process : all_processes()) {
    if (process.parent == parent && process.state != 'Z' && process.state != 'X') ++count;
  }
  return count;
}

void end_all_descendants() {
  // What is being killed may still fork: look again, but not for ever.
  for (int round = 0; round < 200; ++round) {
    const std::vector<pid_t> family = descendants(::getpid());
    for (const pid_t pid : family) ::kill(pid, SIGKILL);
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    if (family.empty()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace orrery::cli
