// See recipe.h.
#include "handover/recipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/job_json.h"

namespace orrery::handover {
namespace {

std::string text_of(const Json& value) {
  return value.is_string() ? value.as_string() : value.dump(-1);
}

// A name stays inside its comment.
std::string one_line(std::string name) {
  for (char& c : name) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  return name;
}

void add_fields(const Json& values, const Json& defaults, const std::string& pointer, bool listed,
                Recipe& recipe) {
  for (const auto& [name, value] : values.members()) {
    const Json* plain = defaults.find(name);
    recipe.fields.push_back(
        {name, text_of(value), pointer + name, listed, plain != nullptr && *plain == value});
  }
}

void set_types(const Workload& w, Recipe& recipe) {
  recipe.precision = w.compute == DType::kBFloat16 ? Precision::kBf16 : Precision::kFp32;
  const bool known = w.compute == DType::kBFloat16 || w.compute == DType::kFloat32;
  if (known && w.master == DType::kFloat32) return;
  recipe.other_types =
      fmt::format("compute {}, master {}", orrery::name_of(w.compute), orrery::name_of(w.master));
}

void set_workload(const Workload& w, Recipe& recipe) {
  recipe.sequence_tokens = w.sequence_tokens;
  recipe.global_sequences = w.global_sequences;
  recipe.bias_speed = w.bias_speed;
  recipe.z_loss = w.z_loss;
  recipe.balances_sequences = w.balance_scope == BalanceScope::kSequence;
  if (w.document_lengths) {
    recipe.documents = "drawn";
  } else if (w.document_tokens.size() > 1) {
    recipe.documents = fmt::format("{} a row", w.document_tokens.size());
  }
}

// The fields of a job by its file's names; nested ones by their own.
void add_job_fields(const Job& job, Recipe& recipe) {
  const Json axes = axes_json(job);
  for (const auto& [name, value] : axes.members()) {
    if (name == "layout") {
      add_fields(value, Json::object(), "/job/layout/", false, recipe);
    } else if (name == "recompute") {
      const std::string word = recompute_word(recipe.recompute);
      recipe.fields.push_back({name, word, "/job/recompute", true, word == "none"});
    } else {
      const bool listed = name == "keeps_gathered";
      const bool idle = !job.keeps_gathered || job.sharding != Sharding::kParameters;
      recipe.fields.push_back({name, text_of(value), "/job/" + name, listed, !listed || idle});
    }
  }
}

void set_job_layout(const Job& job, Recipe& recipe) {
  Layout& l = recipe.layout;
  l = job.layout;
  l.replicate_e = l.fsdp_e = 0;
  l.accumulation = job.micro_batches();
  if (job.context == ContextExchange::kAllToAll) {
    l.sp *= l.cp;
    l.cp = 1;
  }
  recipe.gathers_keys = job.context == ContextExchange::kAllGather;
  recipe.sequence_parallel = job.sequence_parallel && l.tp > 1;
}

}  // namespace

bool Recipe::even_stages() const {
  return std::all_of(stage_layers.begin(), stage_layers.end(),
                     [&](std::int64_t layers) { return layers == stage_layers.front(); });
}

bool Recipe::recomputes_all() const {
  const std::int64_t most = *std::max_element(stage_layers.begin(), stage_layers.end());
  const std::int64_t counted = counts_by_stage ? most : model.layers;
  return recompute.full && (recompute.full_layers == 0 || recompute.full_layers >= counted);
}

const Field* Recipe::find(const std::string& name) const {
  for (const Field& field : fields) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

std::vector<bool> modules_of(const Model& model, std::vector<bool> modules) {
  const std::vector<bool>& moe = model.moe_layer;
  const bool dense = std::find(moe.begin(), moe.end(), false) != moe.end();
  const auto keep = [&](Module m, bool has) {
    if (!has) modules[static_cast<std::size_t>(m)] = false;
  };
  keep(Module::kLatentUp, model.is_latent());
  keep(Module::kMlp, dense);
  for (const Module m :
       {Module::kRouter, Module::kDispatch, Module::kExperts, Module::kExpertActivation}) {
    keep(m, model.is_moe());
  }
  keep(Module::kSharedExperts, model.is_moe() && model.shared_ffn > 0);
  return modules;
}

std::string recompute_word(const Recompute& recompute) {
  if (recompute.full) return "full";
  if (recompute.ops) return "ops";
  std::string word;
  for (int m = 0; m < kNumModules; ++m) {
    if (!recompute.again(static_cast<Module>(m))) continue;
    word += (word.empty() ? "" : "+") + std::string(name_of(static_cast<Module>(m)));
  }
  return word.empty() ? "none" : word;
}

Recipe recipe_of(const Plan& plan) {
  Recipe r;
  r.title = fmt::format("{} on {} with {}, plan {}", one_line(plan.model.name),
                        one_line(plan.cluster.name), one_line(plan.workload.name),
                        plan.sha256.substr(0, 12));
  r.words = describe(plan.layout, plan.chunks, plan.policy);
  add_fields(to_json(plan.layout), Json::object(), "/layout/", false, r);
  add_fields(to_json(plan.chunks), to_json(Chunks{}), "/chunks/", true, r);
  add_fields(to_json(plan.policy), to_json(MemoryPolicy{}), "/policy/", true, r);
  for (Field& field : r.fields) {
    // How far ahead nothing is brought back says nothing.
    if (field.name == "swap_distance" && plan.policy.swap_layers == 0) field.plain = true;
  }
  r.model = plan.model;
  r.device = plan.cluster.device.name;
  r.devices = plan.layout.world();
  r.devices_per_node = plan.cluster.devices_per_node;
  r.layout = plan.layout;
  if (r.layout.dispatcher == name_of(Dispatcher::kAllGather)) r.dispatcher = Dispatcher::kAllGather;
  r.sequence_parallel = r.layout.tp > 1;
  if (r.layout.fsdp_d > 1) r.sharding = Sharding::kParameters;
  r.kept_layers = plan.policy.keep_layers;
  r.stage_layers = even_layers(plan.model.layers, plan.layout.pp);
  r.recompute.full = plan.policy.recompute_layers > 0;
  r.recompute.full_layers = plan.policy.recompute_layers;
  r.counts_by_stage = plan.layout.pp == 1;
  if (!r.recompute.full && plan.policy.recompute_ffn == plan.model.layers) {
    for (const Module m : {Module::kMlp, Module::kRouter, Module::kDispatch, Module::kExperts,
                           Module::kExpertActivation, Module::kSharedExperts}) {
      r.recompute.modules[static_cast<std::size_t>(m)] = true;
    }
    r.recompute.modules = modules_of(plan.model, r.recompute.modules);
  }
  set_types(plan.workload, r);
  set_workload(plan.workload, r);
  r.chunks = plan.chunks;
  r.policy = plan.policy;
  return r;
}

Recipe recipe_of(const Job& job) {
  Recipe r;
  r.of_job = true;
  r.title = fmt::format("{} on {} with {}", one_line(job.model.name), one_line(job.cluster.name),
                        one_line(job.stack.name));
  r.words = words_of(job);
  r.model = job.model;
  r.device = job.cluster.device.name;
  r.devices = job.cluster.devices;
  r.devices_per_node = job.cluster.devices_per_node;
  set_job_layout(job, r);
  r.dispatcher = job.dispatcher;
  r.sharding = job.sharding;
  // Between stages parameters are gathered once a step, and stay.
  const bool keeps = job.keeps_gathered || job.layout.pp > 1;
  if (job.sharding == Sharding::kParameters && keeps) r.kept_layers = job.model.layers;
  r.virtual_stages = job.virtual_stages;
  r.schedule = job.schedule;
  r.stage_layers =
      job.stage_layers.empty() ? even_layers(job.model.layers, job.stages()) : job.stage_layers;
  r.recompute = job.recompute;
  r.recompute.modules = modules_of(job.model, r.recompute.modules);
  if (job.recompute.full || job.recompute.ops) r.recompute.modules.assign(kNumModules, false);
  if (job.recompute.full) r.recompute.ops = false;
  r.precision = job.precision;
  r.trains_adapters = job.trains_adapters;
  r.sequence_tokens = job.sequence_tokens;
  r.global_sequences = job.global_sequences;
  if (job.documents.size() > 1) r.documents = fmt::format("{} a row", job.documents.size());
  r.stack = job.stack;
  add_job_fields(job, r);
  return r;
}

}  // namespace orrery::handover
