// See account.h.
#include "handover/account.h"

#include <fmt/format.h>

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
      {"host_optimizer", "the optimizer's moments stay on the device: more memory"}};
  return rows;
}

// A name stays inside its comment.
std::string one_line(std::string name) {
  for (char& c : name) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  return name;
}

std::string text_of(const Json& value) {
  return value.is_string() ? value.as_string() : value.dump(-1);
}

}  // namespace

std::string value_of(const Plan& plan, const std::string& field) {
  for (const Json& part : {to_json(plan.layout), to_json(plan.chunks), to_json(plan.policy)}) {
    if (const Json* value = part.find(field)) return text_of(*value);
  }
  CHECK(false, "no field of a plan: " + field);
  return "";
}

Account::Account(const Plan& plan, std::string place) : plan_(plan), place_(std::move(place)) {}

void Account::refuse(const std::string& field, const std::string& value, const std::string& why,
                     const std::string& hint) {
  const bool noun = field == "model" || field == "workload";
  problems_.push_back({place_ + ":/" + (noun ? "" : "layout/") + field, value + ": " + why, hint});
}

void Account::refuse_axis(const std::string& field, std::int64_t value, const std::string& why) {
  if (value == 1) return;
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
  if (!matters || value == derived) return;
  refuse(field, fmt::format("{} = {}", field, value),
         "the engine has no switch for the order of its ranks",
         fmt::format("plan again with --pin {}={}", field, derived));
}

void Account::unsaid(const std::string& field, const std::string& why) {
  unsaid_.push_back({field, value_of(plan_, field), why});
}

std::vector<Unsaid> Account::rest() const {
  std::vector<Unsaid> all = unsaid_;
  const auto noted = [&](const std::string& field) {
    for (const Unsaid& u : unsaid_) {
      if (u.field == field) return true;
    }
    return said_.count(field) > 0;
  };
  const std::pair<Json, Json> parts[] = {{to_json(plan_.chunks), to_json(Chunks{})},
                                         {to_json(plan_.policy), to_json(MemoryPolicy{})}};
  for (const auto& [values, defaults] : parts) {
    for (const auto& [field, value] : values.members()) {
      const Json* plain = defaults.find(field);
      if (noted(field) || (plain != nullptr && *plain == value)) continue;
      // How far ahead nothing is brought back says nothing.
      if (field == "swap_distance" && plan_.policy.swap_layers == 0) continue;
      const auto why = reasons().find(field);
      all.push_back({field, text_of(value), why == reasons().end() ? "not said" : why->second});
    }
  }
  return all;
}

std::int64_t passes_in_a_row(const Plan& plan) {
  return plan.layout.accumulation * plan.chunks.domino;
}

void unsaid_domino(const Plan& plan, Account& account) {
  if (plan.chunks.domino == 1) return;
  account.unsaid("domino", reasons().at("domino"));
  account.unsaid("accumulation",
                 fmt::format("{} micro-batches one after another", passes_in_a_row(plan)));
}

void unsaid_documents(const Plan& plan, Account& account) {
  const Workload& w = plan.workload;
  if (!w.document_lengths && w.document_tokens.size() < 2) return;
  account.unsaid("documents",
                 w.document_lengths ? "drawn" : fmt::format("{} a row", w.document_tokens.size()),
                 "attention crosses their borders unless the data loader marks them: more time");
}

void refuse_types(const Plan& plan, Account& account) {
  const Workload& w = plan.workload;
  const bool known = w.compute == DType::kBFloat16 || w.compute == DType::kFloat32;
  if (!known || w.master != DType::kFloat32) {
    account.refuse(
        "workload",
        fmt::format("compute {}, master {}", orrery::name_of(w.compute), orrery::name_of(w.master)),
        "the engines train in bf16 or fp32, with fp32 states",
        "plan with a workload that computes in bf16 or fp32");
  }
}

bool expert_order_matters(const Layout& l) {
  return l.ep > 1 && (l.fsdp_e > 1 || l.replicate_e > 1);
}

bool dense_order_matters(const Layout& l) {
  return l.fsdp_d > 1 && l.replicate_d > 1;
}

std::string dtype_name(const Plan& plan) {
  return plan.workload.compute == DType::kBFloat16 ? "bfloat16" : "float32";
}

std::string opening(const Plan& plan, const std::vector<Unsaid>& unsaid,
                    const std::string& comment) {
  std::string text = fmt::format(
      "{0}{1} on {2} with {3}, plan {4}\n{0}layout: {5}\n"
      "{0}Layout, batch and memory; data, tokenizer, optimizer and checkpoints are yours to add.\n",
      comment, one_line(plan.model.name), one_line(plan.cluster.name), one_line(plan.workload.name),
      plan.sha256.substr(0, 12), describe(plan.layout, plan.chunks, plan.policy));
  for (const Unsaid& u : unsaid) {
    text += fmt::format("{}not said: {} = {}: {}\n", comment, u.field, u.value, u.why);
  }
  return text;
}

}  // namespace orrery::handover
