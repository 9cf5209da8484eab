// Threads, shards and names: from the engine's flat units back to named parameters.
#include "tests/parity/harness.h"

#include <gtest/gtest.h>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>
#include <thread>

#include "core/models/family.h"
#include "engine/torch/interpreter.h"
#include "tests/support/plans.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::parity {
namespace {

std::vector<double> doubles(const at::Tensor& t) {
  const at::Tensor d = t.detach().cpu().to(at::kDouble).contiguous().view(-1);
  return {d.data_ptr<double>(), d.data_ptr<double>() + d.numel()};
}

// Flat shards by (unit, rank).
using Shards = std::map<std::pair<std::int32_t, std::int32_t>, std::vector<double>>;

// Puts the shards of all ranks together: the first replica of each.
reference::Parameters assemble(const Program& program, const Shards& shards) {
  reference::Parameters out;
  const Role& role = program.roles[0];
  for (std::size_t u = 0; u < role.units.size(); ++u) {
    const Unit& unit = role.units[u];
    const Group& shard = program.groups[static_cast<std::size_t>(unit.shard_group)];
    const Group& replicas = program.groups[static_cast<std::size_t>(unit.replicate_group)];
    std::map<std::int32_t, std::vector<double>> flat;  // by expert index (0 for dense units)
    for (std::int32_t rank = 0; rank < program.world; ++rank) {
      if (replicas.index_of(rank) != 0) continue;
      const std::int32_t part = unit.is_expert ? program.ep_group().index_of(rank) : 0;
      auto& whole = flat[part];
      whole.resize(static_cast<std::size_t>(unit.shard_numel * shard.size));
      const auto& mine = shards.at({static_cast<std::int32_t>(u), rank});
      std::copy(mine.begin(), mine.end(), whole.begin() + shard.index_of(rank) * unit.shard_numel);
    }
    for (const auto& [part, whole] : flat) {
      std::int64_t at = 0;
      for (const Param& p : unit.params) {
        auto& tensor = out[p.name];
        tensor.insert(tensor.end(), whole.begin() + at, whole.begin() + at + p.numel());
        at += p.numel();
      }
    }
  }
  return out;
}

// Collects what the observers of all ranks see.
struct Collector {
  std::mutex mutex;
  Shards gradients;
  // By row and the place in it of the first token of a part.
  using Place = std::pair<std::int64_t, std::int64_t>;
  std::map<std::int64_t, std::map<Place, std::vector<std::int64_t>>> ids;  // by layer
  std::map<Place, at::Tensor> hidden;  // what the last layer leaves
};

// Which output of a block is called so; -1: none.
std::int32_t output_named(const Block& block, const std::string& name) {
  for (std::size_t i = 0; i < block.outputs.size(); ++i) {
    if (block.values[static_cast<std::size_t>(block.outputs[i])].name == name) {
      return static_cast<std::int32_t>(i);
    }
  }
  return -1;
}

std::int64_t layer_of(const std::string& path) {
  return std::stoll(path.substr(std::string("layer.").size()));
}

// The logits of one row: the loss block without its last primitive, by the engine's interpreter.
std::vector<double> logits_of(const Plan& plan, const reference::Parameters& parameters,
                              const at::Tensor& hidden) {
  BlockShape shape;
  // Whatever the layout, these are rows of one sequence, or a rank's part of it.
  shape.sequence_tokens = shape.valid_tokens = hidden.size(0);
  shape.compute = plan.workload.compute;
  shape.master = plan.workload.master;
  const Block loss = family_of(plan.model).blocks(plan.model, shape).loss;
  Block b;
  b.name = "logits";
  b.values.assign(loss.values.begin(), loss.values.end() - 1);  // the loss is the last value
  b.params = loss.params;
  b.inputs = loss.inputs;
  b.prims.assign(loss.prims.begin(), loss.prims.end() - 1);
  b.outputs = {loss.prims.back().in[0]};
  b.finish();
  const engine::BlockContext context;
  engine::ForwardArgs args;
  args.inputs = {hidden, at::zeros({hidden.size(0), 1}, at::kLong)};
  args.context = &context;
  args.param = [&](std::int32_t p) {
    const BlockParam& wanted = b.params[static_cast<std::size_t>(p)];
    const std::vector<double>& values = parameters.at(wanted.name);
    at::Tensor t = at::empty({static_cast<std::int64_t>(values.size())}, at::kDouble);
    std::copy(values.begin(), values.end(), t.data_ptr<double>());
    return t.to(hidden.scalar_type()).view(wanted.shape);
  };
  auto outputs = engine::run_forward(b, std::move(args));
  CHECK(outputs.ok(), "logits");
  return doubles(outputs.value()[0]);
}

class RankRun {
 public:
  RankRun(const Plan& plan, const Program& program, std::int32_t rank, Collector& collector)
      : plan_(plan), program_(program), rank_(rank), collector_(collector) {}

  void observe(const Op& op, BufferId b, const at::Tensor& t) {
    const Role& role = program_.roles[0];
    if (op.kind == OpKind::kGradNorm) {
      for (std::size_t u = 0; u < role.units.size(); ++u) {
        if (op.in[u] != b) continue;
        auto values = doubles(t);
        const std::lock_guard lock(collector_.mutex);
        collector_.gradients[{static_cast<std::int32_t>(u), rank_}] = std::move(values);
      }
      return;
    }
    if (op.block < 0 || op.phase != Phase::kForward) return;
    const std::string last = "layer." + std::to_string(plan_.model.layers - 1) + "/";
    const StepConstants& step = program_.step;
    // This rank's part of each sequence, without the padding.
    const std::int64_t part = step.sequence_tokens / step.sp, first = rank_ % step.sp * part;
    const std::int64_t tokens = std::clamp<std::int64_t>(step.valid_tokens - first, 0, part);
    const auto place = [&](std::int64_t j) {
      return Collector::Place{engine::global_row(program_.world / step.sp, step.sequences,
                                                 rank_ / step.sp, op.micro_batch, j),
                              first};
    };
    if ((op.path == last + "mlp" || op.path == last + "moe/merge") && b == op.out[0]) {
      // Before the lock: a device may have to wait for other ranks to have it.
      const at::Tensor rows = t.cpu();
      const std::lock_guard lock(collector_.mutex);
      for (std::int64_t j = 0; j < step.sequences; ++j) {
        collector_.hidden[place(j)] = rows.narrow(0, j * part, tokens).clone();
      }
    }
    const Block& block = role.blocks[static_cast<std::size_t>(op.block)];
    const std::int32_t choice = block.name == "router" ? output_named(block, "ids") : -1;
    if (choice >= 0 && b == op.out[static_cast<std::size_t>(choice)]) {
      const std::int64_t k = plan_.model.top_k;
      const at::Tensor chosen = t.cpu();
      const std::lock_guard lock(collector_.mutex);
      for (std::int64_t j = 0; j < step.sequences; ++j) {
        const auto* ids = chosen.data_ptr<std::int64_t>() + j * part * k;
        collector_.ids[layer_of(op.path)][place(j)] = {ids, ids + tokens * k};
      }
    }
  }

 private:
  const Plan& plan_;
  const Program& program_;
  std::int32_t rank_;
  Collector& collector_;
};

}  // namespace

std::vector<engine::MicroBatch> rank_batch(const Plan& plan, const reference::Batch& batch,
                                           std::int32_t rank) {
  std::vector<engine::MicroBatch> out;
  const std::int64_t tokens = batch.tokens;
  const Layout& layout = plan.layout;
  for (std::int64_t m = 0; m < layout.accumulation * plan.chunks.domino; ++m) {
    engine::MicroBatch micro;
    for (std::int64_t j = 0; j < layout.micro_batch; ++j) {
      const std::int64_t row = engine::global_row(layout.world() / layout.sp, layout.micro_batch,
                                                  rank / layout.sp, m, j);
      micro.ids.insert(micro.ids.end(), batch.ids.begin() + row * tokens,
                       batch.ids.begin() + (row + 1) * tokens);
      micro.labels.insert(micro.labels.end(), batch.labels.begin() + row * tokens,
                          batch.labels.begin() + (row + 1) * tokens);
      micro.documents.push_back(batch.documents[static_cast<std::size_t>(row)]);
    }
    out.push_back(std::move(micro));
  }
  return out;
}

namespace {

// What the threads of all ranks share.
struct World {
  const Plan& plan;
  const Program& program;
  const reference::Batch& batch;
  const RunOptions& options;
  std::vector<std::unique_ptr<engine::Communicator>> communicators;
  std::vector<engine::MemoryTrace> traces;
  std::vector<std::optional<Error>> errors;
  Collector collector;
  std::mutex mutex;
  Shards initial, updated;
  Run run;
};

void snapshot(World& world, const engine::Executor& executor, std::int32_t rank, Shards& shards) {
  const std::lock_guard lock(world.mutex);
  for (std::size_t u = 0; u < world.program.roles[0].units.size(); ++u) {
    const auto unit = static_cast<std::int32_t>(u);
    shards[{unit, rank}] = doubles(executor.shard(unit));
  }
}

at::Tensor tensor_of(const double* values, std::int64_t numel) {
  at::Tensor t = at::empty({numel}, at::kDouble);
  std::copy_n(values, numel, t.data_ptr<double>());
  return t;
}

// This rank's shards of whole parameters; the padding of a unit stays as it is.
void load_parameters(const World& world, const engine::Executor& executor, std::int32_t rank) {
  const Role& role = world.program.roles[0];
  for (std::size_t u = 0; u < role.units.size(); ++u) {
    const Unit& unit = role.units[u];
    const at::Tensor shard = executor.shard(static_cast<std::int32_t>(u)).view(-1);
    const std::int32_t index =
        world.program.groups[static_cast<std::size_t>(unit.shard_group)].index_of(rank);
    const std::int64_t part = unit.is_expert ? world.program.ep_group().index_of(rank) : 0;
    const std::int64_t begin = index * unit.shard_numel, end = begin + unit.shard_numel;
    std::int64_t first = 0;  // of the parameter in the unit
    for (const Param& p : unit.params) {
      const std::vector<double>& whole = world.options.parameters.at(p.name);
      const std::int64_t from = std::max(begin, first), to = std::min(end, first + p.numel());
      if (from < to) {
        const double* values = whole.data() + part * p.numel() + from - first;
        shard.narrow(0, from - begin, to - from).copy_(tensor_of(values, to - from));
      }
      first += p.numel();
    }
  }
}

void load_biases(const World& world, const engine::Executor& executor) {
  const std::vector<at::Tensor> tensors = executor.router_biases();
  CHECK(tensors.size() == world.options.biases.size(), "one bias a MoE layer of the program");
  std::size_t next = 0;
  for (std::int64_t layer = 0; layer < world.plan.model.layers; ++layer) {
    const std::string name = "layers." + std::to_string(layer) + ".router_bias";
    const auto found = world.options.biases.find(name);
    if (found == world.options.biases.end()) continue;
    const at::Tensor& t = tensors[next++];
    CHECK(t.numel() == static_cast<std::int64_t>(found->second.size()), "one value an expert");
    t.copy_(tensor_of(found->second.data(), t.numel()).view(t.sizes()));
  }
}

void run_rank(World& world, std::int32_t rank) {
  const auto r = static_cast<std::size_t>(rank);
  RankRun watcher(world.plan, world.program, rank, world.collector);
  engine::ExecutorOptions options;
  options.optimizer = world.options.optimizer;
  options.seed = world.options.seed;
  options.init_std = world.options.init_std;
  options.skip_op = world.options.skip_op;
  options.observe = [&](const Op& op, BufferId b, const at::Tensor& t) {
    watcher.observe(op, b, t);
  };
  const auto wrapped = world.options.wrap ? world.options.wrap(*world.communicators[r]) : nullptr;
  engine::Communicator& communicator = wrapped ? *wrapped : *world.communicators[r];
  std::shared_ptr<void> placed;
  if (world.options.place) placed = world.options.place(rank, communicator, options);
  auto made = engine::Executor::create(world.program, rank, communicator, world.traces[r], options);
  if (!made.ok()) {
    world.errors[r] = made.error();
    world.communicators[r]->abort(made.error());
    return;
  }
  engine::Executor& executor = *made.value();
  if (!world.options.parameters.empty()) load_parameters(world, executor, rank);
  if (!world.options.biases.empty()) load_biases(world, executor);
  snapshot(world, executor, rank, world.initial);
  const auto micro_batches = rank_batch(world.plan, world.batch, rank);
  for (std::int32_t step = 0; step < world.options.steps; ++step) {
    const auto result = executor.run_step(step, micro_batches);
    if (!result.ok()) {
      world.errors[r] = result.error();
      return;
    }
    if (rank == 0) world.run.steps.push_back(result.value());
  }
  snapshot(world, executor, rank, world.updated);
  if (rank == 0) {
    for (const at::Tensor& bias : executor.router_biases()) {
      world.run.biases.push_back(doubles(bias));
    }
  }
  world.run.live_after[r] = executor.live_bytes();
}

}  // namespace

Result<Run> run_in_process(const Plan& plan, const Program& program, const reference::Batch& batch,
                           const RunOptions& options) {
  const auto ranks = static_cast<std::size_t>(program.world);
  World world{plan,
              program,
              batch,
              options,
              engine::make_in_process(program.groups, program.world),
              std::vector<engine::MemoryTrace>(ranks),
              {},
              {},
              {},
              {},
              {},
              {}};
  world.errors.resize(ranks);
  world.run.live_after.resize(ranks);
  std::vector<std::thread> threads;
  for (std::int32_t rank = 0; rank < program.world; ++rank) {
    threads.emplace_back([&world, rank] { run_rank(world, rank); });
  }
  for (std::thread& t : threads) t.join();
  for (const auto& error : world.errors) {
    if (error.has_value()) return *error;
  }
  Run run = std::move(world.run);
  run.initial = assemble(program, world.initial);
  run.updated = assemble(program, world.updated);
  run.gradients = assemble(program, world.collector.gradients);
  for (const auto& [layer, by_place] : world.collector.ids) {
    auto& all = run.routing.emplace_back();
    for (const auto& [place, ids] : by_place) all.insert(all.end(), ids.begin(), ids.end());
  }
  for (const auto& [place, hidden] : world.collector.hidden) {
    if (options.steps != 1) break;  // the parameters behind the last forward are not kept
    const std::vector<double> logits = logits_of(plan, run.initial, hidden);
    run.logits.insert(run.logits.end(), logits.begin(), logits.end());
  }
  for (auto& trace : world.traces) run.events.push_back(std::move(trace.events));
  return run;
}

Layout layout_of(std::int64_t replicate_d, std::int64_t fsdp_d, std::int64_t ep,
                 std::int64_t fsdp_e, std::int64_t micro_batch, const std::string& inner) {
  Layout l;
  l.replicate_d = replicate_d;
  l.fsdp_d = fsdp_d;
  l.ep = ep;
  l.fsdp_e = fsdp_e;
  l.replicate_e = replicate_d * fsdp_d / (ep * fsdp_e);
  l.micro_batch = micro_batch;
  l.dense_inner = inner;
  return l;
}

Plan make_plan(const Model& model, const Layout& layout, const Chunks& chunks,
               const MemoryPolicy& policy, DType dtype, std::int64_t sequence_tokens,
               std::int64_t global_sequences, BalanceScope scope) {
  Plan plan;
  plan.model = model;
  plan.layout = layout;
  plan.layout.dp = layout.replicate_d * layout.fsdp_d / layout.sp;
  plan.layout.accumulation =
      global_sequences / (plan.layout.dp * layout.micro_batch * chunks.domino);
  plan.chunks = chunks;
  plan.policy = policy;
  plan.cluster = small_cluster(plan.layout.world());
  plan.workload = small_workload(global_sequences, dtype);
  plan.workload.master = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  plan.workload.sequence_tokens = sequence_tokens;
  plan.workload.document_tokens = {sequence_tokens};
  plan.workload.balance_scope = scope;
  seal(plan);
  return plan;
}

namespace {

reference::Parameters update_of(const Run& run) {
  reference::Parameters update = run.updated;
  for (auto& [name, values] : update) {
    const auto& before = run.initial.at(name);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] -= before[i];
  }
  return update;
}

}  // namespace

void expect_equal_runs(const Run& run, const Run& reference_run, DType dtype) {
  const bool fp64 = dtype == DType::kFloat64;
  const double tolerance = fp64 ? 1e-9 : 1e-5;
  ASSERT_EQ(run.steps.size(), reference_run.steps.size());
  EXPECT_EQ(run.initial, reference_run.initial);
  for (std::size_t s = 0; s < run.steps.size(); ++s) {
    const auto& a = run.steps[s];
    const auto& b = reference_run.steps[s];
    EXPECT_NEAR(a.loss, b.loss, tolerance * std::abs(b.loss)) << "step " << s;
    EXPECT_NEAR(a.balance_loss, b.balance_loss, tolerance * std::abs(b.balance_loss));
    EXPECT_NEAR(a.z_loss, b.z_loss, tolerance * std::abs(b.z_loss));
    EXPECT_NEAR(a.grad_norm, b.grad_norm, (fp64 ? 1e-9 : 1e-4) * b.grad_norm) << "step " << s;
    EXPECT_EQ(a.tokens, b.tokens);
  }
  if (fp64) {
    EXPECT_EQ(run.routing, reference_run.routing);
    EXPECT_EQ(run.biases, reference_run.biases);
    EXPECT_LE(worst_difference(run.updated, reference_run.updated), 1e-9);
  } else {
    EXPECT_LE(relative_norm(update_of(run), update_of(reference_run)), 1e-3);
  }
}

double worst_difference(const reference::Parameters& a, const reference::Parameters& b) {
  double worst = 0;
  CHECK(a.size() == b.size(), "different parameters");
  for (const auto& [name, values] : b) {
    const auto& other = a.at(name);
    CHECK(other.size() == values.size(), "sizes of " + name);
    double scale = 0, difference = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      scale = std::max(scale, std::abs(values[i]));
      difference = std::max(difference, std::abs(values[i] - other[i]));
    }
    CHECK(std::isfinite(difference), "a difference that is no number in " + name);
    worst = std::max(worst, difference / std::max(scale, 1e-30));
  }
  return worst;
}

double relative_norm(const reference::Parameters& a, const reference::Parameters& b) {
  double difference = 0, norm = 0;
  for (const auto& [name, values] : b) {
    const auto& other = a.at(name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      difference += (values[i] - other[i]) * (values[i] - other[i]);
      norm += values[i] * values[i];
    }
  }
  return std::sqrt(difference / norm);
}

}  // namespace orrery::parity
