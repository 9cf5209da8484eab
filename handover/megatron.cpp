// Megatron-LM: names of flags and their meaning by its arguments.py (core 0.16) and its guide to
// Megatron-FSDP. Ulysses' exchange of heads is context parallelism of the type "a2a" there.
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "handover/account.h"
#include "handover/degrees.h"
#include "handover/engines.h"
#include "handover/shell_flags.h"

namespace orrery::handover {
namespace {

using Lines = std::vector<std::string>;

constexpr const char* kTp = "--tensor-model-parallel-size";
constexpr const char* kPp = "--pipeline-model-parallel-size";
constexpr const char* kCp = "--context-parallel-size";
constexpr const char* kEp = "--expert-model-parallel-size";
constexpr const char* kEtp = "--expert-tensor-parallel-size";
constexpr const char* kExchange = "--cp-comm-type";
constexpr const char* kLevels = "--hierarchical-context-parallel-sizes";
constexpr const char* kStrategy = "--data-parallel-sharding-strategy";
constexpr const char* kInstances = "--num-distributed-optimizer-instances";
constexpr const char* kGranularity = "--recompute-granularity";
constexpr const char* kMethod = "--recompute-method";
constexpr const char* kRecomputed = "--recompute-num-layers";
constexpr const char* kModules = "--recompute-modules";

void add(Lines& lines, const char* flag, std::int64_t value) {
  lines.push_back(fmt::format("{} {}", flag, value));
}

void check_layout(const Plan& plan, Account& account) {
  const Layout& l = plan.layout;
  const bool ddp = l.fsdp_d == 1;
  account.require_order("dense_inner", l.dense_inner, "fsdp", dense_order_matters(l));
  if (!plan.model.is_moe()) return;
  const std::int64_t ranks =
      l.dp * l.cp * l.sp * l.tp / std::max<std::int64_t>(1, product({l.ep, l.etp}));
  const std::int64_t instances = ddp ? ranks : l.replicate_d;
  const char* why = ddp ? "with replicated dense parameters experts are replicated too"
                        : "experts have as many replicas as dense parameters";
  account.require("replicate_e", l.replicate_e, instances, why);
  account.require("fsdp_e", l.fsdp_e, ranks / std::max<std::int64_t>(1, instances), why);
  account.require_order("expert_inner", l.expert_inner, "ep", expert_order_matters(l));
}

Lines layout_flags(const Plan& plan) {
  const Layout& l = plan.layout;
  Lines lines;
  add(lines, kTp, l.tp);
  if (l.tp > 1) lines.emplace_back("--sequence-parallel");
  add(lines, kPp, l.pp);
  add(lines, kCp, l.cp * l.sp);
  if (l.sp > 1 && l.cp > 1) {
    lines.push_back(fmt::format("{} a2a+p2p", kExchange));
    lines.push_back(fmt::format("{} {} {}", kLevels, l.sp, l.cp));
  } else if (l.sp > 1) {
    lines.push_back(fmt::format("{} a2a", kExchange));
  }
  if (plan.model.is_moe()) {
    add(lines, kEp, l.ep);
    add(lines, kEtp, l.etp);
    lines.push_back(fmt::format("--moe-token-dispatcher-type {}",
                                l.dispatcher == "all_gather" ? "allgather" : "alltoall"));
  }
  if (l.fsdp_d > 1) {
    lines.emplace_back("--use-megatron-fsdp");
    lines.push_back(fmt::format("{} optim_grads_params", kStrategy));
    lines.emplace_back("--use-distributed-optimizer");
    lines.emplace_back("--no-gradient-accumulation-fusion");
    lines.emplace_back("--ckpt-format fsdp_dtensor");
    if (l.replicate_d > 1) {
      add(lines, kInstances, l.replicate_d);
      lines.emplace_back("--outer-dp-sharding-strategy no_shard");
    }
  }
  add(lines, "--micro-batch-size", l.micro_batch);
  add(lines, "--global-batch-size", plan.workload.global_sequences);
  add(lines, "--seq-length", plan.workload.sequence_tokens);
  if (plan.workload.compute == DType::kBFloat16) lines.emplace_back("--bf16");
  return lines;
}

void recompute_flags(const Plan& plan, Account& account, Lines& lines) {
  const MemoryPolicy& p = plan.policy;
  const Model& m = plan.model;
  if (p.recompute_layers > 0 && plan.layout.pp == 1) {
    lines.push_back(fmt::format("{} full", kGranularity));
    lines.push_back(fmt::format("{} block", kMethod));
    add(lines, kRecomputed, p.recompute_layers);
    account.said("recompute_layers");
  } else if (p.recompute_layers > 0) {
    // A stage counts its own layers.
    lines.push_back(fmt::format("{} full", kGranularity));
    lines.push_back(fmt::format("{} uniform", kMethod));
    add(lines, kRecomputed, 1);
    account.unsaid("recompute_layers", "with stages all layers are recomputed: slower");
  } else if (p.recompute_ffn == m.layers && m.layers > 0) {
    lines.push_back(fmt::format("{} selective", kGranularity));
    lines.push_back(fmt::format("{} {}", kModules, m.is_moe() ? "mlp moe" : "mlp"));
    account.said("recompute_ffn");
  }
  if (p.host_optimizer) {
    lines.emplace_back("--optimizer-cpu-offload");
    lines.emplace_back("--use-precision-aware-optimizer");
  }
  account.said("host_optimizer");
}

// "([0]*1+[1]*47)": dense layers 0, layers with experts 1.
std::string layer_pattern(const std::vector<bool>& moe_layer) {
  std::string text;
  for (std::size_t i = 0; i < moe_layer.size();) {
    std::size_t end = i;
    while (end < moe_layer.size() && moe_layer[end] == moe_layer[i]) ++end;
    text += fmt::format("{}[{}]*{}", text.empty() ? "" : "+", moe_layer[i] ? 1 : 0, end - i);
    i = end;
  }
  return "(" + text + ")";
}

void router_flags(const Plan& plan, Account& account, Lines& lines) {
  const Model& m = plan.model;
  const Workload& w = plan.workload;
  if (m.sigmoid_router) {
    lines.emplace_back("--moe-router-score-function sigmoid");
    if (!m.norm_topk && m.top_k > 1) {
      account.refuse("model", m.name, "Megatron normalises the weights of a sigmoid router",
                     "take a model that normalises them (norm_topk_prob)");
    }
  } else if (!m.norm_topk) {
    lines.emplace_back("--moe-router-pre-softmax");
  }
  if (m.router_bias) {
    lines.emplace_back("--moe-router-enable-expert-bias");
    lines.push_back(fmt::format("--moe-router-bias-update-rate {}", w.bias_speed));
  }
  if (m.expert_groups > 1) {
    add(lines, "--moe-router-num-groups", m.expert_groups);
    add(lines, "--moe-router-group-topk", m.top_groups);
  }
  if (m.routed_scale != 1) {
    lines.push_back(fmt::format("--moe-router-topk-scaling-factor {}", m.routed_scale));
  }
  const bool balances = m.balance_coefficient > 0;
  if (balances && w.balance_scope != BalanceScope::kSequence) {
    account.refuse("workload", "balance over a micro-batch of all ranks",
                   "Megatron balances over sequences, ranks or a whole step",
                   "plan with a workload that balances over sequences");
  }
  lines.push_back(
      fmt::format("--moe-router-load-balancing-type {}", balances ? "seq_aux_loss" : "none"));
  if (balances) lines.push_back(fmt::format("--moe-aux-loss-coeff {}", m.balance_coefficient));
  if (w.z_loss > 0) lines.push_back(fmt::format("--moe-z-loss-coeff {}", w.z_loss));
}

Lines model_flags(const Plan& plan, Account& account) {
  const Model& m = plan.model;
  Lines lines;
  add(lines, "--num-layers", m.layers);
  add(lines, "--hidden-size", m.hidden);
  add(lines, "--ffn-hidden-size", m.ffn > 0 ? m.ffn : m.moe_ffn);
  add(lines, "--num-attention-heads", m.heads);
  lines.emplace_back("--group-query-attention");
  add(lines, "--num-query-groups", m.kv_heads);
  add(lines, "--kv-channels", m.head_dim);
  add(lines, "--max-position-embeddings", std::max(m.max_positions, plan.workload.sequence_tokens));
  add(lines, "--vocab-size", m.vocab);
  lines.push_back(fmt::format("--normalization RMSNorm --norm-epsilon {}", m.rms_eps));
  lines.push_back(fmt::format("--position-embedding-type rope --rotary-base {:.0f}", m.rope_theta));
  lines.emplace_back("--swiglu --disable-bias-linear");
  lines.emplace_back("--attention-dropout 0 --hidden-dropout 0");
  if (m.qk_norm) lines.emplace_back("--qk-layernorm");
  if (m.qkv_bias) lines.emplace_back("--add-qkv-bias");
  if (!m.tied_head) lines.emplace_back("--untie-embeddings-and-output-weights");
  if (!m.is_moe()) return lines;
  add(lines, "--num-experts", m.experts);
  add(lines, "--moe-router-topk", m.top_k);
  add(lines, "--moe-ffn-hidden-size", m.moe_ffn);
  if (m.shared_ffn > 0) add(lines, "--moe-shared-expert-intermediate-size", m.shared_ffn);
  if (std::find(m.moe_layer.begin(), m.moe_layer.end(), false) != m.moe_layer.end()) {
    lines.push_back(fmt::format("--moe-layer-freq \"{}\"", layer_pattern(m.moe_layer)));
  }
  lines.emplace_back("--moe-grouped-gemm");
  router_flags(plan, account, lines);
  return lines;
}

std::string array(const char* name, const Lines& lines) {
  std::string text = fmt::format("{}=(\n", name);
  for (const std::string& line : lines) text += "  " + line + "\n";
  return text + ")\n";
}

// What the flags say of the sharding of the states; open where a plan has no word for it.
void read_sharding(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const bool torch_fsdp = s.has("--use-torch-fsdp2");
  const bool fsdp = s.has("--use-megatron-fsdp") || s.has("--use-custom-fsdp") || torch_fsdp;
  const std::string strategy =
      s.word_or(kStrategy, {"no_shard", "optim", "optim_grads", "optim_grads_params"},
                torch_fsdp ? "optim_grads_params" : "no_shard");
  const std::int64_t instances = s.integer_or(kInstances, 1);
  const std::string outer =
      s.word_or("--outer-dp-sharding-strategy", {"no_shard", "optim"}, "no_shard");
  if (outer != "no_shard") {
    s.set_aside("--outer-dp-sharding-strategy", "a plan's replicas have whole optimizer states");
  }
  d.keys["fsdp_d"] = kStrategy;
  d.keys["replicate_d"] = d.keys["replicate_e"] = kInstances;
  const bool params = fsdp && strategy == "optim_grads_params";
  const bool states = s.has("--use-distributed-optimizer");
  if (!params && (strategy != "no_shard" || states)) {
    const char* why = "a plan shards parameters too, or nothing: left to the search";
    s.set_aside(strategy != "no_shard" ? kStrategy : "--use-distributed-optimizer", why);
    return;
  }
  if (!s.problems().empty()) return;
  const std::int64_t data = import.data_ranks(d), stage = import.expert_ranks(d);
  if (data == 0 || stage == 0) return;
  const std::int64_t experts = stage / (d.ep * d.etp);
  const std::int64_t replicas = params ? instances : data;
  if (params && (data % instances != 0 || experts % instances != 0)) {
    s.problem(s.where(kInstances),
              fmt::format("{} {} does not divide the {} data-parallel ranks of dense and the {} of "
                          "expert parameters",
                          kInstances, instances, data, experts),
              "take a divisor of both");
    return;
  }
  d.replicate_d = replicas;
  d.fsdp_d = data / replicas;
  d.replicate_e = params ? instances : experts;
  d.fsdp_e = experts / *d.replicate_e;
}

// Context parallelism is a ring, an exchange of heads (Ulysses), or both in two levels.
void read_context(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const std::int64_t all = import.degree(d, "cp", kCp);
  d.keys["sp"] = kCp;
  const std::string type =
      s.word_or(kExchange, {"p2p", "all_gather", "allgather", "a2a", "a2a+p2p"}, "p2p");
  if (type == "a2a") {
    d.sp = all;
  } else if (type != "a2a+p2p") {
    d.cp = all;
  } else if (const Setting* levels = s.find(kLevels)) {
    const std::size_t blank = levels->value.find(' ');
    const auto heads = whole_number(levels->value.substr(0, blank));
    const auto ring = blank == std::string::npos
                          ? std::nullopt
                          : whole_number(std::string_view(levels->value).substr(blank + 1));
    if (!heads || !ring || *heads < 1 || *ring < 1 || product({*heads, *ring}) != all) {
      s.problem(levels->where,
                fmt::format("{} '{}' are not two sizes of product {}", kLevels, levels->value, all),
                "write the ranks that exchange heads, then those of the ring");
      return;
    }
    d.sp = *heads;
    d.cp = *ring;
  } else {
    s.problem(s.where(kExchange), fmt::format("a2a+p2p without {}", kLevels),
              fmt::format("say how the {} ranks are split", all));
  }
}

void read_recompute(Import& import, std::int64_t stages) {
  Settings& s = import.settings();
  s.set_aside("--recompute-activations", "recomputes core attention alone, as flash kernels do");
  const std::string kind = s.word_or(kGranularity, {"full", "selective"}, "");
  const std::string method = s.word_or(kMethod, {"uniform", "block"}, "");
  const std::int64_t layers = import.target().model.layers;
  const auto number = s.integer(kRecomputed, 1, layers);
  if (kind.empty()) {
    import.pin("recompute_layers", 0, kGranularity);
  } else if (kind == "full" && method.empty()) {
    s.problem(s.where(kGranularity), fmt::format("full recompute without {}", kMethod),
              "uniform recomputes all layers, block the first of each stage");
  } else if (kind == "full" && method == "uniform") {
    import.pin("recompute_layers", layers, kMethod);
  } else if (kind == "full" && stages > 1) {
    s.set_aside(kRecomputed, "counts layers of each stage: left to the search");
  } else if (kind == "full") {
    if (number) import.pin("recompute_layers", *number, kRecomputed);
  } else {
    import.pin("recompute_layers", 0, kGranularity);
    const Setting* modules = s.find(kModules);
    const std::string words = modules == nullptr ? "core_attn" : modules->value;
    const bool moe = import.target().model.is_moe();
    if (words == (moe ? "mlp moe" : "mlp") || (moe && words == "moe mlp")) {
      import.pin("recompute_ffn", layers, kModules);
    } else {
      s.set_aside(kModules, "only 'mlp' (with 'moe') is a class of a plan: left to the search");
    }
  }
}

// Sizes that must be those of the model and workload that are planned for.
void read_sizes(Import& import) {
  Settings& s = import.settings();
  const Model& m = import.target().model;
  const Workload& w = import.target().workload;
  const std::pair<const char*, std::int64_t> sizes[] = {
      {"--num-layers", m.layers},           {"--hidden-size", m.hidden},
      {"--num-attention-heads", m.heads},   {"--num-query-groups", m.kv_heads},
      {"--kv-channels", m.head_dim},        {"--num-experts", m.experts},
      {"--moe-ffn-hidden-size", m.moe_ffn}, {"--moe-router-topk", m.top_k}};
  for (const auto& [key, value] : sizes) s.expect(key, value, m.name);
  s.expect("--seq-length", w.sequence_tokens, w.name);
  for (const char* key : {"--bf16", "--fp16"}) {
    if (!s.has(key)) continue;
    const bool same = w.compute == DType::kBFloat16 && std::string(key) == "--bf16";
    if (same) continue;
    s.problem(s.where(key),
              fmt::format("{}, but {} computes in {}", key, w.name, orrery::name_of(w.compute)),
              "name a workload that computes as this file does");
  }
}

void read_world(Import& import) {
  Settings& s = import.settings();
  const auto first = [&](const char* a, const char* b) {
    const Setting* found = s.find(a, false);
    return found != nullptr ? found : s.find(b, false);
  };
  const Setting* devices = first("--nproc-per-node", "--nproc_per_node");
  const Setting* nodes = s.find("--nnodes", false);
  if (devices == nullptr) return;
  const auto a = whole_number(devices->value), b = whole_number(nodes ? nodes->value : "1");
  // "gpu", "auto", "1:4": known on the machine alone.
  if (!a || !b || *a < 1 || *b < 1) return;
  // Without --nnodes the launcher of a cluster may start one such command a node.
  if (nodes == nullptr && import.target().world % *a == 0) return;
  import.expect_world(product({*a, *b}), devices->key);
}

}  // namespace

Result<HandedOver> write_megatron(const Plan& plan, const std::string& place) {
  Account account(plan, place);
  refuse_types(plan, account);
  if (!executes(plan.model)) {
    account.refuse("model", plan.model.name, "flags of this family are not written",
                   "`orrery list models` shows the families that a plan can have");
  }
  check_layout(plan, account);
  unsaid_domino(plan, account);
  unsaid_documents(plan, account);
  Lines flags = layout_flags(plan);
  recompute_flags(plan, account, flags);
  const Lines model = model_flags(plan, account);
  if (account.refused()) return account.error();
  const std::int64_t node = plan.cluster.devices_per_node;
  const std::int64_t devices = plan.layout.world();
  const bool whole = node > 0 && devices % node == 0;
  HandedOver out;
  out.unsaid = account.rest();
  out.text = "#!/usr/bin/env bash\n" + opening(plan, out.unsaid, "# ");
  out.text += "# More flags follow the script's name: --data-path, --lr, --save ...\n\n";
  out.text += array("LAYOUT_ARGS", flags) + "\n" + array("MODEL_ARGS", model) + "\n";
  out.text += fmt::format(
      "torchrun --nnodes {} --nproc-per-node {} \\\n"
      "  --rdzv-backend c10d --rdzv-endpoint "
      "\"${{MASTER_ADDR:-localhost}}:${{MASTER_PORT:-29500}}\" "
      "\\\n  pretrain_gpt.py \"${{LAYOUT_ARGS[@]}}\" \"${{MODEL_ARGS[@]}}\" \"$@\"\n",
      whole ? devices / node : 1, whole ? node : devices);
  return out;
}

bool is_megatron(const std::string& text) {
  for (const char* flag : {kTp, kPp, kEp, kCp, "--micro-batch-size", "--num-layers"}) {
    if (text.find(flag) != std::string::npos) return true;
  }
  return false;
}

Result<Imported> read_megatron(const std::string& text, const std::string& place,
                               const Target& target) {
  Import import("megatron", parse_shell_flags(text, place, {kModules, kLevels}), target);
  Settings& s = import.settings();
  s.set_aside("if", "conditions are not evaluated: the flags of every branch are read");
  s.set_aside("--sequence-parallel", "follows the tensor axis in a plan");
  for (const char* key : {"--rdzv-backend", "--rdzv-endpoint"}) s.find(key, false);
  Degrees d;
  d.tp = import.degree(d, "tp", kTp);
  d.pp = import.degree(d, "pp", kPp);
  d.ep = import.degree(d, "ep", kEp);
  d.keys["etp"] = s.has(kEtp) ? kEtp : kTp;
  d.etp = s.integer_or(kEtp, target.model.is_moe() ? d.tp : 1);  // Megatron's default
  read_context(import, d);
  d.keys["dispatcher"] = "--moe-token-dispatcher-type";
  const std::string dispatcher =
      s.word_or("--moe-token-dispatcher-type", {"allgather", "alltoall", "alltoall_seq", "flex"},
                "allgather");
  d.dispatcher = dispatcher == "allgather" ? "all_gather" : "all_to_all";
  d.keys["micro_batch"] = "--micro-batch-size";
  d.micro_batch = s.integer("--micro-batch-size");
  read_world(import);
  read_sizes(import);
  read_sharding(import, d);
  read_recompute(import, d.pp);
  const bool offloads = s.has("--optimizer-cpu-offload");
  import.pin("host_optimizer", offloads ? "true" : "false", "--optimizer-cpu-offload");
  import.finish(d, "--global-batch-size");
  return import.take();
}

}  // namespace orrery::handover
