// The simulation as a whole: it repeats, folds, binds, and its figures agree with each other.
#include "simulator/simulator.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>

#include "core/clock/clock.h"
#include "core/program/lower.h"
#include "simulator/op_cost.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

Plan drawn_plan(std::uint64_t seed, double cv) {
  Plan plan = random_plan(seed);
  plan.workload.expert_load_cv = cv;
  seal(plan);
  return plan;
}

// Every field of every event, a line each.
std::string dump(const TraceEvents& events) {
  std::string out;
  for (const StepEvent& e : events.steps) {
    out += fmt::format("step {} {} {} {} {} {} {} {} {} {}\n", e.rank, e.step, e.start_ns, e.end_ns,
                       e.loss, e.balance_loss, e.z_loss, e.grad_norm, e.lr, e.tokens);
  }
  for (const SpanEvent& e : events.spans) {
    out += fmt::format("span {} {} {} {} {} {}\n", e.rank, e.step, e.op, e.enqueue_ns, e.start_ns,
                       e.end_ns);
  }
  for (const CollectiveEvent& e : events.collectives) {
    out +=
        fmt::format("collective {} {} {} {} {} {} {} {} {} {}\n", e.rank, e.step, e.op, e.group,
                    e.sequence, e.posted_ns, e.ready_ns, e.end_ns, e.bytes_sent, e.bytes_received);
  }
  for (const AllocEvent& e : events.allocs) {
    out +=
        fmt::format("alloc {} {} {} {} {} {}\n", e.rank, e.step, e.op, e.cls, e.time_ns, e.delta);
  }
  for (const PeakEvent& e : events.peaks) {
    out += fmt::format("peak {} {} {} {}\n", e.rank, e.step, e.cls, e.bytes);
  }
  for (const Binding& b : events.bindings) {
    out += fmt::format("binding {} {}", b.rank, b.step);
    for (const std::int64_t v : b.values) out += fmt::format(" {}", v);
    out += '\n';
  }
  return out;
}

std::string dump(const std::vector<MemoryRow>& rows) {
  std::string out;
  for (const MemoryRow& r : rows) out += fmt::format("{} {}\n", r.cls, r.bytes.value());
  return out;
}

std::string dump(const Simulation& s) {
  const Prediction& p = s.prediction;
  std::string out = fmt::format("{} {} {}\n", s.step.value(), s.peak.value(), s.peak_rank);
  for (const Breakdown& b : s.ranks) {
    out += fmt::format("rank {} {} {} {} {} {}\n", b.rank, b.step.value(), b.compute.value(),
                       b.exposed.value(), b.idle.value(), b.hidden.value());
  }
  out += dump(s.at_peak) + dump(s.class_peaks) + dump(p.memory);
  return out + fmt::format("{} {} {} {} {} {}\n", p.step.value(), p.p10.value(), p.p90.value(),
                           p.peak.value(), p.tokens_per_s, p.mfu);
}

TEST(Simulate, SameInputSameRows) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = drawn_plan(seed, 0.5);
    const Program program = lower(plan);
    const Simulation a = simulate(plan, program, {{}, seed, true}).value();
    const Plan again = drawn_plan(seed, 0.5);
    const Simulation b = simulate(again, lower(again), {{}, seed, true}).value();
    EXPECT_EQ(dump(a), dump(b)) << seed;
    EXPECT_EQ(dump(a.events), dump(b.events)) << seed;
    const Simulation silent = simulate(plan, program, {{}, seed, false}).value();
    EXPECT_EQ(dump(a), dump(silent)) << seed << ": events change nothing";
    EXPECT_EQ(dump(silent.events), "");
  }
}

TEST(Simulate, EventsAreThoseOfTheProgram) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = drawn_plan(seed, 0.5);
    const Program program = lower(plan);
    const Role& role = program.roles[0];
    const Simulation s = simulate(plan, program, {}).value();
    const auto world = static_cast<std::size_t>(program.world);
    ASSERT_EQ(s.events.spans.size(), world * role.ops.size());
    ASSERT_EQ(s.events.steps.size(), world);
    ASSERT_EQ(s.events.bindings.size(), world);
    for (const StepEvent& e : s.events.steps) {
      EXPECT_EQ(e.start_ns, 0);
      EXPECT_EQ(e.end_ns, s.step.value());
      EXPECT_EQ(e.tokens, plan.workload.global_tokens());
      for (const double measured : {e.loss, e.balance_loss, e.z_loss, e.grad_norm, e.lr}) {
        EXPECT_TRUE(std::isnan(measured)) << "a simulation measures no values";
      }
    }
    std::int64_t last = 0, collectives = 0;
    for (const SpanEvent& e : s.events.spans) {
      EXPECT_LE(0, e.enqueue_ns);
      EXPECT_LE(e.enqueue_ns, e.start_ns);
      EXPECT_LE(e.start_ns, e.end_ns);
      last = std::max(last, e.end_ns);
      const Op& op = role.ops[static_cast<std::size_t>(e.op)];
      collectives += is_collective(op.kind) && op.lane != Lane::kCompute ? 1 : 0;
    }
    EXPECT_EQ(last, s.step.value());
    EXPECT_EQ(static_cast<std::int64_t>(s.events.collectives.size()), collectives);
  }
}

// Members of a group see the n-th collective on it at one time, and what one sends others receive.
TEST(Simulate, CollectivesMeetAndConserveBytes) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = drawn_plan(seed, 0.5);
    const Program program = lower(plan);
    const Simulation s = simulate(plan, program, {}).value();
    struct Meeting {
      std::int64_t ready = -1, end = -1, sent = 0, received = 0, posted = 0, members = 0;
    };
    std::map<std::array<std::int64_t, 4>, Meeting> meetings;
    for (const CollectiveEvent& e : s.events.collectives) {
      const Op& op = program.roles[0].ops[static_cast<std::size_t>(e.op)];
      const Group& g = program.groups[static_cast<std::size_t>(e.group)];
      Meeting& m =
          meetings[{static_cast<std::int64_t>(op.lane), e.group, g.first_of(e.rank), e.sequence}];
      if (m.members++ > 0) {
        EXPECT_EQ(m.ready, e.ready_ns) << seed << " " << op.path;
        EXPECT_EQ(m.end, e.end_ns) << seed << " " << op.path;
      }
      m.ready = e.ready_ns;
      m.end = e.end_ns;
      m.posted = std::max(m.posted, e.posted_ns);
      m.sent += e.bytes_sent;
      m.received += e.bytes_received;
    }
    for (const auto& [key, m] : meetings) {
      EXPECT_EQ(m.members, program.groups[static_cast<std::size_t>(key[1])].size) << seed;
      EXPECT_EQ(m.posted, m.ready) << seed << ": starts when the last member has come";
      EXPECT_EQ(m.sent, m.received) << seed;
    }
  }
}

// --- folding -------------------------------------------------------------------------------------

// Every rank of the world, through the clock itself.
Replay unfolded(const Plan& plan, const Program& program, std::uint64_t seed) {
  std::vector<RankDurations> ranks;
  for (std::int32_t r = 0; r < program.world; ++r) {
    const Binding binding = draw_binding(plan, program, r, seed);
    ranks.push_back(
        {r, op_durations(plan.cluster, program, program.role_of(r), r, binding.values)});
  }
  return replay(program, ranks, {plan.cluster.compute_slowdown, plan.cluster.link_slowdown});
}

// A random legal MoE plan of more ranks than are replayed one by one. Rows are a multiple of what
// spreads evenly over the experts.
Plan large_plan(std::uint64_t seed, double cv) {
  Draw draw(seed);
  Plan plan = small_moe_plan(2, 2, 1);
  const std::int64_t world = std::array<std::int64_t, 4>{24, 32, 48, 64}[seed % 4];
  Layout& l = plan.layout;
  l.dp = world;
  l.fsdp_d = draw.divisor_of(world);
  l.replicate_d = world / l.fsdp_d;
  l.ep = std::int64_t{1} << draw.between(0, 3);
  l.fsdp_e = draw.divisor_of(world / l.ep);
  l.replicate_e = world / l.ep / l.fsdp_e;
  l.dense_inner = draw.coin() ? "fsdp" : "replicate";
  l.expert_inner = draw.coin() ? "ep" : "fsdp";
  l.accumulation = draw.between(1, 2);
  plan.model = small_moe_model(2, 8);
  plan.cluster = small_cluster(world);
  plan.cluster.compute_slowdown = draw.coin() ? 1 : 1.15;
  plan.cluster.link_slowdown = draw.coin() ? 1 : 1.3;
  plan.workload = small_workload(world * l.accumulation);
  plan.workload.sequence_tokens = 4 * draw.between(1, 64);  // x top 2 = a multiple of 8 experts
  plan.workload.document_tokens = {plan.workload.sequence_tokens};
  plan.workload.expert_load_cv = cv;
  plan.chunks.prefetch_depth = draw.between(0, 2);
  plan.policy.recompute_layers = draw.between(0, 2);
  seal(plan);
  return plan;
}

TEST(Fold, EqualLoadsFoldExactly) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = large_plan(seed, 0);
    ASSERT_GT(plan.layout.world(), kMaxUnfolded);
    const Program program = lower(plan);
    const Simulation folded = simulate(plan, program, {}).value();
    ASSERT_EQ(folded.ranks.size(), 1U);
    const Replay all = unfolded(plan, program, 0);
    EXPECT_EQ(folded.step, all.end) << seed;
    for (std::size_t i = 0; i < folded.events.spans.size(); ++i) {
      EXPECT_EQ(folded.events.spans[i].start_ns, all.times[0][i].start_ns) << seed;
      EXPECT_EQ(folded.events.spans[i].end_ns, all.times[0][i].end_ns) << seed;
    }
  }
}

TEST(Fold, DrawnLoadsFoldWithinTwoPercent) {
  int several = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = large_plan(seed, 0.5);
    const Program program = lower(plan);
    const Simulation folded = simulate(plan, program, {{}, seed, false}).value();
    ASSERT_EQ(folded.ranks.size(), static_cast<std::size_t>(plan.layout.ep));
    several += folded.ranks.size() > 1 ? 1 : 0;
    const auto all = static_cast<double>(unfolded(plan, program, seed).end.value());
    EXPECT_NEAR(static_cast<double>(folded.step.value()), all, 0.02 * all) << seed;
    std::int64_t peak = 0;
    for (std::int32_t r = 0; r < program.world; ++r) {
      const Binding binding = draw_binding(plan, program, r, seed);
      peak = std::max(peak, memory_timeline(program.roles[0], binding.values).peak);
    }
    EXPECT_EQ(folded.peak.value(), peak) << seed << ": the fullest rank is among the replayed";
  }
  EXPECT_GT(several, 10);
}

// --- bindings ------------------------------------------------------------------------------------

TEST(Bind, OwnBindingsReproduceTheStep) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = seed % 2 == 0 ? drawn_plan(seed, 0.6) : large_plan(seed, 0.6);
    const Program program = lower(plan);
    const Simulation drawn = simulate(plan, program, {{}, seed, true}).value();
    std::vector<Binding> bindings = drawn.events.bindings;
    std::reverse(bindings.begin(), bindings.end());  // their order is not theirs to choose
    const Result<Simulation> bound = simulate(plan, program, {bindings, seed + 99, true});
    ASSERT_TRUE(bound.ok()) << seed << bound.error().text();
    EXPECT_EQ(dump(drawn), dump(bound.value())) << seed;
    EXPECT_EQ(dump(drawn.events), dump(bound.value().events)) << seed;
  }
}

TEST(Bind, OtherLoadsChangeTheStep) {
  Plan plan = small_moe_plan(2, 2, 1);
  plan.workload.sequence_tokens = 4096;
  plan.workload.document_tokens = {4096};
  plan.workload.expert_load_cv = 1;
  seal(plan);
  const Program program = lower(plan);
  std::vector<Binding> other;
  for (std::int32_t r = 0; r < 2; ++r) other.push_back(draw_binding(plan, program, r, 7));
  EXPECT_NE(simulate(plan, program, {}).value().step,
            simulate(plan, program, {other, 0, false}).value().step);
}

class Misfit : public ::testing::Test {
 protected:
  Misfit() : plan_(small_moe_plan(2, 2, 1)), program_(lower(plan_)) {
    for (std::int32_t r = 0; r < 2; ++r) bindings_.push_back(draw_binding(plan_, program_, r, 0));
    const auto& names = program_.roles[0].var_names;
    while (names[route_].rfind("route/", 0) != 0) ++route_;
    while (names[batch_].rfind("batch/", 0) != 0) ++batch_;
  }
  // Expects kInvalid, a message with `word` and the rank.
  void refuse(const char* word) {
    const Result<Simulation> s = simulate(plan_, program_, {bindings_, 0, false});
    ASSERT_FALSE(s.ok()) << word;
    EXPECT_EQ(s.error().code, ErrorCode::kInvalid);
    EXPECT_NE(s.error().text().find(word), std::string::npos) << s.error().text();
    EXPECT_NE(s.error().text().find("binding of rank"), std::string::npos) << s.error().text();
  }
  std::int64_t& value(std::size_t record, std::int32_t offset) {
    return bindings_[1].values[record + static_cast<std::size_t>(offset)];
  }
  Plan plan_;
  Program program_;
  std::vector<Binding> bindings_;
  std::size_t route_ = 0, batch_ = 0;
};

TEST_F(Misfit, NoneOfTheDrawn) {
  EXPECT_TRUE(simulate(plan_, program_, {bindings_, 0, false}).ok());
}
TEST_F(Misfit, TooFewVariables) {
  bindings_[1].values.pop_back();
  refuse("size variables");
}
TEST_F(Misfit, TooManyVariables) {
  bindings_[1].values.push_back(0);
  refuse("size variables");
}
TEST_F(Misfit, RankOfAnotherWorld) {
  bindings_[1].rank = 2;
  refuse("world of 2");
}
TEST_F(Misfit, NegativeRank) {
  bindings_[1].rank = -1;
  refuse("world of 2");
}
TEST_F(Misfit, RankTwice) {
  bindings_[1].rank = 0;
  refuse("twice");
}
TEST_F(Misfit, NegativeRows) {
  value(route_, RouteVars::rows()) = -1;
  refuse("-1 rows");
}
TEST_F(Misfit, MoreRowsThanAreRouted) {
  value(route_, RouteVars::rows()) = std::int64_t{1} << 60;
  refuse("at most");
}
TEST_F(Misfit, RowsGotLost) {
  --value(route_, program_.roles[0].route.sent(0));
  refuse("rows sent");
}
TEST_F(Misfit, PeersDoNotSumUp) {
  ++value(route_, program_.roles[0].route.received(1));
  refuse("do not sum");
}
TEST_F(Misfit, ExpertsDoNotSumUp) {
  ++value(route_, program_.roles[0].route.expert_rows(1));
  refuse("do not sum");
}
TEST_F(Misfit, PairsOutOfRange) {
  value(batch_, BatchVars::pairs()) = 8 * 9 / 2 + 1;
  refuse("pairs");
}

// --- the figures ---------------------------------------------------------------------------------

TEST(Predict, FiguresAgree) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Plan plan = drawn_plan(seed, 0.4);
    plan.cluster.uncertainty = 0.1 * static_cast<double>(seed % 5);
    seal(plan);
    const Program program = lower(plan);
    const Simulation s = simulate(plan, program, {}).value();
    const Prediction& p = s.prediction;
    EXPECT_GT(s.step.value(), 0);
    EXPECT_EQ(to_nanoseconds(p.step), to_nanoseconds(to_seconds(s.step)));
    const auto tokens = static_cast<double>(plan.workload.global_tokens());
    EXPECT_NEAR(p.tokens_per_s * p.step.value(), tokens, 1e-9 * tokens);
    EXPECT_NEAR(p.p10.value(), p.step.value() * (1 - plan.cluster.uncertainty), 1e-15);
    EXPECT_NEAR(p.p90.value(), p.step.value() * (1 + plan.cluster.uncertainty), 1e-15);
    // FLOPs of a token, from each document's own pairs.
    double pairs = 0;
    for (const std::int64_t n : plan.workload.document_tokens) {
      pairs += static_cast<double>(n) * static_cast<double>(n + 1) / 2;
    }
    const double flops = training_flops_per_token(
        plan.model, pairs / static_cast<double>(plan.workload.sequence_tokens));
    const double available = p.step.value() * static_cast<double>(program.world) *
                             plan.cluster.device.peak(plan.workload.compute).value();
    EXPECT_NEAR(p.mfu, flops * tokens / available, 1e-9 * p.mfu);
    EXPECT_GT(p.mfu, 0);
    EXPECT_LT(p.mfu, 1);
    EXPECT_EQ(p.peak, s.peak);
    EXPECT_EQ(dump(p.memory), dump(s.at_peak));
    std::int64_t sum = 0;
    for (const MemoryRow& r : p.memory) sum += r.bytes.value();
    EXPECT_EQ(sum, s.peak.value());
    for (std::size_t c = 0; c < s.class_peaks.size(); ++c) {
      EXPECT_GE(s.class_peaks[c].bytes, s.at_peak[c].bytes);
    }
  }
}

TEST(Predict, SlowerPartsNeverMakeAFasterStep) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Plan plan = drawn_plan(seed, 0);
    const Program program = lower(plan);
    const auto step = [&](const auto& change) {
      Plan other = plan;
      change(other.cluster);
      return simulate(other, program, {{}, 0, false}).value().step;
    };
    const Nanoseconds base = step([](Cluster&) {});
    EXPECT_GT(step([](Cluster& c) { c.device.launch = c.device.launch * 3; }), base) << seed;
    EXPECT_GE(step([](Cluster& c) {
                for (LinkTier& t : c.tiers) t.bandwidth = BytesPerSecond(t.bandwidth.value() / 4);
              }),
              base)
        << seed;
    EXPECT_GT(step([](Cluster& c) {
                c.device.memory_bandwidth = BytesPerSecond(c.device.memory_bandwidth.value() / 4);
              }),
              base)
        << seed;
  }
}

}  // namespace
}  // namespace orrery::simulator
