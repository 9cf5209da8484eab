// See output_file.h.
#include "ui-export/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace orrery {

OutputFile::OutputFile(const std::string& path)
    : path_(path),
      temporary_(path + ".tmp-" + std::to_string(::getpid())),
      file_(std::fopen(temporary_.c_str(), "we")) {
  if (!file_) fail("cannot make");
}

OutputFile::~OutputFile() {
  if (file_) std::fclose(file_);
  if (!done_) std::remove(temporary_.c_str());
}

void OutputFile::fail(const char* what) {
  if (failure_.empty()) failure_ = std::string(what) + ": " + std::strerror(errno);
}

Status OutputFile::status() const {
  if (failure_.empty()) return Ok{};
  return Error::of(ErrorCode::kIo, path_, failure_);
}

void OutputFile::write(std::string_view bytes) {
  if (!failure_.empty()) return;
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail("cannot write");
}

Status OutputFile::publish() {
  TRY_OK(status());
  if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0) fail("cannot write");
  TRY_OK(status());
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot rename to");
  TRY_OK(status());
  done_ = true;
  return Ok{};
}

}  // namespace orrery
