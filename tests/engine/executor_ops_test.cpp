// Single kinds of ops in programs made by hand, on ranks that are threads: what they leave in their
// buffers, in the binding and in the trace, held against values that follow from the definition.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "core/program/lowering.h"
#include "engine/torch/executor.h"
#include "tests/support/plans.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

using Numbers = std::vector<std::int64_t>;

constexpr DType kInt = DType::kInt64;

// One role and one micro-batch of `tokens` tokens; every group is of the whole world, or of one.
class Handmade {
 public:
  Handmade(std::int32_t world, std::int64_t tokens) {
    program_.world = world;
    for (const char* name :
         {"world", "fsdp_d", "replicate_d", "ep", "fsdp_e", "replicate_e", "sp"}) {
      const bool whole =
          std::string(name) == "world" || std::string(name) == "ep" || std::string(name) == "sp";
      program_.groups.push_back({name, whole ? world : 1, 1});
    }
    program_.step.sequence_tokens = program_.step.valid_tokens = tokens;
    op(OpKind::kLoadBatch, Lane::kCompute, "load");
    ids = buffer("ids", tokens, 1, kInt);
    labels = buffer("labels", tokens, 1, kInt);
    role.ops[0].out = {ids, labels};
  }

  BufferId buffer(const std::string& name, std::int64_t rows, std::int64_t cols, DType dtype,
                  MemorySpace space = MemorySpace::kDevice) {
    return sized(name, SizeExpr::constant(rows), cols, dtype, {}, space);
  }
  BufferId sized(const std::string& name, SizeExpr rows, std::int64_t cols, DType dtype,
                 VarBase vars, MemorySpace space = MemorySpace::kDevice) {
    Buffer b;
    b.name = name;
    b.space = space;
    b.bytes = rows * (cols * size_of(dtype));
    b.vars = vars;
    b.rows = rows;
    b.cols = cols;
    b.dtype = dtype;
    role.buffers.push_back(b);
    return static_cast<BufferId>(role.buffers.size() - 1);
  }
  // Good until the next one.
  Op& op(OpKind kind, Lane lane, const std::string& path, std::int32_t group = -1) {
    Op o;
    o.kind = kind;
    o.lane = lane;
    o.path = path;
    o.key = op_key(path, Phase::kForward, 0, static_cast<std::int32_t>(role.ops.size()));
    o.group = group;
    role.ops.push_back(o);
    return role.ops.back();
  }
  Op& move(OpKind kind, Lane lane, const std::string& path, std::int32_t group, BufferId in,
           BufferId out) {
    Op& o = op(kind, lane, path, group);
    o.in = {in};
    o.out = {out};
    return o;
  }
  // Buffers that no op takes are persistent.
  Program program() {
    Program made = program_;
    made.roles.push_back(role);
    Role& r = made.roles[0];
    for (std::size_t i = 0; i < r.ops.size(); ++i) {
      const Op& o = r.ops[i];
      for (const auto* list : {&o.out, &o.updates}) {
        for (const BufferId b : *list) take(r, b, static_cast<OpId>(i));
      }
      if (o.metrics >= 0) take(r, o.metrics, static_cast<OpId>(i));
    }
    for (std::int32_t rank = 0; rank < made.world; ++rank) r.ranks.push_back(rank);
    assign_dependencies(r);
    assign_lifetimes(r);
    return made;
  }

  Role role;
  Program program_;
  BufferId ids = -1, labels = -1;
  std::vector<BufferId> persistent;

 private:
  void take(Role& r, BufferId b, OpId op) const {
    if (std::find(persistent.begin(), persistent.end(), b) != persistent.end()) return;
    Buffer& taken = r.buffers[static_cast<std::size_t>(b)];
    if (taken.taken_by < 0) taken.taken_by = op;
  }
};

// What one rank left behind.
struct Left {
  std::map<std::string, std::vector<at::Tensor>> tensors;  // by buffer, one a step
  std::vector<StepResult> steps;
  std::vector<at::Tensor> biases;
  TraceEvents events;
  std::int64_t live = 0;
  std::string error;

  Numbers numbers(const std::string& buffer, std::size_t step = 0) const {
    const auto found = tensors.find(buffer);
    if (found == tensors.end() || found->second.size() <= step) return {};
    const at::Tensor& t = found->second[step];
    return {t.data_ptr<std::int64_t>(), t.data_ptr<std::int64_t>() + t.numel()};
  }
};

using BatchOf = std::function<MicroBatch(std::int32_t rank, std::int32_t step)>;

struct Running {
  std::int32_t steps = 1;
  std::int32_t skip_op = -1;
  std::function<void(std::int32_t rank, std::int32_t step, const Op&, const at::Tensor&)> poke =
      nullptr;
};

void run_rank(const Program& program, Communicator& communicator, const BatchOf& batch,
              const Running& how, Left& left) {
  const std::int32_t rank = communicator.rank();
  MemoryTrace trace;
  ExecutorOptions options;
  options.skip_op = how.skip_op;
  std::int32_t step = 0;
  options.observe = [&](const Op& op, BufferId b, const at::Tensor& t) {
    if (how.poke) how.poke(rank, step, op, t);
    auto& seen = left.tensors[program.roles[0].buffers[static_cast<std::size_t>(b)].name];
    if (static_cast<std::int32_t>(seen.size()) <= step) seen.push_back(t);
  };
  const auto made = Executor::create(program, rank, communicator, trace, options);
  CHECK(made.ok(), made.error().text());
  for (; step < how.steps; ++step) {
    const auto result = made.value()->run_step(step, {batch(rank, step)});
    if (!result.ok()) {
      left.error = result.error().text();
      break;
    }
    left.steps.push_back(result.value());
  }
  for (const at::Tensor& bias : made.value()->router_biases()) left.biases.push_back(bias.clone());
  left.live = made.value()->live_bytes();
  left.events = std::move(trace.events);
}

std::vector<Left> run(const Program& program, const BatchOf& batch, const Running& how = {}) {
  auto communicators = make_in_process(program.groups, program.world);
  std::vector<Left> left(communicators.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < left.size(); ++r) {
    threads.emplace_back([&, r] { run_rank(program, *communicators[r], batch, how, left[r]); });
  }
  for (std::thread& thread : threads) thread.join();
  return left;
}

// Ids 100 rank + place (10000 a step later), labels their negatives.
BatchOf counting(std::int64_t tokens) {
  return [tokens](std::int32_t rank, std::int32_t step) {
    MicroBatch batch;
    for (std::int64_t t = 0; t < tokens; ++t) {
      batch.ids.push_back(10000 * step + 100 * rank + t);
      batch.labels.push_back(-batch.ids.back());
    }
    batch.documents = {{tokens}};
    return batch;
  };
}

TEST(ExecutorOps, RowsBetweenRanksOfASequenceAndOfAnExpertGroup) {
  constexpr std::int32_t kWorld = 4;
  constexpr std::int64_t kTokens = 8, kPart = kTokens / kWorld;
  Handmade made(kWorld, kTokens);
  const BufferId swapped = made.buffer("swapped", kTokens, 1, kInt);
  const BufferId all = made.buffer("all", kWorld * kTokens, 1, kInt);
  const BufferId sums = made.buffer("sums", kPart, 1, kInt);
  made.move(OpKind::kAllToAll, Lane::kSp, "swap", kGroupIds.sp, made.ids, swapped);
  made.move(OpKind::kAllGatherRows, Lane::kEp, "gather", kGroupIds.ep, made.ids, all);
  made.move(OpKind::kReduceScatterRows, Lane::kEp, "sum", kGroupIds.ep, made.ids, sums);
  const Program program = made.program();
  EXPECT_EQ(channels_of(program),
            (std::vector<ChannelId>{{Lane::kEp, kGroupIds.ep}, {Lane::kSp, kGroupIds.sp}}));
  const auto ranks = run(program, counting(kTokens));
  for (std::int64_t r = 0; r < kWorld; ++r) {
    const Left& left = ranks[static_cast<std::size_t>(r)];
    ASSERT_EQ(left.error, "");
    Numbers part_of_each, whole, sum;
    for (std::int64_t p = 0; p < kWorld; ++p) {
      for (std::int64_t t = 0; t < kPart; ++t) part_of_each.push_back(100 * p + r * kPart + t);
      for (std::int64_t t = 0; t < kTokens; ++t) whole.push_back(100 * p + t);
    }
    for (std::int64_t t = 0; t < kPart; ++t) sum.push_back(600 + 4 * (r * kPart + t));
    EXPECT_EQ(left.numbers("swapped"), part_of_each);
    EXPECT_EQ(left.numbers("all"), whole);
    EXPECT_EQ(left.numbers("sums"), sum);
    ASSERT_EQ(left.events.collectives.size(), 3U);
    for (const CollectiveEvent& c : left.events.collectives) {
      const Op& op = program.roles[0].ops[static_cast<std::size_t>(c.op)];
      const WireBytes wire =
          wire_bytes(program, program.roles[0], op, static_cast<std::int32_t>(r), {});
      EXPECT_EQ(c.bytes_sent, wire.sent) << op.path;
      EXPECT_EQ(c.bytes_received, wire.received) << op.path;
    }
  }
}

// To the host and back beside a host buffer that lives on: bytes are counted in their own space.
TEST(ExecutorOps, CopiesBetweenMemorySpaces) {
  constexpr std::int64_t kTokens = 512, kBytes = kTokens * 8;
  Handmade made(1, kTokens);
  const BufferId away = made.buffer("away", kTokens, 1, kInt, MemorySpace::kHost);
  const BufferId back = made.buffer("back", kTokens, 1, kInt);
  const BufferId kept = made.buffer("kept", kTokens, 1, kInt, MemorySpace::kHost);
  const BufferId before = made.buffer("before", kTokens, 1, kInt);
  made.persistent = {kept};
  made.move(OpKind::kCopyToHost, Lane::kD2h, "out", -1, made.ids, away);
  made.move(OpKind::kCopyToDevice, Lane::kH2d, "in", -1, away, back);
  made.move(OpKind::kCopyToDevice, Lane::kH2d, "in_kept", -1, kept, before);
  Op& keep = made.op(OpKind::kCopyToHost, Lane::kD2h, "keep");
  keep.in = {made.ids};
  keep.updates = {kept};
  made.op(OpKind::kJoin, Lane::kCompute, "join").deps = {1, 2, 3, 4};
  const Program program = made.program();
  EXPECT_TRUE(channels_of(program).empty());
  const Left left = run(program, counting(kTokens), {.steps = 2})[0];
  ASSERT_EQ(left.error, "");
  EXPECT_EQ(left.numbers("back"), left.numbers("ids"));
  EXPECT_EQ(left.numbers("before", 0), Numbers(kTokens, 0)) << "persistent state begins at zero";
  EXPECT_EQ(left.numbers("before", 1), left.numbers("ids", 0));
  EXPECT_TRUE(left.events.collectives.empty());
  EXPECT_EQ(left.events.spans.size(), 2 * program.roles[0].ops.size());
  for (const StepResult& step : left.steps) {
    EXPECT_EQ(step.host_peak_bytes, 2 * kBytes);
    EXPECT_EQ(step.peak_bytes, 4 * kBytes);  // ids, labels, back, before
  }
  std::int64_t peaks = 0, balance = 0;
  for (const PeakEvent& peak : left.events.peaks) {
    if (peak.cls != kHostClass) continue;
    ++peaks;
    EXPECT_EQ(peak.bytes, 2 * kBytes);
  }
  for (const AllocEvent& alloc : left.events.allocs) {
    if (alloc.cls == kHostClass) balance += alloc.delta;
  }
  EXPECT_EQ(peaks, 2);
  EXPECT_EQ(balance, kBytes) << "what lives on was taken before the first step";

  for (std::int32_t op = 1; op < 6; ++op) {
    const Left without = run(program, counting(kTokens), {.steps = 2, .skip_op = op})[0];
    const bool same = without.error.empty() && without.numbers("back") == left.numbers("back") &&
                      without.numbers("before", 1) == left.numbers("before", 1);
    EXPECT_FALSE(same) << program.roles[0].ops[static_cast<std::size_t>(op)].path;
  }
}

struct Exchange {
  static constexpr std::int32_t kWorld = 2, kLocal = 4, kParts = 2, kInPart = kLocal / kParts;
  static constexpr std::int64_t kRows = 16;

  Exchange() : made(kWorld, kRows) {
    made.role.route = {kWorld, kInPart};
    made.role.num_vars = kParts * made.role.route.size();
    made.role.var_names.resize(static_cast<std::size_t>(made.role.num_vars));
    // Ids stand for the counts of the experts and for their rows' order, labels for the rows.
    const BufferId received = made.buffer("received", kWorld, kLocal, kInt);
    Op& counts =
        made.move(OpKind::kExchangeCounts, Lane::kEp, "counts", kGroupIds.ep, made.ids, received);
    counts.host_sync = true;
    counts.parts = kParts;
    counts.vars.route = 0;
    const BufferId back = made.buffer("back", kRows, 1, kInt);
    std::vector<BufferId> there;
    for (const Direction direction : {Direction::kDispatch, Direction::kCombine}) {
      for (std::int32_t p = 0; p < kParts; ++p) {
        const bool out = direction == Direction::kDispatch;
        const VarBase vars{p * made.role.route.size(), -1};
        if (out) {
          there.push_back(made.sized("part." + std::to_string(p),
                                     {0, 1, VarScope::kRoute, RouteVars::rows()}, 1, kInt, vars));
        }
        const BufferId rows = there[static_cast<std::size_t>(p)];
        Op& op = made.move(OpKind::kAllToAllV, Lane::kEp, out ? "dispatch" : "combine",
                           kGroupIds.ep, out ? made.labels : rows, out ? rows : back);
        op.in.push_back(received);
        op.vars = vars;
        op.chunk = p;
        op.parts = kParts;
        op.direction = direction;
      }
    }
  }

  // Rows of each of the world's experts on a rank; some get none.
  static Numbers counts(std::int32_t rank, std::uint64_t seed) {
    Draw draw(10 * seed + static_cast<std::uint64_t>(rank));
    Numbers counts(static_cast<std::size_t>(kWorld * kLocal), 0);
    for (std::int64_t i = 0; i < kRows; ++i) {
      ++counts[static_cast<std::size_t>(draw.between(0, 5) + draw.between(0, 2))];
    }
    return counts;
  }

  static BatchOf batch(std::uint64_t seed) {
    return [seed](std::int32_t rank, std::int32_t) {
      MicroBatch batch;
      batch.ids = counts(rank, seed);
      batch.ids.resize(kRows, 0);
      for (std::int64_t i = 0; i < kRows; ++i) batch.labels.push_back(1000 * rank + i);
      batch.documents = {{kRows}};
      return batch;
    };
  }

  // Rows of `part` on `rank`, source by source; a source lays its rows out by part, rank, expert.
  static Numbers expected(std::int32_t rank, std::int32_t part, std::uint64_t seed) {
    Numbers rows;
    for (std::int32_t source = 0; source < kWorld; ++source) {
      const Numbers n = counts(source, seed);
      std::int64_t row = 1000 * source;
      for (std::int32_t p = 0; p < kParts; ++p) {
        for (std::int32_t to = 0; to < kWorld; ++to) {
          for (std::int32_t e = 0; e < kInPart; ++e) {
            const auto expert = static_cast<std::size_t>(to * kLocal + p * kInPart + e);
            for (std::int64_t i = 0; i < n[expert]; ++i, ++row) {
              if (to == rank && p == part) rows.push_back(row);
            }
          }
        }
      }
    }
    return rows;
  }

  Handmade made;
};

TEST(ExecutorOps, ExchangesOfRowsInParts) {
  Exchange exchange;
  const Program program = exchange.made.program();
  const RouteVars& route = program.roles[0].route;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto ranks = run(program, Exchange::batch(seed));
    for (std::int32_t r = 0; r < Exchange::kWorld; ++r) {
      const Left& left = ranks[static_cast<std::size_t>(r)];
      ASSERT_EQ(left.error, "");
      EXPECT_EQ(left.numbers("back"), left.numbers("labels"));
      const Numbers& values = left.events.bindings.at(0).values;
      for (std::int32_t p = 0; p < Exchange::kParts; ++p) {
        EXPECT_EQ(left.numbers("part." + std::to_string(p)), Exchange::expected(r, p, seed));
        for (std::int32_t e = 0; e < Exchange::kInPart; ++e) {
          std::int64_t rows = 0;
          for (std::int32_t source = 0; source < Exchange::kWorld; ++source) {
            rows += Exchange::counts(
                source,
                seed)[static_cast<std::size_t>(r * Exchange::kLocal + p * Exchange::kInPart + e)];
          }
          EXPECT_EQ(values[static_cast<std::size_t>(p * route.size() + route.expert_rows(e))],
                    rows);
        }
      }
    }
  }
  for (std::int32_t op = 1; op < 6; ++op) {
    if (op == 5) continue;  // the last combine: nothing reads what it completes here
    EXPECT_NE(run(program, Exchange::batch(0), {.skip_op = op})[0].error, "") << op;
  }
}

// A rank of two holds half of each padded sequence; the binding's pairs are of whole ones.
TEST(ExecutorOps, LoadsItsPartOfPaddedSequences) {
  Handmade made(2, 3);
  made.program_.step.sp = 2;
  made.program_.step.sequences = 2;
  made.program_.step.sequence_tokens = 6;
  made.program_.step.valid_tokens = 5;
  made.role.buffers[0].rows = made.role.buffers[1].rows = SizeExpr::constant(6);
  made.role.num_vars = 1;
  made.role.var_names = {"batch/mb.0"};
  const BatchOf batch = [](std::int32_t, std::int32_t) {
    return MicroBatch{{10, 11, 12, 13, 14, 20, 21, 22, 23, 24},
                      {50, 51, 52, 53, 54, 60, 61, 62, 63, 64},
                      {{2, 3}, {5}}};
  };
  const auto ranks = run(made.program(), batch);
  ASSERT_EQ(ranks[0].error + ranks[1].error, "");
  EXPECT_EQ(ranks[0].numbers("ids"), (Numbers{10, 11, 12, 20, 21, 22}));
  EXPECT_EQ(ranks[1].numbers("ids"), (Numbers{13, 14, 0, 23, 24, 0}));
  EXPECT_EQ(ranks[0].numbers("labels"), (Numbers{50, 51, 52, 60, 61, 62}));
  EXPECT_EQ(ranks[1].numbers("labels"), (Numbers{53, 54, -100, 63, 64, -100}));
  for (const Left& left : ranks) {
    // Documents of 2 and 3, and of 5; a document of one token pads each.
    EXPECT_EQ(left.events.bindings.at(0).values, (Numbers{3 + 6 + 1 + 15 + 1}));
  }
}

// Two layers' loads: of one row of random numbers and of one of equal ones.
TEST(ExecutorOps, BiasesFollowTheLoadsOfTheWorld) {
  constexpr std::int64_t kExperts = 6;
  Handmade made(2, 1);
  made.program_.step.bias_speed = 0.25;
  const BufferId loads = made.buffer("loads", 2, kExperts, DType::kFloat32);
  const BufferId metrics = made.buffer("metrics", kNumMetrics, 1, DType::kFloat64);
  std::vector<BufferId> counts, biases;
  for (const bool equal : {false, true}) {
    const std::string name = equal ? "equal" : "random";
    Unit unit;
    unit.name = name;
    unit.params = {{.name = name, .short_name = name, .shape = {2, kExperts}, .is_norm = equal}};
    unit.numel = unit.shard_numel = 2 * kExperts;
    unit.shard_group = unit.replicate_group = kGroupIds.fsdp_d;
    unit.shard = made.buffer(name + "/shard", 2 * kExperts, 1, DType::kFloat32);
    unit.moment1 = made.buffer(name + "/moment1", 2 * kExperts, 1, DType::kFloat32);
    unit.moment2 = made.buffer(name + "/moment2", 2 * kExperts, 1, DType::kFloat32);
    counts.push_back(made.buffer(name, 2, kExperts, DType::kFloat32));  // of two sequences
    biases.push_back(made.buffer(name + "/bias", 1, kExperts, DType::kFloat32));
    made.move(OpKind::kUnshard, Lane::kCompute, name, kGroupIds.fsdp_d, unit.shard, counts.back());
    made.role.units.push_back(unit);
    Op& add = made.op(OpKind::kAddLoads, Lane::kCompute, name + "/loads");
    add.in = {counts.back()};
    add.updates = {loads};
    add.row_begin = equal ? 1 : 0;
  }
  made.persistent = biases;
  made.op(OpKind::kAllReduce, Lane::kFsdp, "loads", kGroupIds.world).updates = {loads};
  Op& norm = made.op(OpKind::kGradNorm, Lane::kCompute, "norm");
  norm.in = {made.role.units[0].shard, made.role.units[1].shard};
  norm.metrics = metrics;
  made.op(OpKind::kReduceMetrics, Lane::kFsdp, "metrics", kGroupIds.world).metrics = metrics;
  Op& update = made.op(OpKind::kUpdateBias, Lane::kCompute, "bias");
  update.in = {loads};
  update.updates = biases;
  update.metrics = metrics;
  const Program program = made.program();
  const auto poison = [](std::int32_t rank, std::int32_t step, const Op& op, const at::Tensor& t) {
    if (op.kind == OpKind::kGradNorm && rank == 1 && step == 2) {
      t.data_ptr<float>()[0] = std::numeric_limits<float>::quiet_NaN();
    }
  };
  const auto ranks = run(program, counting(1), {.steps = 3, .poke = poison});
  for (const Left& left : ranks) {
    ASSERT_EQ(left.error, "");
    EXPECT_TRUE(left.steps[1].updated);
    EXPECT_FALSE(left.steps[2].updated);
    ASSERT_EQ(left.biases.size(), 2U);
    const float* rows = left.tensors.at("random")[0].data_ptr<float>();
    double mean = 0;
    for (std::int64_t i = 0; i < 2 * kExperts; ++i) mean += 2.0 * rows[i] / kExperts;
    for (std::int64_t e = 0; e < kExperts; ++e) {
      const double load = 2.0 * (rows[e] + rows[kExperts + e]);
      // Two steps of the same loads; the third is refused.
      EXPECT_EQ(left.biases[0].data_ptr<float>()[e], load < mean ? 0.5F : -0.5F);
      EXPECT_EQ(left.biases[1].data_ptr<float>()[e], 0) << "equal loads";
    }
  }
  for (std::size_t op = 0; op < program.roles[0].ops.size(); ++op) {
    const auto without = run(program, counting(1), {.skip_op = static_cast<std::int32_t>(op)});
    const auto whole = run(program, counting(1));
    const bool same = without[0].error.empty() && without[0].biases[0].equal(whole[0].biases[0]) &&
                      without[0].biases[1].equal(whole[0].biases[1]) &&
                      without[0].steps[0].grad_norm == whole[0].steps[0].grad_norm;
    if (op > 0) {
      EXPECT_FALSE(same) << program.roles[0].ops[op].path;
    }
  }
}

}  // namespace
}  // namespace orrery::engine
