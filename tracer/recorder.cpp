// See recorder.h. The part is in WAL mode without syncs: what was committed is in the kernel's
// hands, which outlive the process; the lock is exclusive, so that no shared memory is needed and
// the part may lie on a network file system.
#include "tracer/recorder.h"

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "tracer/rows.h"
#include "tracer/schema.h"
#include "tracer/sqlite.h"

namespace orrery {
namespace {

// What comes through the lock.
struct SideQueue {
  std::vector<StepEvent> steps;
  std::vector<Binding> bindings;
  std::vector<CounterEvent> counters;
  std::vector<NoteEvent> notes;
  std::vector<Attr> attrs;
  std::size_t size() const {
    return steps.size() + bindings.size() + counters.size() + notes.size() + attrs.size();
  }
};

Status write_static_side(sql::Database& db, const RankInfo& rank, const RunInfo& info,
                         const Program& program) {
  return sql::in_transaction(db, [&]() -> Status {
    RunInfo running = info;
    running.status = RunStatus::kRunning;
    running.reason = "";
    TRY_OK(rows::insert_run(db, running));
    TRY_OK(rows::insert_program(db, program));
    TRY_OK(rows::insert_role(db, program, static_cast<std::size_t>(rank.role)));
    return rows::replace_rank(db, rank);
  });
}

Result<sql::Database> create_part(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directory(std::filesystem::path(path).parent_path(), error);
  if (error) return Error::of(ErrorCode::kIo, path, "cannot make its folder: " + error.message());
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    std::filesystem::remove(path + suffix, error);
  }
  TRY(auto db, sql::Database::open(path, sql::Mode::kCreate));
  TRY_OK(
      db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; "
              "PRAGMA synchronous = OFF"));
  TRY_OK(migrate(db));
  return db;
}

}  // namespace

std::string parts_directory(const std::string& out) {
  return out + ".parts";
}

std::string part_path(const std::string& out, std::int32_t rank) {
  char name[32];
  std::snprintf(name, sizeof name, "/rank%05d.db", rank);
  return parts_directory(out) + name;
}

struct Recorder::Impl {
  Impl(sql::Database database, rows::EventSink event_sink, RankInfo info, Options opts)
      : db(std::move(database)),
        sink(std::move(event_sink)),
        rank(std::move(info)),
        options(opts) {}

  void loop();
  std::int64_t drain_rings();  // into `batch`; the records lost so far
  Status commit(const SideQueue& queue, const std::optional<RankInfo>& new_rank);
  void write_once(std::unique_lock<std::mutex>& lock);

  // The writing thread alone, until it has ended.
  std::optional<sql::Database> db;
  std::optional<rows::EventSink> sink;
  std::vector<TraceRecord> batch;
  std::int64_t lost = 0;  // in transactions that failed

  std::mutex mutex;
  std::condition_variable wake, done;
  std::deque<TraceProducer> producers;  // their addresses stay
  SideQueue side;
  RankInfo rank;  // as it should be stored; `dropped` as it is stored
  bool rank_changed = false;
  std::optional<Error> first_error;
  std::uint64_t requested = 0, served = 0;
  bool stop = false;

  std::atomic<std::int64_t> committed{0}, dropped{0};
  Options options;
  std::thread thread;
};

std::int64_t Recorder::Impl::drain_rings() {
  std::vector<TraceProducer*> all;
  {
    const std::lock_guard guard(mutex);
    for (TraceProducer& producer : producers) all.push_back(&producer);
  }
  batch.clear();
  std::int64_t missed = 0;
  for (TraceProducer* producer : all) {
    // No more than fit, so that a fast producer cannot hold the commit off.
    TraceRecord record;
    for (std::size_t n = producer->ring_.capacity(); n > 0 && producer->ring_.pop(record); --n) {
      batch.push_back(record);
    }
    missed += producer->dropped_.load(std::memory_order_relaxed);
  }
  return missed;
}

Status Recorder::Impl::commit(const SideQueue& queue, const std::optional<RankInfo>& new_rank) {
  return sql::in_transaction(*db, [&]() -> Status {
    for (const TraceRecord& record : batch) {
      TRY_OK(std::visit([&](const auto& event) { return sink->put(event); }, record));
    }
    TRY_OK(sink->put_all(queue.steps));
    TRY_OK(sink->put_all(queue.bindings));
    TRY_OK(sink->put_all(queue.counters));
    TRY_OK(sink->put_all(queue.notes));
    TRY_OK(sink->put_all(queue.attrs));
    if (new_rank) TRY_OK(rows::replace_rank(*db, *new_rank));
    return Ok{};
  });
}

// Takes what there is and commits it, without the lock; returns with the lock.
void Recorder::Impl::write_once(std::unique_lock<std::mutex>& lock) {
  const std::uint64_t serving = requested;
  SideQueue queue = std::exchange(side, {});
  lock.unlock();
  const std::int64_t missed = drain_rings() + lost;
  lock.lock();
  std::optional<RankInfo> new_rank;
  if (rank_changed || rank.dropped != missed) {
    rank.dropped = missed;
    rank_changed = false;
    new_rank = rank;
  }
  const bool failed_before = first_error.has_value();
  lock.unlock();
  const auto count = static_cast<std::int64_t>(batch.size() + queue.size());
  std::optional<Error> error;
  if (failed_before) {
    lost += count;  // the file is whole as it is; the numbers tell what is not in it
  } else if (count > 0 || new_rank) {
    if (Status status = commit(queue, new_rank); status.ok()) {
      committed.fetch_add(count);
    } else {
      error = status.error();
      lost += count;
    }
  }
  dropped.store(missed + (error || failed_before ? count : 0));
  lock.lock();
  if (error) first_error = error;
  served = serving;
  done.notify_all();
}

void Recorder::Impl::loop() {
  std::unique_lock lock(mutex);
  for (;;) {
    wake.wait_for(lock, std::chrono::milliseconds(options.flush_ms),
                  [&] { return stop || requested != served; });
    const bool last = stop;
    write_once(lock);
    if (last && requested == served) return;
  }
}

Recorder::Recorder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  impl_->thread = std::thread([this] { impl_->loop(); });
}

Recorder::~Recorder() {
  if (!impl_->db) return;
  // Nobody is left to hear of an error here.
  (void)close(RunStatus::kFailed, "the recorder went before the run had ended");
}

Result<std::unique_ptr<Recorder>> Recorder::open(const std::string& out, const RankInfo& rank,
                                                 const RunInfo& info, const Program& program) {
  return open(out, rank, info, program, Options());
}

Result<std::unique_ptr<Recorder>> Recorder::open(const std::string& out, const RankInfo& rank,
                                                 const RunInfo& info, const Program& program,
                                                 const Options& options) {
  CHECK(options.ring_capacity > 0 && options.flush_ms > 0 && options.flush_ms <= 200,
        "recorder options out of range");
  RankInfo self = rank;
  self.role = static_cast<std::int32_t>(&program.role_of(rank.rank) - program.roles.data());
  TRY(auto db, create_part(part_path(out, rank.rank)));
  TRY_OK(write_static_side(db, self, info, program));
  TRY(auto sink, rows::EventSink::prepare(db));
  auto impl = std::make_unique<Impl>(std::move(db), std::move(sink), std::move(self), options);
  return std::unique_ptr<Recorder>(new Recorder(std::move(impl)));
}

TraceProducer& Recorder::producer() {
  const std::lock_guard guard(impl_->mutex);
  return impl_->producers.emplace_back(impl_->options.ring_capacity);
}

void Recorder::record_binding(Binding binding) {
  const std::lock_guard guard(impl_->mutex);
  impl_->side.bindings.push_back(std::move(binding));
}

void Recorder::record(CounterEvent counter) {
  const std::lock_guard guard(impl_->mutex);
  impl_->side.counters.push_back(std::move(counter));
}

void Recorder::record(NoteEvent note) {
  const std::lock_guard guard(impl_->mutex);
  impl_->side.notes.push_back(std::move(note));
}

void Recorder::record(Attr attr) {
  const std::lock_guard guard(impl_->mutex);
  impl_->side.attrs.push_back(std::move(attr));
}

void Recorder::end_step(const StepEvent& step) {
  const std::lock_guard guard(impl_->mutex);
  impl_->side.steps.push_back(step);
  ++impl_->requested;
  impl_->wake.notify_one();
}

void Recorder::set_clock(std::int64_t offset_ns, std::int64_t error_ns) {
  const std::lock_guard guard(impl_->mutex);
  impl_->rank.clock_offset_ns = offset_ns;
  impl_->rank.clock_error_ns = error_ns;
  impl_->rank_changed = true;
}

Status Recorder::flush() {
  std::unique_lock lock(impl_->mutex);
  const std::uint64_t wanted = ++impl_->requested;
  impl_->wake.notify_one();
  impl_->done.wait(lock, [&] { return impl_->served >= wanted; });
  if (impl_->first_error) return *impl_->first_error;
  return Ok{};
}

std::int64_t Recorder::committed() const {
  return impl_->committed.load();
}
std::int64_t Recorder::dropped() const {
  return impl_->dropped.load();
}

Status Recorder::close(RunStatus status, const std::string& reason) {
  CHECK(impl_->db.has_value(), "close() after close()");
  CHECK(status != RunStatus::kRunning, "a closed run is ok or failed");
  {
    const std::lock_guard guard(impl_->mutex);
    impl_->stop = true;
    ++impl_->requested;
    impl_->wake.notify_one();
  }
  impl_->thread.join();
  impl_->sink.reset();
  Status result = Ok{};
  std::string why = reason;
  if (impl_->first_error) {
    result = *impl_->first_error;
    if (status == RunStatus::kOk) why = "trace: " + impl_->first_error->text();
    status = RunStatus::kFailed;
  }
  sql::Database& db = *impl_->db;
  if (impl_->first_error) {
    // There may be room again by now: what was lost meanwhile is counted in the file.
    impl_->rank.dropped = impl_->dropped.load();
    const Status counted = rows::replace_rank(db, impl_->rank);
    if (!counted.ok()) why += "; the number of lost records is not stored";
  }
  for (Status last :
       {rows::update_status(db, status, why), db.exec("PRAGMA journal_mode = DELETE")}) {
    if (!last.ok() && result.ok()) result = last;
  }
  impl_->db.reset();
  return result;
}

}  // namespace orrery
