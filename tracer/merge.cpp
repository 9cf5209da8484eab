// See merge.h.
#include "tracer/merge.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "tracer/recorder.h"
#include "tracer/rows.h"
#include "tracer/schema.h"
#include "tracer/trace_file.h"

namespace orrery {
namespace {

// Everything that is readable of one part. `problem`: why it is not all.
struct Part {
  RunInfo run;
  RankInfo rank;
  TraceEvents events;
  std::vector<CounterEvent> counters;
  std::vector<NoteEvent> notes;
  std::vector<Attr> attrs;
  std::string problem;
};

// Only the parts' own tables: the text is ours.
constexpr const char* kStaticTables[] = {"program", "comm_group", "role",    "op",
                                         "dep",     "buffer",     "size_var"};

// Copies rows until the end or the tear. Failures of the source go to `problem`, of the target out.
Status copy_rows(sql::Database& from, sql::Database& to, const std::string& table,
                 std::string& problem) {
  auto select = from.prepare("SELECT * FROM " + table);
  if (!select.ok()) {
    problem = select.error().text();
    return Ok{};
  }
  sql::Statement source = std::move(select).value();
  std::string marks = "?";
  for (int i = 1; i < source.columns(); ++i) marks += ", ?";
  TRY(auto insert, to.prepare("INSERT OR IGNORE INTO " + table + " VALUES (" + marks + ")"));
  for (;;) {
    auto row = source.step();
    if (!row.ok()) problem = row.error().text();
    if (!row.ok() || !row.value()) return Ok{};
    for (int i = 0; i < source.columns(); ++i) {
      const sql::ColumnType type = source.type(i);
      if (type == sql::ColumnType::kInteger) insert.bind(i + 1, source.integer(i));
      if (type == sql::ColumnType::kReal) insert.bind(i + 1, source.real(i));
      if (type == sql::ColumnType::kText) insert.bind(i + 1, source.text(i));
    }
    TRY_OK(insert.run());
  }
}

void shift_clock(Part& part) {
  const std::int64_t offset = part.rank.clock_offset_ns;
  // Wraps rather than overflows: the numbers may come from a torn file.
  const auto move = [&](std::int64_t& time) {
    time = static_cast<std::int64_t>(static_cast<std::uint64_t>(time) +
                                     static_cast<std::uint64_t>(offset));
  };
  for (StepEvent& e : part.events.steps) move(e.start_ns), move(e.end_ns);
  for (SpanEvent& e : part.events.spans) move(e.enqueue_ns), move(e.start_ns), move(e.end_ns);
  for (CollectiveEvent& e : part.events.collectives) {
    move(e.posted_ns), move(e.ready_ns), move(e.end_ns);
  }
  for (AllocEvent& e : part.events.allocs) move(e.time_ns);
  for (CounterEvent& e : part.counters) move(e.time_ns);
  for (NoteEvent& e : part.notes) move(e.time_ns);
}

// A part of which the rank is not known is of no use.
Result<Part> read_part(sql::Database& db, std::int32_t rank) {
  Part part;
  TRY_OK(open_as_newest(db));
  TRY(part.run, rows::read_run(db));
  std::vector<RankInfo> ranks;
  TRY_OK(rows::read(db, ranks));
  if (ranks.size() != 1 || ranks.front().rank != rank) {
    return Error::of(ErrorCode::kInvalid, db.path(),
                     "the part is not of rank " + std::to_string(rank));
  }
  part.rank = ranks.front();
  const auto read = [&](auto& out) {
    if (Status status = rows::read(db, out); !status.ok()) part.problem = status.error().text();
  };
  read(part.events.steps);
  read(part.events.spans);
  read(part.events.collectives);
  read(part.events.allocs);
  read(part.events.peaks);
  read(part.events.bindings);
  read(part.counters);
  read(part.notes);
  read(part.attrs);
  shift_clock(part);
  rows::sort(part.events);
  return part;
}

Result<Part> open_part(const std::string& path, std::int32_t rank, sql::Mode mode,
                       std::optional<sql::Database>& db) {
  db.reset();
  TRY(auto opened, sql::Database::open(path, mode));
  db = std::move(opened);
  return read_part(*db, rank);
}

class Merger {
 public:
  Merger(const MergeOptions& options, TraceFile& file) : options_(options), file_(file) {
    if (options.run.status == RunStatus::kFailed) fail(options.run.reason);
  }

  Status add_rank(std::int32_t rank) {
    const std::string path = part_path(options_.out, rank);
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return miss(rank, "it left no part");
    // Not read-only: the journal of a killed process is played back on opening.
    std::optional<sql::Database> db;
    auto part = open_part(path, rank, sql::Mode::kReadWrite, db);
    if (!part.ok() && part.error().code == ErrorCode::kInvalid) {
      const std::string why = part.error().text();
      part = open_part(path, rank, sql::Mode::kSalvage, db);
      if (!part.ok()) return miss(rank, why);
      Part salvaged = std::move(part).value();
      salvaged.problem = why;
      part = std::move(salvaged);
    }
    if (!part.ok()) return miss(rank, part.error().text());
    const std::uint64_t hash = part.value().run.program_hash;
    if (options_.run.program_hash != 0 && hash != options_.run.program_hash) {
      return miss(rank, "its part is of another program");
    }
    return add_part(*db, std::move(part).value());
  }

  Status finish(MergeReport& report) {
    TRY_OK(sql::in_transaction(file_.db(), [&] { return file_.sink().put_all(notes_); }));
    report = report_;
    return Ok{};
  }

 private:
  void fail(const std::string& reason) {
    report_.status = RunStatus::kFailed;
    if (!reason.empty()) report_.reason += (report_.reason.empty() ? "" : "; ") + reason;
  }

  Status miss(std::int32_t rank, const std::string& why) {
    report_.missing.push_back(rank);
    notes_.push_back({rank, 0, "rank_missing", why});
    fail("rank " + std::to_string(rank) + " is missing: " + why);
    return Ok{};
  }

  Status add_part(sql::Database& source, Part part) {
    const std::string who = "rank " + std::to_string(part.rank.rank);
    TRY_OK(sql::in_transaction(file_.db(), [&] { return copy_part(source, part); }));
    report_.dropped += part.rank.dropped;
    if (part.run.status == RunStatus::kFailed) fail(who + ": " + part.run.reason);
    if (part.run.status == RunStatus::kRunning) {
      notes_.push_back({part.rank.rank, 0, "rank_ended_early", "the rank did not end its run"});
      fail(who + " did not end its run");
    }
    if (!part.problem.empty()) {
      report_.torn.push_back(part.rank.rank);
      notes_.push_back({part.rank.rank, 0, "rank_torn", part.problem});
      fail(who + " left a torn part");
    }
    return Ok{};
  }

  Status copy_part(sql::Database& source, Part& part) {
    TRY_OK(copy_static(source, part));
    TRY_OK(rows::replace_rank(file_.db(), part.rank));
    TRY_OK(file_.sink().put_all(part.events));
    TRY_OK(file_.sink().put_all(part.counters));
    TRY_OK(file_.sink().put_all(part.notes));
    for (const Attr& attr : part.attrs) {
      if (!attrs_.insert({attr.subject, attr.name, attr.value}).second) continue;
      TRY_OK(file_.sink().put(attr));
    }
    return Ok{};
  }

  // Of each role once, from the first part that has all of it.
  Status copy_static(sql::Database& source, Part& part) {
    if (roles_.contains(part.rank.role)) return Ok{};
    std::string problem;
    for (const char* table : kStaticTables) {
      if (table == kStaticTables[0] && has_program_) continue;
      TRY_OK(copy_rows(source, file_.db(), table, problem));
    }
    TRY(const std::int64_t programs, file_.db().scalar("SELECT count(*) FROM program"));
    has_program_ = programs > 0;
    if (problem.empty()) {
      roles_.insert(part.rank.role);
    } else {
      part.problem = problem;
    }
    return Ok{};
  }

  const MergeOptions& options_;
  TraceFile& file_;
  MergeReport report_;
  std::vector<NoteEvent> notes_;
  std::set<std::tuple<std::string, std::string, std::string>> attrs_;
  std::set<std::int32_t> roles_;
  bool has_program_ = false;
};

}  // namespace

Status remove_parts(const std::string& out) {
  std::error_code error;
  std::filesystem::remove_all(parts_directory(out), error);
  if (error) {
    return Error::of(ErrorCode::kIo, parts_directory(out), "cannot remove: " + error.message());
  }
  return Ok{};
}

Result<MergeReport> merge_parts(const MergeOptions& options) {
  CHECK(options.world > 0, "a world has ranks");
  TRY(auto file, TraceFile::create(options.out, options.run));
  MergeReport report;
  const Status merged = [&]() -> Status {
    Merger merger(options, file);
    for (std::int32_t rank = 0; rank < options.world; ++rank) TRY_OK(merger.add_rank(rank));
    return merger.finish(report);
  }();
  if (!merged.ok()) {
    file.discard();  // the parts still have it all
    return merged.error();
  }
  TRY_OK(file.finish(report.status, report.reason));
  if (!options.keep_parts) TRY_OK(remove_parts(options.out));
  return report;
}

}  // namespace orrery
