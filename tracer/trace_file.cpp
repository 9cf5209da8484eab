// See trace_file.h. A full disk must not hide the end of a run: some pages are reserved at the
// start and given back for the last words. The journal is in memory, so that undoing needs no disk
// either; a killed writer leaves nothing under the final name.
#include "tracer/trace_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tracer/schema.h"

namespace orrery {
namespace {

constexpr const char* kReserve =
    "CREATE TABLE reserve (x BLOB); INSERT INTO reserve VALUES (zeroblob(65536))";

Error system_error(const std::string& path, const std::string& what) {
  return Error::of(ErrorCode::kIo, path, what + ": " + std::strerror(errno));
}

}  // namespace

std::string temporary_beside(const std::string& path) {
  static std::atomic<int> count{0};
  return path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
}

Status publish_file(const std::string& temporary, const std::string& path) {
  const int file = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return system_error(temporary, "cannot open");
  const bool synced = ::fsync(file) == 0;
  Status status = Ok{};
  if (!synced) status = system_error(temporary, "cannot write to the disk");
  ::close(file);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = system_error(path, "cannot rename to");
    ::unlink(temporary.c_str());
  }
  return status;
}

TraceFile::TraceFile(sql::Database db, std::string path, std::string temporary)
    : db_(std::move(db)), path_(std::move(path)), temporary_(std::move(temporary)) {}

Result<TraceFile> TraceFile::create(const std::string& path, const RunInfo& info) {
  const std::string temporary = temporary_beside(path);
  ::unlink(temporary.c_str());  // of a process that had this number before
  auto db = sql::Database::open(temporary, sql::Mode::kCreate);
  if (!db.ok()) {
    ::unlink(temporary.c_str());
    Error error = db.error();
    error.problems.front().where = path;
    return error;
  }
  TraceFile file(std::move(db).value(), path, temporary);
  if (Status started = file.start(info); !started.ok()) {
    file.discard();
    return started.error();
  }
  return file;
}

Status TraceFile::start(const RunInfo& info) {
  TRY_OK(db_->exec("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF"));
  TRY_OK(migrate(*db_));
  TRY_OK(db_->exec(kReserve));
  RunInfo running = info;
  running.status = RunStatus::kRunning;
  running.reason = "";
  TRY_OK(rows::insert_run(*db_, running));
  TRY(auto sink, rows::EventSink::prepare(*db_));
  sink_ = std::move(sink);
  return Ok{};
}

void TraceFile::close() {
  sink_.reset();
  db_.reset();
}

Status TraceFile::finish(RunStatus status, const std::string& reason) {
  CHECK(is_open(), "finish() after finish() or discard()");
  CHECK(status != RunStatus::kRunning, "a finished run is ok or failed");
  sink_.reset();
  db_->rollback();
  Status result = db_->exec("DROP TABLE reserve");
  if (Status sealed = seal(*db_); !sealed.ok() && result.ok()) result = sealed;
  std::string why = reason;
  if (!result.ok() && status == RunStatus::kOk) {
    status = RunStatus::kFailed;
    why = result.error().text();
  }
  // A failure of the last words is reported, but what was flushed still gets its name.
  if (Status last = rows::update_status(*db_, status, why); !last.ok() && result.ok()) {
    result = last;
  }
  close();
  Status published = publish_file(temporary_, path_);
  return result.ok() ? published : result;
}

void TraceFile::discard() {
  close();
  ::unlink(temporary_.c_str());
}

}  // namespace orrery
