// What files as people write them say, and what is wrong with those that contradict themselves.
#include <gtest/gtest.h>

#include <map>

#include "handover/handover.h"
#include "tests/support/plans.h"

namespace orrery::handover {
namespace {

// 4 layers of 8 experts, rows of 8 tokens, 64 a step, fp32.
const Model& model() {
  static const Model m = small_moe_model(4, 8);
  return m;
}

Result<Imported> read(const std::string& text, std::int64_t world = 16) {
  static const Workload workload = small_workload(64);
  return import_layout(text, "f", {world, model(), workload});
}

std::map<std::string, std::string> pins(const std::string& text, std::int64_t world = 16) {
  const Result<Imported> result = read(text, world);
  EXPECT_TRUE(result.ok()) << result.error().text();
  std::map<std::string, std::string> out;
  if (!result.ok()) return out;
  for (const Pin& pin : result.value().pins) out[pin.name] = pin.value;
  return out;
}

// The first problem as "where: message".
std::string problem(const std::string& text, std::int64_t world = 16) {
  const Result<Imported> result = read(text, world);
  if (result.ok()) return "";
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  const Problem& p = result.error().problems.front();
  return p.where + ": " + p.message;
}

constexpr const char* kScript = R"(#!/bin/bash
export CUDA_DEVICE_MAX_CONNECTIONS=1
TP=${TP:-2}
EP=4   # experts
MODEL="--num-layers 4 \
       --hidden-size 8"
PARALLEL=(
  --tensor-model-parallel-size $TP
  --pipeline-model-parallel-size=1
  --expert-model-parallel-size "${EP}"   # not --expert-model-parallel-size 8
  --expert-tensor-parallel-size 1
)
PARALLEL+=(--micro-batch-size 2 --global-batch-size 64)
torchrun --nproc_per_node 8 --nnodes ${NNODES} pretrain_gpt.py $MODEL "${PARALLEL[@]}" \
  --moe-token-dispatcher-type alltoall --lr 1e-4 --use-megatron-fsdp \
  --data-parallel-sharding-strategy optim_grads_params \
  --recompute-granularity full --recompute-method block --recompute-num-layers 3
)";

TEST(Import, MegatronScript) {
  const auto p = pins(kScript);
  // tp 2 leaves 8 ranks of data; 16 ranks hold experts, in groups of 4.
  EXPECT_EQ(p.at("tp"), "2");
  EXPECT_EQ(p.at("dp"), "8");
  EXPECT_EQ(p.at("ep"), "4");
  EXPECT_EQ(p.at("fsdp_d"), "8");
  EXPECT_EQ(p.at("fsdp_e"), "4");
  EXPECT_EQ(p.at("micro_batch"), "2");
  EXPECT_EQ(p.at("accumulation"), "4");
  EXPECT_EQ(p.at("recompute_layers"), "3");
  EXPECT_EQ(p.at("dispatcher"), "all_to_all");
  const Result<Imported> result = read(kScript);
  bool lr = false;
  for (const Unused& u : result.value().unused) {
    if (u.what == "--lr") lr = u.where == "f:15";
  }
  EXPECT_TRUE(lr) << "--lr is reported with its line";
}

TEST(Import, MegatronShardingOfStatesAloneIsLeftToTheSearch) {
  const std::string text = "--micro-batch-size 2 --use-distributed-optimizer\n";
  EXPECT_EQ(pins(text).count("fsdp_d"), 0U);
  const Result<Imported> result = read(text);
  ASSERT_TRUE(result.ok());
  bool reported = false;
  for (const Unused& u : result.value().unused) {
    reported = reported || (u.what == "--use-distributed-optimizer" && !u.why.empty());
  }
  EXPECT_TRUE(reported);
}

TEST(Import, MegatronExchangeOfHeadsIsSp) {
  const auto p = pins("--context-parallel-size 4 --cp-comm-type a2a --micro-batch-size 1");
  EXPECT_EQ(p.at("sp"), "4");
  EXPECT_EQ(p.at("cp"), "1");
  const auto both = pins(
      "--context-parallel-size 8 --cp-comm-type a2a+p2p --hierarchical-context-parallel-sizes 2 4");
  EXPECT_EQ(both.at("sp"), "2");
  EXPECT_EQ(both.at("cp"), "4");
}

TEST(Import, MegatronProblemsHaveTheirLines) {
  EXPECT_EQ(problem("--micro-batch-size 1\n--tensor-model-parallel-size 3\n"),
            "f:2: tp 3 x pp 1 x cp 1 x sp 1 does not divide 16 devices");
  EXPECT_EQ(problem("--micro-batch-size 1\n\n--num-layers 5\n"),
            "f:3: --num-layers is 5, but small-moe has 4");
  EXPECT_EQ(problem("--micro-batch-size two\n"),
            "f:1: --micro-batch-size 'two' is not a whole number");
  EXPECT_EQ(problem("--micro-batch-size 1\n--micro-batch-size 2\n"),
            "f:2: --micro-batch-size is '2' here and '1' at f:1");
  EXPECT_EQ(problem("--micro-batch-size $MBS\n"),
            "f:1: --micro-batch-size has no value: $MBS is not set in this file");
  EXPECT_EQ(problem("--micro-batch-size 3\n"),
            "f:1: 64 sequences a step do not divide by dp 16 x micro-batch 3");
  EXPECT_EQ(problem("--micro-batch-size 1 --expert-model-parallel-size 3\n"),
            "f:1: 8 experts do not divide by ep 3");
  EXPECT_EQ(problem("torchrun --nnodes 4 --nproc-per-node 8 x.py --micro-batch-size 1\n"),
            "f:1: launches 32 ranks, but the cluster has 16 devices");
  EXPECT_EQ(problem("--micro-batch-size 1 --recompute-granularity full\n"),
            "f:1: full recompute without --recompute-method");
  EXPECT_EQ(problem("--micro-batch-size 1 --bf16\n"), "f:1: --bf16, but small computes in fp32");
}

TEST(Import, TorchtitanConfig) {
  const auto p = pins(R"([model]
name = "qwen3"
[training]
local_batch_size = 2
global_batch_size = 64
seq_len = 8
mixed_precision_param = "float32"
[parallelism]
data_parallel_replicate_degree = 2
data_parallel_shard_degree = -1
expert_parallel_degree = 4
[activation_checkpoint]
mode = "full"
)");
  EXPECT_EQ(p.at("dp"), "16");
  EXPECT_EQ(p.at("replicate_d"), "2");
  EXPECT_EQ(p.at("fsdp_d"), "8");
  EXPECT_EQ(p.at("fsdp_e"), "2");  // 8 shards = 2 x ep 4
  EXPECT_EQ(p.at("replicate_e"), "2");
  EXPECT_EQ(p.at("accumulation"), "2");
  EXPECT_EQ(p.at("recompute_layers"), "4");
}

TEST(Import, TorchtitanProblems) {
  const std::string head = "[training]\nmixed_precision_param = \"float32\"\n[parallelism]\n";
  EXPECT_EQ(problem(head + "data_parallel_shard_degree = 8\n"),
            "f:4: data_parallel_replicate_degree 1 x data_parallel_shard_degree 8 are not the 16 "
            "ranks of the data axis");
  EXPECT_EQ(problem(head + "data_parallel_replicate_degree = 16\nexpert_parallel_degree = 4\n"),
            "f:5: expert_parallel_degree 4 does not divide the 1 ranks that share parameters");
  EXPECT_NE(problem("[parallelism]\ntensor_parallel_degree = \n").find("f:2: is not TOML"),
            std::string::npos);
}

constexpr const char* kXtuner = R"(import os
from xtuner.v1.config import FSDPConfig
ep_size = int(os.environ.get("EP_SIZE", "4"))
model_cfg.ep_size = ep_size
fsdp_cfg = FSDPConfig(ep_size=ep_size, recompute_ratio=0.5,
                      reshard_after_forward=True)
loss_cfg = CELossConfig(mode="chunk", chunk_size=4)
os.environ["XTUNER_ACTIVATION_OFFLOAD"] = "1"
dataloader = DataloaderConfig(pack_max_length=2 * 8)
trainer = TrainerConfig(fsdp_cfg=fsdp_cfg, global_batch_size=32, sp_size=2,
                        intra_layer_micro_batch=2, lr=f"{x}")
)";

TEST(Import, XtunerConfig) {
  const auto p = pins(kXtuner);
  EXPECT_EQ(p.at("ep"), "4");
  EXPECT_EQ(p.at("dp"), "8");
  EXPECT_EQ(p.at("sp"), "2");
  // Dense parameters are replicated over the ranks of an expert group.
  EXPECT_EQ(p.at("replicate_d"), "4");
  EXPECT_EQ(p.at("fsdp_d"), "4");
  EXPECT_EQ(p.at("dense_inner"), "replicate");
  EXPECT_EQ(p.at("fsdp_e"), "4");
  EXPECT_EQ(p.at("recompute_layers"), "2");
  EXPECT_EQ(p.at("swap_layers"), "all");
  EXPECT_EQ(p.at("loss_tokens"), "4");
  EXPECT_EQ(p.at("micro_batch"), "2");
  EXPECT_EQ(p.at("domino"), "2");
  EXPECT_EQ(p.at("accumulation"), "2");
}

TEST(Import, XtunerJsonOfTheTrainer) {
  const auto p = pins(R"({"fsdp_cfg": {"ep_size": 1, "hsdp_sharding_size": 8,
    "recompute_ratio": 1.0}, "loss_cfg": {"mode": "eager"}, "global_batch_size": 64,
    "dataloader_cfg": {"pack_max_length": 8}, "sp_size": 1})");
  EXPECT_EQ(p.at("fsdp_d"), "8");
  EXPECT_EQ(p.at("replicate_d"), "2");
  EXPECT_EQ(p.at("recompute_layers"), "3");  // the last layer never is
}

// As examples write it: the model is a class of its own.
TEST(Import, XtunerModelClass) {
  const auto p =
      pins("cfg = Qwen3MoE30BA3Config(ep_size=2, dispatcher='agrs')\nf = FSDPConfig(ep_size=2)\n");
  EXPECT_EQ(p.at("ep"), "2");
  EXPECT_EQ(p.at("dispatcher"), "all_gather");
  EXPECT_EQ(problem("cfg = Qwen3MoE30BA3Config(ep_size=4)\nf = FSDPConfig(ep_size=2)\n"),
            "f:1: ep_size 4 here and 2 in FSDPConfig");
}

TEST(Import, XtunerProblems) {
  EXPECT_EQ(problem("model_cfg.ep_size = 2\nf = FSDPConfig(ep_size=4)\n"),
            "f:1: ep_size 2 here and 4 in FSDPConfig");
  EXPECT_EQ(problem("f = FSDPConfig(ep_size=4, hsdp_sharding_size=8)\n"),
            "f:1: hsdp_sharding_size 8 with ep_size 4");
  EXPECT_EQ(problem("f = FSDPConfig(\n  param_dtype='bfloat16')\n"),
            "f:2: param_dtype bfloat16, but small computes in fp32");
  EXPECT_EQ(problem("f = FSDPConfig(\n  ep_size=4\n"), "f:3: '(' is not closed");
  EXPECT_EQ(problem("d = DataloaderConfig(pack_max_length=12)\nf = FSDPConfig(ep_size=1)\n"),
            "f:1: packs of 12 tokens are no whole rows of 8 of small");
}

TEST(Import, DeepspeedConfig) {
  const auto p = pins(R"({"train_batch_size": 64, "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": "auto", "zero_optimization": {"stage": 3,
    "mics_shard_size": 8, "offload_optimizer": {"device": "cpu"}}})");
  EXPECT_EQ(p.at("fsdp_d"), "8");
  EXPECT_EQ(p.at("replicate_d"), "2");
  EXPECT_EQ(p.at("accumulation"), "2");
  EXPECT_EQ(p.at("host_optimizer"), "true");
  EXPECT_EQ(pins(R"({"zero_optimization": {"stage": 2}})").count("fsdp_d"), 0U);
}

TEST(Import, DeepspeedProblems) {
  EXPECT_EQ(problem(R"({"zero_optimization": {"stage": 3},
    "expert_parallel": {"enabled": true, "autoep_size": 2}})"),
            "f:/expert_parallel/autoep_size: autoep_size 2 with ZeRO stage 3");
  EXPECT_EQ(problem(R"({"zero_optimization": {"stage": 4}})"),
            "f:/zero_optimization/stage: /zero_optimization/stage '4' is not a whole number");
  EXPECT_EQ(problem(R"({"train_batch_size": 64, "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 4})"),
            "f:/gradient_accumulation_steps: accumulation 4 x dp 16 x micro-batch 2 is not the 64 "
            "sequences of a step of small");
}

TEST(Import, AnythingElseIsNoConfiguration) {
  EXPECT_EQ(problem("hello\n"), "f: is no configuration of a known engine");
  EXPECT_EQ(problem(""), "f: is no configuration of a known engine");
}

}  // namespace
}  // namespace orrery::handover
