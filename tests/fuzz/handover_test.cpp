// The same fuzzing of other engines' configurations: each reader answers with pins that the planner
// knows, or with an error that has a place.
#include <gtest/gtest.h>

#include <array>
#include <set>

#include "handover/handover.h"
#include "planner/jobs/request.h"
#include "planner/plans/planner.h"
#include "tests/fuzz/mutate_text.h"
#include "tests/support/plans.h"

namespace orrery::handover {
namespace {

constexpr int kMutations = 20000;

constexpr const char* kScript = R"(#!/bin/bash
EP=${EP:-2}
ARGS=(--expert-model-parallel-size $EP --micro-batch-size "1") # note
MORE="--context-parallel-size 2 --cp-comm-type a2a \
  --recompute-granularity full --recompute-method block --recompute-num-layers 1"
if [ "$X" = 1 ]; then MORE+=" --bf16"; fi
torchrun --nproc_per_node=8 --nnodes $(nproc) x.py ${ARGS[@]} $MORE '--lr' 1e-4 --num-layers=2
)";

constexpr const char* kPython = R"(from xtuner.v1.config import FSDPConfig
n = int(os.environ.get("N", "2"))
model_cfg.ep_size = n
fsdp_cfg = FSDPConfig(ep_size=n, recompute_ratio=0.5, hsdp_sharding_size=None)
cfg = [dict(a=f'{n}', b=C(x=[1, 2], **d)), r'''text''']
trainer = TrainerConfig(fsdp_cfg=fsdp_cfg, global_batch_size=2 * 8, sp_size=1)
)";

constexpr const char* kStages = R"(--micro-batch-size 1 --pipeline-model-parallel-size 2
--pipeline-model-parallel-layout "Et|(t|)*2,L" --overlap-moe-expert-parallel-comm
--expert-model-parallel-size 2 --decoder-first-pipeline-num-layers 1 --fp8-format e4m3
--recompute-granularity selective --recompute-modules layernorm moe_act
)";

constexpr const char* kParts = R"([training]
local_batch_size = 4
[parallelism]
pipeline_parallel_degree = 2
pipeline_parallel_schedule = "Interleaved1F1B"
pipeline_parallel_layers_per_stage = 1
module_fqns_per_model_part = [["tok_embeddings", "layers.0"], ["layers.1", "output"]]
)";

// The plan as each format writes it, and hand-written files with more syntax.
std::vector<std::string> seeds(const Plan& plan) {
  std::vector<std::string> texts = {kScript, kPython, kStages, kParts};
  for (const Format& format : formats()) {
    const Result<HandedOver> made = write(format, recipe_of(plan), "p.json");
    if (made.ok()) texts.push_back(made.value().text);
  }
  return texts;
}

TEST(Fuzz, EnginesConfigurationsSurviveMutations) {
  const Plan plan = small_moe_plan(8, 1);
  const std::vector<std::string> texts = seeds(plan);
  ASSERT_EQ(texts.size(), 4 + formats().size());
  const std::vector<std::string> plans = planner::pinnable(), jobs = planner::jobs::pinnable();
  const std::set<std::string> of_plans(plans.begin(), plans.end());
  std::set<std::string> of_jobs(jobs.begin(), jobs.end());
  of_jobs.insert({"sp", "stage_layers"});
  std::array<int, 5> accepted{};
  for (int i = 0; i < kMutations; ++i) {
    std::mt19937_64 rng(static_cast<std::uint64_t>(i));
    const std::string text = mutate(texts[rng() % texts.size()], rng);
    // Every second one as pins of a job.
    const bool all_axes = i % 2 == 1;
    const Target target{plan.cluster.devices, plan.model, plan.workload, all_axes};
    const std::set<std::string>& known = all_axes ? of_jobs : of_plans;
    for (std::size_t k = 0; k <= formats().size(); ++k) {
      const Result<Imported> result = k < formats().size() ? formats()[k].read(text, "f.x", target)
                                                           : import_layout(text, "f.x", target);
      if (result.ok()) {
        ++accepted[k];
        std::set<std::string> pinned;
        for (const Pin& pin : result.value().pins) {
          EXPECT_EQ(known.count(pin.name), 1U) << pin.name;
          EXPECT_FALSE(pin.value.empty());
          EXPECT_TRUE(pinned.insert(pin.name).second) << pin.name;
        }
        continue;
      }
      EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
      EXPECT_FALSE(result.error().problems.empty());
      for (const Problem& p : result.error().problems) {
        EXPECT_EQ(p.where.substr(0, 3), "f.x") << p.message;
      }
    }
    if (HasFailure()) FAIL() << "seed " << i << "\n" << text;
  }
  for (std::size_t k = 0; k < accepted.size(); ++k) {
    EXPECT_GT(accepted[k], 200) << k;
    EXPECT_LT(accepted[k], kMutations) << k;
  }
}

}  // namespace
}  // namespace orrery::handover
