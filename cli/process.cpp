// See process.h.
#include "cli/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "cli/process_tree.h"

namespace orrery::cli {
namespace {

using Clock = std::chrono::steady_clock;

volatile std::sig_atomic_t g_signals = 0;  // how many arrived; handlers may touch nothing else

extern "C" void count_signal(int) {
  g_signals = g_signals + 1;
}

// Counts SIGINT and SIGTERM while it lives.
class SignalCounter {
 public:
  SignalCounter() {
    g_signals = 0;
    struct sigaction action = {};
    action.sa_handler = count_signal;  // without SA_RESTART: poll() wakes up
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &before_[0]);
    sigaction(SIGTERM, &action, &before_[1]);
  }
  ~SignalCounter() {
    sigaction(SIGINT, &before_[0], nullptr);
    sigaction(SIGTERM, &before_[1], nullptr);
  }
  SignalCounter(const SignalCounter&) = delete;
  SignalCounter& operator=(const SignalCounter&) = delete;
  static int count() { return g_signals; }

 private:
  std::array<struct sigaction, 2> before_{};
};

struct Pipe {
  int read = -1, write = -1;
  bool open() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return false;
    read = ends[0];
    write = ends[1];
    return true;
  }
  void close_write() {
    if (write >= 0) ::close(std::exchange(write, -1));
  }
  ~Pipe() {
    close_write();
    if (read >= 0) ::close(read);
  }
};

// Cuts what a pipe brings into lines.
class LineReader {
 public:
  LineReader(int descriptor, const std::function<void(std::string_view)>& on_line)
      : descriptor_(descriptor), on_line_(on_line) {
    ::fcntl(descriptor, F_SETFL, O_NONBLOCK);
  }
  bool open() const { return open_; }
  int descriptor() const { return open_ ? descriptor_ : -1; }

  // Takes what is there now.
  void pull() {
    std::array<char, 65536> bytes;
    while (open_) {
      const ssize_t got = ::read(descriptor_, bytes.data(), bytes.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) break;
      if (got <= 0) open_ = false;
      if (got > 0) rest_.append(bytes.data(), static_cast<std::size_t>(got));
    }
    std::size_t begin = 0;
    for (std::size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      emit(std::string_view(rest_).substr(begin, end - begin));
    }
    rest_.erase(0, begin);
  }
  void finish() {
    pull();
    if (!rest_.empty()) emit(rest_);
    rest_.clear();
  }

 private:
  void emit(std::string_view line) {
    if (line.ends_with('\r')) line.remove_suffix(1);  // a rank's stdout is a pseudo terminal
    if (on_line_) on_line_(line);
  }
  int descriptor_;
  bool open_ = true;
  std::string rest_;
  const std::function<void(std::string_view)>& on_line_;
};

// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void become(const std::vector<char*>& argv, const std::vector<char*>& environment,
                         int out, int err, int report, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) _exit(127);  // it is gone already
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  ::execve(argv.front(), argv.data(), environment.data());
  const int error = errno;
  const ssize_t told = ::write(report, &error, sizeof error);
  _exit(told == sizeof error ? 127 : 126);
}

std::vector<std::string> merged_environment(
    const std::vector<std::pair<std::string, std::string>>& changes) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const bool replaced = std::any_of(changes.begin(), changes.end(), [&](const auto& change) {
      return text.starts_with(change.first + "=");
    });
    if (!replaced) all.emplace_back(text);
  }
  for (const auto& [name, value] : changes) all.push_back(name + "=" + value);
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

Error cannot_start(const std::string& path, int error) {
  return Error::of(ErrorCode::kIo, path, std::string("cannot be started: ") + std::strerror(error));
}

Result<pid_t> start(const ChildSpec& spec, const Pipe& out, const Pipe& err) {
  CHECK(!spec.command.empty(), "a command has a first word");
  std::vector<std::string> words = spec.command;
  std::vector<std::string> environment = merged_environment(spec.environment);
  const std::vector<char*> argv = pointers(words);
  const std::vector<char*> envp = pointers(environment);
  Pipe report;
  if (!report.open()) return cannot_start(words.front(), errno);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return cannot_start(words.front(), errno);
  if (child == 0) become(argv, envp, out.write, err.write, report.write, parent);
  ::setpgid(child, child);  // also here: whichever of the two comes first
  report.close_write();
  int error = 0;
  ssize_t got = 0;
  while ((got = ::read(report.read, &error, sizeof error)) < 0 && errno == EINTR) {
  }
  if (got != sizeof error) return child;
  ::waitpid(child, nullptr, 0);
  return cannot_start(words.front(), error);
}

// Follows a running child until it has ended, by itself or by us.
class Watch {
 public:
  Watch(pid_t child, const ChildSpec& spec) : child_(child), spec_(spec) {}

  // True when the child has ended.
  bool poll_child() {
    int status = 0;
    const pid_t got = ::waitpid(child_, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR)) return false;
    CHECK(got == child_, std::string("waitpid lost its child: ") + std::strerror(errno));
    end_.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
  }

  // Passes signals on, and ends what does not end.
  void act() {
    const Clock::time_point now = Clock::now();
    const int signals = SignalCounter::count();
    if (signals > passed_) {
      end_.interrupted = true;
      if (passed_ == 0) {
        ::kill(-child_, SIGTERM);
        deadline_ = now + spec_.grace;
      } else {
        deadline_ = now;  // asked twice
      }
      passed_ = signals;
    }
    if (now >= look_ && spec_.straggle) {
      look_ = now + std::chrono::seconds(1);
      look_for_the_dead(now);
    }
    if (now >= deadline_) {
      end_.stuck = !end_.interrupted;
      ::kill(-child_, SIGKILL);
    }
  }
  ChildEnd end() const { return end_; }

 private:
  void look_for_the_dead(Clock::time_point now) {
    const std::size_t alive = living_children(child_);
    most_ = std::max(most_, alive);
    if (alive < most_) deadline_ = std::min(deadline_, now + *spec_.straggle);
  }

  pid_t child_;
  const ChildSpec& spec_;
  ChildEnd end_;
  int passed_ = 0;
  std::size_t most_ = 0;
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point look_ = Clock::now() + std::chrono::seconds(1);
};

// Until the pipes are at their end; not for ever, since an orphan may hold them.
void drain(LineReader& out, LineReader& err) {
  const Clock::time_point limit = Clock::now() + std::chrono::seconds(1);
  while ((out.open() || err.open()) && Clock::now() < limit) {
    out.pull();
    err.pull();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  out.finish();
  err.finish();
}

}  // namespace

Result<ChildEnd> run_child(const ChildSpec& spec) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // orphans of the child become ours
  Pipe out_pipe, err_pipe;
  if (!out_pipe.open() || !err_pipe.open()) return cannot_start(spec.command.front(), errno);
  const SignalCounter signals;
  TRY(const pid_t child, start(spec, out_pipe, err_pipe));
  out_pipe.close_write();
  err_pipe.close_write();
  LineReader out(out_pipe.read, spec.on_out), err(err_pipe.read, spec.on_err);
  Watch watch(child, spec);
  while (!watch.poll_child()) {
    std::array<pollfd, 2> wait = {{{out.descriptor(), POLLIN, 0}, {err.descriptor(), POLLIN, 0}}};
    ::poll(wait.data(), wait.size(), 50);
    out.pull();
    err.pull();
    watch.act();
  }
  ::kill(-child, SIGKILL);
  end_all_descendants();
  drain(out, err);
  ChildEnd end = watch.end();
  end.interrupted = end.interrupted || SignalCounter::count() > 0;
  return end;
}

}  // namespace orrery::cli
