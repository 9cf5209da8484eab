// Long work says how far it is: one rewritten line on a terminal (at most 10 a second), a plain
// line every few seconds elsewhere. All on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace orrery::cli {

class Progress {
 public:
  // `what`: "searching plans". `terminal`: stderr is one.
  Progress(std::string what, bool terminal);
  ~Progress();  // takes the rewritten line away
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(std::int64_t done, std::int64_t all);

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  bool terminal_ = false;
  bool shown_ = false;
  Clock::time_point next_;
};

}  // namespace orrery::cli
