// Predictions of jobs of several stages: what goes in moves what comes out, the right way.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "simulator/stages/memory.h"
#include "simulator/stages/step.h"
#include "tests/outline/jobs.h"
#include "tests/support/random_jobs.h"

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

TEST(Stages, MoreShardingNeverTakesMoreMemory) {
  for (const bool moe : {false, true}) {
    for (const std::int64_t pp : {1, 4}) {
      for (const bool copies : {false, true}) {
        Job job = wide(moe);
        job.layout.pp = pp;
        job.layout.dp = 16 / pp;
        job.layout.fsdp_d = 32 / pp;
        job.stack.copies_gradients = copies;
        job.stack.fp32_gradients = !copies;
        double before = 0;
        for (const Sharding s : {Sharding::kNone, Sharding::kOptimizer, Sharding::kGradients}) {
          job.sharding = s;
          ASSERT_TRUE(violations(job).empty()) << violations(job)[0].reason;
          const double peak = peak_of(job);
          EXPECT_TRUE(before == 0 || peak <= before) << name_of(s) << " pp " << pp;
          before = peak;
        }
        // Between stages all parameters of one are gathered: no less than their gradients' sums.
        job.sharding = Sharding::kParameters;
        EXPECT_TRUE(pp > 1 || peak_of(job) <= before) << "parameters";
        job.layout.fsdp_d /= 2;
        job.layout.replicate_d = 2;
        const double half = predict(job).allocated_bytes;
        job.layout.fsdp_d *= 2;
        job.layout.replicate_d = 1;
        EXPECT_LT(predict(job).allocated_bytes, half) << "more ranks share";
      }
    }
  }
}

TEST(Stages, RecomputeNeverTakesMoreMemory) {
  for (const bool moe : {false, true}) {
    Job job = wide(moe);
    job.model.vocab = 512;  // else the head's stage is the fullest, recompute or not
    double before = peak_of(job);
    // More and more is run again.
    Job again = job;
    for (const Module m : {Module::kCoreAttention, Module::kNorm, Module::kMlp, Module::kExperts,
                           Module::kExpertActivation}) {
      again.recompute.modules[static_cast<std::size_t>(m)] = true;
      EXPECT_LE(peak_of(again), before) << name_of(m) << (moe ? " (experts)" : "");
      before = peak_of(again);
    }
    // From one layer of each stage to all.
    Job one = job, all = job;
    one.recompute.full = all.recompute.full = true;
    one.recompute.full_layers = 1;
    EXPECT_LT(peak_of(one), peak_of(job));
    EXPECT_LT(peak_of(all), peak_of(one));
  }
}

TEST(Stages, WhatIsOnItsWayTakesMemory) {
  Job job = wide(false);
  job.model.vocab = 512;
  const auto bytes = [](const Job& j) { return predict(j).allocated_bytes; };
  job.global_sequences = job.layout.dp;  // one micro-batch
  const double one = bytes(job);
  job.global_sequences *= 2;
  const double two = bytes(job);
  job.global_sequences *= 2;
  const double four = bytes(job);
  job.global_sequences *= 8;
  EXPECT_LT(one, two);
  EXPECT_LT(two, four);
  EXPECT_EQ(bytes(job), four) << "1F1B: as many as there are stages";
  job.schedule = PipelineSchedule::kGpipe;
  EXPECT_GT(bytes(job), 2 * four);
  job.schedule = PipelineSchedule::kOneForwardOneBackward;
  job.stack.keeps_stage_outputs = false;
  const double rows = 2048.0 / 2 / 2;  // of a context and a tensor rank
  EXPECT_NEAR(four - bytes(job), 4 * rows * 1024 * 2, 1) << "what four cells had sent on";
  const double small = bytes(job);
  job.layout.micro_batch = 2;
  EXPECT_GT(bytes(job), 1.2 * small);
}

TEST(Stages, GatheredWeightsOfAStageCountOnce) {
  // Twice the layers a stage: where all stay gathered through the step, weights and sums of the
  // further layers come on top of their shards; else only the shards.
  const auto more = [](std::int64_t pp) {
    const auto bytes = [&](std::int64_t layers) {
      Job job = dense_job(64, layers);
      job.model.vocab = 512;
      job.layout.pp = pp;
      job.layout.dp = job.layout.fsdp_d = 64 / pp;
      job.sharding = Sharding::kParameters;
      job.recompute.full = true;
      job.sequence_tokens = 64;
      job.stack.keeps_stage_outputs = false;
      return predict(job).allocated_bytes;
    };
    return bytes(32 * pp) - bytes(16 * pp);
  };
  const double parameters = 16 * (1024.0 * (32 + 2 * 8 + 32) * 64 + 3 * 1024.0 * 3072 + 2 * 1024);
  const double inputs = 16 * 64 * 1024 * 2;  // of one micro-batch: recompute keeps them
  EXPECT_NEAR(more(1), parameters * 16 / 64 + inputs, 0.01 * parameters);
  EXPECT_NEAR(more(4), parameters * (16.0 / 16 + 2 + 4) + 4 * inputs, 0.01 * parameters);
}

TEST(Stages, TheLossTakesWhatItsKernelKeeps) {
  Job job = dense_job();
  job.model.vocab = 256000;
  job.layout.micro_batch = 4;
  const auto bytes = [&](LossKernel loss) {
    job.stack.loss = loss;
    return predict(job).allocated_bytes;
  };
  const double torch = bytes(LossKernel::kTorch), in_place = bytes(LossKernel::kInPlace);
  const double fused = bytes(LossKernel::kFused), chunked = bytes(LossKernel::kChunked);
  EXPECT_GT(torch, in_place);
  EXPECT_GT(in_place, fused);
  EXPECT_GT(fused, chunked);
  // Of 4 x 2048 x 256000 logits: 12 bytes, 6, 4.
  const double logits = 4 * 2048.0 * 256000;
  EXPECT_NEAR(torch - in_place, 6 * logits, 1);
  EXPECT_NEAR(in_place - fused, 2 * logits, 1);
}

TEST(Stages, AJobFitsAsLongAsWhatIsAliveDoes) {
  Job job = wide(false);
  job.cluster.device.memory = Bytes(80'000'000'000);
  const JobPrediction roomy = predict(job);
  ASSERT_TRUE(roomy.fits);
  EXPECT_GT(roomy.probability_fits, 0.5);
  EXPECT_GT(roomy.peak_bytes, roomy.allocated_bytes + job.stack.reserve_bytes);
  // Too little for what the allocator would hold unused, enough for what is alive.
  const double needed = roomy.allocated_bytes + job.stack.reserve_bytes;
  job.cluster.device.memory = Bytes(static_cast<std::int64_t>(needed) + 1000);
  const JobPrediction tight = predict(job);
  EXPECT_TRUE(tight.fits);
  EXPECT_NEAR(tight.peak_bytes, needed, 1000);
  EXPECT_NEAR(tight.probability_fits, 0.5, 0.01);
  job.cluster.device.memory = Bytes(static_cast<std::int64_t>(needed) - 1000);
  EXPECT_FALSE(predict(job).fits);
  job.cluster.device.memory = Bytes(static_cast<std::int64_t>(0.8 * needed));
  EXPECT_LT(predict(job).probability_fits, 0.05);
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

TEST(Stages, MemoryByClassAddsUp) {
  const std::vector<Model> models = published_models();
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    const Job job = random_job(models, seed);
    const JobPrediction p = predict(job);
    const MemoryParts parts = memory_parts(job);
    const double needed = p.allocated_bytes + job.stack.reserve_bytes;
    EXPECT_NEAR(parts.total(), needed, 1e-9 * needed) << describe(job);
    ASSERT_EQ(parts.stage_bytes.size(), static_cast<std::size_t>(job.layout.pp));
    for (const double bytes : parts.stage_bytes) EXPECT_LE(bytes, parts.total());
    for (const double bytes : parts.bytes) EXPECT_GE(bytes, 0) << describe(job);
  }
}

TEST(Stages, MemoryGoesToItsClass) {
  Job job = wide(true);
  job.sharding = Sharding::kNone;
  const MemoryParts plain = memory_parts(job);
  const auto parameters = plain.bytes[kWeights] / 2;
  EXPECT_NEAR(plain.bytes[kOptimizerStates], 12 * parameters, 1);
  EXPECT_NEAR(plain.bytes[kGradients], 4 * parameters, 1);
  EXPECT_GT(plain.bytes[kMoeLayers], 0);
  job.sharding = Sharding::kOptimizer;
  EXPECT_LT(memory_parts(job).bytes[kOptimizerStates], plain.bytes[kOptimizerStates] / 2);
  EXPECT_EQ(memory_parts(job).bytes[kWeights], plain.bytes[kWeights]);
  job.sharding = Sharding::kParameters;
  EXPECT_LT(memory_parts(job).bytes[kWeights], plain.bytes[kWeights]);
  EXPECT_GT(memory_parts(job).bytes[kGathered], 0);
  job.sharding = Sharding::kNone;
  job.recompute.full = true;
  EXPECT_LT(memory_parts(job).bytes[kMoeLayers], plain.bytes[kMoeLayers] / 2);
  EXPECT_GT(memory_parts(job).bytes[kRunning] + memory_parts(job).bytes[kLogits], 0);
}

TEST(Stages, TheUpdateMayBeTheFullestMoment) {
  Job job = wide(false);
  job.sharding = Sharding::kNone;
  job.recompute.full = true;
  job.sequence_tokens = 64;
  job.stack.fused_optimizer = false;
  const MemoryParts parts = memory_parts(job);
  EXPECT_TRUE(parts.in_update);
  EXPECT_GT(parts.bytes[kUpdateTemporaries], 0);
  EXPECT_EQ(parts.bytes[kDenseLayers], 0);
  job.sequence_tokens = 65536;
  EXPECT_FALSE(memory_parts(job).in_update);
}

// The cells of a job's pipeline, replayed, take what the step says but for what is done once.
TEST(Stages, CellsReplayToTheStep) {
  Job job = wide(true);
  const CellTimes times = cell_times(job);
  const JobPrediction p = predict(job);
  const auto stages = static_cast<std::int32_t>(job.layout.pp);
  const Pipeline pipeline(job.schedule, stages, 1, static_cast<std::int32_t>(job.micro_batches()));
  const PipelineReplay replay = pipeline.replay(times);
  const double end = *std::max_element(replay.end.begin(), replay.end.end());
  const double once = p.parts.fixed + p.parts.straggle + p.parts.optimizer + p.parts.data;
  EXPECT_LE(end, p.step.value() - p.parts.fixed - p.parts.straggle);
  EXPECT_GE(end, p.step.value() - once - 1e-9);
}

}  // namespace
}  // namespace orrery::simulator
