// Directions: what a job changes moves its prediction the right way, on random legal jobs over all
// axes of published models; and what means nothing changes nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "simulator/stages/stage.h"
#include "simulator/stages/step.h"
#include "tests/outline/jobs.h"
#include "tests/support/random_jobs.h"

namespace orrery::simulator {
namespace {

constexpr std::uint64_t kJobs = 600;

const std::vector<Model>& models() {
  static const std::vector<Model> all = published_models();
  return all;
}

double step_of(const Job& job) {
  EXPECT_TRUE(violations(job).empty()) << violations(job)[0].reason;
  return predict(job).step.value();
}

// Of `kJobs` random jobs, those that `change` takes (it says whether): none gets faster (or, with
// `slower` false, slower), and at least `moved` of them change by more than rounding.
void expect_direction(const char* what, bool slower, int moved,
                      const std::function<bool(Job&)>& change) {
  int changed = 0, taken = 0;
  for (std::uint64_t seed = 0; seed < kJobs; ++seed) {
    const Job job = random_job(models(), seed);
    Job other = job;
    if (!change(other) || !violations(other).empty()) continue;
    ++taken;
    const double before = step_of(job), after = step_of(other);
    const double excess = (slower ? after / before : before / after) - 1;
    EXPECT_GT(excess, -1e-9) << what << ", seed " << seed << ": " << describe(job) << ", " << before
                             << " s to " << after;
    changed += excess > 1e-9 ? 1 : 0;
  }
  EXPECT_GE(changed, moved) << what << " of " << taken;
}

void halve(BytesPerSecond& rate) {
  rate = BytesPerSecond(rate.value() / 2);
}

TEST(Directions, SlowerMachinesTakeLonger) {
  expect_direction("half the inner link", true, 300, [](Job& j) {
    halve(j.cluster.tiers.front().bandwidth);
    return true;
  });
  expect_direction("half the outer link", true, 200, [](Job& j) {
    halve(j.cluster.tiers.back().bandwidth);
    return j.cluster.tiers.size() > 1;
  });
  expect_direction("half the memory's bandwidth", true, 500, [](Job& j) {
    halve(j.cluster.device.memory_bandwidth);
    return true;
  });
  expect_direction("half the products' peak", true, 500, [](Job& j) {
    DeviceProfile& d = j.cluster.device;
    for (FlopsPerSecond* peak :
         {&d.peak_bf16, &d.peak_fp16, &d.peak_fp32, &d.peak_tf32, &d.peak_fp8}) {
      *peak = FlopsPerSecond(peak->value() / 2);
    }
    return true;
  });
  expect_direction("a slow host", true, 100, [](Job& j) {
    j.stack.host_per_kernel_s *= 100;
    return true;
  });
  expect_direction("no graphs", true, 1, [](Job& j) {
    const bool had = j.stack.graphs;
    j.stack.graphs = false;
    j.stack.host_per_kernel_s = 1e-4;
    return had;
  });
}

TEST(Directions, MoreWorkTakesLonger) {
  expect_direction("twice the batch", true, 600, [](Job& j) {
    j.global_sequences *= 2;
    return true;
  });
  expect_direction("full recompute", true, 100, [](Job& j) {
    const bool none = j.recompute == Recompute{};
    j.recompute.full = true;
    return none;
  });
  expect_direction("skewed experts", true, 100, [](Job& j) {
    j.expert_load_cv += 0.5;
    return j.model.is_moe() && j.layout.ep > 1;
  });
  expect_direction("a row once to each node", false, 5, [](Job& j) {
    const bool plain = j.dispatcher == Dispatcher::kAllToAll && j.layout.ep > 1;
    j.dispatcher = Dispatcher::kDeduplicated;
    return plain;
  });
}

TEST(Directions, LongerDocumentsTakeLonger) {
  expect_direction("two documents in one", true, 80, [](Job& j) {
    if (j.documents.size() < 2) return false;
    const std::int64_t last = j.documents.back();
    j.documents.pop_back();
    j.documents.back() += last;
    return true;
  });
  expect_direction("all documents in one", true, 80, [](Job& j) {
    const bool several = j.documents.size() > 1;
    j.documents.clear();
    return several;
  });
}

TEST(Directions, OneDocumentIsTheCausalSequence) {
  for (std::uint64_t seed = 0; seed < kJobs; ++seed) {
    Job job = random_job(models(), seed);
    job.documents.clear();
    const double causal = step_of(job);
    job.documents = {job.sequence_tokens};
    EXPECT_NEAR(step_of(job), causal, 1e-12 * causal) << describe(job);
  }
}

TEST(Directions, AdaptersNeedNoGradientsOfTheWeights) {
  // Of products that outweigh the adapters' own passes.
  Job job = dense_job(8, 8);
  job.model.hidden = 8192;
  job.model.ffn = 32768;
  const JobPrediction all = predict(job);
  job.trains_adapters = true;
  const JobPrediction adapters = predict(job);
  EXPECT_LT(adapters.step.value(), 0.8 * all.step.value());
  EXPECT_LT(adapters.peak_bytes, all.peak_bytes);
}

TEST(Directions, TheDispatcherMovesWhatItSends) {
  // Four rows a token go to 16 ranks on two nodes: each on its own, once to each node, or every
  // token to every rank. Between two ranks the last moves least.
  Job job = moe_job(64, 8);
  job.layout.ep = 16;
  const auto with = [&](Dispatcher dispatcher) {
    job.dispatcher = dispatcher;
    return step_of(job);
  };
  const double exchange = with(Dispatcher::kAllToAll);
  EXPECT_LT(with(Dispatcher::kDeduplicated), exchange);
  EXPECT_GT(with(Dispatcher::kAllGather), exchange);
  job.layout.ep = 2;
  const double pair = with(Dispatcher::kAllToAll);
  EXPECT_EQ(with(Dispatcher::kDeduplicated), pair) << "on one node";
  EXPECT_LT(with(Dispatcher::kAllGather), pair);
  // How rows reach experts says nothing of heads that are exchanged over nodes.
  job.layout.ep = 1;
  job.layout.cp = 16;
  job.layout.dp = 4;
  job.context = ContextExchange::kAllToAll;
  const double heads = with(Dispatcher::kAllToAll);
  EXPECT_EQ(with(Dispatcher::kDeduplicated), heads);
}

TEST(Directions, GraphsTakeTheHostAway) {
  Job job = dense_job(8, 8);
  job.stack.host_per_kernel_s = 1e-3;
  const JobPrediction launched = predict(job);
  job.stack.graphs = true;
  const JobPrediction captured = predict(job);
  EXPECT_GT(launched.parts.host, 0);
  EXPECT_EQ(captured.parts.host, 0);
  EXPECT_EQ(captured.parts.compute, launched.parts.compute);
  EXPECT_LT(captured.step.value(), launched.step.value());
}

TEST(Directions, PrecisionChoosesThePeakAndTheBytes) {
  Job job = dense_job(8, 8);
  job.model.hidden = 8192;
  job.model.ffn = 32768;
  DeviceProfile& d = job.cluster.device;
  d.peak_fp8 = FlopsPerSecond(2 * d.peak_bf16.value());
  const auto with = [&](Precision precision) {
    job.precision = precision;
    return step_of(job);
  };
  const double half = with(Precision::kBf16);
  EXPECT_LT(with(Precision::kFp8), half);
  EXPECT_EQ(with(Precision::kFp16), half) << "the same peak and bytes";
  EXPECT_GT(with(Precision::kFp32), half);
  d.peak_fp8 = FlopsPerSecond(0);
  EXPECT_GT(with(Precision::kFp8), half) << "casts, and no unit for them";
}

TEST(Directions, OverlappedSchedulesHideExchanges) {
  Job job = moe_job(32, 8);
  job.layout.pp = 2;
  job.layout.dp = job.layout.fsdp_d = 16;
  job.layout.ep = 16;
  job.virtual_stages = 2;
  job.global_sequences = 16 * 16;
  job.schedule = PipelineSchedule::kInterleaved;
  const JobPrediction plain = predict(job);
  job.schedule = PipelineSchedule::kOverlapped;
  const JobPrediction overlapped = predict(job);
  EXPECT_LT(overlapped.step.value(), plain.step.value());
  EXPECT_LT(overlapped.parts.expert, 0.7 * plain.parts.expert);
  EXPECT_GT(overlapped.peak_bytes, plain.peak_bytes) << "one more micro-batch is held";
  const StepParts& p = overlapped.parts;
  const double sum = p.compute + p.host + p.tensor + p.context + p.expert + p.data + p.bubble +
                     p.optimizer + p.fixed + p.straggle;
  EXPECT_NEAR(sum, overlapped.step.value(), 1e-9 * sum);
}

TEST(Directions, ZeroBubbleFillsTheBubbleWithGradientsOfWeights) {
  Job job = dense_job(32, 16);
  job.model.vocab = 512;  // else all wait for the stage that has the head
  job.layout.pp = 4;
  job.layout.dp = job.layout.fsdp_d = 8;
  job.schedule = PipelineSchedule::kOneForwardOneBackward;
  const JobPrediction steady = predict(job);
  job.schedule = PipelineSchedule::kZeroBubble;
  const JobPrediction zero = predict(job);
  EXPECT_LT(zero.step.value(), steady.step.value());
  EXPECT_LT(zero.parts.bubble, 0.7 * steady.parts.bubble);
  EXPECT_GE(zero.peak_bytes, steady.peak_bytes);
}

TEST(Directions, OverlapTakesNoLonger) {
  const auto turned_on = [](bool Stack::*member) {
    return [=](Job& j) {
      const bool had = j.stack.*member;
      j.stack.*member = true;
      return !had;
    };
  };
  expect_direction("collectives of the tensor axis beside products", false, 50,
                   turned_on(&Stack::overlaps_tensor));
  expect_direction("exchanges beside the other's compute", false, 5,
                   turned_on(&Stack::overlaps_experts));
  expect_direction("gathers beside forward", false, 50, turned_on(&Stack::overlaps_parameters));
}

TEST(Directions, MoreIsSplitOverMoreRanksHoldsLess) {
  int taken = 0;
  for (std::uint64_t seed = 0; seed < kJobs; ++seed) {
    Job job = random_job(models(), seed);
    if (job.layout.replicate_d == 1 || job.trains_adapters) continue;
    ++taken;
    const auto peak = [&](Sharding sharding, bool wide) {
      Job other = job;
      other.sharding = sharding;
      if (wide) other.layout.fsdp_d *= std::exchange(other.layout.replicate_d, 1);
      return predict(other).peak_bytes / (1 + 1e-9);
    };
    for (const Sharding s : {Sharding::kOptimizer, Sharding::kGradients, Sharding::kParameters}) {
      EXPECT_LE(peak(s, true), peak(s, false) * (1 + 2e-9)) << name_of(s) << describe(job);
    }
    EXPECT_LE(peak(Sharding::kGradients, true), peak(Sharding::kOptimizer, true) * (1 + 2e-9));
    EXPECT_LE(peak(Sharding::kOptimizer, true), peak(Sharding::kNone, true) * (1 + 2e-9));
  }
  EXPECT_GT(taken, 100);
}

TEST(Directions, ALargerShardingGroupGathersLonger) {
  // Gathers in every pass and over slower links, in HSDP's stead (Zhao 2023, section 3.2.2).
  Job narrow = dense_job(64, 8);
  narrow.sharding = Sharding::kParameters;
  narrow.stack.overlaps_gradients = false;
  narrow.global_sequences = 512;  // eight micro-batches, and one sum over replicas
  narrow.layout.fsdp_d = 8;
  narrow.layout.replicate_d = 8;
  Job wide = narrow;
  wide.layout.fsdp_d = 64;
  wide.layout.replicate_d = 1;
  for (Job* j : {&narrow, &wide}) {
    j->cluster.tiers.back().bandwidth = BytesPerSecond(1e9);
  }
  EXPECT_GT(step_of(wide), step_of(narrow));
  Job kept = wide;
  kept.keeps_gathered = true;
  EXPECT_LT(step_of(kept), step_of(wide)) << "one gather a micro-batch less";
}

TEST(Directions, NamesAndOrderOfIdsChangeNothing) {
  for (std::uint64_t seed = 0; seed < kJobs; ++seed) {
    const Job job = random_job(models(), seed);
    Job other = job;
    other.model.name = other.model.model_type = other.model.sha256 = "a";
    other.cluster.name = other.cluster.sha256 = other.cluster.device.name = "b";
    other.stack.name = other.stack.family = other.stack.source = other.stack.released = "c";
    for (LinkTier& tier : other.cluster.tiers) tier.name = "d";
    const JobPrediction before = predict(job), after = predict(other);
    EXPECT_EQ(before.step.value(), after.step.value());
    EXPECT_EQ(before.peak_bytes, after.peak_bytes);
    EXPECT_EQ(before.parts.compute, after.parts.compute);
  }
}

// Seconds of a micro-batch in each stage of one chunk.
std::vector<double> stage_seconds(const Job& job) {
  std::vector<double> seconds;
  for (const Chunk& c : make_chunks(job, Price(job))) {
    seconds.push_back(c.forward.total() + c.backward.total());
  }
  return seconds;
}

TEST(UnevenStages, ALayerOffTheSlowestStageSpeedsTheStep) {
  int moved = 0;
  for (std::uint64_t seed = 0; seed < 3000 && moved < 300; ++seed) {
    Job job = random_job(models(), seed);
    // Layers alike, one chunk; many micro-batches, so that the slowest stage decides.
    const std::vector<bool>& moe = job.model.moe_layer;
    if (job.layout.pp < 2 || job.virtual_stages > 1 ||
        job.model.window != std::vector<std::int64_t>{} ||
        std::count(moe.begin(), moe.end(), moe[0]) != job.model.layers || job.recompute.full) {
      continue;
    }
    job.schedule = PipelineSchedule::kOneForwardOneBackward;
    job.global_sequences = job.layout.dp * job.layout.micro_batch * job.layout.pp * 4;
    job.stage_layers.assign(static_cast<std::size_t>(job.layout.pp), 0);
    for (std::int64_t i = 0; i < job.model.layers; ++i) {
      ++job.stage_layers[static_cast<std::size_t>(i % job.layout.pp)];
    }
    // One stage has two layers more than its part.
    const auto to = static_cast<std::size_t>(seed % static_cast<std::uint64_t>(job.layout.pp));
    const std::size_t from = (to + 1) % job.stage_layers.size();
    job.stage_layers[to] += 2;
    job.stage_layers[from] -= 2;
    if (!violations(job).empty()) continue;
    const std::vector<double> seconds = stage_seconds(job);
    const auto slow = std::max_element(seconds.begin(), seconds.end()) - seconds.begin();
    const auto fast = std::min_element(seconds.begin(), seconds.end()) - seconds.begin();
    Job shifted = job;
    --shifted.stage_layers[static_cast<std::size_t>(slow)];
    ++shifted.stage_layers[static_cast<std::size_t>(fast)];
    if (!violations(shifted).empty()) continue;
    const std::vector<double> after = stage_seconds(shifted);
    // Where the others stay behind by less than a layer, filling and draining may take longer by
    // more than the steady part gains.
    const double layer =
        seconds[static_cast<std::size_t>(slow)] - after[static_cast<std::size_t>(slow)];
    const double gain =
        seconds[static_cast<std::size_t>(slow)] - *std::max_element(after.begin(), after.end());
    if (gain < 0.5 * layer) continue;
    ++moved;
    EXPECT_LT(step_of(shifted), step_of(job)) << seed << ": " << describe(job);
  }
  EXPECT_GE(moved, 100);
}

TEST(UnevenStages, HoldTheModelsParameters) {
  int taken = 0;
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    Job job = random_job(models(), seed);
    const Layout& l = job.layout;
    if (l.tp > 1 || l.ep * l.etp > 1) continue;  // a stage is one rank's
    ++taken;
    double sum = 0;
    for (const Chunk& c : make_chunks(job, Price(job))) sum += c.dense + c.expert;
    const Model& m = job.model;
    auto expected = static_cast<double>(parameter_count(m));
    // Both ends have a table that they share, unless they are one.
    if (m.tied_head && job.stages() > 1) expected += static_cast<double>(m.vocab * m.hidden);
    EXPECT_NEAR(sum, expected, 1e-9 * expected) << describe(job);
  }
  EXPECT_GT(taken, 200);
}

TEST(UnevenStages, HoldTheSameParametersHoweverTheyAreDealt) {
  Job job = dense_job(4, 8);
  job.layout.pp = 4;
  job.layout.dp = job.layout.fsdp_d = 1;
  const auto parameters = [&](std::vector<std::int64_t> layers) {
    job.stage_layers = std::move(layers);
    EXPECT_TRUE(violations(job).empty());
    double sum = 0;
    for (const Chunk& c : make_chunks(job, Price(job))) sum += c.dense + c.expert;
    return sum;
  };
  const double even = parameters({});
  EXPECT_DOUBLE_EQ(parameters({1, 3, 3, 1}), even);
  EXPECT_DOUBLE_EQ(parameters({0, 4, 4, 0}), even);
  job.stage_layers = {2, 2, 2, 2};
  const double stated = step_of(job);
  job.stage_layers.clear();
  EXPECT_EQ(step_of(job), stated) << "eight layers on four stages";
  for (const std::vector<std::int64_t>& wrong :
       std::vector<std::vector<std::int64_t>>{{4, 4}, {2, 2, 2, 3}, {4, 0, 2, 2}, {-1, 4, 4, 1}}) {
    job.stage_layers = wrong;
    ASSERT_FALSE(violations(job).empty());
    EXPECT_EQ(violations(job)[0].rule, "stage_layers");
  }
}

}  // namespace
}  // namespace orrery::simulator
