// See rows.h: the inserting side.
#include "tracer/rows.h"

#include <charconv>
#include <optional>
#include <string>

namespace orrery::rows {
namespace {

constexpr const char* kInserts[] = {
    "INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "INSERT INTO span VALUES (?, ?, ?, ?, ?, ?, NULL)",
    "INSERT INTO collective VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "INSERT INTO alloc VALUES (?, ?, ?, ?, ?, ?)",
    "INSERT INTO peak VALUES (?, ?, ?, ?)",
    "INSERT INTO binding VALUES (?, ?, ?)",
    "INSERT INTO counter VALUES (?, ?, ?, ?)",
    "INSERT INTO event VALUES (?, ?, ?, ?)",
    "INSERT INTO flow VALUES (?, ?, ?, ?, ?)",
    "INSERT INTO attr VALUES (?, ?, ?)",
};
enum Insert { kStep, kSpan, kCollective, kAlloc, kPeak, kBinding, kCounter, kNote, kFlow, kAttr };

std::string json_of(const std::vector<std::int64_t>& values) {
  std::string text = "[";
  char digits[24];
  for (const std::int64_t value : values) {
    if (text.size() > 1) text += ',';
    text.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  return text + "]";
}

// Bytes of what the op writes; nothing when that depends on data.
std::optional<std::int64_t> static_bytes(const Role& role, const Op& op) {
  std::int64_t bytes = 0;
  for (const BufferId id : op.out) {
    if (id < 0) continue;  // an absent operand
    const SizeExpr& size = role.buffers[static_cast<std::size_t>(id)].bytes;
    if (!size.is_constant()) return std::nullopt;
    bytes += size.c0;
  }
  return bytes;
}

Status insert_ops(sql::Database& db, const Program& program, std::int64_t index) {
  const Role& role = program.roles[static_cast<std::size_t>(index)];
  TRY(auto op_row, db.prepare("INSERT INTO op VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"));
  // Two reasons to wait for the same op are one dependency.
  TRY(auto dep_row, db.prepare("INSERT OR IGNORE INTO dep VALUES (?, ?, ?)"));
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    const auto id = static_cast<std::int64_t>(i);
    const bool communication = is_collective(op.kind) || op.lane != Lane::kCompute;
    const std::string group =
        op.group < 0 ? "" : program.groups[static_cast<std::size_t>(op.group)].name;
    const std::string unit = op.unit < 0 ? "" : role.units[static_cast<std::size_t>(op.unit)].name;
    const auto bytes = static_bytes(role, op);
    const auto put = [&](auto last) {
      return op_row.run(index, id, static_cast<std::int64_t>(op.key), name_of(op.kind),
                        name_of(op.phase), name_of(op.lane), op.path, op.micro_batch, op.chunk,
                        group, unit, std::int64_t{communication}, std::int64_t{op.host_sync}, last);
    };
    if (bytes) {
      TRY_OK(put(*bytes));
    } else {
      TRY_OK(put(nullptr));
    }
    for (const OpId dep : op.deps) TRY_OK(dep_row.run(index, id, dep));
  }
  return Ok{};
}

Status insert_buffers(sql::Database& db, const Role& role, std::int64_t index) {
  TRY(auto row, db.prepare("INSERT INTO buffer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  for (std::size_t i = 0; i < role.buffers.size(); ++i) {
    const Buffer& buffer = role.buffers[i];
    const auto put = [&](auto var) {
      return row.run(index, static_cast<std::int64_t>(i), static_cast<std::int32_t>(buffer.cls),
                     buffer.name, buffer.bytes.c0, buffer.bytes.c1, var, buffer.taken_by,
                     buffer.freed_by);
    };
    if (buffer.bytes.is_constant()) {
      TRY_OK(put(nullptr));
    } else {
      const bool route = buffer.bytes.scope == VarScope::kRoute;
      TRY_OK(put((route ? buffer.vars.route : buffer.vars.batch) + buffer.bytes.offset));
    }
  }
  return Ok{};
}

// var_names holds a record's name at its start only; here each variable gets it.
Status insert_size_vars(sql::Database& db, const Role& role, std::int64_t index) {
  TRY(auto row, db.prepare("INSERT INTO size_var VALUES (?, ?, ?, ?)"));
  std::string record;
  std::int64_t start = 0;
  for (std::size_t i = 0; i < role.var_names.size(); ++i) {
    const auto id = static_cast<std::int64_t>(i);
    if (!role.var_names[i].empty()) {
      record = role.var_names[i];
      start = id;
    }
    TRY_OK(row.run(index, id, record, id - start));
  }
  return Ok{};
}

}  // namespace

Status insert_run(sql::Database& db, const RunInfo& info) {
  TRY(auto row, db.prepare("INSERT INTO run VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)"));
  return row.run(name_of(info.kind), name_of(info.status), info.reason,
                 static_cast<std::int64_t>(info.program_hash), info.stack, info.plan_json,
                 info.created, info.inputs);
}

Status update_status(sql::Database& db, RunStatus status, std::string_view reason) {
  constexpr std::size_t kLongest = 2000;  // so that it fits the space kept for it
  TRY(auto row, db.prepare("UPDATE run SET status = ?, reason = ?"));
  return row.run(name_of(status), reason.substr(0, kLongest));
}

Status replace_rank(sql::Database& db, const RankInfo& rank) {
  TRY(auto row, db.prepare("INSERT OR REPLACE INTO rank VALUES (?, ?, ?, ?, ?, ?, ?)"));
  return row.run(rank.rank, rank.role, rank.node, rank.device, rank.clock_offset_ns,
                 rank.clock_error_ns, rank.dropped);
}

Status insert_program(sql::Database& db, const Program& program) {
  TRY(auto row, db.prepare("INSERT INTO program VALUES (?, ?, ?)"));
  TRY_OK(row.run(static_cast<std::int64_t>(program.hash()), program.world, program.plan_hash));
  TRY(auto group_row, db.prepare("INSERT INTO comm_group VALUES (?, ?, ?, ?)"));
  for (std::size_t i = 0; i < program.groups.size(); ++i) {
    const Group& group = program.groups[i];
    TRY_OK(group_row.run(static_cast<std::int64_t>(i), group.name, group.size, group.stride));
  }
  return Ok{};
}

Status insert_role(sql::Database& db, const Program& program, std::size_t role) {
  const auto index = static_cast<std::int64_t>(role);
  const Role& what = program.roles[role];
  TRY(auto row, db.prepare("INSERT INTO role VALUES (?, ?, ?)"));
  TRY_OK(row.run(index, what.name, ranks_text(what.ranks)));
  TRY_OK(insert_ops(db, program, index));
  TRY_OK(insert_buffers(db, what, index));
  return insert_size_vars(db, what, index);
}

EventSink::EventSink(std::vector<sql::Statement> statements) : statements_(std::move(statements)) {}

Result<EventSink> EventSink::prepare(sql::Database& db) {
  std::vector<sql::Statement> statements;
  for (const char* insert : kInserts) {
    TRY(auto statement, db.prepare(insert));
    statements.push_back(std::move(statement));
  }
  return EventSink(std::move(statements));
}

Status EventSink::put(const StepEvent& e) {
  return statements_[kStep].run(e.rank, e.step, e.start_ns, e.end_ns, e.loss, e.balance_loss,
                                e.grad_norm, e.tokens, e.z_loss, e.lr);
}

Status EventSink::put(const SpanEvent& e) {
  return statements_[kSpan].run(e.rank, e.step, e.op, e.enqueue_ns, e.start_ns, e.end_ns);
}

Status EventSink::put(const CollectiveEvent& e) {
  return statements_[kCollective].run(e.rank, e.step, e.op, e.group, e.sequence, e.posted_ns,
                                      e.ready_ns, e.end_ns, e.bytes_sent, e.bytes_received);
}

Status EventSink::put(const AllocEvent& e) {
  return statements_[kAlloc].run(e.rank, e.step, e.op, e.cls, e.time_ns, e.delta);
}

Status EventSink::put(const PeakEvent& e) {
  return statements_[kPeak].run(e.rank, e.step, e.cls, e.bytes);
}

Status EventSink::put(const Binding& binding) {
  return statements_[kBinding].run(binding.rank, binding.step, json_of(binding.values));
}

Status EventSink::put(const CounterEvent& e) {
  return statements_[kCounter].run(e.rank, e.time_ns, e.name, e.value);
}

Status EventSink::put(const NoteEvent& e) {
  return statements_[kNote].run(e.rank, e.time_ns, e.name, e.message);
}

Status EventSink::put(const FlowEvent& e) {
  return statements_[kFlow].run(e.step, e.from_rank, e.from_op, e.to_rank, e.to_op);
}

Status EventSink::put(const Attr& attr) {
  return statements_[kAttr].run(attr.subject, attr.name, attr.value);
}

Status EventSink::put_all(const TraceEvents& events) {
  TRY_OK(put_all(events.steps));
  TRY_OK(put_all(events.spans));
  TRY_OK(put_all(events.collectives));
  TRY_OK(put_all(events.allocs));
  TRY_OK(put_all(events.peaks));
  return put_all(events.bindings);
}

}  // namespace orrery::rows
