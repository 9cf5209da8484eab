// TraceWriter and TraceReader: what goes in comes out, files appear whole, bad files are told
// apart.
#include "tracer/trace_db.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/tracer/trace_fixture.h"
#include "tracer/rows.h"
#include "tracer/schema.h"
#include "tracer/sqlite.h"

namespace orrery {
namespace {

using testing::TempDir;

TraceWriter start(const std::string& path, const RunInfo& info) {
  auto writer = TraceWriter::create(path, info);
  CHECK(writer.ok(), writer.error().text());
  return std::move(writer).value();
}

TraceReader open(const std::string& path) {
  auto reader = TraceReader::open(path);
  CHECK(reader.ok(), reader.error().text());
  return std::move(reader).value();
}

void write_whole(const std::string& path, std::uint32_t seed) {
  const Program program = testing::small_program(4);
  TraceWriter writer = start(path, testing::run_info(program));
  ASSERT_TRUE(writer.write_program(program).ok());
  ASSERT_TRUE(writer.write(testing::random_events(program, seed, 3)).ok());
  ASSERT_TRUE(writer.finish(RunStatus::kOk).ok());
}

TEST(TraceDb, EveryKindOfEventComesBack) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  TraceEvents events = testing::random_events(program, 7, 3);
  TraceWriter writer = start(dir.file("a.db"), testing::run_info(program));
  ASSERT_TRUE(writer.write_program(program).ok());
  ASSERT_TRUE(writer.write_rank({2, 0, "host-b", "gpu 1", -250, 12, 5}).ok());
  ASSERT_TRUE(writer.write(events).ok());
  ASSERT_TRUE(writer.write(std::vector<CounterEvent>{{1, 99, "power_w", 312.5}}).ok());
  ASSERT_TRUE(writer.write(std::vector<NoteEvent>{{-1, 3, "note", "it's \"quoted\""}}).ok());
  ASSERT_TRUE(writer.write(std::vector<FlowEvent>{{2, 0, 4, 3, 5}}).ok());
  ASSERT_TRUE(writer.write(std::vector<Attr>{{"run", "host count", "2"}}).ok());
  ASSERT_TRUE(writer.finish(RunStatus::kOk).ok());

  TraceReader reader = open(dir.file("a.db"));
  rows::sort(events);
  const auto same = [](const auto& a, const auto& b, auto tie) {
    ASSERT_EQ(a.size(), b.size());
    ASSERT_FALSE(a.empty());
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(tie(a[i]), tie(b[i])) << i;
  };
  const TraceEvents back = reader.events().value();
  same(back.steps, events.steps, [](const StepEvent& e) {
    return std::tuple(e.rank, e.step, e.start_ns, e.end_ns, e.loss, e.balance_loss, e.z_loss,
                      e.grad_norm, e.lr, e.tokens);
  });
  same(back.spans, events.spans, [](const SpanEvent& e) {
    return std::tuple(e.rank, e.step, e.op, e.enqueue_ns, e.start_ns, e.end_ns);
  });
  same(back.collectives, events.collectives, [](const CollectiveEvent& e) {
    return std::tuple(e.rank, e.step, e.op, e.group, e.sequence, e.posted_ns, e.ready_ns, e.end_ns,
                      e.bytes_sent, e.bytes_received);
  });
  same(back.allocs, events.allocs, [](const AllocEvent& e) {
    return std::tuple(e.rank, e.step, e.op, e.cls, e.time_ns, e.delta);
  });
  same(back.peaks, events.peaks,
       [](const PeakEvent& e) { return std::tuple(e.rank, e.step, e.cls, e.bytes); });
  same(back.bindings, events.bindings,
       [](const Binding& e) { return std::tuple(e.rank, e.step, e.values); });
  EXPECT_EQ(reader.counters().value().at(0).value, 312.5);
  EXPECT_EQ(reader.notes().value().at(0).message, "it's \"quoted\"");
  EXPECT_EQ(reader.flows().value().at(0).to_rank, 3);
  EXPECT_EQ(reader.attrs().value().at(0).name, "host count");
}

TEST(TraceDb, RunAndRanksComeBack) {
  const TempDir dir;
  const Program program = testing::small_program(4);
  const RunInfo info = testing::run_info(program);
  TraceWriter writer = start(dir.file("a.db"), info);
  ASSERT_TRUE(writer.write_program(program).ok());
  ASSERT_TRUE(writer.write_rank({2, 0, "host-b", "gpu 1", -250, 12, 5}).ok());
  ASSERT_TRUE(writer.finish(RunStatus::kFailed, "rank 2 died").ok());
  TraceReader reader = open(dir.file("a.db"));
  EXPECT_EQ(reader.run().kind, RunKind::kMeasured);
  EXPECT_EQ(reader.run().status, RunStatus::kFailed);
  EXPECT_EQ(reader.run().reason, "rank 2 died");
  EXPECT_EQ(reader.run().program_hash, program.hash());
  EXPECT_EQ(reader.run().stack, info.stack);
  EXPECT_EQ(reader.run().plan_json, info.plan_json);
  EXPECT_EQ(reader.run().created, info.created);
  EXPECT_EQ(reader.run().inputs, info.inputs);
  const auto ranks = reader.ranks().value();
  ASSERT_EQ(ranks.size(), 4u);
  EXPECT_EQ(ranks[1].role, 1);
  EXPECT_EQ(ranks[2].node, "host-b");
  EXPECT_EQ(ranks[2].clock_offset_ns, -250);
  EXPECT_EQ(ranks[2].clock_error_ns, 12);
  EXPECT_EQ(ranks[2].dropped, 5);
}

TEST(TraceDb, StaticSideIsStoredOnceAndReadable) {
  const TempDir dir;
  write_whole(dir.file("a.db"), 1);
  const Program program = testing::small_program(4);
  TraceReader reader = open(dir.file("a.db"));
  const auto ops = reader.ops().value();
  ASSERT_EQ(ops.size(), program.roles[0].ops.size() + program.roles[1].ops.size());
  for (const OpRow& row : ops) {
    const Op& op =
        program.roles[static_cast<std::size_t>(row.role)].ops[static_cast<std::size_t>(row.op)];
    EXPECT_EQ(row.key, op.key);
    EXPECT_EQ(row.path, op.path);
    EXPECT_EQ(row.kind, name_of(op.kind));
    EXPECT_EQ(row.phase, name_of(op.phase));
    EXPECT_EQ(row.lane, name_of(op.lane));
    EXPECT_EQ(row.micro_batch, op.micro_batch);
    EXPECT_EQ(row.communication, op.lane != Lane::kCompute);
    EXPECT_EQ(row.host_sync, op.host_sync);
  }
  const auto value = [&](const std::string& sql) {
    return to_text(reader.query(sql).value().rows.at(0).at(0));
  };
  EXPECT_EQ(value("SELECT ranks FROM role WHERE role = 1"), "1,3");
  EXPECT_EQ(value("SELECT static_bytes FROM op WHERE role = 0 AND op = 0"), "4096");
  EXPECT_EQ(value("SELECT static_bytes FROM op WHERE role = 0 AND op = 2"), "-");
  EXPECT_EQ(value("SELECT var FROM buffer WHERE role = 0 AND name = 'rows'"), "3");
  EXPECT_EQ(value("SELECT c0_bytes || '+' || c1_bytes FROM buffer WHERE name = 'rows'"), "64+8");
  EXPECT_EQ(value("SELECT count(*) FROM dep WHERE role = 0 AND op = 3"), "2");
  EXPECT_EQ(value("SELECT world FROM program"), "4");
  EXPECT_EQ(value("SELECT group_name FROM op WHERE role = 0 AND op = 2"), "ep");
  EXPECT_EQ(value("SELECT unit FROM op WHERE role = 0 AND op = 0"), "layer.0");
}

TEST(TraceDb, BindingsAreVisibleByVariable) {
  const TempDir dir;
  write_whole(dir.file("a.db"), 1);
  TraceReader reader = open(dir.file("a.db"));
  const Table table = reader
                          .query(
                              "SELECT variable, idx, value FROM v_binding "
                              "WHERE rank = 1 AND step = 2 ORDER BY variable, idx")
                          .value();
  ASSERT_EQ(table.rows.size(), 5u);
  EXPECT_EQ(to_text(table.rows[0][0]), "batch/mb.0");
  EXPECT_EQ(to_text(table.rows[3][0]), "route/layer.0/mb.0");
  EXPECT_EQ(to_text(table.rows[3][1]), "1");
  EXPECT_EQ(to_text(table.rows[3][2]), "-5");
}

TEST(TraceDb, NumbersThatAreNotFiniteSurvive) {
  const TempDir dir;
  TraceEvents events;
  const double infinite = std::numeric_limits<double>::infinity();
  events.steps = {{0, 0, 1, 2, std::nan(""), 0, 0, -infinite, 1e-3, 1},
                  {0, 1, 2, std::numeric_limits<std::int64_t>::max(), 1e-310, 0, 0, 0, 0, 1}};
  TraceWriter writer = start(dir.file("a.db"), {});
  ASSERT_TRUE(writer.write(events).ok());
  ASSERT_TRUE(writer.finish(RunStatus::kOk).ok());
  const auto steps = open(dir.file("a.db")).steps().value();
  EXPECT_TRUE(std::isnan(steps[0].loss));
  EXPECT_EQ(steps[0].grad_norm, -infinite);
  EXPECT_EQ(steps[1].loss, 1e-310);
  EXPECT_EQ(steps[1].end_ns, std::numeric_limits<std::int64_t>::max());
}

TEST(TraceDb, SameInputGivesSameRows) {
  const TempDir dir;
  write_whole(dir.file("a.db"), 3);
  write_whole(dir.file("b.db"), 3);
  write_whole(dir.file("c.db"), 4);
  EXPECT_EQ(testing::dump(dir.file("a.db")), testing::dump(dir.file("b.db")));
  EXPECT_NE(testing::dump(dir.file("a.db")), testing::dump(dir.file("c.db")));
  EXPECT_EQ(testing::read_file(dir.file("a.db")), testing::read_file(dir.file("b.db")));
}

TEST(TraceDb, AppearsOnlyByRename) {
  const TempDir dir;
  const std::string path = dir.file("a.db");
  testing::write_file(path, "what was here before");
  TraceWriter writer = start(path, {});
  ASSERT_TRUE(writer.write(std::vector<Attr>{{"run", "a", "b"}}).ok());
  EXPECT_EQ(testing::read_file(path), "what was here before");
  ASSERT_TRUE(writer.finish(RunStatus::kOk).ok());
  EXPECT_EQ(open(path).attrs().value().size(), 1u);
  EXPECT_EQ(dir.entries(), std::vector<std::string>{"a.db"});
}

TEST(TraceDb, DiscardLeavesNothing) {
  const TempDir dir;
  TraceWriter writer = start(dir.file("a.db"), {});
  writer.discard();
  EXPECT_TRUE(dir.entries().empty());
}

TEST(TraceDb, AWriterThatGoesLeavesAFailedRun) {
  const TempDir dir;
  { const TraceWriter writer = start(dir.file("a.db"), {}); }
  const TraceReader reader = open(dir.file("a.db"));
  EXPECT_EQ(reader.run().status, RunStatus::kFailed);
  EXPECT_FALSE(reader.run().reason.empty());
  EXPECT_EQ(dir.entries(), std::vector<std::string>{"a.db"});
}

TEST(TraceDb, AFolderThatIsNotThereIsAnIoError) {
  const TempDir dir;
  const auto writer = TraceWriter::create(dir.file("no/such/a.db"), {});
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(writer.error().code, ErrorCode::kIo);
  EXPECT_EQ(writer.error().problems.at(0).where, dir.file("no/such/a.db"));
}

TEST(TraceDb, MissingTornAndForeignFilesAreToldApart) {
  const TempDir dir;
  write_whole(dir.file("a.db"), 1);
  const std::string whole = testing::read_file(dir.file("a.db"));
  const auto code = [&](const std::string& name) {
    const auto reader = TraceReader::open(dir.file(name));
    CHECK(!reader.ok(), name + " was read");
    CHECK(!reader.error().problems.at(0).message.empty(), "no message");
    return reader.error().code;
  };
  EXPECT_EQ(code("missing.db"), ErrorCode::kIo);
  EXPECT_EQ(code("."), ErrorCode::kIo);
  testing::write_file(dir.file("empty.db"), "");
  EXPECT_EQ(code("empty.db"), ErrorCode::kInvalid);
  testing::write_file(dir.file("text.db"), std::string(5000, 'x'));
  EXPECT_EQ(code("text.db"), ErrorCode::kInvalid);
  testing::write_file(dir.file("head.db"), whole.substr(0, 50));
  EXPECT_EQ(code("head.db"), ErrorCode::kInvalid);
}

TEST(TraceDb, ATornFileFailsWhereItIsTorn) {
  const TempDir dir;
  write_whole(dir.file("a.db"), 1);
  const std::string whole = testing::read_file(dir.file("a.db"));
  testing::write_file(dir.file("torn.db"), whole.substr(0, whole.size() / 2));
  auto reader = TraceReader::open(dir.file("torn.db"));
  const auto events =
      reader.ok() ? std::move(reader).value().events() : Result<TraceEvents>(reader.error());
  ASSERT_FALSE(events.ok());
  EXPECT_EQ(events.error().code, ErrorCode::kInvalid);
}

TEST(TraceDb, UserQueriesCannotWrite) {
  const TempDir dir;
  const std::string path = dir.file("a.db");
  write_whole(path, 1);
  const std::string before = testing::read_file(path);
  TraceReader reader = open(path);
  for (const std::string sql :
       {"DELETE FROM span", "DROP TABLE span", "UPDATE run SET status = 'ok'",
        "CREATE TEMP TABLE t (x)", "PRAGMA user_version = 9", "PRAGMA journal_mode = WAL",
        "ATTACH DATABASE 'b.db' AS b", "VACUUM", "BEGIN"}) {
    const auto table = reader.query(sql);
    ASSERT_FALSE(table.ok()) << sql;
    EXPECT_EQ(table.error().code, ErrorCode::kInvalid) << sql;
  }
  EXPECT_FALSE(reader.query("VACUUM INTO '" + dir.file("copy.db") + "'").ok());
  EXPECT_FALSE(reader.query("ATTACH DATABASE '" + dir.file("new.db") + "' AS b").ok());
  EXPECT_FALSE(reader.query("SELECT 1; SELECT 2").ok());
  EXPECT_FALSE(reader.query("SELECT 1; DELETE FROM span").ok());
  EXPECT_FALSE(reader.query("SELECT no_such_column FROM span").ok());
  EXPECT_FALSE(reader.query("  -- nothing\n").ok());
  EXPECT_TRUE(reader.query("SELECT 1; -- and a remark\n;").ok());
  EXPECT_TRUE(reader
                  .query("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE "
                         "x < 9) SELECT sum(x) FROM n")
                  .ok());
  EXPECT_TRUE(reader.spans().ok()) << "the reader's own statements still work";
  EXPECT_EQ(testing::read_file(path), before);
  EXPECT_EQ(dir.entries(), std::vector<std::string>{"a.db"});
}

TEST(TraceDb, RowsComeOneByOneAndByTheSameRules) {
  const TempDir dir;
  write_whole(dir.file("a.db"), 1);
  TraceReader reader = open(dir.file("a.db"));
  const std::string sql = "SELECT op, path, NULL, 0.5 FROM op ORDER BY role, op";
  std::vector<std::vector<Cell>> rows;
  ASSERT_TRUE(reader
                  .each_row(sql,
                            [&](const std::vector<Cell>& cells) -> Status {
                              rows.push_back(cells);
                              return Ok{};
                            })
                  .ok());
  EXPECT_EQ(rows, reader.query(sql).value().rows);
  EXPECT_GT(rows.size(), 2u);
  int seen = 0;
  const Status stopped = reader.each_row(sql, [&](const std::vector<Cell>&) -> Status {
    if (++seen < 2) return Ok{};
    return Error::of(ErrorCode::kIo, "a disk", "full");
  });
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, ErrorCode::kIo);
  EXPECT_EQ(seen, 2);
  const auto nothing = [](const std::vector<Cell>&) -> Status { return Ok{}; };
  EXPECT_FALSE(reader.each_row("DELETE FROM span", nothing).ok());
  EXPECT_FALSE(reader.each_row("SELECT 1; SELECT 2", nothing).ok());
  EXPECT_TRUE(reader.each_row("SELECT 1; -- and a remark", nothing).ok());
}

TEST(TraceDb, AForeignOrNewerDatabaseIsRefused) {
  const TempDir dir;
  {
    auto db = sql::Database::open(dir.file("foreign.db"), sql::Mode::kCreate);
    ASSERT_TRUE(db.ok());
    sql::Database database = std::move(db).value();
    ASSERT_TRUE(database.exec("CREATE TABLE run (x)").ok());
  }
  write_whole(dir.file("newer.db"), 1);
  {
    auto db = sql::Database::open(dir.file("newer.db"), sql::Mode::kReadWrite);
    sql::Database database = std::move(db).value();
    ASSERT_TRUE(database.exec("PRAGMA user_version = 99").ok());
    const Status migrated = migrate(database);
    ASSERT_FALSE(migrated.ok());
    EXPECT_EQ(migrated.error().code, ErrorCode::kInvalid);
  }
  for (const std::string name : {"foreign.db", "newer.db"}) {
    const auto reader = TraceReader::open(dir.file(name));
    ASSERT_FALSE(reader.ok()) << name;
    EXPECT_EQ(reader.error().code, ErrorCode::kInvalid) << name;
  }
}

TEST(TraceDb, EachVersionHasItsMigration) {
  const TempDir dir;
  write_whole(dir.file("a.db"), 1);
  TraceReader reader = open(dir.file("a.db"));
  const Table steps = reader.query("SELECT version FROM schema_migration ORDER BY version").value();
  ASSERT_EQ(steps.rows.size(), static_cast<std::size_t>(kTraceVersion));
  for (std::size_t i = 0; i < steps.rows.size(); ++i) {
    EXPECT_EQ(to_text(steps.rows[i][0]), std::to_string(i + 1));
  }
}

TEST(TraceDb, AFileOfTheFirstVersionStillOpens) {
  const TempDir dir;
  write_whole(dir.file("a.db"), 1);
  const auto written = open(dir.file("a.db")).steps().value();
  {
    sql::Database old =
        std::move(sql::Database::open(dir.file("a.db"), sql::Mode::kReadWrite)).value();
    ASSERT_TRUE(old.exec("DROP VIEW v_step; ALTER TABLE step DROP COLUMN z_loss;"
                         "ALTER TABLE step DROP COLUMN lr; CREATE VIEW v_step AS SELECT rank, step,"
                         " start_ns, end_ns, end_ns - start_ns AS duration_ns, loss, balance_loss,"
                         " grad_norm, tokens FROM step; PRAGMA user_version = 1")
                    .ok());
  }
  TraceReader reader = open(dir.file("a.db"));
  const auto steps = reader.steps().value();
  ASSERT_EQ(steps.size(), written.size());
  ASSERT_FALSE(steps.empty());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i].loss, written[i].loss);
    EXPECT_EQ(steps[i].tokens, written[i].tokens);
    EXPECT_TRUE(std::isnan(steps[i].z_loss) && std::isnan(steps[i].lr));
  }
  const Table rows = reader.query("SELECT count(*), count(lr) FROM v_step").value();
  EXPECT_EQ(to_text(rows.rows.at(0).at(0)), std::to_string(steps.size()));
  EXPECT_EQ(to_text(rows.rows.at(0).at(1)), "0");
}

TEST(Ranks, TextComesBack) {
  EXPECT_EQ(ranks_text({}), "");
  EXPECT_EQ(ranks_text({0, 1, 2, 3}), "0-3");
  EXPECT_EQ(ranks_text({0, 2, 4, 6, 9}), "0-6:2,9");
  EXPECT_EQ(ranks_text({5, 6}), "5-6");
  EXPECT_EQ(ranks_text({7, 3}), "7,3");
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::int32_t> ranks;
    for (auto n = random() % 20; n > 0; --n) {
      ranks.push_back(static_cast<std::int32_t>(random() % 40));
    }
    EXPECT_EQ(parse_ranks(ranks_text(ranks)).value(), ranks);
  }
}

TEST(Ranks, OtherTextIsInvalid) {
  for (const std::string text :
       {"x", "1,", ",1", "3-1", "1-5:0", "1-", "-1", "1 2", "9999999999", "0-2147483647"}) {
    const auto ranks = parse_ranks(text);
    ASSERT_FALSE(ranks.ok()) << text;
    EXPECT_EQ(ranks.error().code, ErrorCode::kInvalid);
  }
}

}  // namespace
}  // namespace orrery
