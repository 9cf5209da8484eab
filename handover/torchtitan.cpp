// torchtitan's job config (TOML), by its config/job_config.py of releases 0.1 and 0.2. Experts
// there take their ranks from data_parallel_shard x context x tensor ranks: dp_shard x cp x tp =
// efsdp x ep x etp, and have as many replicas as dense parameters.
#include <fmt/format.h>

#include <utility>

#include "handover/account.h"
#include "handover/degrees.h"
#include "handover/engines.h"
#include "handover/toml_config.h"

namespace orrery::handover {
namespace {

constexpr const char* kReplicate = "/parallelism/data_parallel_replicate_degree";
constexpr const char* kShard = "/parallelism/data_parallel_shard_degree";
constexpr const char* kReshard = "/parallelism/fsdp_reshard_after_forward";
constexpr const char* kTp = "/parallelism/tensor_parallel_degree";
constexpr const char* kPp = "/parallelism/pipeline_parallel_degree";
constexpr const char* kCp = "/parallelism/context_parallel_degree";
constexpr const char* kEp = "/parallelism/expert_parallel_degree";
constexpr const char* kEtp = "/parallelism/expert_tensor_parallel_degree";
constexpr const char* kMode = "/activation_checkpoint/mode";

void check_layout(const Plan& plan, Account& account) {
  const Layout& l = plan.layout;
  account.refuse_axis("sp", l.sp, "torchtitan has no exchange of heads around attention (Ulysses)");
  account.require_order("dense_inner", l.dense_inner, "fsdp", dense_order_matters(l));
  if (l.fsdp_d % l.cp != 0) {
    account.refuse("fsdp_d", fmt::format("fsdp_d = {}", l.fsdp_d),
                   fmt::format("parameters are sharded over whole context groups of {}", l.cp),
                   "plan again with a multiple of cp");
  }
  if (!plan.model.is_moe()) return;
  const std::int64_t ranks = l.fsdp_d * l.tp, parts = product({l.ep, l.etp});
  const char* why =
      "experts have as many replicas as dense parameters, and take their ranks from "
      "data_parallel_shard x context x tensor ranks";
  account.require("replicate_e", l.replicate_e, l.replicate_d, why);
  account.require("fsdp_e", l.fsdp_e, ranks % parts == 0 ? ranks / parts : 0, why);
  account.require_order("expert_inner", l.expert_inner, "ep", expert_order_matters(l));
  if (l.etp != 1 && l.etp != l.tp) {
    account.refuse("etp", fmt::format("etp = {}", l.etp), "it is 1 or tp there",
                   fmt::format("plan again with etp 1 or {}", l.tp));
  }
  const std::int64_t whole = l.etp == 1 ? product({l.cp, l.tp}) : l.cp;
  if (l.ep > 1 && l.ep % whole != 0) {
    account.refuse(
        "ep", fmt::format("ep = {}", l.ep),
        fmt::format("an expert group has whole groups of {} ranks that share rows", whole),
        "plan again with a multiple of them, or ep 1");
  }
  if (l.ep > 1 && l.dispatcher != "all_to_all") {
    account.refuse("dispatcher", l.dispatcher, "torchtitan sends rows by all-to-all",
                   "plan again with --pin dispatcher=all_to_all");
  }
}

// Recompute of every layer or of none; some layers or classes become every layer, which fits.
std::string checkpoint_mode(const Plan& plan, Account& account) {
  const MemoryPolicy& p = plan.policy;
  const bool some =
      p.recompute_layers + p.recompute_attention + p.recompute_ffn + p.recompute_experts > 0;
  if (p.recompute_layers == plan.model.layers || !some) {
    account.said("recompute_layers");
  } else {
    account.unsaid("recompute_layers", "all layers are recomputed whole: less memory, slower");
  }
  return some ? "full" : "none";
}

std::string reshard(const Plan& plan, Account& account) {
  const std::int64_t kept = plan.policy.keep_layers;
  if (kept == 0 || kept == plan.model.layers) account.said("keep_layers");
  return kept > 0 && kept == plan.model.layers ? "never" : "always";
}

std::string table(const char* name, const std::vector<std::pair<const char*, std::string>>& rows) {
  std::string text = fmt::format("\n[{}]\n", name);
  for (const auto& [key, value] : rows) text += fmt::format("{} = {}\n", key, value);
  return text;
}

std::string quoted(const std::string& word) {
  return "\"" + word + "\"";
}

void read_sharding(Import& import, Degrees& d) {
  Settings& s = import.settings();
  d.keys["replicate_d"] = d.keys["replicate_e"] = kReplicate;
  d.keys["fsdp_d"] = kShard;
  const std::int64_t replicas = s.integer_or(kReplicate, 1);
  const std::int64_t shards = s.integer(kShard, -1).value_or(-1);
  if (!s.problems().empty()) return;
  const std::int64_t data = import.data_ranks(d), stage = import.expert_ranks(d);
  if (data == 0 || stage == 0) return;
  const std::int64_t dp = data / d.cp;
  const bool whole = shards == -1 ? dp % replicas == 0 : product({replicas, shards}) == dp;
  if (!whole || shards == 0) {
    s.problem(s.where(shards == -1 ? kReplicate : kShard),
              fmt::format("data_parallel_replicate_degree {} x data_parallel_shard_degree {} are "
                          "not the {} ranks of the data axis",
                          replicas, shards, dp),
              "-1 shards over what is left");
    return;
  }
  d.replicate_d = d.replicate_e = replicas;
  d.fsdp_d = data / replicas;
  const std::int64_t ranks = *d.fsdp_d * d.tp;
  if (ranks % product({d.ep, d.etp}) != 0) {
    s.problem(s.where(kEp),
              fmt::format("expert_parallel_degree {} does not divide the {} ranks that share "
                          "parameters",
                          d.ep, ranks),
              "experts take their ranks from data_parallel_shard x context x tensor ranks");
    return;
  }
  d.fsdp_e = ranks / product({d.ep, d.etp});
}

void read_policy(Import& import, std::int64_t stages) {
  Settings& s = import.settings();
  const std::int64_t layers = import.target().model.layers;
  const std::string mode =
      s.word_or(kMode, {"none", "full", "selective", "memory_budget"}, "selective");
  if (mode == "none" || mode == "full") {
    import.pin("recompute_layers", mode == "full" ? layers : 0, kMode);
  } else {
    s.set_aside(kMode, "no class of a plan: recompute is left to the search");
  }
  const std::string kept = s.word_or(kReshard, {"default", "always", "never"}, "default");
  // By default parameters stay gathered where there are stages.
  const bool keeps = kept == "never" || (kept == "default" && stages > 1);
  import.pin("keep_layers", keeps ? layers : 0, kReshard);
  if (s.boolean("/training/enable_cpu_offload").value_or(false)) {
    s.set_aside("/training/enable_cpu_offload",
                "moves parameters and gradients too, which a plan cannot: left to the search");
  }
  const std::string type =
      s.word_or("/training/mixed_precision_param", {"bfloat16", "float32"}, "bfloat16");
  s.find("/training/mixed_precision_reduce", false);
  const Workload& w = import.target().workload;
  if ((type == "bfloat16") != (w.compute == DType::kBFloat16)) {
    s.problem(s.where("/training/mixed_precision_param"),
              fmt::format("trains in {}, but {} computes in {}", type, w.name,
                          orrery::name_of(w.compute)),
              "name a workload that computes as this file does");
  }
}

}  // namespace

Result<HandedOver> write_torchtitan(const Plan& plan, const std::string& place) {
  Account account(plan, place);
  const Layout& l = plan.layout;
  refuse_types(plan, account);
  check_layout(plan, account);
  unsaid_domino(plan, account);
  unsaid_documents(plan, account);
  account.said("host_optimizer");
  if (plan.policy.host_optimizer) {
    account.unsaid("host_optimizer",
                   "enable_cpu_offload would move parameters and gradients too: more memory");
  }
  const std::string mode = checkpoint_mode(plan, account);
  const std::string kept = reshard(plan, account);
  if (account.refused()) return account.error();
  HandedOver out;
  out.unsaid = account.rest();
  out.text = opening(plan, out.unsaid, "# ");
  const auto number = [](std::int64_t value) { return std::to_string(value); };
  out.text += fmt::format("# Add [model] name and flavor of {} layers, hidden size {}, {} heads.\n",
                          plan.model.layers, plan.model.hidden, plan.model.heads);
  out.text += table("training", {{"local_batch_size", number(l.micro_batch)},
                                 {"global_batch_size", number(plan.workload.global_sequences)},
                                 {"seq_len", number(plan.workload.sequence_tokens)},
                                 {"mixed_precision_param", quoted(dtype_name(plan))},
                                 {"mixed_precision_reduce", quoted("float32")}});
  std::vector<std::pair<const char*, std::string>> rows = {
      {"data_parallel_replicate_degree", number(l.replicate_d)},
      {"data_parallel_shard_degree", number(l.fsdp_d / l.cp)},
      {"fsdp_reshard_after_forward", quoted(kept)},
      {"tensor_parallel_degree", number(l.tp)},
      {"pipeline_parallel_degree", number(l.pp)},
      {"context_parallel_degree", number(l.cp)}};
  if (plan.model.is_moe()) {
    rows.emplace_back("expert_parallel_degree", number(l.ep));
    rows.emplace_back("expert_tensor_parallel_degree", number(l.etp));
  }
  out.text += table("parallelism", rows);
  out.text += table("activation_checkpoint", {{"mode", quoted(mode)}});
  return out;
}

bool is_torchtitan(const std::string& text) {
  for (const char* word :
       {"[parallelism]", "data_parallel_shard_degree", "[activation_checkpoint]"}) {
    if (text.find(word) != std::string::npos) return true;
  }
  return false;
}

Result<Imported> read_torchtitan(const std::string& text, const std::string& place,
                                 const Target& target) {
  TRY(Settings settings, parse_toml(text, place));
  Import import("torchtitan", std::move(settings), target);
  Settings& s = import.settings();
  Degrees d;
  d.tp = import.degree(d, "tp", kTp);
  d.pp = import.degree(d, "pp", kPp);
  d.cp = import.degree(d, "cp", kCp);
  d.ep = import.degree(d, "ep", kEp);
  d.etp = import.degree(d, "etp", kEtp);
  d.keys["micro_batch"] = "/training/local_batch_size";
  d.micro_batch = s.integer("/training/local_batch_size");
  s.expect("/training/seq_len", target.workload.sequence_tokens, target.workload.name);
  // -1: one pass, whatever the data axis.
  const auto global = s.integer("/training/global_batch_size", -1);
  const bool given = global && *global != -1;
  if (!given) d.accumulation = 1, d.keys["accumulation"] = "/training/global_batch_size";
  read_sharding(import, d);
  read_policy(import, d.pp);
  import.finish(d, given ? "/training/global_batch_size" : "");
  return import.take();
}

}  // namespace orrery::handover
