// The planner over all axes: the same as trying everything, bounds never above the prediction,
// nothing better among what was pruned.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <string>

#include "core/job_json.h"
#include "planner/jobs/decide.h"
#include "planner/jobs/frontier.h"
#include "planner/jobs/planner.h"
#include "planner/jobs/search.h"
#include "simulator/stages/memory.h"
#include "simulator/stages/units.h"
#include "tests/planner/jobs_instances.h"

namespace orrery::planner::jobs {
namespace {

// Sanitizers see the same code in fewer of them.
#ifdef __SANITIZE_ADDRESS__
constexpr int kInstances = 24, kDrawn = 4000, kFitting = 40;
#else
constexpr int kInstances = 320, kDrawn = 100000, kFitting = 1000;
#endif
constexpr int kDecisions = 40;  // small ones: enough that some differ

const std::vector<Model>& models() {
  static const std::vector<Model> kModels = published_models();
  return kModels;
}

const std::vector<Stack>& stacks() {
  static const std::vector<Stack> kStacks = load_stacks().value();
  return kStacks;
}

std::string text_of(const Job& job) {
  return describe(job) + " x" + std::to_string(job.cluster.devices) + " " + job.stack.name +
         " fsdp " + std::to_string(job.layout.fsdp_d);
}

TEST(Jobs, IsTheBestOfAllJobs) {
  int compared = 0, unfit = 0;
  for (std::uint64_t seed = 1; compared < kInstances; ++seed) {
    const Instance instance = random_instance(models(), stacks(), seed, true);
    const Space space = make_space(instance.base, choices_of(instance.base, instance.pins));
    if (space.legal == 0 || space.legal > 4000) continue;
    double best = HUGE_VAL;
    std::optional<Candidate> simplest;
    std::int64_t legal = 0;
    for_each_job(instance.base, space, [&](const Candidate& c, const Job& job) {
      ++legal;
      const simulator::JobPrediction p = simulator::predict(job);
      if (p.probability_fits < instance.probability_fits) return;
      const double step = p.step.value();
      const bool simpler =
          simplest && step == best &&
          simplicity(c.block, c.member) < simplicity(simplest->block, simplest->member);
      if (step < best || simpler) {
        best = step;
        simplest = c;
      }
    });
    EXPECT_EQ(legal, space.legal) << "seed " << seed;
    Search search(instance.base, space, {instance.probability_fits, 2, {}, nullptr});
    const Outcome found = search.best_of({});
    ASSERT_EQ(found.best.has_value(), simplest.has_value())
        << "seed " << seed << ": " << (simplest ? text_of(search.job_of(*simplest)) : "");
    ++compared;
    if (!found.best) {
      ++unfit;
      continue;
    }
    EXPECT_EQ(found.best_s, best) << "seed " << seed;
    EXPECT_GE(found.bound_remaining_s, found.best_s);
    EXPECT_EQ(simplicity(found.best->block, found.best->member),
              simplicity(simplest->block, simplest->member))
        << "seed " << seed;
  }
  EXPECT_GT(unfit, 5);
  EXPECT_LT(unfit, compared / 2);
}

// Every job of an instance that fits, with its prediction.
struct Tried {
  Simplicity key;
  Job job;
  simulator::JobPrediction predicted;
};
std::vector<Tried> try_all(const Instance& instance, const Space& space) {
  std::vector<Tried> all;
  std::set<std::string> seen;  // balanced layers may be those of another deal
  for_each_job(instance.base, space, [&](const Candidate& c, const Job& job) {
    const simulator::JobPrediction p = simulator::predict(job);
    if (p.probability_fits < instance.probability_fits) return;
    Job plain = job;
    if (plain.stage_layers == simulator::even_layers(job.model.layers, job.stages())) {
      plain.stage_layers.clear();
    }
    if (!seen.insert(axes_json(plain).dump()).second) return;
    all.push_back({simplicity(c.block, c.member), job, p});
  });
  return all;
}

// The simplest of all that are not told apart from the fastest, and how many they are.
TEST(Jobs, TiesAreAllFound) {
  int several = 0, others = 0;
  for (std::uint64_t seed = 1; several < kDecisions; ++seed) {
    const Instance instance = random_instance(models(), stacks(), seed, true);
    const Space space = make_space(instance.base, choices_of(instance.base, instance.pins));
    if (space.legal == 0 || space.legal > 4000) continue;
    Search search(instance.base, space, {instance.probability_fits, 2, {}, nullptr});
    const Outcome found = search.best_of({});
    if (!found.best) continue;
    simulator::JobPrediction best = search.predict(*found.best);
    best.p90 = Seconds(best.step.value() * (1 + 0.1 * static_cast<double>(seed % 4)));
    const Fastest fastest = fastest_of(best, Risk::kExpected);
    std::int64_t count = 0;
    Simplicity simplest = simplicity(found.best->block, found.best->member);
    for (const Tried& t : try_all(instance, space)) {
      const double slower = t.predicted.step.value() - found.best_s;
      const double noise = noise_s(t.predicted.parts, best.parts, fastest.relative);
      if (slower > noise || slower > 0.05 * found.best_s) continue;
      ++count;
      simplest = std::min(simplest, t.key);
    }
    const Tied tied = find_ties(search, *found.best, fastest, Risk::kExpected);
    EXPECT_EQ(tied.count, count - 1) << "seed " << seed;
    EXPECT_TRUE(tied.complete);
    const Candidate& taken = tied.simplest ? *tied.simplest : *found.best;
    EXPECT_EQ(simplicity(taken.block, taken.member), simplest) << "seed " << seed;
    several += count > 1 ? 1 : 0;
    others += tied.simplest ? 1 : 0;
  }
  EXPECT_GT(others, 5);
}

TEST(Jobs, RiskRanksByThe90thPercentile) {
  const simulator::ParameterSet set = simulator::load_parameters("published").value();
  const Score p90(set, Risk::kP90);
  int other = 0;
  for (std::uint64_t seed = 1, compared = 0; compared < kDecisions; ++seed) {
    Instance instance = random_instance(models(), stacks(), seed, true);
    instance.base.stack = load_stack("megatron-core-2025").value();
    simulator::apply(set.values, instance.base);
    const Space space = make_space(instance.base, choices_of(instance.base, instance.pins));
    if (space.legal == 0 || space.legal > 400) continue;
    double least = HUGE_VAL, of_fastest = HUGE_VAL, fastest = HUGE_VAL;
    for (const Tried& t : try_all(instance, space)) {
      const double own = simulator::predict_with(set, t.job).p90.value();
      least = std::min(least, own);
      if (t.predicted.step.value() < fastest) of_fastest = own;
      fastest = std::min(fastest, t.predicted.step.value());
    }
    if (least == HUGE_VAL) continue;
    ++compared;
    Search search(instance.base, space, {instance.probability_fits, 2, {}, &p90});
    const Outcome found = search.best_of({});
    ASSERT_TRUE(found.best);
    EXPECT_NEAR(found.best_s, least, 1e-12 * least) << "seed " << seed;
    EXPECT_GE(found.bound_remaining_s, found.best_s * (1 - 1e-12)) << "seed " << seed;
    other += least < of_fastest ? 1 : 0;
  }
  EXPECT_GT(other, 0);
}

// Told to stop after so many questions, it has something, and says how much better others may be.
TEST(Jobs, StopsWithTheBestSoFar) {
  Request request;
  request.model = load_model("qwen3-30b-a3b").value();
  request.cluster = load_cluster("h100x64").value();
  request.workload = load_workload("pretrain-4k").value();
  request.stack = load_stack("megatron-bridge-2026").value();
  request.simplest = request.explains = false;
  const JobPlan whole = plan(request).value();
  ASSERT_TRUE(whole.best && whole.proof.closed());
  int open = 0;
  for (const int questions : {0, 100, 1000, 10000, 100000}) {
    auto left = std::make_shared<std::atomic<int>>(questions);
    request.stop = [left] { return (*left)-- <= 0; };
    const JobPlan part = plan(request).value();
    ASSERT_TRUE(part.best) << questions;
    EXPECT_GE(part.proof.best_s, whole.proof.best_s);
    if (part.proof.closed()) {
      EXPECT_EQ(part.proof.best_s, whole.proof.best_s) << questions;
    } else {
      EXPECT_LE(part.proof.bound_remaining_s, whole.proof.best_s) << questions;
      ++open;
    }
    EXPECT_LT(part.proof.replayed, 20000);
  }
  EXPECT_GE(open, 2);
}

TEST(Jobs, BoundsAreNeverAboveThePrediction) {
  std::int64_t drawn = 0;
  double sum = 0;
  for (std::uint64_t seed = 1; drawn < kDrawn; ++seed) {
    const Instance instance = random_instance(models(), stacks(), seed, seed % 4 == 0);
    const Space space = make_space(instance.base, choices_of(instance.base, instance.pins));
    if (space.legal == 0) continue;
    const UnitNumbers units(instance.base);
    const Shapes shapes(instance.base, space, units);
    Bound bound(instance.base, space, units, shapes);
    Draw draw(seed);
    for (int i = 0; i < 250; ++i, ++drawn) {
      const Candidate c = random_candidate(instance.base, space, draw);
      const Job job = job_of(instance.base, space.choices, bound, c);
      const simulator::JobPrediction p = simulator::predict(job);
      const double seconds = bound.seconds_of(c.block, c.member);
      ASSERT_LE(seconds, p.step.value()) << "seed " << seed << ": " << text_of(job);
      ASSERT_LE(bound.bytes_of(c.block, c.member), p.allocated_bytes + job.stack.reserve_bytes)
          << "seed " << seed << ": " << text_of(job);
      ASSERT_TRUE(violations(job).empty()) << "seed " << seed << ": " << text_of(job);
      sum += seconds / p.step.value();
    }
  }
  // Not by being far below it.
  EXPECT_GT(sum / static_cast<double>(drawn), 0.9);
}

struct Large {
  explicit Large(const std::string& model, const std::string& cluster) {
    Request request;
    request.model = load_model(model).value();
    request.cluster = load_cluster(cluster).value();
    request.workload = load_workload("pretrain-4k").value();
    request.stack = load_stack("megatron-bridge-2026").value();
    base = base_job(request);
    space = make_space(base, choices_of(base, Pins()));
  }
  Job base;
  Space space;
};

TEST(Jobs, NothingPrunedIsBetter) {
  for (const auto& [model, cluster] : {std::pair("qwen3-30b-a3b", "h100x64"),
#ifndef __SANITIZE_ADDRESS__  // searches of thousands of devices
                                       {"deepseek-v3", "h800x2048"},
                                       {"kimi-k2", "h800x16384"}
#endif
       }) {
    const Large large(model, cluster);
    EXPECT_GT(large.space.legal, 5'000'000);
    Search search(large.base, large.space, {0.99, 2, {}, nullptr});
    const Outcome found = search.best_of({});
    ASSERT_TRUE(found.best) << model;
    EXPECT_GE(found.bound_remaining_s, found.best_s) << model;
    Draw draw(7);
    int fitting = 0;
    for (int i = 0; i < 200000 && fitting < kFitting; ++i) {
      const Candidate c = random_candidate(large.base, large.space, draw);
      const simulator::JobPrediction p = search.predict(c);
      if (p.probability_fits < 0.99) continue;
      ++fitting;
      ASSERT_GE(p.step.value(), found.best_s) << text_of(search.job_of(c));
    }
    EXPECT_EQ(fitting, kFitting) << model;
  }
}

TEST(Jobs, ThreadsChangeNothing) {
  const Large large("qwen3-30b-a3b", "h100x64");
  Outcome first;
  for (const int threads : {1, 2, 5}) {
    Search search(large.base, large.space, {0.99, threads, {}, nullptr});
    const Outcome found = search.best_of({});
    ASSERT_TRUE(found.best);
    if (threads == 1) first = found;
    EXPECT_EQ(found.best_s, first.best_s);
    EXPECT_EQ(found.bounded, first.bounded);
    EXPECT_EQ(found.replayed, first.replayed);
    EXPECT_EQ(found.bound_remaining_s, first.bound_remaining_s);
    EXPECT_EQ(simplicity(found.best->block, found.best->member),
              simplicity(first.best->block, first.best->member));
  }
}

Request request_of(const std::string& model, const std::string& cluster) {
  Request request;
  request.model = load_model(model).value();
  request.cluster = load_cluster(cluster).value();
  request.workload = load_workload("pretrain-4k").value();
  request.stack = load_stack("megatron-bridge-2026").value();
  request.explains = false;
  return request;
}

TEST(Jobs, PinsHold) {
  Request request = request_of("qwen3-30b-a3b", "h100x64");
  request.pins = {{"tp", "2"},          {"pp", "4"},           {"sharding", "gradients"},
                  {"fsdp_d", "4"},      {"recompute", "full"}, {"sequence_parallel", "true"},
                  {"full_layers", "2"}, {"schedule", "1f1b"}};
  const JobPlan found = plan(request).value();
  ASSERT_TRUE(found.best);
  const Job& job = found.best->job;
  EXPECT_EQ(job.layout.tp, 2);
  EXPECT_EQ(job.layout.pp, 4);
  EXPECT_EQ(job.layout.fsdp_d, 4);
  EXPECT_EQ(job.sharding, Sharding::kGradients);
  EXPECT_EQ(job.schedule, PipelineSchedule::kOneForwardOneBackward);
  EXPECT_TRUE(job.sequence_parallel);
  EXPECT_TRUE(job.recompute.full);
  EXPECT_EQ(job.recompute.full_layers, 2);
  request.pins = {};
  EXPECT_LE(plan(request).value().proof.best_s, found.proof.best_s);
}

using PinList = std::vector<std::pair<std::string, std::string>>;

double best_s(Request request, const PinList& pins) {
  request.pins = pins;
  request.simplest = false;
  const JobPlan found = plan(request).value();
  EXPECT_TRUE(found.best);
  return found.best ? found.proof.best_s : HUGE_VAL;
}

// Few sequences for many devices: heads are exchanged. Many: each sequence stays on its device.
TEST(Jobs, ExchangedHeadsWinAndLose) {
  Request request = request_of("deepseek-v2-lite", "h100x64");
  request.workload.global_sequences = 16;
  const double alone = best_s(request, {{"cp", "1"}, {"sp", "1"}});
  EXPECT_LT(best_s(request, {{"cp", "1"}, {"sp", "4"}}), 0.95 * alone);
  request.workload.global_sequences = 1024;
  EXPECT_GT(best_s(request, {{"sp", "2"}}), 1.01 * best_s(request, {}));
}

// The head of a large vocabulary is worth some layers; fewer in front of it do not help.
TEST(Jobs, UnevenLayersWinAndLose) {
  const Request request = request_of("qwen3-30b-a3b", "h100x64");
  const double even = best_s(request, {{"pp", "4"}, {"stage_layers", "even"}});
  EXPECT_LT(best_s(request, {{"pp", "4"}, {"stage_layers", "balanced"}}), 0.95 * even);
  EXPECT_LT(best_s(request, {{"pp", "4"}, {"stage_layers", "last"}}), 0.99 * even);
  const PinList two = {{"pp", "2"}, {"virtual_stages", "1"}};
  const auto with = [&](const char* deal) {
    PinList pins = two;
    pins.emplace_back("stage_layers", deal);
    return best_s(request, pins);
  };
  EXPECT_GT(with("first"), 1.01 * with("even")) << "its layer goes to the stage of the head";
}

// Large products gain by 8 bits; casts take more than small ones gain.
TEST(Jobs, EightBitsWinAndLose) {
  const auto both = [](const char* model, std::int64_t hidden) {
    Request request = request_of(model, "h100x8");
    if (hidden > 0) request.model.hidden = hidden;
    const double half = best_s(request, {}), low = best_s(request, {{"precision", "fp8"}});
    EXPECT_EQ(best_s(request, {{"precision", "bf16,fp8"}}), std::min(half, low));
    return low / half;
  };
  EXPECT_LT(both("llama-3-8b", 0), 0.95);
  EXPECT_GT(both("qwen3-0.6b", 256), 1.01);
}

TEST(Jobs, LayersAreDealtOut) {
  Draw draw(11);
  for (int i = 0; i < 2000; ++i) {
    const std::int64_t layers = draw.between(1, 80), ranks = draw.between(1, 16);
    const std::int64_t chunks = ranks > 1 ? draw.between(1, 4) : 1, stages = ranks * chunks;
    const std::vector<Deal> all = {Deal::kEven, Deal::kLast, Deal::kFirst, Deal::kEnds,
                                   Deal::kBalanced};
    const double first = 0.1 * static_cast<double>(draw.between(0, 20));
    const double last = 0.1 * static_cast<double>(draw.between(0, 60));
    const auto slowest = [&](const std::vector<std::int64_t>& counts) {
      std::vector<double> load(static_cast<std::size_t>(ranks));
      load.front() += first;
      load.back() += last;
      for (std::size_t s = 0; s < counts.size(); ++s) {
        load[s % load.size()] += static_cast<double>(counts[s]);
      }
      return *std::max_element(load.begin(), load.end());
    };
    std::vector<std::vector<std::int64_t>> dealings;
    for (const Deal deal : deals_of(all, layers, stages)) {
      dealings.push_back(deal == Deal::kBalanced ? balanced(layers, ranks, chunks, 1, first, last)
                                                 : dealt(deal, layers, stages));
      const std::vector<std::int64_t>& counts = dealings.back();
      ASSERT_EQ(static_cast<std::int64_t>(counts.size()), stages);
      EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}), layers);
      for (std::size_t s = 0; s < counts.size(); ++s) {
        EXPECT_GE(counts[s], s == 0 || s + 1 == counts.size() ? 0 : 1) << name_of(deal);
      }
    }
    for (const auto& counts : dealings) {
      EXPECT_GE(slowest(counts) + 1e-9, slowest(dealings.back())) << layers << " on " << stages;
    }
  }
}

TEST(Jobs, PinsThatCannotHoldAreErrors) {
  Request request = request_of("qwen3-8b", "h100x8");
  request.pins = {{"tpp", "2"}, {"tp", "0"}, {"sharding", "zero3"}};
  const Result<JobPlan> unread = plan(request);
  ASSERT_FALSE(unread.ok());
  EXPECT_EQ(unread.error().code, ErrorCode::kUsage);
  EXPECT_EQ(unread.error().problems.size(), 3U);
  request.pins = {{"tp", "3"}};
  const Result<JobPlan> illegal = plan(request);
  ASSERT_FALSE(illegal.ok());
  EXPECT_EQ(illegal.error().code, ErrorCode::kInfeasible);
  EXPECT_NE(illegal.error().text().find("world"), std::string::npos);
}

TEST(Jobs, SaysWhatFitsWhereNothingDoes) {
  Request request = request_of("llama-3-70b", "h100x4");
  request.explains = true;
  const JobPlan found = plan(request).value();
  EXPECT_FALSE(found.best);
  ASSERT_TRUE(found.nearest);
  EXPECT_LT(found.nearest->predicted.probability_fits, 0.99);
  ASSERT_TRUE(found.changed);
  EXPECT_GE(found.changed->predicted.probability_fits, 0.99);
  EXPECT_TRUE(violations(found.changed->job).empty());
}

// What fits a device of `bytes` by the instance's probability, and is the fastest of all jobs.
double fastest_within(const Instance& instance, const Space& space, double bytes) {
  double best = HUGE_VAL;
  for_each_job(instance.base, space, [&](const Candidate&, const Job& job) {
    const simulator::JobPrediction p = simulator::predict(job);
    const double needed = p.allocated_bytes + job.stack.reserve_bytes;
    if (simulator::probability_fits(needed, bytes) < instance.probability_fits) return;
    best = std::min(best, p.step.value());
  });
  return best;
}

TEST(Jobs, TheFrontierIsTheBestOfEachSizeOfMemory) {
  int compared = 0;
  for (std::uint64_t seed = 1; compared < kDecisions; ++seed) {
    const Instance instance = random_instance(models(), stacks(), seed, true);
    const Space space = make_space(instance.base, choices_of(instance.base, instance.pins));
    if (space.legal == 0 || space.legal > 2000) continue;
    Search search(instance.base, space, {instance.probability_fits, 2, {}, nullptr});
    const Outcome found = search.best_of({});
    if (!found.best) continue;
    const auto device = static_cast<double>(instance.base.cluster.device.memory.value());
    const std::vector<FrontierStep> steps =
        frontier_of(search, *found.best, device, instance.base.stack.reserve_bytes);
    ASSERT_FALSE(steps.empty());
    EXPECT_EQ(steps[0].searched_bytes, device);
    EXPECT_EQ(search.predict(steps[0].candidate).step.value(), found.best_s);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const double step = search.predict(steps[i].candidate).step.value();
      EXPECT_EQ(step, fastest_within(instance, space, steps[i].searched_bytes))
          << "seed " << seed << ", " << steps[i].searched_bytes;
      EXPECT_LE(steps[i].memory_bytes, steps[i].searched_bytes * (1 + 1e-9));
      // It fits no smaller device, as is said.
      const double needed =
          search.predict(steps[i].candidate).allocated_bytes + instance.base.stack.reserve_bytes;
      EXPECT_NEAR(simulator::probability_fits(needed, steps[i].memory_bytes),
                  instance.probability_fits, 1e-6);
      if (i == 0) continue;
      EXPECT_LT(steps[i].memory_bytes, steps[i - 1].memory_bytes);
      const double before = search.predict(steps[i - 1].candidate).step.value();
      EXPECT_TRUE(step > before || (i == 1 && step == before)) << "seed " << seed;
    }
    compared += steps.size() > 1 ? 1 : 0;
  }
}

// A rival is of its family and loses; the winner is not of it.
TEST(Jobs, RivalsLose) {
  Request request = request_of("qwen3-30b-a3b", "h100x64");
  request.explains = true;
  request.simplest = false;
  const JobPlan found = plan(request).value();
  ASSERT_TRUE(found.best);
  EXPECT_GE(found.rivals.size(), 5U);
  for (const Rival& rival : found.rivals) {
    if (!rival.best) continue;
    EXPECT_GE(rival.best->predicted.step, found.best->predicted.step) << rival.family;
    EXPECT_FALSE(rival.lost_by.empty());
    if (rival.family == "FSDP (parameters sharded)") {
      EXPECT_EQ(rival.best->job.sharding, Sharding::kParameters);
    }
    if (rival.family == "pipeline") {
      EXPECT_GT(rival.best->job.layout.pp, 1);
    }
  }
}

// Each family is searched in part: what another family's search finds of it counts as well.
#ifndef __SANITIZE_ADDRESS__  // a search of thousands of devices
TEST(Jobs, NoFamilyLosesToItsOwnMember) {
  Request request = request_of("deepseek-v3", "h800x2048");
  request.explains = true;
  request.simplest = false;
  const JobPlan found = plan(request).value();
  bool seen = false;
  for (const Rival& fsdp : found.rivals) {
    if (fsdp.family != "FSDP (parameters sharded)") continue;
    ASSERT_TRUE(fsdp.best);
    seen = true;
    for (const Rival& other : found.rivals) {
      if (!other.best || other.best->job.sharding != Sharding::kParameters) continue;
      EXPECT_LE(fsdp.best->predicted.step, other.best->predicted.step) << other.family;
    }
  }
  EXPECT_TRUE(seen);
}
#endif

}  // namespace
}  // namespace orrery::planner::jobs
