// What is handed over, of a plan or of a job: one description, which every format writes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/job.h"
#include "core/plan.h"

namespace orrery::handover {

// A value by the name that plan.json or a job file has for it.
struct Field {
  std::string name, value;
  std::string pointer;  // where it stands there: "/layout/pp"
  bool listed = false;  // of chunks and memory policy: an engine may do otherwise, if that is said
  bool plain = true;    // at its default
};

struct Recipe {
  bool of_job = false;
  std::string title;  // "qwen3-8b on h100x8 with pretrain-4k, plan 0123456789ab"
  std::string words;  // the layout in one line
  std::vector<Field> fields;
  Model model;
  std::string device;
  std::int64_t devices = 1, devices_per_node = 1;

  // `sp`: ranks that exchange heads around attention, `cp`: those that pass or gather keys; a job's
  // cp of the exchange all_to_all is sp here. accumulation: passes of a rank one after another, as
  // in a plan. Of a job fsdp_e and replicate_e are 0: experts are shared as the engine derives it.
  Layout layout;
  bool gathers_keys = false;  // of cp; else they go round in a ring
  Dispatcher dispatcher = Dispatcher::kAllToAll;
  bool sequence_parallel = false;
  Sharding sharding = Sharding::kNone;
  std::int64_t kept_layers = 0;  // the last n keep their parameters gathered until backward
  std::int64_t virtual_stages = 1;
  PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward;
  std::vector<std::int64_t> stage_layers;  // of each virtual stage
  Recompute recompute;                     // modules: those that this model has
  bool counts_by_stage = true;             // Recompute::full_layers; else of the model, as a plan's
  Precision precision = Precision::kBf16;
  std::string other_types;  // not empty: numbers' types that are none of these
  bool trains_adapters = false;

  std::int64_t sequence_tokens = 0, global_sequences = 0;
  std::string documents;  // "4 a row"; empty: one
  double bias_speed = 0, z_loss = 0;
  bool balances_sequences = true;
  // Of a plan; their defaults in a job.
  Chunks chunks;
  MemoryPolicy policy;
  std::optional<Stack> stack;  // of a job

  std::int64_t stages() const { return layout.pp * virtual_stages; }
  // Ranks that hold different sequences or parts of them.
  std::int64_t data_ranks() const { return layout.dp * layout.cp * layout.sp; }
  bool even_stages() const;
  // Every layer runs again whole in backward.
  bool recomputes_all() const;
  // The names of `recompute` and `kept_layers` in the file.
  const char* whole_field() const { return of_job ? "recompute" : "recompute_layers"; }
  const char* modules_field() const { return of_job ? "recompute" : "recompute_ffn"; }
  const char* keep_field() const { return of_job ? "keeps_gathered" : "keep_layers"; }
  const Field* find(const std::string& name) const;
};

Recipe recipe_of(const Plan& plan);
Recipe recipe_of(const Job& job);

// The modules of them that a layer of the model has: running others again says nothing.
std::vector<bool> modules_of(const Model& model, std::vector<bool> modules);
// "full", "ops", "none", or modules with "+" between them.
std::string recompute_word(const Recompute& recompute);

}  // namespace orrery::handover
