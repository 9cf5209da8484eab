// Program parity: what is simulated is what is run. For each plan the engine runs the program and
// the simulator replays it under the binding that the run recorded; then
//   (a) the ops and their issue order are equal, lane by lane;
//   (b) the bytes of ops without size variables are equal;
//   (c) so are the bytes that depend on routing, and the peak of every memory class.
// Batches of one repeated token skew the routing, so that some experts get no row.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/program/lower.h"
#include "core/program/verify.h"
#include "simulator/simulator.h"
#include "tests/parity/cases.h"
#include "tests/parity/harness.h"
#include "tests/support/plans.h"

namespace orrery::parity {
namespace {

struct Case {
  std::string name;
  Plan plan;
};

Model wide_moe() {
  Model model = reference::tiny_moe();
  model.hidden = 64;  // buffers large enough that a wrong class would show
  model.moe_ffn = 48;
  model.vocab = 96;
  model.experts = 8;
  model.layers = 3;
  model.moe_layer.assign(3, true);
  return model;
}

Layout layout_of(std::int64_t replicate_d, std::int64_t fsdp_d, std::int64_t ep,
                 std::int64_t fsdp_e, std::int64_t micro_batch) {
  Layout l;
  l.replicate_d = replicate_d;
  l.fsdp_d = fsdp_d;
  l.ep = ep;
  l.fsdp_e = fsdp_e;
  l.replicate_e = replicate_d * fsdp_d / (ep * fsdp_e);
  l.micro_batch = micro_batch;
  return l;
}

std::vector<Case> cases() {
  const Model moe = wide_moe();
  Model dense = reference::tiny_dense();
  dense.hidden = 64;
  dense.ffn = 80;
  Layout dense4 = layout_of(1, 4, 1, 4, 2), dense2 = layout_of(2, 1, 1, 2, 2);
  dense4.fsdp_e = dense2.fsdp_e = dense4.replicate_e = dense2.replicate_e = 1;
  const auto make = [](const Model& m, const Layout& l, Chunks c, std::int64_t recompute,
                       DType dtype, BalanceScope scope = BalanceScope::kSequence) {
    return make_plan(m, l, c, {recompute}, dtype, 32, 16, scope);
  };
  constexpr DType f32 = DType::kFloat32, f64 = DType::kFloat64, bf16 = DType::kBFloat16;
  constexpr BalanceScope global = BalanceScope::kMicrobatchGlobal;
  return {
      {"one rank", make(moe, layout_of(1, 1, 1, 1, 4), {0, 0, 1}, 0, f32)},
      {"one rank, recompute, chunks", make(moe, layout_of(1, 1, 1, 1, 8), {40, 8, 0}, 2, f32)},
      {"one rank, bf16", make(moe, layout_of(1, 1, 1, 1, 8), {64, 16, 1}, 0, bf16)},
      {"two ranks, fsdp", make(moe, layout_of(1, 2, 1, 2, 4), {0, 0, 1}, 0, f32)},
      {"two ranks, ep", make(moe, layout_of(1, 2, 2, 1, 2), {30, 0, 2}, 1, f32)},
      {"two ranks, ep, replicated", make(moe, layout_of(2, 1, 2, 1, 8), {0, 0, 1}, 0, f64)},
      {"two ranks, dense", make(dense, dense2, {0, 8, 1}, 1, f32)},
      {"four ranks, fsdp", make(moe, layout_of(1, 4, 1, 4, 2), {0, 0, 0}, 0, f32)},
      {"four ranks, fsdp, bf16", make(moe, layout_of(1, 4, 1, 4, 2), {20, 0, 1}, 3, bf16)},
      {"four ranks, ep 2 x fsdp 2", make(moe, layout_of(2, 2, 2, 2, 1), {0, 0, 1}, 1, f32)},
      {"four ranks, ep 4", make(moe, layout_of(1, 4, 4, 1, 4), {0, 0, 2}, 0, f32)},
      {"four ranks, ep 4, bf16", make(moe, layout_of(4, 1, 4, 1, 2), {0, 4, 1}, 2, bf16)},
      {"four ranks, ep 4, global balance",
       make(moe, layout_of(1, 4, 4, 1, 1), {0, 0, 1}, 1, f32, global)},
      {"four ranks, replicate 2, global balance",
       make(moe, layout_of(2, 2, 1, 2, 2), {0, 0, 1}, 0, f32, global)},
      {"four ranks, dense", make(dense, dense4, {0, 0, 2}, 1, f32)},
  };
}

// Rows of one repeated token each: all tokens of a row choose the same experts.
reference::Batch skewed_batch(const Model& model) {
  reference::Batch batch = reference::random_batch(model, 16, 32, 5);
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    batch.ids[i] = static_cast<std::int64_t>(i / 32) % 3;
  }
  return batch;
}

std::vector<std::int32_t> ops_on(const std::vector<SpanEvent>& spans, const Role& role, Lane lane) {
  std::vector<std::pair<std::int64_t, std::int32_t>> ordered;
  for (const SpanEvent& s : spans) {
    if (role.ops[static_cast<std::size_t>(s.op)].lane == lane) {
      ordered.emplace_back(s.start_ns, s.op);
    }
  }
  // The clock ends an op and starts the next at one moment; the trace keeps the issue order then.
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::int32_t> ops;
  for (const auto& [at, op] : ordered) ops.push_back(op);
  return ops;
}

void expect_same_structure(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank,
                           const Role& role) {
  std::vector<SpanEvent> mine;
  for (const SpanEvent& s : sim.spans) {
    if (s.rank == rank) mine.push_back(s);
  }
  EXPECT_EQ(run.spans.size(), role.ops.size());
  for (const Lane lane : {Lane::kCompute, Lane::kFsdp, Lane::kEp}) {
    EXPECT_EQ(ops_on(run.spans, role, lane), ops_on(mine, role, lane)) << name_of(lane);
  }
}

// Returns how many collectives had bytes that depend on routing.
int expect_same_bytes(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank,
                      const Role& role) {
  std::map<std::int32_t, CollectiveEvent> simulated;
  for (const CollectiveEvent& c : sim.collectives) {
    if (c.rank == rank) simulated[c.op] = c;
  }
  EXPECT_EQ(run.collectives.size(), simulated.size());
  int routed = 0;
  for (const CollectiveEvent& c : run.collectives) {
    const Op& op = role.ops[static_cast<std::size_t>(c.op)];
    EXPECT_EQ(c.bytes_sent, simulated[c.op].bytes_sent) << op.path;
    EXPECT_EQ(c.bytes_received, simulated[c.op].bytes_received) << op.path;
    EXPECT_EQ(c.sequence, simulated[c.op].sequence) << op.path;
    if (op.kind == OpKind::kAllToAllV) ++routed;
  }
  return routed;
}

void expect_same_peaks(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank) {
  std::map<std::int32_t, std::int64_t> simulated;
  for (const PeakEvent& p : sim.peaks) {
    if (p.rank == rank) simulated[p.cls] = p.bytes;
  }
  ASSERT_EQ(run.peaks.size(), simulated.size());
  for (const PeakEvent& p : run.peaks) {
    const std::string name = p.cls < 0 ? "all" : name_of(static_cast<BufferClass>(p.cls));
    const auto expected = static_cast<double>(simulated[p.cls]);
    // The declared workspace of a block holds within 64 KiB; everything else is exact.
    const bool has_workspace =
        p.cls < 0 || p.cls == static_cast<std::int32_t>(BufferClass::kWorkspace);
    const double slack = has_workspace ? std::max(0.01 * expected, 64.0 * 1024) : 0;
    EXPECT_NEAR(static_cast<double>(p.bytes), expected, slack) << name;
  }
}

int empty_experts(const Binding& binding, const Role& role) {
  int empty = 0;
  for (std::int32_t v = 0; v < role.num_vars; ++v) {
    if (role.var_names[static_cast<std::size_t>(v)].rfind("route/", 0) != 0) continue;
    for (std::int32_t e = 0; e < role.route.local_experts; ++e) {
      if (binding.values[static_cast<std::size_t>(v + role.route.expert_rows(e))] == 0) ++empty;
    }
  }
  return empty;
}

class ProgramParity : public testing::TestWithParam<Case> {};

TEST_P(ProgramParity, SimulatedIsRun) {
  const Plan& plan = GetParam().plan;
  const Program program = lower(plan);
  ASSERT_TRUE(verify(program).empty()) << verify(program)[0].message;
  RunOptions options;
  options.steps = 2;
  auto result = run_in_process(plan, program, skewed_batch(plan.model), options);
  ASSERT_TRUE(result.ok()) << result.error().text();
  const parity::Run run = std::move(result).value();

  simulator::Options bound;
  for (const TraceEvents& events : run.events) bound.bindings.push_back(events.bindings.at(1));
  const auto simulated = simulator::simulate(plan, program, bound);
  ASSERT_TRUE(simulated.ok()) << simulated.error().text();
  const TraceEvents& sim = simulated.value().events;

  const Role& role = program.roles[0];
  int empty = 0, routed = 0;
  for (std::int32_t rank = 0; rank < program.world; ++rank) {
    SCOPED_TRACE("rank " + std::to_string(rank));
    // The second step: everything that lives across steps is there by then.
    TraceEvents second;
    for (const auto& s : run.events[static_cast<std::size_t>(rank)].spans) {
      if (s.step == 1) second.spans.push_back(s);
    }
    for (const auto& c : run.events[static_cast<std::size_t>(rank)].collectives) {
      if (c.step == 1) second.collectives.push_back(c);
    }
    for (auto& c : second.collectives) {
      for (const auto& first : run.events[static_cast<std::size_t>(rank)].collectives) {
        if (first.step == 0 && first.group == c.group &&
            role.ops[static_cast<std::size_t>(first.op)].lane ==
                role.ops[static_cast<std::size_t>(c.op)].lane) {
          --c.sequence;  // numbers run on over steps
        }
      }
    }
    for (const auto& p : run.events[static_cast<std::size_t>(rank)].peaks) {
      if (p.step == 1) second.peaks.push_back(p);
    }
    expect_same_structure(second, sim, rank, role);
    routed += expect_same_bytes(second, sim, rank, role);
    expect_same_peaks(second, sim, rank);
    empty += empty_experts(bound.bindings[static_cast<std::size_t>(rank)], role);
    // Nothing leaks: after a step the persistent state is all that lives.
    std::int64_t state = 0;
    for (const Buffer& b : role.buffers) state += b.taken_by < 0 ? b.bytes.c0 : 0;
    EXPECT_EQ(run.live_after[static_cast<std::size_t>(rank)], state);
  }
  if (plan.model.is_moe()) {
    EXPECT_GT(empty, 0) << "routing was meant to be skewed";
  }
  if (plan.layout.ep > 1) {
    EXPECT_GT(routed, 0);
  }
}

std::string name_of_case(const testing::TestParamInfo<Case>& test) {
  std::string name = test.param.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Plans, ProgramParity, testing::ValuesIn(cases()), name_of_case);

// Every op matters: without it a run fails, or its losses, norms or weights move.
void expect_every_op_matters(const Plan& plan) {
  const Program program = lower(plan);
  const auto batch = reference::random_batch(plan.model, plan.workload.global_sequences, 32, 7);
  RunOptions options;
  options.steps = 2;
  auto whole = run_in_process(plan, program, batch, options);
  ASSERT_TRUE(whole.ok()) << whole.error().text();
  for (std::size_t i = 0; i < program.roles[0].ops.size(); ++i) {
    options.skip_op = static_cast<std::int32_t>(i);
    const auto without = run_in_process(plan, program, batch, options);
    if (!without.ok()) continue;
    const Run &a = without.value(), &b = whole.value();
    const bool moved = a.steps[1].loss != b.steps[1].loss ||
                       a.steps[1].balance_loss != b.steps[1].balance_loss ||
                       a.steps[1].grad_norm != b.steps[1].grad_norm || a.updated != b.updated;
    EXPECT_TRUE(moved) << program.roles[0].ops[i].path << " ("
                       << name_of(program.roles[0].ops[i].phase) << ") does nothing";
  }
}

TEST(EveryOpMatters, ExpertParallel) {
  Model model = reference::tiny_moe();
  Layout layout = layout_of(2, 1, 2, 1, 1);
  expect_every_op_matters(make_plan(model, layout, {16, 8, 1}, {1}, DType::kFloat64, 32, 4));
}

TEST(EveryOpMatters, ShardedGlobalBalance) {
  Model model = reference::tiny_moe();
  expect_every_op_matters(make_plan(model, layout_of(1, 2, 1, 2, 1), {0, 0, 1}, {0},
                                    DType::kFloat64, 32, 2, BalanceScope::kMicrobatchGlobal));
}

TEST(EveryOpMatters, Dense) {
  Model model = reference::tiny_dense();
  Layout layout = layout_of(1, 2, 1, 1, 2);
  layout.replicate_e = 1;
  expect_every_op_matters(make_plan(model, layout, {0, 0, 0}, {1}, DType::kFloat64, 32, 4));
}

}  // namespace
}  // namespace orrery::parity
