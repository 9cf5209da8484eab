// Workload: what is trained on: sequence length, documents, global batch, precision, optimizer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/configs.h"
#include "core/json.h"
#include "core/program/block.h"
#include "core/result.h"

namespace orrery {

// Learning rate over the steps: linear warm-up to AdamW::lr, then constant, or down to min_lr by
// a line or half a cosine at total_steps.
enum class ScheduleKind { kConstant, kLinear, kCosine };
struct Schedule {
  ScheduleKind kind = ScheduleKind::kConstant;
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;  // 0: unused (constant)
  double min_lr = 0;
  bool operator==(const Schedule&) const = default;
};

struct AdamW {
  double lr = 3e-4, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double clip_norm = 1.0;  // of the global gradient norm, > 0
  Schedule schedule{};
  bool operator==(const AdamW&) const = default;
};

// Scope of the balancing loss. kSequence does not depend on the layout; kMicrobatchGlobal sums the
// expert counts of one micro-batch over the world (as XTuner does).
enum class BalanceScope { kSequence, kMicrobatchGlobal };

struct Workload {
  std::string name;
  std::int64_t sequence_tokens = 0;           // of one row (or pack)
  std::int64_t global_sequences = 0;          // rows a step
  std::vector<std::int64_t> document_tokens;  // lengths of the documents of a typical row; sums to
                                              // sequence_tokens
  DType compute = DType::kBFloat16;           // gathered parameters, activations
  DType master = DType::kFloat32;             // shards, optimizer state
  BalanceScope balance_scope = BalanceScope::kSequence;
  double expert_load_cv = 0;  // coefficient of variation of the load of the experts
  double z_loss = 0;          // coefficient of the mean squared log-sum-exp of the router's logits
  double bias_speed = 0;      // of the router biases a step (models that have them)
  AdamW optimizer;
  std::string sha256;  // of to_json(workload).dump(-1)

  bool operator==(const Workload&) const = default;
  std::int64_t global_tokens() const { return sequence_tokens * global_sequences; }
  // Sum over the documents of a row of len * (len + 1) / 2.
  std::int64_t pairs_per_sequence() const;
};

// Of step 0, 1, ...: rises along a line to lr at step warmup_steps - 1 (where there is a warm-up),
// then stays, or falls to min_lr at step total_steps - 1 and stays there.
double learning_rate(const AdamW& optimizer, std::int64_t step);

Result<Workload> load_workload(const std::string& name);
Result<Workload> parse_workload(const std::string& text, const std::string& place);
// The same of JSON inside another file; `place` is "file:/json/pointer".
Result<Workload> workload_from_json(const Json& json, const std::string& place);
// Reads back to an equal Workload.
Json to_json(const Workload& workload);

}  // namespace orrery
