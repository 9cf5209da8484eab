// See schema.h. Tables hold what was said; views are the public face and stay stable.
#include "tracer/schema.h"

#include <string>

#include "core/trace_events.h"

namespace orrery {
namespace {

constexpr const char* kTablesV1 = R"sql(
CREATE TABLE schema_migration (version INTEGER PRIMARY KEY, summary TEXT NOT NULL) STRICT;

CREATE TABLE run (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('sim', 'measured', 'imported')),
  status TEXT NOT NULL CHECK (status IN ('ok', 'failed', 'running')),
  reason TEXT NOT NULL,        -- why it failed; empty otherwise
  program_hash INTEGER NOT NULL,
  stack TEXT NOT NULL,
  plan_json TEXT NOT NULL,
  created TEXT NOT NULL,       -- as the caller gave it
  inputs TEXT NOT NULL         -- JSON: {name: sha256}
) STRICT;

CREATE TABLE rank (
  rank INTEGER PRIMARY KEY,
  role INTEGER NOT NULL,
  node TEXT NOT NULL DEFAULT '',
  device TEXT NOT NULL DEFAULT '',
  clock_offset_ns INTEGER NOT NULL DEFAULT 0,  -- added to the rank's times to get rank 0's
  clock_error_ns INTEGER NOT NULL DEFAULT 0,
  dropped INTEGER NOT NULL DEFAULT 0           -- records that did not fit the ring
) STRICT;

-- The static side, stored once.
CREATE TABLE program (hash INTEGER NOT NULL, world INTEGER NOT NULL,
                      plan_hash TEXT NOT NULL) STRICT;
CREATE TABLE role (role INTEGER PRIMARY KEY, name TEXT NOT NULL,
                   ranks TEXT NOT NULL) STRICT;  -- strided ranges: "0-6:2,9"
CREATE TABLE comm_group (group_id INTEGER PRIMARY KEY, name TEXT NOT NULL,
                         size INTEGER NOT NULL, stride INTEGER NOT NULL) STRICT;
CREATE TABLE buffer_class (class INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
CREATE TABLE op (
  role INTEGER NOT NULL, op INTEGER NOT NULL,  -- op: the index in the issue order
  key INTEGER NOT NULL,                        -- the 64 bits of the op key, as signed
  kind TEXT NOT NULL, phase TEXT NOT NULL, lane TEXT NOT NULL, path TEXT NOT NULL,
  micro_batch INTEGER NOT NULL, chunk INTEGER NOT NULL,
  group_name TEXT NOT NULL, unit TEXT NOT NULL,
  communication INTEGER NOT NULL,  -- 1: a collective, or any op of a communication lane
  host_sync INTEGER NOT NULL,
  static_bytes INTEGER,            -- of the buffers it writes; NULL when they depend on data
  PRIMARY KEY (role, op)
) STRICT, WITHOUT ROWID;
CREATE TABLE dep (role INTEGER NOT NULL, op INTEGER NOT NULL, on_op INTEGER NOT NULL,
                  PRIMARY KEY (role, op, on_op)) STRICT, WITHOUT ROWID;
CREATE TABLE buffer (
  role INTEGER NOT NULL, buffer INTEGER NOT NULL,
  class INTEGER NOT NULL, name TEXT NOT NULL,
  c0_bytes INTEGER NOT NULL, c1_bytes INTEGER NOT NULL,  -- bytes = c0 + c1 * value of var
  var INTEGER,                                           -- size_var.idx; NULL: a constant
  taken_by INTEGER NOT NULL, freed_by INTEGER NOT NULL,  -- ops; -1: outside the step
  PRIMARY KEY (role, buffer)
) STRICT, WITHOUT ROWID;
CREATE TABLE size_var (role INTEGER NOT NULL, idx INTEGER NOT NULL,
                       name TEXT NOT NULL,          -- of its record
                       record_idx INTEGER NOT NULL, -- its place in the record
                       PRIMARY KEY (role, idx)) STRICT, WITHOUT ROWID;

-- What happened.
CREATE TABLE step (
  rank INTEGER NOT NULL, step INTEGER NOT NULL,
  start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
  loss REAL, balance_loss REAL, grad_norm REAL,  -- NULL: not a number
  tokens INTEGER NOT NULL                        -- of the world
) STRICT;
CREATE TABLE span (
  rank INTEGER NOT NULL, step INTEGER NOT NULL, op INTEGER NOT NULL,
  enqueue_ns INTEGER NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
  exposed_ns INTEGER  -- communication: the part of it no compute of the rank covers
) STRICT;
CREATE TABLE collective (
  rank INTEGER NOT NULL, step INTEGER NOT NULL, op INTEGER NOT NULL,
  group_id INTEGER NOT NULL, sequence INTEGER NOT NULL,
  posted_ns INTEGER NOT NULL, ready_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
  sent_bytes INTEGER NOT NULL, received_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE binding (rank INTEGER NOT NULL, step INTEGER NOT NULL,
                      vals TEXT NOT NULL) STRICT;  -- JSON array, by size_var.idx; see v_binding
CREATE TABLE alloc (
  rank INTEGER NOT NULL, step INTEGER NOT NULL, op INTEGER NOT NULL, class INTEGER NOT NULL,
  time_ns INTEGER NOT NULL, delta_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE peak (rank INTEGER NOT NULL, step INTEGER NOT NULL,
                   class INTEGER NOT NULL,  -- -1: all together
                   peak_bytes INTEGER NOT NULL) STRICT;
CREATE TABLE counter (rank INTEGER NOT NULL, time_ns INTEGER NOT NULL, name TEXT NOT NULL,
                      value REAL) STRICT;
CREATE TABLE event (rank INTEGER NOT NULL, time_ns INTEGER NOT NULL, name TEXT NOT NULL,
                    message TEXT NOT NULL) STRICT;
CREATE TABLE flow (step INTEGER NOT NULL, from_rank INTEGER NOT NULL, from_op INTEGER NOT NULL,
                   to_rank INTEGER NOT NULL, to_op INTEGER NOT NULL) STRICT;
CREATE TABLE attr (subject TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL) STRICT;
)sql";

constexpr const char* kViewsV1 = R"sql(
CREATE VIEW v_step AS
SELECT rank, step, start_ns, end_ns, end_ns - start_ns AS duration_ns, loss, balance_loss,
       grad_norm, tokens
FROM step;

CREATE VIEW v_op AS
SELECT s.rank, s.step, s.op, o.key, o.path, o.phase, o.lane, o.kind, o.micro_batch, o.chunk,
       o.group_name, o.unit, o.communication, s.enqueue_ns, s.start_ns, s.end_ns,
       s.end_ns - s.start_ns AS duration_ns, s.exposed_ns
FROM span s JOIN rank r ON r.rank = s.rank JOIN op o ON o.role = r.role AND o.op = s.op;

CREATE VIEW v_collective AS
SELECT c.rank, c.step, c.op, o.key, o.path, o.phase, o.lane, o.kind, g.name AS group_name,
       g.size AS group_size, c.sequence, c.posted_ns, c.ready_ns, c.end_ns,
       c.ready_ns - c.posted_ns AS wait_ns, c.end_ns - c.ready_ns AS transfer_ns,
       c.sent_bytes, c.received_bytes
FROM collective c JOIN rank r ON r.rank = c.rank JOIN op o ON o.role = r.role AND o.op = c.op
     LEFT JOIN comm_group g ON g.group_id = c.group_id;

CREATE VIEW v_memory AS
SELECT p.rank, p.step, coalesce(b.name, 'class ' || p.class) AS class, p.peak_bytes
FROM peak p LEFT JOIN buffer_class b ON b.class = p.class;

CREATE VIEW v_binding AS
SELECT b.rank, b.step, coalesce(v.name, '') AS variable, coalesce(v.record_idx, e.key) AS idx,
       e.value AS value
FROM binding b JOIN rank r ON r.rank = b.rank JOIN json_each(b.vals) e
     LEFT JOIN size_var v ON v.role = r.role AND v.idx = e.key;
)sql";

// Each communication span less what the union of the rank's compute spans covers of it. `piece`
// are the disjoint pieces of that union; `point` walks over them and over both ends of each span,
// where the covered time so far is the pieces begun less the overhang of the last.
constexpr const char* kExposed = R"sql(
WITH labelled AS (
  SELECT s.rowid AS id, s.rank, s.start_ns, s.end_ns, o.communication
  FROM span s JOIN rank r ON r.rank = s.rank JOIN op o ON o.role = r.role AND o.op = s.op),
marked AS (
  SELECT rank, start_ns, end_ns,
         max(end_ns) OVER (PARTITION BY rank ORDER BY start_ns, end_ns
                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before_ns
  FROM labelled WHERE NOT communication),
piece AS (
  SELECT rank, max(start_ns, coalesce(before_ns, start_ns)) AS start_ns, end_ns
  FROM marked WHERE end_ns > coalesce(before_ns, start_ns)),
point AS (
  SELECT rank, start_ns AS at_ns, end_ns AS until_ns, end_ns - start_ns AS length_ns,
         NULL AS id, 0 AS sign FROM piece
  UNION ALL SELECT rank, start_ns, NULL, 0, id, -1 FROM labelled WHERE communication
  UNION ALL SELECT rank, end_ns, NULL, 0, id, 1 FROM labelled WHERE communication),
covered AS (
  SELECT id, sign, coalesce(sum(length_ns) OVER w, 0)
                   - max(0, coalesce(max(until_ns) OVER w, at_ns) - at_ns) AS covered_ns
  FROM point WINDOW w AS (PARTITION BY rank ORDER BY at_ns ROWS UNBOUNDED PRECEDING)),
hidden AS (
  SELECT id, sum(sign * covered_ns) AS hidden_ns FROM covered WHERE id IS NOT NULL GROUP BY id)
UPDATE span SET exposed_ns = end_ns - start_ns - hidden.hidden_ns
FROM hidden WHERE span.rowid = hidden.id;
)sql";

constexpr const char* kIndexes = R"sql(
CREATE INDEX IF NOT EXISTS step_by_step ON step (step, rank);
CREATE INDEX IF NOT EXISTS span_by_rank ON span (rank, step, op);
CREATE INDEX IF NOT EXISTS collective_by_rank ON collective (rank, step, op);
CREATE INDEX IF NOT EXISTS collective_by_group ON collective (group_id, sequence);
CREATE INDEX IF NOT EXISTS alloc_by_rank ON alloc (rank, step, time_ns);
CREATE INDEX IF NOT EXISTS op_by_key ON op (key);
)sql";

Status create_v1(sql::Database& db) {
  TRY_OK(db.exec(kTablesV1));
  TRY_OK(db.exec(kViewsV1));
  TRY(auto insert, db.prepare("INSERT INTO buffer_class VALUES (?, ?)"));
  TRY_OK(insert.run(-1, "total"));
  for (int cls = 0; cls < kNumBufferClasses; ++cls) {
    TRY_OK(insert.run(cls, name_of(static_cast<BufferClass>(cls))));
  }
  TRY_OK(insert.run(kHostClass, "host"));
  return Ok{};
}

constexpr const char* kStepV2 = R"sql(
ALTER TABLE step ADD COLUMN z_loss REAL;
ALTER TABLE step ADD COLUMN lr REAL;
DROP VIEW v_step;
CREATE VIEW v_step AS
SELECT rank, step, start_ns, end_ns, end_ns - start_ns AS duration_ns, loss, balance_loss,
       grad_norm, tokens, z_loss, lr
FROM step;
)sql";
constexpr const char* kReadStepV2 = R"sql(
CREATE TEMP VIEW step AS SELECT *, NULL AS z_loss, NULL AS lr FROM main.step;
CREATE TEMP VIEW v_step AS SELECT *, NULL AS z_loss, NULL AS lr FROM main.v_step;
)sql";

Status create_v2(sql::Database& db) {
  return db.exec(kStepV2);
}

// One step a version: the n-th leads from version n - 1 to n. Only ever append. `read` shows a file
// of version n - 1 as one of version n, by views of the connection.
struct Migration {
  const char* summary;
  Status (*apply)(sql::Database&);
  const char* read;
};
constexpr Migration kMigrations[] = {
    {"the first schema", create_v1, ""},
    {"a step's router z loss and learning rate", create_v2, kReadStepV2},
};
static_assert(std::size(kMigrations) == kTraceVersion);

}  // namespace

Status migrate(sql::Database& db) {
  TRY(const std::int64_t from, db.scalar("PRAGMA user_version"));
  if (from < 0 || from > kTraceVersion) {
    return Error::of(ErrorCode::kInvalid, db.path(),
                     "trace schema version " + std::to_string(from) + " is newer than " +
                         std::to_string(kTraceVersion),
                     "use the orrery that wrote it");
  }
  return sql::in_transaction(db, [&]() -> Status {
    for (std::int64_t version = from + 1; version <= kTraceVersion; ++version) {
      const Migration& migration = kMigrations[version - 1];
      TRY_OK(migration.apply(db));
      TRY(auto note, db.prepare("INSERT INTO schema_migration VALUES (?, ?)"));
      TRY_OK(note.run(version, migration.summary));
    }
    TRY_OK(db.exec("PRAGMA application_id = " + std::to_string(kTraceApplicationId)));
    return db.exec("PRAGMA user_version = " + std::to_string(kTraceVersion));
  });
}

Status open_as_newest(sql::Database& db) {
  TRY(const std::int64_t id, db.scalar("PRAGMA application_id"));
  TRY(const std::int64_t version, db.scalar("PRAGMA user_version"));
  if (id != kTraceApplicationId) {
    return Error::of(ErrorCode::kInvalid, db.path(), "an SQLite file, but not a trace",
                     "traces are written by simulate, train and import");
  }
  if (version < 1 || version > kTraceVersion) {
    return Error::of(ErrorCode::kInvalid, db.path(),
                     "trace schema version " + std::to_string(version) +
                         ", but this orrery reads 1 to " + std::to_string(kTraceVersion),
                     "use the orrery that wrote it, or write the trace again");
  }
  for (std::int64_t next = version; next < kTraceVersion; ++next) {
    TRY_OK(db.exec(kMigrations[next].read));
  }
  return Ok{};
}

Status seal(sql::Database& db) {
  return sql::in_transaction(db, [&]() -> Status {
    TRY_OK(db.exec(kExposed));
    return db.exec(kIndexes);
  });
}

}  // namespace orrery
