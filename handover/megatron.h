// Flags of Megatron-LM that are both written and read, by its arguments.py (core 0.16).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/job.h"
#include "handover/account.h"

namespace orrery::handover::megatron {

using Lines = std::vector<std::string>;

inline constexpr const char* kTp = "--tensor-model-parallel-size";
inline constexpr const char* kSequence = "--sequence-parallel";
inline constexpr const char* kPp = "--pipeline-model-parallel-size";
inline constexpr const char* kVirtual = "--num-virtual-stages-per-pipeline-rank";
inline constexpr const char* kStages = "--pipeline-model-parallel-layout";
inline constexpr const char* kOverlapped = "--overlap-moe-expert-parallel-comm";
inline constexpr const char* kCp = "--context-parallel-size";
inline constexpr const char* kExchange = "--cp-comm-type";
inline constexpr const char* kLevels = "--hierarchical-context-parallel-sizes";
inline constexpr const char* kEp = "--expert-model-parallel-size";
inline constexpr const char* kEtp = "--expert-tensor-parallel-size";
inline constexpr const char* kDispatcher = "--moe-token-dispatcher-type";
inline constexpr const char* kBackend = "--moe-flex-dispatcher-backend";
inline constexpr const char* kFsdp = "--use-megatron-fsdp";
inline constexpr const char* kStates = "--use-distributed-optimizer";
inline constexpr const char* kStrategy = "--data-parallel-sharding-strategy";
inline constexpr const char* kInstances = "--num-distributed-optimizer-instances";
inline constexpr const char* kGranularity = "--recompute-granularity";
inline constexpr const char* kMethod = "--recompute-method";
inline constexpr const char* kRecomputed = "--recompute-num-layers";
inline constexpr const char* kModules = "--recompute-modules";
inline constexpr const char* kFp8 = "--fp8-format";

void add(Lines& lines, const char* flag, std::int64_t value);

// A word of --recompute-modules and what it runs again.
struct ModuleWord {
  const char* word;
  std::vector<Module> modules;
};
const std::vector<ModuleWord>& module_words();

// Flags of the model's extents and router. Refuses models that Megatron's GPT does not build.
Lines model_flags(const Recipe& recipe, Account& account);

// "Et|(tt|)*30mL": layers of each stage, with the embedding, the layers that predict further tokens
// and the loss at the ends.
std::string stage_text(const std::vector<std::int64_t>& layers, std::int64_t mtp_layers);

}  // namespace orrery::handover::megatron
