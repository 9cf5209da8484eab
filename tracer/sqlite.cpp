// See sqlite.h. Error codes: https://www.sqlite.org/rescode.html
#include "tracer/sqlite.h"

#include <sqlite3.h>

#include <cmath>
#include <limits>

namespace orrery::sql {
namespace {

ErrorCode code_of(int extended) {
  // A file that ends too early is torn, not unreadable.
  if (extended == SQLITE_IOERR_SHORT_READ) return ErrorCode::kInvalid;
  switch (extended & 0xff) {
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PERM:
    case SQLITE_PROTOCOL:
      return ErrorCode::kIo;
    default:
      return ErrorCode::kInvalid;
  }
}

Error error_of(sqlite3* handle, const std::string& place) {
  const int extended = handle ? sqlite3_extended_errcode(handle) : SQLITE_NOMEM;
  std::string message = handle ? sqlite3_errmsg(handle) : "out of memory";
  std::string hint;
  switch (extended & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      message = "not a readable SQLite file (" + message + ")";
      hint = "the file is torn or of another kind";
      break;
    case SQLITE_FULL:
      hint = "free some space or write elsewhere with -o";
      break;
    case SQLITE_AUTH:
      message = "only reading is allowed (" + message + ")";
      hint = "use one SELECT statement";
      break;
    default:
      break;
  }
  return Error::of(code_of(extended), place, message, hint);
}

int allow_reading(void*, int action, const char*, const char*, const char*, const char*) {
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_FUNCTION:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    default:
      return SQLITE_DENY;
  }
}

}  // namespace

void Statement::Finalize::operator()(sqlite3_stmt* handle) const {
  sqlite3_finalize(handle);
}

Statement::Statement(sqlite3_stmt* handle, std::string place)
    : handle_(handle), place_(std::move(place)) {}

int Statement::columns() const {
  return sqlite3_column_count(handle_.get());
}

std::string Statement::column_name(int column) const {
  const char* name = sqlite3_column_name(handle_.get(), column);
  return name ? name : "";
}

void Statement::bind(int index, std::int64_t value) {
  CHECK(sqlite3_bind_int64(handle_.get(), index, value) == SQLITE_OK, "bad parameter index");
}

void Statement::bind(int index, double value) {
  CHECK(sqlite3_bind_double(handle_.get(), index, value) == SQLITE_OK, "bad parameter index");
}

void Statement::bind(int index, std::string_view value) {
  // A string_view of no text may have no address, which SQLite would take for NULL.
  const char* data = value.empty() ? "" : value.data();
  const int rc =
      sqlite3_bind_text64(handle_.get(), index, data, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  CHECK(rc == SQLITE_OK || rc == SQLITE_TOOBIG, "bad parameter index");
}

void Statement::bind(int index, std::nullptr_t) {
  CHECK(sqlite3_bind_null(handle_.get(), index) == SQLITE_OK, "bad parameter index");
}

Result<bool> Statement::step() {
  const int rc = sqlite3_step(handle_.get());
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) return false;
  return error_of(sqlite3_db_handle(handle_.get()), place_);
}

void Statement::reset() {
  sqlite3_reset(handle_.get());
  sqlite3_clear_bindings(handle_.get());
}

Status Statement::run_bound() {
  for (;;) {
    auto row = step();
    if (!row.ok()) {
      reset();
      return row.error();
    }
    if (!row.value()) break;
  }
  reset();
  return Ok{};
}

ColumnType Statement::type(int column) const {
  switch (sqlite3_column_type(handle_.get(), column)) {
    case SQLITE_INTEGER:
      return ColumnType::kInteger;
    case SQLITE_FLOAT:
      return ColumnType::kReal;
    case SQLITE_TEXT:
      return ColumnType::kText;
    case SQLITE_BLOB:
      return ColumnType::kBlob;
    default:
      return ColumnType::kNull;
  }
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(handle_.get(), column);
}

double Statement::real(int column) const {
  if (type(column) == ColumnType::kNull) return std::numeric_limits<double>::quiet_NaN();
  return sqlite3_column_double(handle_.get(), column);
}

std::string Statement::text(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(handle_.get(), column));
  if (!data) return "";
  return {data, static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

void Database::Close::operator()(sqlite3* handle) const {
  sqlite3_close_v2(handle);
}

Database::Database(sqlite3* handle, std::string path) : handle_(handle), path_(std::move(path)) {}

Result<Database> Database::open(const std::string& path, Mode mode) {
  int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  if (mode == Mode::kReadOnly) flags |= SQLITE_OPEN_READONLY;
  if (mode == Mode::kReadWrite || mode == Mode::kSalvage) flags |= SQLITE_OPEN_READWRITE;
  if (mode == Mode::kCreate) flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  sqlite3* handle = nullptr;
  const int rc = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  Database db(handle, path);
  if (rc != SQLITE_OK) return error_of(handle, path);
  sqlite3_busy_timeout(handle, 5000);
  // A file may come from elsewhere: its schema may not call functions with side effects.
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, mode != Mode::kSalvage, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_WRITABLE_SCHEMA, mode == Mode::kSalvage, nullptr);
  TRY_OK(db.exec("PRAGMA cell_size_check = ON"));
  if (mode == Mode::kCreate) {
    TRY(const std::int64_t objects, db.scalar("SELECT count(*) FROM sqlite_schema"));
    if (objects != 0) return Error::of(ErrorCode::kIo, path, "the file exists already");
  }
  return db;
}

Status Database::exec(std::string_view sql) {
  const std::string text(sql);
  if (sqlite3_exec(handle_.get(), text.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    return error_of(handle_.get(), path_);
  }
  return Ok{};
}

Result<Statement> Database::prepare(std::string_view sql, std::string_view* rest) {
  if (sql.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    return Error::of(ErrorCode::kInvalid, path_, "the SQL text is too long");
  }
  sqlite3_stmt* handle = nullptr;
  const char* tail = nullptr;
  const int rc =
      sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &handle, &tail);
  Statement statement(handle, path_);
  if (rc != SQLITE_OK) return error_of(handle_.get(), path_);
  if (!handle) return Error::of(ErrorCode::kInvalid, path_, "there is no SQL statement");
  if (rest) *rest = sql.substr(static_cast<std::size_t>(tail - sql.data()));
  return statement;
}

Result<std::int64_t> Database::scalar(std::string_view sql) {
  TRY(Statement statement, prepare(sql));
  TRY(const bool row, statement.step());
  if (!row) return Error::of(ErrorCode::kInvalid, path_, "no row: " + std::string(sql));
  return statement.integer(0);
}

void Database::forbid_all_but_reading(bool forbid) {
  sqlite3_set_authorizer(handle_.get(), forbid ? allow_reading : nullptr, nullptr);
}

void Database::rollback() {
  if (sqlite3_get_autocommit(handle_.get()) == 0) {
    sqlite3_exec(handle_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

}  // namespace orrery::sql
