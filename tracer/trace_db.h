// A trace in one file: TraceWriter makes it, TraceReader reads it. Both producers, the simulator
// and the engine, end here. The same calls give the same rows: nothing inside asks for the time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/program/program.h"
#include "core/result.h"
#include "core/trace_events.h"
#include "tracer/table.h"

namespace orrery {

enum class RunKind { kSim, kMeasured, kImported };
enum class RunStatus { kOk, kFailed, kRunning };
const char* name_of(RunKind kind);      // "sim", "measured", "imported"
const char* name_of(RunStatus status);  // "ok", "failed", "running"

struct RunInfo {
  RunKind kind = RunKind::kSim;
  RunStatus status = RunStatus::kRunning;  // set by finish()
  std::string reason;                      // why it failed; empty otherwise
  std::uint64_t program_hash = 0;
  std::string stack;
  std::string plan_json;
  std::string created;        // as the caller says; stored as it is
  std::string inputs = "{}";  // JSON: {name: sha256}
};

// One rank as it was: where it ran, and how far its clock is from rank 0's.
struct RankInfo {
  std::int32_t rank = 0;
  std::int32_t role = 0;
  std::string node, device;
  std::int64_t clock_offset_ns = 0;  // added to the rank's times to get rank 0's
  std::int64_t clock_error_ns = 0;
  std::int64_t dropped = 0;  // records lost to a full ring
};

// A named number over time, a remark at a moment, an arrow between two ops, a fact about anything.
struct CounterEvent {
  std::int32_t rank = 0;
  std::int64_t time_ns = 0;
  std::string name;
  double value = 0;
};
struct NoteEvent {
  std::int32_t rank = 0;  // -1: of the whole run
  std::int64_t time_ns = 0;
  std::string name, message;
};
struct FlowEvent {
  std::int32_t step = 0;
  std::int32_t from_rank = 0, from_op = 0, to_rank = 0, to_op = 0;
};
struct Attr {
  std::string subject, name, value;  // "run", "rank/3", "op/layer.1/moe"
};

// One op of one role, as stored.
struct OpRow {
  std::int32_t role = 0;
  std::int32_t op = 0;
  std::uint64_t key = 0;
  std::string kind, phase, lane, path;
  std::int32_t micro_batch = 0, chunk = 0;
  std::string group, unit;
  bool communication = false;  // a collective, or any op of a communication lane
  bool host_sync = false;
};

// Writes beside the final path and renames at the end, whether the run succeeded or not. An object
// that goes without finish() leaves a failed run under the final name.
class TraceWriter {
 public:
  // kIo when the file cannot be made. info.status is ignored.
  static Result<TraceWriter> create(const std::string& path, const RunInfo& info);
  TraceWriter(TraceWriter&&) noexcept;
  TraceWriter& operator=(TraceWriter&&) noexcept;
  ~TraceWriter();

  // The static side and a `rank` row for each rank of each role. At most once.
  Status write_program(const Program& program);
  // Replaces the rank's row.
  Status write_rank(const RankInfo& rank);
  // Each call is one transaction: all of it is there or none. May be called many times.
  Status write(const TraceEvents& events);
  Status write(const std::vector<CounterEvent>& counters);
  Status write(const std::vector<NoteEvent>& notes);
  Status write(const std::vector<FlowEvent>& flows);
  Status write(const std::vector<Attr>& attrs);

  // Derives, indexes, closes and renames. After an error of a write, finish(kFailed, reason) still
  // brings what was flushed to the final path, even on a full disk. No call may follow.
  Status finish(RunStatus status, const std::string& reason = "");
  // Leaves nothing behind: neither the temporary nor the final file. No call may follow.
  void discard();

 private:
  struct Impl;
  explicit TraceWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Reads a finished trace or a part of one; never changes it. kInvalid for a torn or foreign file.
class TraceReader {
 public:
  static Result<TraceReader> open(const std::string& path);
  TraceReader(TraceReader&&) noexcept;
  TraceReader& operator=(TraceReader&&) noexcept;
  ~TraceReader();

  const std::string& path() const;
  const RunInfo& run() const;  // read at open

  // In the order of (rank, step) and, inside, of time and op.
  Result<std::vector<RankInfo>> ranks();
  Result<std::vector<OpRow>> ops();
  Result<std::vector<StepEvent>> steps();
  Result<std::vector<SpanEvent>> spans();
  Result<std::vector<CollectiveEvent>> collectives();
  Result<std::vector<AllocEvent>> allocs();
  Result<std::vector<PeakEvent>> peaks();
  Result<std::vector<Binding>> bindings();
  Result<std::vector<CounterEvent>> counters();
  Result<std::vector<NoteEvent>> notes();
  Result<std::vector<FlowEvent>> flows();
  Result<std::vector<Attr>> attrs();
  // All of the above that an executor reports.
  Result<TraceEvents> events();

  // One SELECT of a user; anything that could write is refused (kInvalid).
  Result<Table> query(std::string_view sql);
  // Several SELECTs, one table each; the same rules.
  Result<std::vector<Table>> query_all(std::string_view sql);
  // One SELECT, one row at a time, for what may be larger than memory: the cells are good until
  // `row` returns, and an error of it ends the reading. `row` may not call this reader.
  using RowVisitor = std::function<Status(const std::vector<Cell>& cells)>;
  Status each_row(std::string_view sql, const RowVisitor& row);

 private:
  struct Impl;
  explicit TraceReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Ranks as strided ranges: {0,2,4,6,9} <-> "0-6:2,9". parse_ranks gives kInvalid for other text.
std::string ranks_text(const std::vector<std::int32_t>& ranks);
Result<std::vector<std::int32_t>> parse_ranks(std::string_view text);

}  // namespace orrery
