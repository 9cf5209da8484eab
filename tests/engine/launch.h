// Starts mpirun with real ranks from a test, watches them and never leaves one behind. What the
// ranks are is told by a folder of the test's own, which stands in their arguments.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace orrery::engine {

// A folder of the test's own, removed with all it holds at the end.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // Writes the file and returns its path.
  std::string write(const std::string& name, const std::string& bytes) const;

 private:
  std::string path_;
};

// "" where there is none.
std::string contents(const std::string& path);

// mpirun as `orrery train` calls it, its options, then the program (more of mpirun's words may be
// among `options`, such as "-x").
std::vector<std::string> mpirun(std::int32_t ranks, const std::vector<std::string>& program,
                                const std::vector<std::string>& options = {});

// True as soon as `holds` does; false when it has not for `limit`.
bool poll(std::chrono::seconds limit, const std::function<bool()>& holds);

// Live processes with `mark` in one of their arguments, and the one of them that is `rank`.
std::vector<pid_t> processes_with(const std::string& mark);
std::optional<pid_t> process_of_rank(const std::string& mark, std::int32_t rank);

// A running mpirun, its words in files of the folder.
class Launch {
 public:
  Launch(const std::vector<std::string>& words, const Folder& folder);
  ~Launch();  // ends whatever still runs
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  pid_t pid() const { return pid_; }
  // The exit code, 128 + the signal's number, or nothing when it still runs after `limit`.
  std::optional<int> wait(std::chrono::seconds limit = std::chrono::seconds(60));
  std::string out() const { return contents(out_); }
  std::string err() const { return contents(err_); }

 private:
  bool has_ended();
  std::string mark_, out_, err_;
  pid_t pid_ = -1;
  std::optional<int> code_;
};

}  // namespace orrery::engine
