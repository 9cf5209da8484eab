// See account.h.
#include "handover/account.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/check.h"

namespace orrery::handover {
namespace {

// What happens where a format does not say a field of chunks or policy.
const std::map<std::string, std::string>& reasons() {
  static const std::map<std::string, std::string> rows = {
      {"loss_tokens", "the loss is computed as the engine does: the logits may take more memory"},
      {"attention_query", "attention's kernel chooses its own chunks"},
      {"prefetch_depth", "the engine gathers ahead as it does by itself"},
      {"gather_layers", "each layer is gathered and reduced on its own"},
      {"domino", "micro-batches run one after another: expert exchanges hide less"},
      {"exchange_parts", "an expert exchange is one piece: less of it hides"},
      {"recompute_layers", "layers keep their activations: more memory"},
      {"recompute_attention", "attention keeps its activations: more memory"},
      {"recompute_ffn", "MLP and MoE keep their activations: more memory"},
      {"recompute_experts", "experts keep their activations: more memory"},
      {"swap_layers", "inputs of recomputed layers stay on the device: more memory"},
      {"swap_distance", "the engine chooses when to bring them back"},
      {"keep_layers", "parameters are gathered again for backward: more communication"},
      {"host_optimizer", "the optimizer's moments stay on the device: more memory"},
      {"recompute", "layers keep their activations: more memory"},
      {"keeps_gathered", "parameters are gathered again for backward: more communication"}};
  return rows;
}

}  // namespace

Account::Account(const Recipe& recipe, std::string place)
    : recipe_(recipe), place_(std::move(place)) {}

void Account::refuse(const std::string& field, const std::string& value, const std::string& why,
                     const std::string& hint) {
  const Field* found = recipe_.find(field);
  const std::string pointer = found != nullptr ? found->pointer : "/" + field;
  problems_.push_back({place_ + ":" + pointer, value + ": " + why, hint});
}

void Account::refuse_value(const std::string& field, const std::string& why,
                           const std::string& pin) {
  const Field* found = recipe_.find(field);
  CHECK(found != nullptr, "no field: " + field);
  refuse(field, field + " = " + found->value, why, "plan again with --pin " + pin);
}

void Account::refuse_axis(const std::string& field, std::int64_t value, const std::string& why) {
  if (value == 1) return;
  const Field* found = recipe_.find(field);
  // Heads that a job exchanges may stand as its axis cp.
  if (recipe_.of_job && field == "sp" && found != nullptr && found->value == "1") {
    refuse("exchange", fmt::format("cp = {} by all_to_all", value), why,
           "plan again with --pin exchange=ring, or --pin cp=1");
    return;
  }
  refuse(field, fmt::format("{} = {}", field, value), why,
         fmt::format("plan again with --pin {}=1", field));
}

void Account::require(const std::string& field, std::int64_t value, std::int64_t derived,
                      const std::string& why) {
  if (value == derived) return;
  refuse(field, fmt::format("{} = {}", field, value), why,
         derived > 0 ? fmt::format("plan again with --pin {}={}", field, derived)
                     : "plan again with other degrees");
}

void Account::require_order(const std::string& field, const std::string& value,
                            const std::string& derived, bool matters) {
  if (recipe_.of_job || !matters || value == derived) return;
  refuse(field, fmt::format("{} = {}", field, value),
         "the engine has no switch for the order of its ranks",
         fmt::format("plan again with --pin {}={}", field, derived));
}

void Account::unsaid(const std::string& field, const std::string& why) {
  const Field* found = recipe_.find(field);
  CHECK(found != nullptr, "no field: " + field);
  unsaid_.push_back({field, found->value, why});
}

std::vector<Unsaid> Account::rest() const {
  std::vector<Unsaid> all = unsaid_;
  const auto noted = [&](const std::string& field) {
    for (const Unsaid& u : unsaid_) {
      if (u.field == field) return true;
    }
    return said_.count(field) > 0;
  };
  for (const Field& field : recipe_.fields) {
    if (!field.listed || field.plain || noted(field.name)) continue;
    const auto why = reasons().find(field.name);
    all.push_back({field.name, field.value, why == reasons().end() ? "not said" : why->second});
  }
  return all;
}

std::int64_t passes_in_a_row(const Recipe& recipe) {
  return recipe.layout.accumulation * recipe.chunks.domino;
}

void require_whole_rounds(const Recipe& recipe, Account& account) {
  const std::int64_t passes = passes_in_a_row(recipe), stages = recipe.layout.pp;
  if (recipe.virtual_stages == 1 || passes % stages == 0) return;
  account.refuse_value(
      "virtual_stages",
      fmt::format("{} micro-batches are no multiple of the {} stages", passes, stages),
      "virtual_stages=1");
}

void unsaid_domino(const Recipe& recipe, Account& account) {
  if (recipe.chunks.domino == 1) return;
  account.unsaid("domino", reasons().at("domino"));
  account.unsaid("accumulation",
                 fmt::format("{} micro-batches one after another", passes_in_a_row(recipe)));
}

void unsaid_documents(const Recipe& recipe, Account& account) {
  if (recipe.documents.empty()) return;
  account.unsaid("documents", recipe.documents,
                 "attention crosses their borders unless the data loader marks them: more time");
}

void note_job(const Recipe& recipe, std::string_view family, std::string_view stack,
              Account& account) {
  if (recipe.trains_adapters) {
    account.refuse("trains_adapters", "trains_adapters = true", "low-rank adapters are not written",
                   "hand over the job without them, and add them with the engine's own tools");
  }
  const bool replicas = recipe.layout.replicate_d > 1 && recipe.sharding != Sharding::kNone;
  if (recipe.of_job && recipe.model.is_moe() && replicas) {
    account.unsaid("experts", "states shared by all their ranks",
                   fmt::format("in {} replicas, as those of dense parameters: more memory",
                               recipe.layout.replicate_d));
  }
  if (!recipe.stack || recipe.stack->name.empty() || recipe.stack->family == family) return;
  account.unsaid(
      "stack", recipe.stack->name,
      fmt::format("figures are of that stack: plan with --stack {} for this one", stack));
}

void refuse_types(const Recipe& recipe, const std::vector<Precision>& known, Account& account) {
  if (!recipe.other_types.empty()) {
    account.refuse("workload", recipe.other_types,
                   "the engines train in bf16 or fp32, with fp32 states",
                   "plan with a workload that computes in bf16 or fp32");
    return;
  }
  if (std::find(known.begin(), known.end(), recipe.precision) != known.end()) return;
  account.refuse_value("precision", "the engine's file has no word for it", "precision=bf16");
}

void refuse_stages(const Recipe& recipe, const std::string& why, Account& account) {
  account.refuse_axis("pp", recipe.layout.pp, why);
  if (recipe.layout.pp > 1) return;
  if (recipe.schedule != PipelineSchedule::kOneForwardOneBackward) {
    account.refuse_value("schedule", "micro-batches run one after another there", "schedule=1f1b");
  }
  if (recipe.virtual_stages > 1) {
    account.refuse_value("virtual_stages", "without stages there is one", "virtual_stages=1");
  }
}

bool expert_order_matters(const Layout& l) {
  return l.ep > 1 && (l.fsdp_e > 1 || l.replicate_e > 1);
}

bool dense_order_matters(const Layout& l) {
  return l.fsdp_d > 1 && l.replicate_d > 1;
}

std::string dtype_name(const Recipe& recipe) {
  switch (recipe.precision) {
    case Precision::kFp16:
      return "float16";
    case Precision::kFp32:
    case Precision::kTf32:
      return "float32";
    default:
      return "bfloat16";
  }
}

std::string opening(const Recipe& recipe, const std::vector<Unsaid>& unsaid,
                    const std::string& comment) {
  std::string text = fmt::format(
      "{0}{1}\n{0}layout: {2}\n"
      "{0}Layout, batch and memory; data, tokenizer, optimizer and checkpoints are yours to add.\n",
      comment, recipe.title, recipe.words);
  for (const Unsaid& u : unsaid) {
    text += fmt::format("{}not said: {} = {}: {}\n", comment, u.field, u.value, u.why);
  }
  return text;
}

}  // namespace orrery::handover
