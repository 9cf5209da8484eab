// Rows become jobs: what is taken over, completed, refused.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/configs.h"
#include "simulator/stages/parameters.h"
#include "tests/validation/rows.h"
#include "validation/jobs.h"
#include "validation/words.h"

namespace orrery::validation {
namespace {

const std::vector<Stack>& stacks() {
  static const std::vector<Stack> all = load_stacks().value();
  return all;
}

Job job(const PublishedRow& row) {
  const RowJob made = job_of(row, stacks());
  std::string why;
  for (const Refusal& r : made.refused) why += r.field + ": " + r.reason + "\n";
  CHECK(made.job.has_value(), why);
  return *made.job;
}

// The first field that a row is refused for, else "".
std::string refused_field(const PublishedRow& row) {
  const RowJob made = job_of(row, stacks());
  EXPECT_EQ(made.job.has_value(), made.refused.empty());
  return made.refused.empty() ? "" : made.refused.front().field;
}

bool lists(const RowJob& made, const std::string& start) {
  return std::any_of(made.completed.begin(), made.completed.end(),
                     [&](const std::string& text) { return text.starts_with(start); });
}

TEST(Jobs, TakesWhatIsStated) {
  const RowJob made = job_of(made_up_row(), stacks());
  ASSERT_TRUE(made.job.has_value());
  EXPECT_TRUE(made.completed.empty()) << made.completed.front();
  const Job& j = *made.job;
  EXPECT_EQ(j.stack.name, "megatron-core-2025");
  EXPECT_EQ(j.layout.world(), 16);
  EXPECT_EQ(j.layout.accumulation, 8);
  EXPECT_EQ(j.micro_batches(), 8);
  EXPECT_EQ(j.sharding, Sharding::kOptimizer);
  EXPECT_EQ(j.layout.fsdp_d, 4);
  EXPECT_EQ(j.layout.replicate_d, 1);
  EXPECT_EQ(j.virtual_stages, 4);
  EXPECT_EQ(j.schedule, PipelineSchedule::kInterleaved);
  EXPECT_TRUE(j.sequence_parallel);
  EXPECT_EQ(j.model.kv_heads, 32);
  EXPECT_EQ(j.model.norm, NormKind::kRms);
  EXPECT_EQ(j.cluster.devices, 16);
  EXPECT_EQ(j.cluster.tiers.size(), 2U);
  EXPECT_DOUBLE_EQ(j.cluster.tiers[0].bandwidth.value(), 450e9);
  EXPECT_DOUBLE_EQ(j.cluster.tiers[1].bandwidth.value(), 50e9);
}

TEST(Jobs, CompletesAndSaysSo) {
  PublishedRow row = made_up_row();
  row.plan.dp = row.plan.micro_batch = row.plan.vpp = std::nullopt;
  row.plan.recompute.clear();
  row.plan.sequence_parallel.reset();
  row.cluster.inter_gbit_s.reset();
  row.model.tied.reset();
  row.plan.extra.clear();
  const RowJob made = job_of(row, stacks());
  ASSERT_TRUE(made.job.has_value());
  EXPECT_EQ(made.job->layout.dp, 4);
  for (const char* start : {"dp=4", "micro_batch=1", "vpp=1", "recompute=none", "sequence_parallel",
                            "inter_node=400", "tied_embeddings=false", "stack=generic"}) {
    EXPECT_TRUE(lists(made, start)) << start;
  }
}

TEST(Jobs, CompletesPipelinesByTheirBatchAndSchedule) {
  PublishedRow row = made_up_row();
  row.plan.micro_batch = row.plan.vpp = std::nullopt;
  row.plan.extra["local_batch"] = "8";
  row.plan.extra["pp_schedule"] = "Interleaved1F1B";
  const RowJob made = job_of(row, stacks());
  ASSERT_TRUE(made.job.has_value());
  EXPECT_EQ(made.job->layout.micro_batch, 4);
  EXPECT_EQ(made.job->virtual_stages, 2);
  EXPECT_TRUE(lists(made, "micro_batch=4"));
  EXPECT_TRUE(lists(made, "vpp=2"));
  row.plan.extra["local_batch"] = "7";  // no parts
  EXPECT_EQ(job(row).layout.micro_batch, 1);
}

// Extents and vocabulary of gpt-oss-120b under another name: its sinks, biases and windows are
// known; with another vocabulary it is some other model.
TEST(Jobs, KnownExtentsCompleteWhatARowHasNoFieldFor) {
  PublishedRow row = made_up_moe();
  ModelFacts& m = row.model;
  m.layers = 36;
  m.hidden = m.ffn = m.moe_ffn = 2880;
  m.heads = m.head_dim = 64;
  m.kv_heads = 8;
  m.attention = "gqa";
  m.vocab = 201088;
  m.experts = 128;
  m.top_k = 4;
  m.shared_experts = m.dense_first_layers = 0;
  row.plan.tp = row.plan.pp = row.plan.vpp = 1;
  row.plan.dp = 16;
  const Job known = job(row);
  EXPECT_TRUE(known.model.attention_sinks);
  EXPECT_TRUE(known.model.linear_bias);
  EXPECT_EQ(known.model.window.size(), 36U);
  EXPECT_EQ(known.model.name, "anything");
  m.vocab = 128000;
  const Job other = job(row);
  EXPECT_FALSE(other.model.attention_sinks);
  EXPECT_TRUE(other.model.window.empty());
}

TEST(Jobs, WordsOnMemoryAgainstTheStack) {
  PublishedRow row = made_up_row();
  row.plan.extra["framework"] = "Megatron-DeepSpeed, 1F1B";
  EXPECT_FALSE(job(row).stack.fp32_gradients);
  EXPECT_TRUE(job(row).stack.copies_gradients);
  row.plan.extra["optimizer"] = "BF16 optimizer with fp32 grad accumulation";
  EXPECT_TRUE(job(row).stack.fp32_gradients);
  row.plan.extra["framework"] = "HF TRL, chunked loss";
  EXPECT_EQ(job(row).stack.loss, LossKernel::kChunked);
  row.plan.extra["framework"] = "HF TRL, fused cross entropy";
  EXPECT_EQ(job(row).stack.loss, LossKernel::kFused);
  row.plan.extra["framework"] = "HF TRL";
  EXPECT_EQ(job(row).stack.loss, LossKernel::kTorch);
}

TEST(Jobs, SelectiveIsWhatTheStackMeans) {
  PublishedRow row = made_up_row();
  row.plan.recompute = "selective";
  EXPECT_TRUE(job(row).recompute.again(Module::kCoreAttention));
  EXPECT_FALSE(job(row).recompute.ops);
  row.plan.extra["framework"] = "torchtitan";
  EXPECT_TRUE(job(row).recompute.ops);
  EXPECT_FALSE(job(row).recompute.again(Module::kCoreAttention));
  EXPECT_TRUE(lists(job_of(row, stacks()), "recompute=selective: op"));
  row.plan.recompute = "selective: core_attn";
  EXPECT_FALSE(job(row).recompute.ops);
  row.plan.extra["framework"] = "NeMo 25.04";
  row.plan.recompute = "selective (op)";
  EXPECT_TRUE(job(row).recompute.ops);
}

TEST(Jobs, RefusesWithTheField) {
  const auto with = [](auto change) {
    PublishedRow row = made_up_row();
    change(row);
    return refused_field(row);
  };
  EXPECT_EQ(with([](auto& r) { r.plan.global_batch.reset(); }), "plan.global_batch");
  EXPECT_EQ(with([](auto& r) { r.plan.global_batch = 63; }), "plan.global_batch");
  EXPECT_EQ(with([](auto& r) { r.plan.tp.reset(); }), "plan.tp");
  EXPECT_EQ(with([](auto& r) { r.plan.dp = 8; }), "plan.dp");
  EXPECT_EQ(with([](auto& r) { r.plan.tp = 3; }), "plan.dp");
  EXPECT_EQ(with([](auto& r) { r.cluster.gpu = "TPU"; }), "cluster.gpu");
  EXPECT_EQ(with([](auto& r) { r.cluster.gpus_per_node = 5; }), "cluster.gpus");
  EXPECT_EQ(with([](auto& r) { r.model.layers.reset(); }), "model.layers");
  EXPECT_EQ(with([](auto& r) { r.model.attention = "mla"; }), "model.mla_dims");
  EXPECT_EQ(with([](auto& r) { r.model.notes = "hybrid Mamba/attention"; }), "model.notes");
  EXPECT_EQ(with([](auto& r) { r.plan.precision = "nvfp4"; }), "plan.precision");
  EXPECT_EQ(with([](auto& r) { r.plan.recompute = "selective: magic"; }), "plan.recompute");
  EXPECT_EQ(with([](auto& r) { r.plan.extra["pp_schedule"] = "v-half"; }),
            "plan.extra.pp_schedule");
  EXPECT_EQ(with([](auto& r) { r.measured.step_s.reset(); }), "measured");
  EXPECT_EQ(with([](auto& r) { r.plan.extra["analytic"] = "true"; }), "measured");
}

TEST(Jobs, DealsLayersOutAsTheRowSays) {
  PublishedRow row = made_up_row();  // 32 layers, 2 stages of 4 chunks
  using Counts = std::vector<std::int64_t>;
  EXPECT_EQ(job(row).stage_layers, Counts{});
  row.plan.pp = 4;
  row.plan.dp = 2;
  row.plan.vpp = 1;
  row.plan.extra["decoder_first_pipeline_num_layers"] = "5";
  EXPECT_EQ(job(row).stage_layers, (Counts{5, 9, 9, 9}));
  row.plan.extra["recipe_fields.num_layers_in_last_pipeline_stage"] = "7";
  EXPECT_EQ(job(row).stage_layers, (Counts{5, 10, 10, 7}));
  row.plan.vpp = 2;
  EXPECT_EQ(refused_field(row), "plan.stage_layers") << "5 layers in 2 chunks";
  row.plan.extra["decoder_first_pipeline_num_layers"] = "6";
  row.plan.extra["recipe_fields.num_layers_in_last_pipeline_stage"] = "6";
  EXPECT_EQ(job(row).stage_layers, (Counts{3, 5, 5, 3, 3, 5, 5, 3}));
  row = made_up_row();
  row.model.layers = 30;
  row.plan.extra["account_for_embedding_in_pipeline_split"] = "true";
  EXPECT_EQ(refused_field(row), "plan.stage_layers") << "31 on 2 stages";
  row.plan.extra["account_for_loss_in_pipeline_split"] = "true";
  EXPECT_EQ(job(row).stage_layers, (Counts{3, 4, 4, 4, 4, 4, 4, 3}));
  row = made_up_row();
  row.plan.pp = 4;
  row.plan.dp = 2;
  row.plan.vpp = 1;
  row.model.layers = 33;
  row.plan.extra["standalone_embedding_stage"] = "True";
  EXPECT_EQ(job(row).stage_layers, (Counts{0, 11, 11, 11}));
}

TEST(Jobs, ReadsLayoutsOfStages) {
  using Counts = std::vector<std::int64_t>;
  EXPECT_EQ(layers_of_layout("Et|tt|tL"), (Counts{1, 2, 1}));
  EXPECT_EQ(layers_of_layout("Ett|(t*3|)*2mL"), (Counts{2, 3, 3, 0}));
  EXPECT_EQ(layers_of_layout("E|(tt|t|)*2L"), (Counts{0, 2, 1, 2, 1, 0}));
  const Counts deep = layers_of_layout("Et*4|(t*4|)*14tmL").value();
  EXPECT_EQ(deep.size(), 16U);
  EXPECT_EQ(deep.back(), 1);
  for (const char* text : {"Et|x|L", "Et*|L", "(tt|L", "Et*0|L"}) {
    EXPECT_FALSE(layers_of_layout(text)) << text;
  }
  PublishedRow row = made_up_row();
  row.plan.vpp = 1;
  row.plan.extra["recipe_fields.layout"] = "Et*14|t*18L";
  EXPECT_EQ(job(row).stage_layers, (Counts{14, 18}));
  row.plan.extra["recipe_fields.layout"] = "Et*14|t*14L";  // of another depth
  EXPECT_EQ(job(row).stage_layers, Counts{});
  EXPECT_TRUE(lists(job_of(row, stacks()), "stage_layers=even"));
}

TEST(Jobs, PacksDocumentsWhereTheirLengthIsStated) {
  PublishedRow row = made_up_row();
  row.plan.extra["packed"] = "true";
  EXPECT_TRUE(job(row).documents.empty());
  EXPECT_TRUE(lists(job_of(row, stacks()), "documents=1"));
  row.plan.extra["mean_document_tokens"] = "1024";
  EXPECT_EQ(job(row).documents, std::vector<std::int64_t>(4, 1024));
  EXPECT_FALSE(lists(job_of(row, stacks()), "documents=1"));
}

TEST(Jobs, TakesTheStatedSchedule) {
  PublishedRow row = made_up_moe();
  row.plan.extra["a2a_overlap_1f1b"] = "true";
  EXPECT_EQ(job(row).schedule, PipelineSchedule::kOverlapped);
  row.plan.vpp = 1;  // Megatron-Core overlaps interleaved stages, or none at all
  EXPECT_EQ(job(row).schedule, PipelineSchedule::kOneForwardOneBackward);
  row.plan.extra.erase("a2a_overlap_1f1b");
  row.plan.extra["pp_schedule"] = "zero-bubble (zbb)";
  EXPECT_EQ(job(row).schedule, PipelineSchedule::kZeroBubble);
}

TEST(Jobs, ShardsOverTheStatedRanks) {
  PublishedRow row = made_up_row();
  row.plan.tp = row.plan.pp = row.plan.vpp = 1;
  row.plan.dp = 16;
  row.plan.zero_stage = 3;
  row.plan.fsdp = "FSDP2";
  EXPECT_EQ(job(row).sharding, Sharding::kParameters);
  EXPECT_FALSE(job(row).keeps_gathered);
  EXPECT_EQ(job(row).layout.fsdp_d, 16);
  row.plan.fsdp = "4";
  EXPECT_EQ(job(row).layout.fsdp_d, 4);
  EXPECT_EQ(job(row).layout.replicate_d, 4);
  row.plan.fsdp = "HSDP";
  EXPECT_EQ(job(row).layout.fsdp_d, 8);
  row.plan.fsdp = "5";
  EXPECT_EQ(refused_field(row), "plan.fsdp");
  row.plan.zero_stage = 2;
  row.plan.fsdp = "FSDP without resharding after forward";
  EXPECT_TRUE(job(row).keeps_gathered);
  row.plan.fsdp.clear();
  EXPECT_EQ(job(row).sharding, Sharding::kGradients);
  row.plan.zero_stage = 1;
  row.plan.extra["zero1_group"] = "8";
  EXPECT_EQ(job(row).layout.fsdp_d, 8);
  row.plan.extra["zero1_group"] = "-1";
  EXPECT_EQ(job(row).layout.fsdp_d, 16);
  row.plan.zero_stage = 0;
  EXPECT_EQ(job(row).layout.fsdp_d, 1);
  EXPECT_EQ(job(row).layout.replicate_d, 16);
}

TEST(Jobs, Experts) {
  PublishedRow row = made_up_moe();
  const Job j = job(row);
  EXPECT_EQ(j.model.shared_ffn, 2816);
  EXPECT_FALSE(j.model.moe_layer[0]);
  EXPECT_TRUE(j.model.moe_layer[1]);
  EXPECT_EQ(j.dispatcher, Dispatcher::kDeduplicated);
  EXPECT_EQ(j.expert_load_cv, 0);
  EXPECT_EQ(j.layout.replicate_e * j.layout.fsdp_e * j.layout.ep * j.layout.etp,
            j.layout.world() / j.layout.pp);
  row.plan.etp.reset();  // 8 ranks of a stage: ep 8 leaves no room for tp's 2
  EXPECT_EQ(job(row).layout.etp, 1);
  row.plan.ep = 4;
  EXPECT_EQ(job(row).layout.etp, 2);
  row.plan.extra["moe_routing"] = "natural";
  EXPECT_GT(job(row).expert_load_cv, 0);
  row.plan.etp = 4;
  EXPECT_EQ(refused_field(row), "plan.ep");
}

TEST(Jobs, FamilyFacts) {
  PublishedRow row = made_up_row();
  row.model.gated = false;
  EXPECT_EQ(job(row).model.norm, NormKind::kLayer);
  EXPECT_TRUE(job(row).model.linear_bias);
  EXPECT_EQ(job(row).model.positions, Positions::kLearned);
  row.plan.extra["framework"] = "Megatron-DeepSpeed, 1F1B";
  EXPECT_EQ(job(row).model.positions, Positions::kAlibi);
  row.model.notes = "squared ReLU";
  EXPECT_FALSE(job(row).model.linear_bias);
  EXPECT_EQ(job(row).model.positions, Positions::kRotary);
  row.model.notes = "alternating sliding-window (128) / full attention layers";
  EXPECT_EQ(job(row).model.window[0], 128);
  EXPECT_EQ(job(row).model.window[1], 0);
}

// What a run is called decides nothing.
TEST(Jobs, NamesDecideNothing) {
  PublishedRow row = made_up_moe();
  Job before = job(row);
  row.id = "other#7";
  row.source = "other";
  row.model.name = "BLOOM-like Llama GPT";
  const Job after = job(row);
  EXPECT_EQ(before.model.name, "anything");
  before.model.name = row.model.name;
  EXPECT_EQ(before.model, after.model);
  EXPECT_EQ(before.layout, after.layout);
  EXPECT_EQ(before.cluster, after.cluster);
  EXPECT_EQ(before.stack, after.stack);
}

TEST(Words, Recompute) {
  const auto again = [](const std::string& words) {
    std::string unknown, out;
    const auto r = recompute_of(words, unknown);
    if (!r) return "? " + unknown;
    if (r->full) return std::string("full");
    for (int i = 0; i < kNumModules; ++i) {
      const auto m = static_cast<Module>(i);
      if (r->again(m)) out += std::string(out.empty() ? "" : " ") + name_of(m);
    }
    return out;
  };
  EXPECT_EQ(again("none"), "");
  EXPECT_EQ(again("none (memory optimised away; stated for 8K)"), "");
  EXPECT_EQ(again("full"), "full");
  EXPECT_EQ(again("full (activation_checkpointing: true)"), "full");
  EXPECT_EQ(again("selective"), "core_attention");
  EXPECT_EQ(again("selective (attention core)"), "core_attention");
  EXPECT_EQ(again("selective: core_attn, layernorm"), "norm core_attention");
  EXPECT_EQ(again("selective: [\"layernorm\", \"moe_act\"]"), "norm expert_activation");
  EXPECT_EQ(again("selective: moe_act, layernorm, shared_experts"),
            "norm expert_activation shared_experts");
  EXPECT_EQ(again("selective: [\"mla_up_proj\", \"mlp\"]"), "latent_up mlp");
  EXPECT_EQ(again("selective: layernorm, magic"), "? magic");
  EXPECT_EQ(again("some"), "? some");
}

TEST(Stacks, AreChosenByWordsAndDate) {
  const auto name = [](const std::string& words, const std::string& date) {
    const Stack* stack = choose_stack(stacks(), words, date);
    return stack == nullptr ? "" : stack->name;
  };
  EXPECT_EQ(name("framework=Megatron-LM", "2021-04"), "megatron-lm-2021");
  EXPECT_EQ(name("framework=Megatron-LM", "2024"), "megatron-lm-2023");
  EXPECT_EQ(name("framework=Megatron-LM", "2026-05"), "megatron-lm-2025");
  EXPECT_EQ(name("framework=Megatron-Bridge", "2026-05"), "megatron-bridge-2026");
  EXPECT_EQ(name("framework=Megatron-LM; fsdp=DeepSpeed ZeRO-3", "2021-04"),
            "deepspeed-zero3-2021");
  EXPECT_EQ(name("framework=Megatron-LM, no flash attention", "2022-05"), "megatron-lm-2021");
  EXPECT_EQ(name("framework=torchtitan; compile=true", ""), "fsdp2-compiled");
  EXPECT_EQ(name("framework=torchtitan; compile=false", ""), "fsdp2-eager");
  EXPECT_EQ(name("framework=mindspeed-llm (Megatron-LM on Ascend)", "2024-07"), "mindspeed");
  EXPECT_EQ(name("framework=never heard of", "2024-07"), "");
}

TEST(Stacks, FilesReadBack) {
  ASSERT_GE(stacks().size(), 10U);
  for (const Stack& stack : stacks()) {
    const Result<Stack> again = parse_stack(to_json(stack).dump(), "again.json");
    ASSERT_TRUE(again.ok()) << again.error().text();
    EXPECT_EQ(again.value(), stack);
    std::string unknown;
    EXPECT_TRUE(recompute_of(stack.recompute, unknown).has_value()) << stack.name;
    EXPECT_TRUE(dispatcher_of(stack.dispatcher).has_value()) << stack.name;
  }
}

TEST(Stacks, ErrorsNamePlaceAndFix) {
  const Result<Stack> bad = parse_stack(
      R"({"family": "x", "attention": "flesh", "source": "s", "graph": true, "released": "May",
          "frameworks": [{"words": []}], "loss": "chunk", "parameters": {"exposed_share": 2}})",
      "s.json");
  ASSERT_FALSE(bad.ok());
  const std::string text = bad.error().text();
  for (const char* part : {"s.json:/attention", "did you mean 'flash'", "s.json:/graph",
                           "did you mean 'graphs'", "s.json:/released", "s.json:/loss",
                           "frameworks/0/words", "s.json:/parameters/exposed_share"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

TEST(Parameters, RegistryHasEveryOneOfAStack) {
  const auto& rows = simulator::free_parameters();
  const auto of_stack = std::count_if(
      rows.begin(), rows.end(), [](const auto& p) { return p.owner == simulator::Owner::kStack; });
  EXPECT_EQ(static_cast<std::size_t>(of_stack), stack_parameters().size());
  for (const auto& p : rows) {
    EXPECT_FALSE(p.meaning.empty()) << p.name;
    EXPECT_LE(p.min, p.prior) << p.name;
    EXPECT_LE(p.prior, p.max) << p.name;
  }
}

}  // namespace
}  // namespace orrery::validation
