// A trace on its way to its final path: written beside it, renamed at the end. Inside the tracer,
// what TraceWriter and the merge share.
#pragma once

#include <optional>
#include <string>

#include "tracer/rows.h"
#include "tracer/sqlite.h"
#include "tracer/trace_db.h"

namespace orrery {

class TraceFile {
 public:
  static Result<TraceFile> create(const std::string& path, const RunInfo& info);
  TraceFile(TraceFile&&) = default;
  TraceFile& operator=(TraceFile&&) = default;

  bool is_open() const { return db_.has_value(); }
  sql::Database& db() { return *db_; }
  rows::EventSink& sink() { return *sink_; }

  // See TraceWriter::finish and discard.
  Status finish(RunStatus status, const std::string& reason);
  void discard();

 private:
  TraceFile(sql::Database db, std::string path, std::string temporary);
  Status start(const RunInfo& info);
  void close();

  std::optional<sql::Database> db_;
  std::optional<rows::EventSink> sink_;  // after db_: its statements go first
  std::string path_, temporary_;
};

// Writes the file's pages to the disk, then gives it its name. kIo.
Status publish_file(const std::string& temporary, const std::string& path);
// "<path>.tmp-<pid>-<n>": on the same file system, of this process alone.
std::string temporary_beside(const std::string& path);

}  // namespace orrery
