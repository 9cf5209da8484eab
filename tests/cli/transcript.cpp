// See transcript.h.
#include "tests/cli/transcript.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string_view>

namespace orrery::cli_test {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// True where `line` is `pattern` with any text for each "...".
bool matches(std::string_view pattern, std::string_view line) {
  const std::size_t dots = pattern.find("...");
  if (dots == std::string_view::npos) return pattern == line;
  if (line.substr(0, dots) != pattern.substr(0, dots)) return false;
  const std::string_view rest = pattern.substr(dots + 3);
  for (std::size_t at = dots; at <= line.size(); ++at) {
    if (matches(rest, line.substr(at))) return true;
  }
  return false;
}

bool all_match(const std::vector<std::string>& expected, std::size_t e,
               const std::vector<std::string>& lines, std::size_t l, std::size_t& furthest) {
  furthest = std::max(furthest, l);
  if (e == expected.size()) return l == lines.size();
  if (expected[e] == "...") {
    for (std::size_t skip = l; skip <= lines.size(); ++skip) {
      if (all_match(expected, e + 1, lines, skip, furthest)) return true;
    }
    return false;
  }
  return l < lines.size() && matches(expected[e], lines[l]) &&
         all_match(expected, e + 1, lines, l + 1, furthest);
}

std::string read_whole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

[[noreturn]] void become_shell(const std::string& command, const std::string& folder) {
  const std::string path = std::string(ORRERY_BINARY_DIR) + ":" + std::getenv("PATH");
  ::setenv("PATH", path.c_str(), 1);
  ::setenv("TMPDIR", (folder + "/../tmp").c_str(), 1);
  ::setenv("LC_ALL", "C.UTF-8", 1);
  for (const char* name : {"ORRERY_ENGINE", "ORRERY_CONFIGS", "ORRERY_HOSTS", "ORRERY_REMOTE_SHELL",
                           "ORRERY_INTERFACE", "SLURM_JOB_ID"}) {
    ::unsetenv(name);
  }
  const auto redirect = [](const std::string& file, int flags, int descriptor) {
    const int opened = ::open(file.c_str(), flags, 0644);
    if (opened < 0 || ::dup2(opened, descriptor) < 0) _exit(126);
  };
  redirect("/dev/null", O_RDONLY, STDIN_FILENO);
  redirect(folder + ".out", O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
  redirect(folder + ".err", O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
  if (::chdir(folder.c_str()) != 0) _exit(126);
  ::execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
  _exit(126);
}

}  // namespace

std::vector<Case> parse_transcript(const std::string& path) {
  std::vector<Case> cases;
  std::ifstream in(path);
  EXPECT_TRUE(in.is_open()) << path;
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.empty() || line[0] == '#') continue;
    const std::string text = line.size() > 2 ? line.substr(2) : "";
    if (line[0] == '$') {
      cases.push_back({text, {}, {}, 0, number});
    } else if (line[0] == '>' && !cases.empty()) {
      cases.back().out.push_back(text);
    } else if (line[0] == '!' && !cases.empty()) {
      cases.back().err.push_back(text);
    } else if (line[0] == '?' && !cases.empty()) {
      cases.back().code = std::stoi(text);
    } else {
      ADD_FAILURE() << path << ":" << number << ": cannot be read: " << line;
    }
  }
  EXPECT_FALSE(cases.empty()) << path;
  return cases;
}

Ran run_shell(const std::string& command, const std::string& folder) {
  const pid_t child = ::fork();
  if (child == 0) become_shell(command, folder);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  Ran ran;
  ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  ran.out = read_whole(folder + ".out");
  ran.err = read_whole(folder + ".err");
  return ran;
}

std::string difference(const std::vector<std::string>& expected, const std::string& text) {
  const std::vector<std::string> lines = lines_of(text);
  std::size_t furthest = 0;
  if (all_match(expected, 0, lines, 0, furthest)) return "";
  std::string report = "differs at line " + std::to_string(furthest + 1) + "; expected:\n";
  for (const std::string& line : expected) report += "  |" + line + "\n";
  return report + "printed:\n" + text;
}

}  // namespace orrery::cli_test
