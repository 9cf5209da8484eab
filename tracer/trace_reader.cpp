// See trace_db.h: the reading side.
#include <filesystem>
#include <utility>

#include "tracer/rows.h"
#include "tracer/schema.h"
#include "tracer/sqlite.h"
#include "tracer/trace_db.h"

namespace orrery {
namespace {

Cell cell_of(const sql::Statement& statement, int column) {
  switch (statement.type(column)) {
    case sql::ColumnType::kInteger:
      return statement.integer(column);
    case sql::ColumnType::kReal:
      return statement.real(column);
    case sql::ColumnType::kText:
      return statement.text(column);
    case sql::ColumnType::kBlob:
      return "(" + std::to_string(statement.text(column).size()) + " bytes)";
    case sql::ColumnType::kNull:
      break;
  }
  return std::monostate{};
}

Result<Table> run_to_end(sql::Statement& statement) {
  Table table;
  for (int i = 0; i < statement.columns(); ++i) table.columns.push_back(statement.column_name(i));
  for (;;) {
    TRY(const bool row, statement.step());
    if (!row) return table;
    std::vector<Cell> cells;
    for (int i = 0; i < statement.columns(); ++i) cells.push_back(cell_of(statement, i));
    table.rows.push_back(std::move(cells));
  }
}

// Every statement prepared while it lives may only read.
class ReadingOnly {
 public:
  explicit ReadingOnly(sql::Database& db) : db_(db) { db_.forbid_all_but_reading(true); }
  ~ReadingOnly() { db_.forbid_all_but_reading(false); }
  ReadingOnly(const ReadingOnly&) = delete;
  ReadingOnly& operator=(const ReadingOnly&) = delete;

 private:
  sql::Database& db_;
};

// What is left is only spaces, semicolons and comments.
bool is_blank(std::string_view sql) {
  while (!sql.empty()) {
    if (sql.starts_with("--")) {
      const std::size_t end = sql.find('\n');
      sql = end == std::string_view::npos ? std::string_view() : sql.substr(end + 1);
    } else if (sql.starts_with("/*")) {
      const std::size_t end = sql.find("*/", 2);
      sql = end == std::string_view::npos ? std::string_view() : sql.substr(end + 2);
    } else if (std::string_view(" \t\r\n;").find(sql.front()) != std::string_view::npos) {
      sql.remove_prefix(1);
    } else {
      return false;
    }
  }
  return true;
}

Error several_statements(const std::string& path) {
  return Error::of(ErrorCode::kInvalid, path, "more than one SQL statement",
                   "give one SELECT at a time");
}

}  // namespace

struct TraceReader::Impl {
  sql::Database db;
  RunInfo run;

  template <class T>
  Result<std::vector<T>> all() {
    std::vector<T> out;
    TRY_OK(rows::read(db, out));
    return out;
  }
};

TraceReader::TraceReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TraceReader::TraceReader(TraceReader&&) noexcept = default;
TraceReader& TraceReader::operator=(TraceReader&&) noexcept = default;
TraceReader::~TraceReader() = default;

Result<TraceReader> TraceReader::open(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return Error::of(ErrorCode::kIo, path, "there is no such file");
  }
  if (!std::filesystem::is_regular_file(path, ignored)) {
    return Error::of(ErrorCode::kIo, path, "not a file");
  }
  TRY(auto db, sql::Database::open(path, sql::Mode::kReadOnly));
  TRY_OK(open_as_newest(db));
  TRY(auto run, rows::read_run(db));
  return TraceReader(std::make_unique<Impl>(Impl{std::move(db), std::move(run)}));
}

const std::string& TraceReader::path() const {
  return impl_->db.path();
}
const RunInfo& TraceReader::run() const {
  return impl_->run;
}

Result<std::vector<RankInfo>> TraceReader::ranks() {
  return impl_->all<RankInfo>();
}
Result<std::vector<OpRow>> TraceReader::ops() {
  return impl_->all<OpRow>();
}
Result<std::vector<StepEvent>> TraceReader::steps() {
  return impl_->all<StepEvent>();
}
Result<std::vector<SpanEvent>> TraceReader::spans() {
  return impl_->all<SpanEvent>();
}
Result<std::vector<CollectiveEvent>> TraceReader::collectives() {
  return impl_->all<CollectiveEvent>();
}
Result<std::vector<AllocEvent>> TraceReader::allocs() {
  return impl_->all<AllocEvent>();
}
Result<std::vector<PeakEvent>> TraceReader::peaks() {
  return impl_->all<PeakEvent>();
}
Result<std::vector<Binding>> TraceReader::bindings() {
  return impl_->all<Binding>();
}
Result<std::vector<CounterEvent>> TraceReader::counters() {
  return impl_->all<CounterEvent>();
}
Result<std::vector<NoteEvent>> TraceReader::notes() {
  return impl_->all<NoteEvent>();
}
Result<std::vector<FlowEvent>> TraceReader::flows() {
  return impl_->all<FlowEvent>();
}
Result<std::vector<Attr>> TraceReader::attrs() {
  return impl_->all<Attr>();
}

Result<TraceEvents> TraceReader::events() {
  TraceEvents events;
  TRY_OK(rows::read(impl_->db, events.steps));
  TRY_OK(rows::read(impl_->db, events.spans));
  TRY_OK(rows::read(impl_->db, events.collectives));
  TRY_OK(rows::read(impl_->db, events.allocs));
  TRY_OK(rows::read(impl_->db, events.peaks));
  TRY_OK(rows::read(impl_->db, events.bindings));
  return events;
}

Result<Table> TraceReader::query(std::string_view sql) {
  TRY(auto tables, query_all(sql));
  if (tables.size() != 1) return several_statements(path());
  return std::move(tables.front());
}

Result<std::vector<Table>> TraceReader::query_all(std::string_view sql) {
  const ReadingOnly guard(impl_->db);
  std::vector<Table> tables;
  std::string_view rest = sql;
  do {
    TRY(auto statement, impl_->db.prepare(rest, &rest));
    TRY(auto table, run_to_end(statement));
    tables.push_back(std::move(table));
  } while (!is_blank(rest));
  return tables;
}

Status TraceReader::each_row(std::string_view sql, const RowVisitor& row) {
  const ReadingOnly guard(impl_->db);
  std::string_view rest;
  TRY(auto statement, impl_->db.prepare(sql, &rest));
  if (!is_blank(rest)) return several_statements(path());
  std::vector<Cell> cells(static_cast<std::size_t>(statement.columns()));
  for (;;) {
    TRY(const bool more, statement.step());
    if (!more) return Ok{};
    for (std::size_t i = 0; i < cells.size(); ++i) {
      cells[i] = cell_of(statement, static_cast<int>(i));
    }
    TRY_OK(row(cells));
  }
}

}  // namespace orrery
