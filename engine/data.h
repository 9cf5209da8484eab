// Training data: byte-level tokens of text files, as rows that every layout deals out alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace orrery::engine {

// A file as it is named, or the regular files of a folder and those in it, in the order of their
// paths. kIo when there are none.
Result<std::vector<std::string>> files_of(const std::string& path);
Status append_file(const std::string& path, std::string& text);  // kIo when it cannot be read

class TextSource {
 public:
  // A file, or a directory whose regular files are read in the order of their paths. kIo when it
  // cannot be read; kInvalid when it holds less than one row of `tokens` and its last label.
  static Result<TextSource> open(const std::string& path, std::int64_t tokens);

  std::int64_t rows() const { return rows_; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(text_.size()); }

  // Appends row `index` (any non-negative number: rows repeat in a fixed shuffled order):
  // `tokens` ids, and as labels the bytes that follow them.
  void append_row(std::int64_t index, std::vector<std::int64_t>& ids,
                  std::vector<std::int64_t>& labels) const;

 private:
  std::string text_;
  std::int64_t tokens_ = 0, rows_ = 0, stride_ = 1;
};

}  // namespace orrery::engine
