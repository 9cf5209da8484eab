// See rows.h: the reading side. Rows come ordered; where a torn file fails an ordered reading
// before its first row, the same rows are read as they lie, until the tear.
#include <algorithm>
#include <charconv>
#include <string>
#include <tuple>

#include "tracer/rows.h"

namespace orrery::rows {
namespace {

// `make(statement)` gives a Result of one row.
template <class T, class Make>
Status read_until_error(sql::Database& db, const std::string& sql, std::vector<T>& out,
                        const Make& make) {
  TRY(auto statement, db.prepare(sql));
  for (;;) {
    TRY(const bool row, statement.step());
    if (!row) return Ok{};
    // Every table begins with a column that is never NULL; where a page ends amid its cells, zeros
    // are read as records without columns.
    if (statement.type(0) == sql::ColumnType::kNull) {
      return Error::of(ErrorCode::kInvalid, db.path(), "a page of the file is torn");
    }
    TRY(T value, make(statement));
    out.push_back(std::move(value));
  }
}

template <class T, class Make>
Status read_rows(sql::Database& db, const std::string& select, const std::string& order,
                 std::vector<T>& out, const Make& make) {
  const std::size_t before = out.size();
  Status ordered = read_until_error(db, select + " ORDER BY " + order, out, make);
  if (ordered.ok()) return ordered;
  std::vector<T> salvaged;
  // The error is the ordered reading's: a file that fails once is torn.
  (void)read_until_error(db, select + " NOT INDEXED", salvaged, make);
  if (salvaged.size() > out.size() - before) {
    out.resize(before);
    std::move(salvaged.begin(), salvaged.end(), std::back_inserter(out));
  }
  return ordered;
}

Result<std::vector<std::int64_t>> parse_values(const std::string& text, const std::string& place) {
  const auto bad = [&] {
    return Error::of(ErrorCode::kInvalid, place, "a binding is not an array of integers");
  };
  if (text.size() < 2 || text.front() != '[' || text.back() != ']') return bad();
  std::vector<std::int64_t> values;
  const char* at = text.data() + 1;
  const char* end = text.data() + text.size() - 1;
  while (at != end) {
    std::int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || (next != end && (*next != ',' || next + 1 == end))) return bad();
    values.push_back(value);
    at = next == end ? end : next + 1;
  }
  return values;
}

}  // namespace

Status read(sql::Database& db, std::vector<RankInfo>& out) {
  return read_rows(db,
                   "SELECT rank, role, node, device, clock_offset_ns, clock_error_ns, dropped "
                   "FROM rank",
                   "rank", out, [](const sql::Statement& s) -> Result<RankInfo> {
                     return RankInfo{s.integer32(0), s.integer32(1), s.text(2),   s.text(3),
                                     s.integer(4),   s.integer(5),   s.integer(6)};
                   });
}

Status read(sql::Database& db, std::vector<OpRow>& out) {
  return read_rows(db,
                   "SELECT role, op, key, kind, phase, lane, path, micro_batch, chunk, group_name, "
                   "unit, communication, host_sync FROM op",
                   "role, op", out, [](const sql::Statement& s) -> Result<OpRow> {
                     OpRow row;
                     row.role = s.integer32(0);
                     row.op = s.integer32(1);
                     row.key = static_cast<std::uint64_t>(s.integer(2));
                     row.kind = s.text(3);
                     row.phase = s.text(4);
                     row.lane = s.text(5);
                     row.path = s.text(6);
                     row.micro_batch = s.integer32(7);
                     row.chunk = s.integer32(8);
                     row.group = s.text(9);
                     row.unit = s.text(10);
                     row.communication = s.integer(11) != 0;
                     row.host_sync = s.integer(12) != 0;
                     return row;
                   });
}

Status read(sql::Database& db, std::vector<StepEvent>& out) {
  return read_rows(db,
                   "SELECT rank, step, start_ns, end_ns, loss, balance_loss, z_loss, grad_norm, "
                   "lr, tokens FROM step",
                   "rank, step", out, [](const sql::Statement& s) -> Result<StepEvent> {
                     return StepEvent{s.integer32(0), s.integer32(1), s.integer(2), s.integer(3),
                                      s.real(4),      s.real(5),      s.real(6),    s.real(7),
                                      s.real(8),      s.integer(9)};
                   });
}

Status read(sql::Database& db, std::vector<SpanEvent>& out) {
  return read_rows(db, "SELECT rank, step, op, enqueue_ns, start_ns, end_ns FROM span",
                   "rank, step, start_ns, op", out,
                   [](const sql::Statement& s) -> Result<SpanEvent> {
                     return SpanEvent{s.integer32(0), s.integer32(1), s.integer32(2),
                                      s.integer(3),   s.integer(4),   s.integer(5)};
                   });
}

Status read(sql::Database& db, std::vector<CollectiveEvent>& out) {
  return read_rows(db,
                   "SELECT rank, step, op, group_id, sequence, posted_ns, ready_ns, end_ns, "
                   "sent_bytes, received_bytes FROM collective",
                   "rank, step, posted_ns, op, group_id, sequence", out,
                   [](const sql::Statement& s) -> Result<CollectiveEvent> {
                     return CollectiveEvent{s.integer32(0), s.integer32(1), s.integer32(2),
                                            s.integer32(3), s.integer(4),   s.integer(5),
                                            s.integer(6),   s.integer(7),   s.integer(8),
                                            s.integer(9)};
                   });
}

Status read(sql::Database& db, std::vector<AllocEvent>& out) {
  // Several changes at one moment keep the order in which they were written.
  return read_rows(db, "SELECT rank, step, op, class, time_ns, delta_bytes FROM alloc",
                   "rank, step, time_ns, rowid", out,
                   [](const sql::Statement& s) -> Result<AllocEvent> {
                     return AllocEvent{s.integer32(0), s.integer32(1), s.integer32(2),
                                       s.integer32(3), s.integer(4),   s.integer(5)};
                   });
}

Status read(sql::Database& db, std::vector<PeakEvent>& out) {
  return read_rows(db, "SELECT rank, step, class, peak_bytes FROM peak", "rank, step, class", out,
                   [](const sql::Statement& s) -> Result<PeakEvent> {
                     return PeakEvent{s.integer32(0), s.integer32(1), s.integer32(2), s.integer(3)};
                   });
}

Status read(sql::Database& db, std::vector<Binding>& out) {
  return read_rows(db, "SELECT rank, step, vals FROM binding", "rank, step", out,
                   [&](const sql::Statement& s) -> Result<Binding> {
                     TRY(auto values, parse_values(s.text(2), db.path()));
                     return Binding{s.integer32(0), s.integer32(1), std::move(values)};
                   });
}

Status read(sql::Database& db, std::vector<CounterEvent>& out) {
  return read_rows(db, "SELECT rank, time_ns, name, value FROM counter", "rank, time_ns, name", out,
                   [](const sql::Statement& s) -> Result<CounterEvent> {
                     return CounterEvent{s.integer32(0), s.integer(1), s.text(2), s.real(3)};
                   });
}

Status read(sql::Database& db, std::vector<NoteEvent>& out) {
  return read_rows(db, "SELECT rank, time_ns, name, message FROM event", "rank, time_ns, name", out,
                   [](const sql::Statement& s) -> Result<NoteEvent> {
                     return NoteEvent{s.integer32(0), s.integer(1), s.text(2), s.text(3)};
                   });
}

Status read(sql::Database& db, std::vector<FlowEvent>& out) {
  return read_rows(db, "SELECT step, from_rank, from_op, to_rank, to_op FROM flow",
                   "step, from_rank, from_op, to_rank, to_op", out,
                   [](const sql::Statement& s) -> Result<FlowEvent> {
                     return FlowEvent{s.integer32(0), s.integer32(1), s.integer32(2),
                                      s.integer32(3), s.integer32(4)};
                   });
}

Status read(sql::Database& db, std::vector<Attr>& out) {
  return read_rows(db, "SELECT subject, name, value FROM attr", "subject, name", out,
                   [](const sql::Statement& s) -> Result<Attr> {
                     return Attr{s.text(0), s.text(1), s.text(2)};
                   });
}

Result<RunInfo> read_run(sql::Database& db) {
  TRY(auto s, db.prepare("SELECT kind, status, reason, program_hash, stack, plan_json, created, "
                         "inputs FROM run"));
  TRY(const bool row, s.step());
  if (!row) return Error::of(ErrorCode::kInvalid, db.path(), "the trace has no run");
  RunInfo info;
  const auto find = [&]<class E>(E& out, int column, std::initializer_list<E> choices) -> Status {
    for (const E choice : choices) {
      if (s.text(column) == name_of(choice)) {
        out = choice;
        return Ok{};
      }
    }
    return Error::of(ErrorCode::kInvalid, db.path(),
                     "run." + s.column_name(column) + " is '" + s.text(column) + "'");
  };
  TRY_OK(find(info.kind, 0, {RunKind::kSim, RunKind::kMeasured, RunKind::kImported}));
  TRY_OK(find(info.status, 1, {RunStatus::kOk, RunStatus::kFailed, RunStatus::kRunning}));
  info.reason = s.text(2);
  info.program_hash = static_cast<std::uint64_t>(s.integer(3));
  info.stack = s.text(4);
  info.plan_json = s.text(5);
  info.created = s.text(6);
  info.inputs = s.text(7);
  return info;
}

void sort(TraceEvents& events) {
  const auto by = [](auto& rows, auto key) {
    std::stable_sort(rows.begin(), rows.end(),
                     [&](const auto& a, const auto& b) { return key(a) < key(b); });
  };
  by(events.steps, [](const StepEvent& e) { return std::tuple(e.rank, e.step); });
  by(events.spans,
     [](const SpanEvent& e) { return std::tuple(e.rank, e.step, e.start_ns, e.op, e.end_ns); });
  by(events.collectives, [](const CollectiveEvent& e) {
    return std::tuple(e.rank, e.step, e.posted_ns, e.op, e.group, e.sequence);
  });
  by(events.allocs, [](const AllocEvent& e) { return std::tuple(e.rank, e.step, e.time_ns); });
  by(events.peaks, [](const PeakEvent& e) { return std::tuple(e.rank, e.step, e.cls); });
  by(events.bindings, [](const Binding& e) { return std::tuple(e.rank, e.step); });
}

}  // namespace orrery::rows
