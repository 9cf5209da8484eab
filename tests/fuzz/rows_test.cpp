// The same fuzzing of published rows: a file is read or refused with a place; every row of what is
// read becomes a job that keeps the rules, or is refused with a field.
#include <gtest/gtest.h>

#include "tests/fuzz/mutate_text.h"
#include "validation/jobs.h"

namespace orrery::validation {
namespace {

constexpr int kMutations = 20000;

constexpr const char* kRows = R"({
  "source": {"title": "made up", "date": "2024-07"},
  "rows": [{
    "id": "made_up#0",
    "model": {"name": "m", "layers": 8, "hidden": 512, "ffn_hidden": 2048, "heads": 8,
      "kv_heads": 4, "head_dim": 64, "vocab": 1000, "seq_len": 1024, "experts": 16, "topk": 2,
      "moe_ffn_hidden": 256, "shared_experts": 1, "dense_first_layers": 1, "attention": "gqa",
      "gated_mlp": true, "tied_embeddings": null,
      "notes": "alternating sliding-window (128) / full attention layers"},
    "cluster": {"gpu": "H100-80GB", "gpus": 16, "gpus_per_node": 8, "intra_node_bw_GBps": 900,
      "inter_node_bw_Gbps": null},
    "plan": {"dp": 4, "tp": 2, "pp": 2, "vpp": 2, "cp": 1, "sp_ulysses": 1, "ep": 4, "etp": 1,
      "zero_stage": 1, "fsdp": 0, "micro_batch": 1, "global_batch": 64,
      "recompute": "selective: core_attn, layernorm", "precision": "bf16",
      "sequence_parallel": true, "extra": {"framework": "NeMo 24.07", "zero1_group": 2,
      "recipe_fields": {"recompute_num_layers": "2"}, "dispatcher": "alltoall"}},
    "measured": {"step_time_s": 1.5, "tokens_per_s_per_gpu": null, "peak_mem_gb": 30}
  }, {
    "id": "made_up#1",
    "model": {"name": "m", "layers": 4, "hidden": 512, "ffn_hidden": 2048, "heads": 8,
      "kv_heads": 8, "head_dim": 64, "vocab": 1000, "seq_len": 1024, "attention": "mla",
      "mla_dims": {"q_lora_rank": null, "kv_lora_rank": 64, "qk_nope": 32, "qk_rope": 16,
      "v_head": 32}, "gated_mlp": false},
    "cluster": {"gpu": "A100-80GB", "gpus": 8, "gpus_per_node": 8},
    "plan": {"dp": null, "tp": 1, "pp": 1, "zero_stage": 3, "fsdp": "HSDP", "micro_batch": 2,
      "global_batch": null, "recompute": "full", "precision": "fp16", "extra": {"ga": "4"}},
    "measured": {"tokens_per_s_per_gpu": 1000}
  }]
})";

TEST(Fuzz, RowsSurviveMutatedFiles) {
  const std::vector<Stack> stacks = load_stacks().value();
  int accepted = 0, jobs = 0, refused = 0;
  for (int i = 0; i < kMutations; ++i) {
    std::mt19937_64 rng(static_cast<std::uint64_t>(i));
    const std::string text = mutate(kRows, rng);
    const auto rows = parse_rows(text, "f.json");
    if (!rows.ok()) {
      EXPECT_EQ(rows.error().code, ErrorCode::kInvalid);
      EXPECT_FALSE(rows.error().problems.empty());
      for (const Problem& p : rows.error().problems) {
        EXPECT_EQ(p.where.substr(0, 6), "f.json") << p.message;
      }
    } else {
      ++accepted;
      for (const PublishedRow& row : rows.value()) {
        const RowJob made = job_of(row, stacks);
        EXPECT_NE(made.job.has_value(), !made.refused.empty());
        ++(made.job ? jobs : refused);
        if (made.job) {
          EXPECT_TRUE(violations(*made.job).empty());
        }
      }
    }
    if (HasFailure()) FAIL() << "seed " << i << "\n" << text;
  }
  EXPECT_GT(accepted, 200);
  EXPECT_LT(accepted, kMutations);
  EXPECT_GT(jobs, 200);
  EXPECT_GT(refused, 200);
}

}  // namespace
}  // namespace orrery::validation
