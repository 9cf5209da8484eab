// Jobs made in code, for tests of what is simulated beyond the engine's layouts.
#pragma once

#include "core/job.h"
#include "tests/support/plans.h"

namespace orrery {

// 32 heads, 8 of keys; hidden 1024, ffn 3072; `layers` layers; a batch of 64 rows of 2048 tokens.
inline Job dense_job(std::int64_t devices = 8, std::int64_t layers = 4) {
  Job job;
  Model& m = job.model;
  m.name = "dense";
  m.vocab = 32000;
  m.hidden = 1024;
  m.layers = layers;
  m.heads = 32;
  m.kv_heads = 8;
  m.head_dim = 64;
  m.ffn = 3072;
  m.qk_norm = false;
  m.moe_layer.assign(static_cast<std::size_t>(layers), false);
  job.cluster = small_cluster(devices);
  job.sequence_tokens = 2048;
  job.global_sequences = 64;
  job.layout.dp = job.layout.fsdp_d = devices;
  return job;
}

inline Job moe_job(std::int64_t devices = 8, std::int64_t layers = 4) {
  Job job = dense_job(devices, layers);
  job.model.name = "moe";
  job.model.experts = 16;
  job.model.top_k = 4;
  job.model.moe_ffn = 512;
  job.model.moe_layer.assign(static_cast<std::size_t>(layers), true);
  return job;
}

}  // namespace orrery
