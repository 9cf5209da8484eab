// See progress.h.
#include "cli/progress.h"

#include <fmt/format.h>

#include <cstdio>
#include <utility>

namespace orrery::cli {
namespace {

constexpr auto kRewrite = std::chrono::milliseconds(100);
constexpr auto kPlain = std::chrono::seconds(5);

}  // namespace

// Work that is done at once says nothing.
Progress::Progress(std::string what, bool terminal)
    : what_(std::move(what)),
      terminal_(terminal),
      next_(Clock::now() + (terminal ? Clock::duration(3 * kRewrite) : Clock::duration(kPlain))) {}

Progress::~Progress() {
  if (!shown_ || !terminal_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

void Progress::update(std::int64_t done, std::int64_t all) {
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + (terminal_ ? Clock::duration(kRewrite) : Clock::duration(kPlain));
  const std::string text =
      all > 0 ? fmt::format("{}: {} of {}", what_, done, all) : fmt::format("{}: {}", what_, done);
  std::fputs((terminal_ ? "\r\x1b[K" + text : text + "\n").c_str(), stderr);
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace orrery::cli
