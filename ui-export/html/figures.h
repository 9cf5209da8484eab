// The figures of a run: what was predicted, what was measured, where they differ; and the plan.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/plan.h"
#include "tracer/compare.h"
#include "ui-export/html/op_table.h"
#include "ui-export/html/side.h"

namespace orrery::html {

// The plan that a run was of; nothing where it holds none that can be read.
std::optional<Plan> plan_of(const RunInfo& run);

// A layout of the plan in one line; of a model without experts, not their sharding.
std::string plan_words(const Plan& plan, Layout layout, const Chunks& chunks,
                       const MemoryPolicy& policy);

// Step time, tokens/s, model FLOP utilisation and peak memory of one side; null where not known.
//   {"step_s", "tokens_per_s", "mfu", "peak_bytes"}
Json headline_json(const Side& side, const std::optional<Plan>& plan);

// Steps in order, every n-th where there are more than `most`: {"step": [..], "seconds": [mean over
// ranks], "loss": [..], "grad_norm": [..], "balance_loss", "z_loss", "lr", "tokens", "counted": [0
// or 1]}; null for what is no number.
Json steps_json(const Side& side, std::size_t most, std::vector<std::string>& omitted);

// Classes of ops and single ops, largest difference first; at most `most` ops. Times are ns a rank
// and step. `both`: two sides were compared, else one with itself and "predicted" is null.
//   {"classes": [{"kind", "phase", "lane", "predicted", "measured"}],
//    "ops": {"op": [..], "predicted": [..], "measured": [..]},
//    "layers": [{"path", "phase", "kind", "op" (one of them), "count", "predicted", "measured"}],
//    "joined", "only_predicted", "only_measured", "same_program"}
// "layers" sums the same op of all layers ("layer.*/attn"), of every op that was compared.
Json compare_json(const CompareReport& report, bool predicted, bool measured, std::size_t most,
                  OpTable& ops, std::vector<std::string>& omitted);

// The plan for a reader: job, layout, figures, memory, runners-up with why each lost, what the
// rules removed, the search. Null without a plan.
Json plan_json(const std::optional<Plan>& plan);

}  // namespace orrery::html
