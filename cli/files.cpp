// See files.h.
#include "cli/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

namespace orrery::cli {
namespace {

namespace fs = std::filesystem;

Error io_error(const std::string& path, const std::string& what, int error) {
  const bool full = error == ENOSPC || error == EFBIG || error == EDQUOT;
  return Error::of(ErrorCode::kIo, path, what + ": " + std::strerror(error),
                   full ? "make room there, or choose another place with -o" : "");
}

// 0, or errno.
int write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return ::fsync(descriptor) == 0 || errno == EINVAL ? 0 : errno;
}

// True where writing `file` would destroy `input`. Names that do not exist are no files.
bool destroys(const fs::path& file, const fs::path& input) {
  std::error_code ec;
  if (!fs::exists(file, ec)) return false;
  if (!fs::is_directory(input, ec)) return fs::equivalent(file, input, ec);
  // The trace of an earlier run may lie among its data.
  const Result<bool> trace = is_trace(file.string());
  if (trace.ok() && trace.value()) return false;
  const fs::path whole = fs::canonical(file, ec);
  if (ec) return false;
  for (fs::path folder = whole.parent_path();; folder = folder.parent_path()) {
    if (fs::equivalent(folder, input, ec)) return true;
    if (folder == folder.root_path()) return false;
  }
}

extern "C" void on_signal(int) {
  _exit(130);
}

}  // namespace

Status check_output(const std::string& path, const std::vector<std::string>& inputs) {
  if (path.empty()) {
    return Error::of(ErrorCode::kUsage, "--out", "the name of the file is empty",
                     "name the file after -o");
  }
  std::error_code ec;
  const fs::path file(path);
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, ec)) {
    return Error::of(ErrorCode::kIo, path, "there is no folder " + folder.string(),
                     "mkdir -p " + folder.string());
  }
  if (fs::exists(file, ec) && !fs::is_regular_file(file, ec)) {
    return Error::of(ErrorCode::kIo, path, "is not a regular file", "choose another name with -o");
  }
  for (const std::string& input : inputs) {
    if (input.empty() || !destroys(file, input)) continue;
    return Error::of(
        ErrorCode::kUsage, "--out",
        path + " would replace what this command reads" + (path == input ? "" : ", " + input),
        "name another file after -o");
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    return io_error(path, "cannot be written", errno);
  }
  return Ok{};
}

Status write_whole(const std::string& path, std::string_view bytes) {
  TRY_OK(check_output(path));
  const SignalShelter shelter;
  std::string beside = path + ".tmp-XXXXXX";
  const int descriptor = ::mkstemp(beside.data());
  if (descriptor < 0) return io_error(path, "cannot be written", errno);
  int error = write_all(descriptor, bytes);
  if (error == 0 && ::fchmod(descriptor, 0644) != 0) error = errno;
  if (::close(descriptor) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(beside.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return Ok{};
  ::unlink(beside.c_str());
  return io_error(path, "cannot be written", error);
}

Result<bool> is_trace(const std::string& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) {
    return Error::of(ErrorCode::kIo, path, "is a directory, not a file");
  }
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in.is_open()) return io_error(path, "cannot be read", errno);
  constexpr std::string_view kMagic("SQLite format 3\0", 16);
  std::string head(kMagic.size(), '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  return static_cast<std::size_t>(in.gcount()) == kMagic.size() && head == kMagic;
}

void exit_on_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
  // A full quota of RLIMIT_FSIZE is an error of write(), not a death.
  action.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &action, nullptr);
}

SignalShelter::SignalShelter() {
  sigset_t held;
  sigemptyset(&held);
  sigaddset(&held, SIGINT);
  sigaddset(&held, SIGTERM);
  sigprocmask(SIG_BLOCK, &held, &before_);
}

SignalShelter::~SignalShelter() {
  sigprocmask(SIG_SETMASK, &before_, nullptr);
}

Result<TemporaryFolder> TemporaryFolder::create() {
  const char* base = std::getenv("TMPDIR");
  std::string path =
      std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/orrery-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return io_error(path, "no temporary folder can be made", errno);
  }
  return TemporaryFolder(path);
}

TemporaryFolder::TemporaryFolder(TemporaryFolder&& other) noexcept
    : path_(std::exchange(other.path_, "")) {}

TemporaryFolder::~TemporaryFolder() {
  if (path_.empty()) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace orrery::cli
