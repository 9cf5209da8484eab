// Text files as rows of bytes.
#include "engine/data.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>

namespace orrery::engine {

Status append_file(const std::string& path, std::string& text) {
  std::ifstream in(path, std::ios::binary);
  text.append(std::istreambuf_iterator<char>(in), {});
  if (!in.eof() && in.fail()) return Error::of(ErrorCode::kIo, path, "cannot be read");
  return Ok{};
}

Result<std::vector<std::string>> files_of(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::vector<fs::path> files;
  if (fs::is_directory(path, error)) {
    for (fs::recursive_directory_iterator it(path, error), end; !error && it != end;
         it.increment(error)) {
      if (it->is_regular_file(error)) files.push_back(it->path());
    }
  } else if (fs::is_regular_file(path, error)) {
    files.emplace_back(path);
  }
  if (error || files.empty()) {
    return Error::of(ErrorCode::kIo, path, "no text files there",
                     "name a file, or a directory with files");
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> names;
  for (const fs::path& file : files) names.push_back(file.string());
  return names;
}

Result<TextSource> TextSource::open(const std::string& path, std::int64_t tokens) {
  TRY(const std::vector<std::string> files, files_of(path));
  TextSource source;
  for (const std::string& file : files) TRY_OK(append_file(file, source.text_));
  source.tokens_ = tokens;
  source.rows_ = (source.bytes() - 1) / tokens;
  if (source.rows_ < 1) {
    return Error::of(ErrorCode::kInvalid, path,
                     std::to_string(source.bytes()) + " bytes are less than one row of " +
                         std::to_string(tokens) + " tokens and a label");
  }
  // Steps of about 0.618 of the rows, coprime to their number, visit each row once a round.
  source.stride_ = std::max<std::int64_t>(1, source.rows_ * 618 / 1000);
  while (std::gcd(source.stride_, source.rows_) != 1) ++source.stride_;
  return source;
}

void TextSource::append_row(std::int64_t index, std::vector<std::int64_t>& ids,
                            std::vector<std::int64_t>& labels) const {
  const std::int64_t row = index % rows_ * stride_ % rows_;
  const auto* at = reinterpret_cast<const unsigned char*>(text_.data()) + row * tokens_;
  for (std::int64_t i = 0; i < tokens_; ++i) {
    ids.push_back(at[i]);
    labels.push_back(at[i + 1]);
  }
}

}  // namespace orrery::engine
