// A file that gets its name only when it is whole: written beside it and renamed. Otherwise it is
// removed.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "core/result.h"

namespace orrery {

class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // kIo when the file could not be made or a write failed.
  Status status() const;
  // Nothing is written after a failure.
  void write(std::string_view bytes);
  // Flushes and renames. No write may follow.
  Status publish();

 private:
  void fail(const char* what);

  std::string path_, temporary_;
  std::FILE* file_;
  std::string failure_;  // what failed first and why; empty: nothing
  bool done_ = false;
};

}  // namespace orrery
