// Predictions of jobs of several stages: what goes in moves what comes out, the right way.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "simulator/stages/step.h"
#include "tests/outline/jobs.h"

namespace orrery::simulator {
namespace {

double step_of(const Job& job) {
  EXPECT_TRUE(violations(job).empty()) << violations(job)[0].reason;
  return predict(job).step.value();
}

double peak_of(const Job& job) {
  return predict(job).peak_bytes;
}

// 64 devices, tp 2, pp 4, two experts' groups; interesting on every axis.
Job wide(bool moe) {
  Job job = moe ? moe_job(64, 8) : dense_job(64, 8);
  Layout& l = job.layout;
  l.tp = 2;
  l.pp = 4;
  l.cp = 2;
  l.dp = 4;
  l.fsdp_d = 8;
  l.ep = moe ? 4 : 1;
  job.sequence_parallel = true;
  return job;
}

TEST(Stages, SlowerLinksAndMoreWorkTakeLonger) {
  for (const bool moe : {false, true}) {
    const Job job = wide(moe);
    const double step = step_of(job);
    const auto expect_longer = [&](const char* what, const std::function<void(Job&)>& change) {
      Job changed = job;
      change(changed);
      EXPECT_GT(step_of(changed), step) << what << (moe ? " (experts)" : "");
    };
    expect_longer("half the inner link", [](Job& j) {
      j.cluster.tiers.front().bandwidth =
          BytesPerSecond(j.cluster.tiers.front().bandwidth.value() / 2);
    });
    expect_longer("half the outer link", [](Job& j) {
      j.cluster.tiers.back().bandwidth =
          BytesPerSecond(j.cluster.tiers.back().bandwidth.value() / 2);
    });
    expect_longer("twice the batch", [](Job& j) { j.global_sequences *= 2; });
    expect_longer("twice the sequence", [](Job& j) { j.sequence_tokens *= 2; });
    expect_longer("slower memory", [](Job& j) {
      j.cluster.device.memory_bandwidth =
          BytesPerSecond(j.cluster.device.memory_bandwidth.value() / 2);
    });
    expect_longer("slower products", [](Job& j) {
      j.cluster.device.peak_bf16 = FlopsPerSecond(j.cluster.device.peak_bf16.value() / 2);
    });
    expect_longer("recompute", [](Job& j) { j.recompute.full = true; });
    expect_longer("a slow host", [](Job& j) { j.stack.host_per_kernel_s *= 1000; });
    if (!moe) continue;
    expect_longer("skewed experts", [](Job& j) { j.expert_load_cv = 1; });
    expect_longer("all tokens to all experts", [](Job& j) {
      j.layout.ep = 16;
      j.dispatcher = Dispatcher::kAllGather;
    });
  }
}

TEST(Stages, TwiceTheMicroBatchesHalveTheBubblesShare) {
  Job job = wide(false);
  job.model.vocab = 512;  // else all wait for the stage that has the head
  const JobPrediction few = predict(job);
  job.global_sequences *= 4;
  const JobPrediction many = predict(job);
  EXPECT_LT(many.parts.bubble / many.step.value(), 0.5 * few.parts.bubble / few.step.value());
  EXPECT_LT(many.step.value(), 4 * few.step.value());
}

TEST(Stages, MemoryFollowsShardingAndRecompute) {
  Job job = dense_job(64, 8);
  const auto with = [&](Sharding sharding) {
    Job j = job;
    j.sharding = sharding;
    return peak_of(j);
  };
  EXPECT_GT(with(Sharding::kNone), with(Sharding::kOptimizer));
  EXPECT_GT(with(Sharding::kOptimizer), with(Sharding::kGradients));
  EXPECT_GT(with(Sharding::kGradients), with(Sharding::kParameters));
  Job again = job;
  again.recompute.full = true;
  EXPECT_LT(peak_of(again), peak_of(job));
  Job gpipe = wide(false), steady = wide(false);
  gpipe.schedule = PipelineSchedule::kGpipe;
  EXPECT_GT(peak_of(gpipe), peak_of(steady));
}

TEST(Stages, NamesChangeNothing) {
  Job job = wide(true);
  const JobPrediction before = predict(job);
  job.model.name = job.model.model_type = job.cluster.name = job.cluster.device.name = "another";
  for (LinkTier& tier : job.cluster.tiers) tier.name = "wire";
  job.stack.name = job.stack.family = "stack";
  const JobPrediction after = predict(job);
  EXPECT_EQ(before.step.value(), after.step.value());
  EXPECT_EQ(before.peak_bytes, after.peak_bytes);
}

TEST(Stages, PartsAddUp) {
  for (const bool moe : {false, true}) {
    const JobPrediction p = predict(wide(moe));
    const StepParts& s = p.parts;
    const double sum = s.compute + s.host + s.tensor + s.context + s.expert + s.data + s.bubble +
                       s.optimizer + s.fixed + s.straggle;
    EXPECT_NEAR(sum, p.step.value(), 1e-9 * p.step.value());
  }
}

}  // namespace
}  // namespace orrery::simulator
