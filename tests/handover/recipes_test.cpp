// Published launch scripts and configs of others (recipes/), as pins of jobs; and files that
// contradict themselves, the model or the world.
#include <gtest/gtest.h>

#include "core/configs.h"
#include "handover/handover.h"
#include "handover/megatron_stages.h"
#include "tests/support/plans.h"

namespace orrery::handover {
namespace {

Workload rows(std::int64_t tokens, std::int64_t sequences) {
  Workload w;
  w.name = "rows";
  w.sequence_tokens = tokens;
  w.global_sequences = sequences;
  w.document_tokens = {tokens};
  return w;
}

std::string pins_of(const Imported& imported) {
  std::string text;
  for (const Pin& pin : imported.pins) {
    text += (text.empty() ? "" : " ") + pin.name + "=" + pin.value;
  }
  return text;
}

std::string recipe_pins(const std::string& file, const std::string& model, std::int64_t world,
                        const Workload& workload) {
  const std::string path = std::string(ORRERY_SOURCE_DIR) + "/tests/handover/recipes/" + file;
  const Result<std::string> text = read_file(path);
  if (!text.ok()) return text.error().text();
  const Result<Model> found = load_model(model);
  if (!found.ok()) return found.error().text();
  const Result<Imported> read =
      import_layout(text.value(), file, {world, found.value(), workload, true});
  return read.ok() ? pins_of(read.value()) : read.error().text();
}

TEST(Recipes, DeepSeekV3OfMegatron) {
  EXPECT_EQ(recipe_pins("megatron-deepseek-v3.sh", "deepseek-v3", 1024, rows(4096, 8192)),
            "tp=2 sequence_parallel=true pp=8 schedule=overlapped virtual_stages=4 "
            "stage_layers=1,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,0 "
            "cp=1 dp=64 ep=64 etp=1 dispatcher=deduplicated sharding=optimizer fsdp_d=64 "
            "replicate_d=1 recompute=latent_up+mlp precision=fp8 micro_batch=1");
}

// With the ends counted as layers the first and the last stage have one less: as dealt out evenly.
TEST(Recipes, Qwen3OfMegatron) {
  EXPECT_EQ(recipe_pins("megatron-qwen3-235b.sh", "qwen3-235b-a22b", 256, rows(4096, 2048)),
            "tp=2 sequence_parallel=true pp=8 schedule=overlapped virtual_stages=4 "
            "stage_layers=even cp=1 dp=16 ep=32 etp=1 dispatcher=deduplicated sharding=optimizer "
            "fsdp_d=16 "
            "replicate_d=1 recompute=norm+expert_activation precision=bf16 micro_batch=1");
}

TEST(Recipes, MixtralOfMegatron) {
  EXPECT_EQ(recipe_pins("megatron-mixtral-8x7b.sh", "mixtral-8x7b", 32, rows(4096, 128)),
            "tp=1 pp=4 schedule=1f1b virtual_stages=1 stage_layers=even cp=1 dp=8 ep=8 etp=1 "
            "dispatcher=all_gather sharding=optimizer fsdp_d=8 replicate_d=1 recompute=none "
            "precision=bf16 micro_batch=1");
}

// Sizes of latent attention and of shared experts are the model's, or an error.
TEST(Recipes, AnotherModelIsNamed) {
  const std::string text =
      recipe_pins("megatron-deepseek-v3.sh", "kimi-k2", 1024, rows(4096, 8192));
  EXPECT_NE(text.find("--num-experts is 256, but kimi-k2 has 384"), std::string::npos) << text;
  EXPECT_NE(text.find("--num-attention-heads is 128, but kimi-k2 has 64"), std::string::npos);
}

TEST(Recipes, Llama405BOfTorchtitan) {
  EXPECT_EQ(recipe_pins("torchtitan-llama-3.1-405b.toml", "llama-3.1-405b", 128, rows(8192, 32)),
            "tp=8 sequence_parallel=true pp=1 cp=1 dp=16 sharding=parameters fsdp_d=16 "
            "replicate_d=1 keeps_gathered=false recompute=full full_layers=126 precision=fp8 "
            "micro_batch=2");
}

TEST(Recipes, DeepSeekOfTorchtitan) {
  EXPECT_EQ(recipe_pins("torchtitan-deepseek-v3-16b.toml", "deepseek-v2-lite", 64, rows(4096, 256)),
            "tp=1 pp=1 cp=1 dp=64 ep=8 etp=1 dispatcher=all_to_all sharding=parameters fsdp_d=64 "
            "replicate_d=1 keeps_gathered=false recompute=ops precision=bf16 micro_batch=4");
}

// 4 layers of 8 experts, rows of 8 tokens, 64 a step.
Result<Imported> read(const std::string& text, std::int64_t world = 16) {
  static const Model model = small_moe_model(4, 8);
  static const Workload workload = small_workload(64);
  return import_layout(text, "f", {world, model, workload, true});
}

std::string pins(const std::string& text) {
  const Result<Imported> result = read(text);
  return result.ok() ? pins_of(result.value()) : result.error().text();
}

// The first problem as "where: message".
std::string problem(const std::string& text, std::int64_t world = 16) {
  const Result<Imported> result = read(text, world);
  if (result.ok()) return "";
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  const Problem& p = result.error().problems.front();
  return p.where + ": " + p.message;
}

TEST(JobImport, MegatronStages) {
  const std::string pp = "--micro-batch-size 1 --pipeline-model-parallel-size 2\n";
  const auto has = [&](const std::string& flags, const std::string& expected) {
    const std::string got = pins(pp + flags);
    EXPECT_NE(got.find(expected), std::string::npos) << flags << ": " << got;
  };
  has("", "schedule=1f1b virtual_stages=1 stage_layers=even cp=1");
  has("--num-virtual-stages-per-pipeline-rank 2",
      "schedule=interleaved virtual_stages=2 stage_layers=even cp=1");
  has("--num-layers-per-virtual-pipeline-stage 1",
      "schedule=interleaved virtual_stages=2 stage_layers=even cp=1");
  has("--decoder-first-pipeline-num-layers 3", "virtual_stages=1 stage_layers=3,1");
  has("--decoder-last-pipeline-num-layers 3", "virtual_stages=1 stage_layers=1,3");
  has("--pipeline-model-parallel-layout 'E|t|(t)*2,|tL'",
      "schedule=interleaved virtual_stages=2 stage_layers=0,1,2,1");
  has("--account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split",
      "virtual_stages=1 stage_layers=even cp=1");
}

TEST(JobImport, MegatronContradictions) {
  const std::string mb = "--micro-batch-size 1\n", pp = mb + "--pipeline-model-parallel-size 2\n";
  EXPECT_EQ(problem(pp + "--num-virtual-stages-per-pipeline-rank 2\n"
                         "--num-layers-per-virtual-pipeline-stage 1\n"),
            "f:4: --num-layers-per-virtual-pipeline-stage beside "
            "--num-virtual-stages-per-pipeline-rank");
  EXPECT_EQ(problem(pp + "--num-layers-per-virtual-pipeline-stage 3\n"),
            "f:3: 4 layers of small-moe do not divide by 2 ranks x 3 layers");
  EXPECT_EQ(problem(pp + "--pipeline-model-parallel-layout 'Et|tt|L'\n"),
            "f:3: 3 stages are no multiple of the 2 ranks of the pipeline");
  EXPECT_EQ(problem(pp + "--pipeline-model-parallel-layout 'Et|ttL'\n"),
            "f:3: the stages have 3 layers, but small-moe has 4");
  EXPECT_EQ(problem(pp + "--pipeline-model-parallel-layout 'Et|ttx'\n"),
            "f:3: --pipeline-model-parallel-layout 'Et|ttx': 'x' is none of E, t, m, L and |");
  EXPECT_EQ(problem(pp + "--decoder-first-pipeline-num-layers 5\n"),
            "f:3: the other 1 ranks cannot share -1 layers");
  EXPECT_EQ(problem(mb + "--num-virtual-stages-per-pipeline-rank 2\n"),
            "f:2: 2 virtual stages without a pipeline");
  EXPECT_EQ(problem(mb + "--pipeline-model-parallel-size 8\n"),
            "f:2: 8 stages, but small-moe has 4 layers");
  EXPECT_EQ(problem(mb + "--tensor-model-parallel-size\n--pipeline-model-parallel-size 2\n"),
            "f:2: --tensor-model-parallel-size '' is not a whole number");
  EXPECT_EQ(problem(mb + "--bf16 --fp16\n"), "f:2: --fp16 beside --bf16");
  EXPECT_EQ(problem(mb + "--tensor-model-parallel-size 32\n"),
            "f:2: tp 32 x pp 1 x cp 1 x sp 1 does not divide 16 devices");
  EXPECT_EQ(problem("torchrun --nnodes 4 --nproc-per-node 8 x.py --micro-batch-size 1\n"),
            "f:1: launches 32 ranks, but the cluster has 16 devices");
}

TEST(JobImport, TorchtitanStages) {
  const std::string head =
      "[training]\nlocal_batch_size = 8\n[parallelism]\npipeline_parallel_degree = 2\n";
  const auto has = [&](const std::string& keys, const std::string& expected) {
    const std::string got = pins(head + keys);
    EXPECT_NE(got.find(expected), std::string::npos) << keys << ": " << got;
  };
  // 4 layers and two ends in two stages.
  has("", "pp=2 schedule=1f1b virtual_stages=1 stage_layers=even cp=1");
  has("pipeline_parallel_schedule = 'GPipe'\n", "schedule=gpipe");
  has("pipeline_parallel_schedule = 'Interleaved1F1B'\n",
      "schedule=interleaved virtual_stages=2 stage_layers=1,2,1,0");
  has("pipeline_parallel_schedule = 'ZBVZeroBubble'\n", "pp=2 virtual_stages=2 stage_layers");
  has("module_fqns_per_model_part = [['tok_embeddings', 'layers.0'], ['layers.1', 'layers.2', "
      "'layers.3', 'norm', 'output']]\n",
      "virtual_stages=1 stage_layers=1,3");
  has("pipeline_parallel_microbatch_size = 4\n", "micro_batch=4");
  EXPECT_EQ(problem(head + "pipeline_parallel_microbatch_size = 3\n"),
            "f:5: pipeline_parallel_microbatch_size 3 does not divide local_batch_size 8");
  EXPECT_EQ(problem(head + "pipeline_parallel_layers_per_stage = 2\n"),
            "f:5: 3 stages are no multiple of the 2 ranks of the pipeline");
  EXPECT_EQ(problem(head + "pipeline_parallel_schedule = '1F1B'\n"
                           "pipeline_parallel_first_stage_less_layers = 0\n"
                           "pipeline_parallel_last_stage_less_layers = 0\n"
                           "pipeline_parallel_layers_per_stage = 1\n"),
            "f:5: 1F1B with 2 stages a rank");
}

TEST(JobImport, DeepspeedStages) {
  const auto of = [&](int stage) {
    return pins(R"({"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": )" +
                std::to_string(stage) + "}}");
  };
  EXPECT_NE(of(0).find("sharding=none"), std::string::npos);
  EXPECT_NE(of(1).find("sharding=optimizer fsdp_d=16 replicate_d=1"), std::string::npos);
  EXPECT_NE(of(2).find("sharding=gradients fsdp_d=16"), std::string::npos);
  EXPECT_NE(of(3).find("sharding=parameters fsdp_d=16"), std::string::npos);
  EXPECT_EQ(problem(R"({"zero_optimization": {"stage": 2, "mics_shard_size": 4}})"),
            "f:/zero_optimization/mics_shard_size: mics_shard_size 4 with ZeRO stage 2");
  EXPECT_EQ(
      problem(R"({"zero_optimization": {"stage": 3}, "tensor_parallel": {"autotp_size": 2}})"),
      "f:/tensor_parallel/autotp_size: autotp_size 2 with ZeRO stage 3");
}

TEST(Stages, TextsOfMegatron) {
  const auto layers = [](const std::string& text) {
    const auto parsed = megatron::parse_stages(text, "f");
    std::string out;
    if (!parsed.ok()) return parsed.error().problems.front().message;
    for (const std::int64_t n : parsed.value()) out += std::to_string(n) + " ";
    return out;
  };
  EXPECT_EQ(layers("Et*3|(tt|)*3,m|L"), "3 2 2 2 0 0 ");
  EXPECT_EQ(layers("E||t|L"), "0 0 1 0 ");
  EXPECT_EQ(layers("EtL"), "1 ");
  EXPECT_EQ(layers("tt|L"),
            "'tt|L': it does not begin with the embedding (E) and end with the "
            "loss (L)");
  EXPECT_EQ(layers("E(t|*3L"), "'E(t|*3L': '(' is not closed");
  EXPECT_EQ(layers("E((t)|)L"), "'E((t)|)L': brackets inside brackets");
  EXPECT_EQ(layers("Et)L"), "'Et)L': ')' without '('");
  EXPECT_EQ(layers("Et*L"), "'Et*L': '*' without a number");
  EXPECT_EQ(layers("E(t*60000|)*60000L"), "'E(t*60000|)*60000L': more than 65536 letters");
}

}  // namespace
}  // namespace orrery::handover
