// A thin RAII cover of SQLite: the only place of the project that talks to its C interface. Every
// failure becomes an Error with the file's name; a torn or foreign file is kInvalid, a missing file
// or a full disk is kIo.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace orrery::sql {

enum class ColumnType { kNull, kInteger, kReal, kText, kBlob };

// A prepared statement. Must not outlive its Database.
class Statement {
 public:
  Statement(sqlite3_stmt* handle, std::string place);

  int columns() const;
  std::string column_name(int column) const;

  // Parameters count from 1. A NaN is stored as NULL.
  void bind(int index, std::int64_t value);
  void bind(int index, std::int32_t value) { bind(index, static_cast<std::int64_t>(value)); }
  void bind(int index, double value);
  void bind(int index, std::string_view value);
  void bind(int index, const std::string& value) { bind(index, std::string_view(value)); }
  void bind(int index, const char* value) { bind(index, std::string_view(value)); }
  void bind(int index, std::nullptr_t);

  // True when there is a row, false at the end.
  Result<bool> step();
  void reset();

  // Binds all, runs to the end, resets.
  template <class... Args>
  Status run(const Args&... args) {
    int index = 0;
    (bind(++index, args), ...);
    return run_bound();
  }

  // Columns count from 0. NULL reads as 0, NaN and "".
  ColumnType type(int column) const;
  std::int64_t integer(int column) const;
  std::int32_t integer32(int column) const { return static_cast<std::int32_t>(integer(column)); }
  double real(int column) const;
  std::string text(int column) const;

 private:
  Status run_bound();

  struct Finalize {
    void operator()(sqlite3_stmt* handle) const;
  };
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
  std::string place_;
};

// kReadOnly never changes the file. kSalvage is kReadWrite for a file that is shorter than its
// header says, or whose schema is damaged in places: what is there can be read.
enum class Mode { kCreate, kReadWrite, kReadOnly, kSalvage };

class Database {
 public:
  // kCreate fails when the file holds anything.
  static Result<Database> open(const std::string& path, Mode mode);

  // Runs one or more statements that return no rows of interest.
  Status exec(std::string_view sql);
  // Prepares the first statement of `sql`; `rest` (optional) receives what follows it. A text of
  // only comments and spaces is kInvalid.
  Result<Statement> prepare(std::string_view sql, std::string_view* rest = nullptr);
  // The first column of the first row; an error when there is none.
  Result<std::int64_t> scalar(std::string_view sql);

  // Every statement prepared from now on may only read (no ATTACH, no PRAGMA, no writes).
  void forbid_all_but_reading(bool forbid);
  // Rolls back an open transaction, if there is one.
  void rollback();
  const std::string& path() const { return path_; }

 private:
  Database(sqlite3* handle, std::string path);

  struct Close {
    void operator()(sqlite3* handle) const;
  };
  std::unique_ptr<sqlite3, Close> handle_;
  std::string path_;
};

// Runs `body` (returning a Status) in a transaction; rolls back when it fails.
template <class Body>
Status in_transaction(Database& db, Body&& body) {
  TRY_OK(db.exec("BEGIN IMMEDIATE"));
  Status status = std::forward<Body>(body)();
  if (status.ok()) status = db.exec("COMMIT");
  if (!status.ok()) db.rollback();
  return status;
}

}  // namespace orrery::sql
