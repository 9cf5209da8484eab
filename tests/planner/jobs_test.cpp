// The planner over all axes: the same as trying everything, bounds never above the prediction,
// nothing better among what was pruned.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "planner/jobs/planner.h"
#include "planner/jobs/search.h"
#include "tests/planner/jobs_instances.h"

namespace orrery::planner::jobs {
namespace {

// Sanitizers see the same code in fewer of them.
#ifdef __SANITIZE_ADDRESS__
constexpr int kInstances = 24, kDrawn = 4000, kFitting = 40;
#else
constexpr int kInstances = 320, kDrawn = 100000, kFitting = 1000;
#endif

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
    for_each_job(instance.base, space.choices, [&](const Candidate& c, const Job& job) {
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
    Search search(instance.base, space, instance.probability_fits, 2);
    const Outcome found = search.best_of({});
    ASSERT_EQ(found.best.has_value(), simplest.has_value())
        << "seed " << seed << ": "
        << (simplest ? text_of(job_of(instance.base, space.choices, *simplest)) : "");
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
      const Job job = job_of(instance.base, space.choices, c);
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
                                       {"deepseek-v3", "h800x2048"},
                                       {"kimi-k2", "h800x16384"}}) {
    const Large large(model, cluster);
    EXPECT_GT(large.space.legal, 5'000'000);
    Search search(large.base, large.space, 0.99, 2);
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
    Search search(large.base, large.space, 0.99, threads);
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

// A rival is of its family and loses; the winner is not of it.
TEST(Jobs, RivalsLose) {
  Request request = request_of("qwen3-30b-a3b", "h100x64");
  request.explains = true;
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

}  // namespace
}  // namespace orrery::planner::jobs
