// See trace_fixture.h.
#include "tests/tracer/trace_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

namespace orrery::testing {

TempDir::TempDir() {
  std::string pattern = std::filesystem::temp_directory_path() / "orrery-test-XXXXXX";
  CHECK(::mkdtemp(pattern.data()) != nullptr, "cannot make a folder for the test");
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> TempDir::entries() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

namespace {

Op make_op(OpKind kind, Phase phase, Lane lane, const std::string& path, std::int32_t micro_batch,
           std::vector<OpId> deps) {
  Op op;
  op.kind = kind;
  op.phase = phase;
  op.lane = lane;
  op.path = path;
  op.micro_batch = micro_batch;
  op.deps = std::move(deps);
  op.key = op_key(path, phase, micro_batch, 0);
  if (is_collective(kind)) op.group = lane == Lane::kFsdp ? 0 : 1;
  return op;
}

Role small_role(const std::string& name) {
  Role role;
  role.name = name;
  role.units.resize(1);
  role.units[0].name = "layer.0";
  Buffer fixed;
  fixed.name = "gathered";
  fixed.cls = BufferClass::kGatheredParameter;
  fixed.bytes = SizeExpr::constant(4096);
  Buffer rows;
  rows.name = "rows";
  rows.cls = BufferClass::kCommunication;
  rows.bytes = {64, 8, VarScope::kRoute, 1};
  rows.vars.route = 2;
  role.buffers = {fixed, rows};
  role.ops = {
      make_op(OpKind::kAllGather, Phase::kForward, Lane::kFsdp, "layer.0/gather", 0, {}),
      make_op(OpKind::kForwardTape, Phase::kForward, Lane::kCompute, "layer.0/attention", 0, {0}),
      make_op(OpKind::kAllToAllV, Phase::kForward, Lane::kEp, "layer.0/moe/dispatch", 0, {1}),
      make_op(OpKind::kForwardTape, Phase::kForward, Lane::kCompute, "layer.0/attention", 1,
              {0, 1, 1}),
      make_op(OpKind::kBackward, Phase::kBackward, Lane::kCompute, "layer.0/attention", 0, {2, 3}),
      make_op(OpKind::kReduceScatter, Phase::kBackward, Lane::kFsdp, "layer.0/reduce", 0, {4}),
      make_op(OpKind::kOptimizerStep, Phase::kOptimizer, Lane::kCompute, "layer.0", 0, {5}),
  };
  role.ops[0].unit = 0;
  role.ops[0].out = {0};
  role.ops[2].out = {1, -1};
  role.ops[2].host_sync = true;
  role.num_vars = 5;
  role.var_names = {"batch/mb.0", "batch/mb.1", "route/layer.0/mb.0", "", ""};
  return role;
}

}  // namespace

Program small_program(std::int32_t world) {
  Program program;
  program.world = world;
  program.plan_hash = "a plan";
  program.groups = {{"fsdp_d", world, 1}, {"ep", 2, world / 2}};
  program.roles = {small_role("even"), small_role("odd")};
  program.roles[1].ops[1].path = "layer.0/dense";
  program.roles[1].ops[1].key = op_key("layer.0/dense", Phase::kForward, 0, 0);
  for (std::int32_t rank = 0; rank < world; ++rank) {
    program.roles[static_cast<std::size_t>(rank % 2)].ranks.push_back(rank);
  }
  return program;
}

TraceEvents random_events(const Program& program, std::uint32_t seed, std::int32_t steps) {
  std::mt19937 random(seed);
  const auto up_to = [&](std::int64_t most) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(most + 1));
  };
  TraceEvents events;
  for (std::int32_t rank = 0; rank < program.world; ++rank) {
    const Role& role = program.role_of(rank);
    for (std::int32_t step = 0; step < steps; ++step) {
      const std::int64_t begin = 1'000'000 + step * 100'000;
      events.steps.push_back({rank, step, begin, begin + 90'000 + up_to(5000), 3.5 - step * 0.25,
                              0.01, 0.002, 1.5 + static_cast<double>(up_to(100)) / 64,
                              1e-3 / (step + 1), 4096});
      std::int64_t moment = begin;
      for (std::size_t i = 0; i < role.ops.size(); ++i) {
        const auto op = static_cast<std::int32_t>(i);
        const std::int64_t start = begin + up_to(80'000);
        const std::int64_t end = start + up_to(20'000);
        events.spans.push_back({rank, step, op, start - up_to(50), start, end});
        if (is_collective(role.ops[i].kind)) {
          events.collectives.push_back({rank, step, op, role.ops[i].group, step, start,
                                        start + up_to(10), end, up_to(9999), up_to(9999)});
        }
        events.allocs.push_back({rank, step, op, static_cast<std::int32_t>(i), moment, 512});
        moment += 1 + up_to(100);
        events.allocs.push_back({rank, step, op, static_cast<std::int32_t>(i), moment, -512});
      }
      events.peaks.push_back({rank, step, -1, 100'000 + up_to(1000)});
      events.peaks.push_back({rank, step, 1, 4096});
      events.bindings.push_back({rank, step, {up_to(99), up_to(99), up_to(99), -5, up_to(99)}});
    }
  }
  return events;
}

TraceEvents of_rank(const TraceEvents& events, std::int32_t rank) {
  TraceEvents out = events;
  const auto keep = [&](auto& rows) {
    std::erase_if(rows, [&](auto& e) { return e.rank != rank; });
  };
  keep(out.steps);
  keep(out.spans);
  keep(out.collectives);
  keep(out.allocs);
  keep(out.peaks);
  keep(out.bindings);
  return out;
}

RunInfo run_info(const Program& program) {
  RunInfo info;
  info.kind = RunKind::kMeasured;
  info.program_hash = program.hash();
  info.stack = "orrery";
  info.plan_json = "{\"layout\": {\"dp\": 2}}";
  info.created = "2024-02-29T12:00:00Z";
  info.inputs = "{\"model\": \"ab12\"}";
  return info;
}

std::string dump(const std::string& path) {
  auto reader = TraceReader::open(path);
  CHECK(reader.ok(), reader.error().text());
  TraceReader trace = std::move(reader).value();
  std::string text;
  const auto names = trace.query("SELECT name FROM sqlite_schema ORDER BY name");
  CHECK(names.ok(), names.error().text());
  for (const auto& name : names.value().rows) {
    auto table = trace.query("SELECT * FROM \"" + std::get<std::string>(name[0]) + "\"");
    text += "== " + std::get<std::string>(name[0]) + "\n";
    if (!table.ok()) continue;  // an index
    for (const auto& row : table.value().rows) {
      for (const Cell& cell : row) text += to_text(cell) + "|";
      text += "\n";
    }
  }
  return text;
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

}  // namespace orrery::testing
