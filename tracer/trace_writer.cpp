// See trace_db.h: the writing side.
#include <utility>

#include "tracer/rows.h"
#include "tracer/trace_db.h"
#include "tracer/trace_file.h"

namespace orrery {

const char* name_of(RunKind kind) {
  switch (kind) {
    case RunKind::kSim:
      return "sim";
    case RunKind::kMeasured:
      return "measured";
    case RunKind::kImported:
      return "imported";
  }
  CHECK(false, "not a RunKind");
}

const char* name_of(RunStatus status) {
  switch (status) {
    case RunStatus::kOk:
      return "ok";
    case RunStatus::kFailed:
      return "failed";
    case RunStatus::kRunning:
      return "running";
  }
  CHECK(false, "not a RunStatus");
}

struct TraceWriter::Impl {
  explicit Impl(TraceFile trace_file) : file(std::move(trace_file)) {}
  ~Impl() {
    if (!file.is_open()) return;
    // Nobody is left to hear of an error here.
    (void)file.finish(RunStatus::kFailed, "the writer went before the run had ended");
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  template <class T>
  Status put(const T& events) {
    CHECK(file.is_open(), "a write after finish() or discard()");
    return sql::in_transaction(file.db(), [&] { return file.sink().put_all(events); });
  }

  TraceFile file;
};

TraceWriter::TraceWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TraceWriter::TraceWriter(TraceWriter&&) noexcept = default;
TraceWriter& TraceWriter::operator=(TraceWriter&&) noexcept = default;
TraceWriter::~TraceWriter() = default;

Result<TraceWriter> TraceWriter::create(const std::string& path, const RunInfo& info) {
  TRY(auto file, TraceFile::create(path, info));
  return TraceWriter(std::make_unique<Impl>(std::move(file)));
}

Status TraceWriter::write_program(const Program& program) {
  CHECK(impl_->file.is_open(), "a write after finish() or discard()");
  sql::Database& db = impl_->file.db();
  return sql::in_transaction(db, [&]() -> Status {
    TRY_OK(rows::insert_program(db, program));
    TRY(auto rank_row, db.prepare("INSERT OR IGNORE INTO rank (rank, role) VALUES (?, ?)"));
    for (std::size_t role = 0; role < program.roles.size(); ++role) {
      TRY_OK(rows::insert_role(db, program, role));
      for (const std::int32_t rank : program.roles[role].ranks) {
        TRY_OK(rank_row.run(rank, static_cast<std::int64_t>(role)));
      }
    }
    return Ok{};
  });
}

Status TraceWriter::write_rank(const RankInfo& rank) {
  CHECK(impl_->file.is_open(), "a write after finish() or discard()");
  return rows::replace_rank(impl_->file.db(), rank);
}

Status TraceWriter::write(const TraceEvents& events) {
  return impl_->put(events);
}
Status TraceWriter::write(const std::vector<CounterEvent>& counters) {
  return impl_->put(counters);
}
Status TraceWriter::write(const std::vector<NoteEvent>& notes) {
  return impl_->put(notes);
}
Status TraceWriter::write(const std::vector<FlowEvent>& flows) {
  return impl_->put(flows);
}
Status TraceWriter::write(const std::vector<Attr>& attrs) {
  return impl_->put(attrs);
}

Status TraceWriter::finish(RunStatus status, const std::string& reason) {
  return impl_->file.finish(status, reason);
}

void TraceWriter::discard() {
  impl_->file.discard();
}

}  // namespace orrery
