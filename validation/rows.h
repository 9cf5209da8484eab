// Published rows: what a source says of a training run, as it says it. The schema is that of the
// collection of published results; null and absent both mean "not said".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/result.h"

namespace orrery::validation {

using Count = std::optional<std::int64_t>;

struct ModelFacts {
  std::string name;
  Count layers, hidden, ffn, heads, kv_heads, head_dim, vocab, sequence_tokens;
  Count experts, top_k, moe_ffn, shared_experts, dense_first_layers;
  std::string attention;  // "mha", "gqa", "mqa", "mla"
  std::optional<bool> gated, tied;
  std::optional<LatentAttention> latent;
  std::string notes;
  bool operator==(const ModelFacts&) const = default;
};

struct ClusterFacts {
  std::string gpu;
  Count gpus, gpus_per_node, nvlink_domain;
  std::optional<double> intra_gbyte_s;  // of a device, both directions together
  std::optional<double> inter_gbit_s;   // of a device, one direction
  bool operator==(const ClusterFacts&) const = default;
};

struct PlanFacts {
  Count dp, tp, pp, vpp, cp, sp, ep, etp, zero_stage, micro_batch, global_batch;
  std::string fsdp, recompute, precision;  // the source's words; "" where it says nothing
  std::optional<bool> sequence_parallel;
  // What else the source says, by key; keys of inner objects with a dot. Texts are as they are,
  // other values as JSON.
  std::map<std::string, std::string> extra;
  bool operator==(const PlanFacts&) const = default;
};

struct Measured {
  std::optional<double> step_s, tokens_per_device_s;
  std::optional<double> memory;  // in units of `memory_unit` bytes
  double memory_unit = 1e9;
  bool memory_allocated = false;  // it is what was alive, not what the process took of the device
  bool out_of_memory = false;
  bool operator==(const Measured&) const = default;
};

struct PublishedRow {
  std::string id;
  std::string source;  // stem of the file
  std::string date;    // of the source, as it writes it
  ModelFacts model;
  ClusterFacts cluster;
  PlanFacts plan;
  Measured measured;
  // As printed, or by tokens a second and device.
  std::optional<double> step_s() const;
  std::optional<double> memory_bytes() const;
  bool operator==(const PublishedRow&) const = default;
};

// `place` is the file's name; problems carry the row and the field. A run that names no framework
// is given that of all other rows of the file, where they name one alone.
Result<std::vector<PublishedRow>> parse_rows(const std::string& text, const std::string& place);
Result<std::vector<PublishedRow>> load_rows(const std::string& path);

}  // namespace orrery::validation
