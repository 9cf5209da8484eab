// A published row as a job that can be predicted: what it does not say is completed by defaults
// that are listed, or the row is refused with the field named. Names of models, rows and sources
// decide nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/job.h"
#include "validation/rows.h"

namespace orrery::validation {

struct Refusal {
  std::string field;  // "plan.global_batch"
  std::string reason;
  bool operator==(const Refusal&) const = default;
};

struct RowJob {
  std::optional<Job> job;
  std::vector<Refusal> refused;        // why there is none
  std::vector<std::string> completed;  // "recompute=none (default of megatron-core-2025)"
};

// What a row says of its framework: "framework=NeMo 24.07; container=...; fsdp=HSDP; compile=true".
std::string stack_words(const PublishedRow& row);

// Without a stack that its words name, the one called "generic".
RowJob job_of(const PublishedRow& row, const std::vector<Stack>& stacks);

// The steps of the above; each adds to `out.refused` and `out.completed`.
Model model_of(const ModelFacts& facts, const PlanFacts& plan, const Stack& stack, RowJob& out);
Layout layout_of(const PublishedRow& row, const Model& model, const Stack& stack, RowJob& out);
// Also global_sequences and whether parameters stay gathered.
void set_sharding(const PublishedRow& row, Job& job, RowJob& out);

// Layers by virtual stage, where the row says how they are dealt out. After virtual_stages is set.
void set_stage_layers(const PublishedRow& row, Job& job, RowJob& out);

// Layers by stage of a layout in Megatron-Core's words: E embedding, t a layer, m a further token,
// L loss, a bar between stages, "*4" repeats what stands before. nullopt: of other letters.
std::optional<std::vector<std::int64_t>> layers_of_layout(const std::string& layout);

// A count that has to be there: refuses, and gives 1, where it is not.
std::int64_t required(const Count& value, const char* field, RowJob& out);
// A count that has a default.
std::int64_t completed(const Count& value, const char* name, std::int64_t fallback,
                       const std::string& why, RowJob& out);
// What a row's "extra" says under a key, else "".
std::string extra_of(const PlanFacts& plan, const std::string& key);

}  // namespace orrery::validation
