// Rows of the trace's tables, one function each way: shared by the writer, the recorder, the reader
// and the merge.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/program/program.h"
#include "core/trace_events.h"
#include "tracer/sqlite.h"
#include "tracer/trace_db.h"

namespace orrery::rows {

Status insert_run(sql::Database& db, const RunInfo& info);
Status update_status(sql::Database& db, RunStatus status, std::string_view reason);
Status replace_rank(sql::Database& db, const RankInfo& rank);

// program and comm_group.
Status insert_program(sql::Database& db, const Program& program);
// role, op, dep, buffer and size_var of one role; not its ranks.
Status insert_role(sql::Database& db, const Program& program, std::size_t role);

// Inserts events through statements prepared once. Transactions are the caller's.
class EventSink {
 public:
  static Result<EventSink> prepare(sql::Database& db);

  Status put(const StepEvent& event);
  Status put(const SpanEvent& event);
  Status put(const CollectiveEvent& event);
  Status put(const AllocEvent& event);
  Status put(const PeakEvent& event);
  Status put(const Binding& binding);
  Status put(const CounterEvent& event);
  Status put(const NoteEvent& event);
  Status put(const FlowEvent& event);
  Status put(const Attr& attr);

  template <class T>
  Status put_all(const std::vector<T>& events) {
    for (const T& event : events) TRY_OK(put(event));
    return Ok{};
  }
  Status put_all(const TraceEvents& events);

 private:
  explicit EventSink(std::vector<sql::Statement> statements);
  std::vector<sql::Statement> statements_;
};

// Each appends to `out` until the end or the first error: of a torn file, what is readable.
Status read(sql::Database& db, std::vector<RankInfo>& out);
Status read(sql::Database& db, std::vector<OpRow>& out);
Status read(sql::Database& db, std::vector<StepEvent>& out);
Status read(sql::Database& db, std::vector<SpanEvent>& out);
Status read(sql::Database& db, std::vector<CollectiveEvent>& out);
Status read(sql::Database& db, std::vector<AllocEvent>& out);
Status read(sql::Database& db, std::vector<PeakEvent>& out);
Status read(sql::Database& db, std::vector<Binding>& out);
Status read(sql::Database& db, std::vector<CounterEvent>& out);
Status read(sql::Database& db, std::vector<NoteEvent>& out);
Status read(sql::Database& db, std::vector<FlowEvent>& out);
Status read(sql::Database& db, std::vector<Attr>& out);
Result<RunInfo> read_run(sql::Database& db);

// In the order in which a trace keeps them, so that equal contents are equal rows.
void sort(TraceEvents& events);

}  // namespace orrery::rows
