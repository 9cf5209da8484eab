// A published row, made up, that says everything; tests take things away from it.
#pragma once

#include "validation/rows.h"

namespace orrery::validation {

inline PublishedRow made_up_row() {
  PublishedRow row;
  row.id = "made_up#0";
  row.source = "made_up";
  row.date = "2025-03";
  ModelFacts& m = row.model;
  m.name = "anything";
  m.layers = 32;
  m.hidden = 4096;
  m.ffn = 11008;
  m.heads = m.kv_heads = 32;
  m.head_dim = 128;
  m.vocab = 32000;
  m.sequence_tokens = 4096;
  m.attention = "mha";
  m.gated = true;
  m.tied = false;
  row.cluster = {"H100-80GB", 16, 8, {}, 900.0, 400.0};
  PlanFacts& p = row.plan;
  p.dp = 4;
  p.tp = 2;
  p.pp = 2;
  p.vpp = 4;
  p.cp = p.sp = p.ep = p.etp = 1;
  p.zero_stage = 1;
  p.micro_batch = 2;
  p.global_batch = 64;
  p.recompute = "none";
  p.precision = "bf16";
  p.sequence_parallel = true;
  p.extra = {{"framework", "NeMo 25.04"}};
  row.measured.step_s = 2.0;
  return row;
}

// The same with experts.
inline PublishedRow made_up_moe() {
  PublishedRow row = made_up_row();
  row.model.experts = 64;
  row.model.top_k = 6;
  row.model.moe_ffn = 1408;
  row.model.shared_experts = 2;
  row.model.dense_first_layers = 1;
  row.plan.ep = 8;
  row.plan.extra["dispatcher"] = "DeepEP";
  row.plan.extra["moe_routing"] = "force-balanced, dropless";
  return row;
}

}  // namespace orrery::validation
