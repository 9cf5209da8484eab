// Output files that appear whole or not at all, and what a file is.
#pragma once

#include <csignal>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace orrery::cli {

// Before long work: kIo where `path`, given with -o, can certainly not be written (no such folder,
// no right, a directory or a device); kUsage where it is empty or is one of the command's `inputs`,
// by whatever name, or a file (but no trace) in an input that is a folder.
Status check_output(const std::string& path, const std::vector<std::string>& inputs = {});

// Writes beside `path`, syncs, renames. After a failure there is neither file; an older `path`
// stays as it was. kIo.
Status write_whole(const std::string& path, std::string_view bytes);

// True where the file starts as an SQLite database does. kIo where it cannot be read.
Result<bool> is_trace(const std::string& path);

// From now on SIGINT and SIGTERM end the process with exit code 130.
void exit_on_signals();

// Holds SIGINT and SIGTERM back while a temporary file exists.
class SignalShelter {
 public:
  SignalShelter();
  ~SignalShelter();
  SignalShelter(const SignalShelter&) = delete;
  SignalShelter& operator=(const SignalShelter&) = delete;

 private:
  sigset_t before_{};
};

// A folder of this process alone, removed with all in it. kIo.
class TemporaryFolder {
 public:
  static Result<TemporaryFolder> create();
  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder();
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace orrery::cli
