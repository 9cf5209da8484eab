// torchtitan's job config (TOML), by its config/job_config.py of releases 0.1 and 0.2. Experts
// there take their ranks from data_parallel_shard x context x tensor ranks: dp_shard x cp x tp =
// efsdp x ep x etp, and have as many replicas as dense parameters. Keys go round in a ring by
// "alltoall". With stages local_batch_size is what a pass through the pipeline takes, in
// micro-batches of pipeline_parallel_microbatch_size.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

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
constexpr const char* kSchedule = "/parallelism/pipeline_parallel_schedule";
constexpr const char* kMicro = "/parallelism/pipeline_parallel_microbatch_size";
constexpr const char* kPerStage = "/parallelism/pipeline_parallel_layers_per_stage";
constexpr const char* kFirstLess = "/parallelism/pipeline_parallel_first_stage_less_layers";
constexpr const char* kLastLess = "/parallelism/pipeline_parallel_last_stage_less_layers";
constexpr const char* kParts = "/parallelism/module_fqns_per_model_part";
constexpr const char* kCp = "/parallelism/context_parallel_degree";
constexpr const char* kRotate = "/parallelism/context_parallel_rotate_method";
constexpr const char* kEp = "/parallelism/expert_parallel_degree";
constexpr const char* kEtp = "/parallelism/expert_tensor_parallel_degree";
constexpr const char* kBackend = "/parallelism/expert_parallel_comm_backend";
constexpr const char* kBatch = "/training/global_batch_size";
constexpr const char* kLocal = "/training/local_batch_size";
constexpr const char* kType = "/training/mixed_precision_param";
constexpr const char* kConverters = "/model/converters";
constexpr const char* kMode = "/activation_checkpoint/mode";
constexpr const char* kOption = "/activation_checkpoint/selective_ac_option";

using Rows = std::vector<std::pair<const char*, std::string>>;

void check_experts(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  if (!r.model.is_moe()) return;
  const std::int64_t ranks = l.fsdp_d * l.tp, parts = product({l.ep, l.etp});
  const char* why =
      "experts have as many replicas as dense parameters, and take their ranks from "
      "data_parallel_shard x context x tensor ranks";
  if (!r.of_job) {
    account.require("replicate_e", l.replicate_e, l.replicate_d, why);
    account.require("fsdp_e", l.fsdp_e, ranks % parts == 0 ? ranks / parts : 0, why);
    account.require_order("expert_inner", l.expert_inner, "ep", expert_order_matters(l));
  } else if (ranks % parts != 0) {
    account.refuse_value("ep", why, fmt::format("ep=1, or --pin fsdp_d={}", r.data_ranks()));
  }
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
  if (l.ep > 1 && r.dispatcher == Dispatcher::kAllGather) {
    account.refuse("dispatcher", name_of(r.dispatcher), "torchtitan sends rows by all-to-all",
                   "plan again with --pin dispatcher=all_to_all");
  }
}

void check_sharding(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  if (r.data_ranks() == 1) return;
  const bool params = r.sharding == Sharding::kParameters;
  if (!params && r.sharding != Sharding::kNone) {
    account.refuse_value("sharding", "torchtitan shards parameters too (FSDP), or nothing",
                         "sharding=parameters");
    return;
  }
  if (params && r.of_job && l.fsdp_d == 1) {
    account.refuse_value("fsdp_d", "parameters that one rank has are not sharded",
                         fmt::format("fsdp_d={}, or sharding=none", r.data_ranks()));
    return;
  }
  if ((params || !r.of_job) && l.fsdp_d % l.cp != 0) {
    account.refuse("fsdp_d", fmt::format("fsdp_d = {}", l.fsdp_d),
                   fmt::format("parameters are sharded over whole context groups of {}", l.cp),
                   "plan again with a multiple of cp");
  }
  if (!params && r.of_job && l.dp < r.devices) {
    account.refuse_value("sharding", "torchtitan replicates (DDP) beside no other axis",
                         "sharding=parameters");
  }
}

void check_stages(const Recipe& r, Account& account) {
  const bool several = r.virtual_stages > 1;
  if (r.layout.pp == 1) {
    refuse_stages(r, "", account);
    return;
  }
  switch (r.schedule) {
    case PipelineSchedule::kGpipe:
    case PipelineSchedule::kOneForwardOneBackward:
      break;
    case PipelineSchedule::kInterleaved:
      if (several) break;
      account.refuse_value("virtual_stages", "an interleaved schedule has several",
                           "virtual_stages=2, or schedule=1f1b");
      break;
    case PipelineSchedule::kZeroBubble:
      account.refuse_value("schedule",
                           "torchtitan's zero-bubble schedules have several stages a rank",
                           "schedule=1f1b");
      break;
    case PipelineSchedule::kOverlapped:
      account.refuse_value("schedule",
                           "torchtitan has no forward beside a backward but DualPipeV's",
                           "schedule=interleaved");
  }
  require_whole_rounds(r, account);
}

void check_layout(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  account.refuse_axis("sp", l.sp, "torchtitan has no exchange of heads around attention (Ulysses)");
  account.require_order("dense_inner", l.dense_inner, "fsdp", dense_order_matters(l));
  if (l.tp > 1 && !r.sequence_parallel) {
    account.refuse_value("sequence_parallel", "torchtitan's tensor parallelism has it always",
                         "sequence_parallel=true");
  }
  check_sharding(r, account);
  check_stages(r, account);
  check_experts(r, account);
}

// Recompute of every layer or of none; some layers or modules become every layer, which fits.
Rows checkpoint_rows(const Recipe& r, Account& account) {
  const MemoryPolicy& p = r.policy;
  const Recompute& again = r.recompute;
  if (again.ops) {
    account.said(r.whole_field());
    return {{"mode", "\"selective\""}, {"selective_ac_option", "\"op\""}};
  }
  const bool modules = recompute_word(again) != "none" && !again.full;
  const bool some =
      again.full || modules || p.recompute_attention + p.recompute_ffn + p.recompute_experts > 0;
  const bool all = r.recomputes_all();
  if (all || !some) {
    account.said(r.whole_field());
  } else {
    account.unsaid(r.whole_field(), "all layers are recomputed whole: less memory, slower");
  }
  return {{"mode", some ? "\"full\"" : "\"none\""}};
}

std::string reshard(const Recipe& r, Account& account) {
  const std::int64_t kept = r.kept_layers;
  if (kept == 0 || kept == r.model.layers) account.said(r.keep_field());
  return kept > 0 && kept == r.model.layers ? "never" : "always";
}

std::string table(const char* name, const Rows& rows) {
  std::string text = fmt::format("\n[{}]\n", name);
  for (const auto& [key, value] : rows) text += fmt::format("{} = {}\n", key, value);
  return text;
}

std::string quoted(const std::string& word) {
  return "\"" + word + "\"";
}

// Modules of each stage by name.
std::string parts_text(const Recipe& r) {
  std::string text = "[\n";
  std::int64_t layer = 0;
  for (std::size_t s = 0; s < r.stage_layers.size(); ++s) {
    std::string names = s == 0 ? "\"tok_embeddings\"" : "";
    for (std::int64_t i = 0; i < r.stage_layers[s]; ++i, ++layer) {
      names += fmt::format("{}\"layers.{}\"", names.empty() ? "" : ", ", layer);
    }
    if (s + 1 == r.stage_layers.size()) {
      names += std::string(names.empty() ? "" : ", ") + "\"norm\", \"output\"";
    }
    text += "  [" + names + "],\n";
  }
  return text + "]";
}

void add_pipeline(const Recipe& r, Rows& rows) {
  if (r.layout.pp == 1) return;
  const char* schedule = "1F1B";
  if (r.schedule == PipelineSchedule::kGpipe) schedule = "GPipe";
  if (r.schedule == PipelineSchedule::kInterleaved) schedule = "Interleaved1F1B";
  rows.emplace_back("pipeline_parallel_schedule", quoted(schedule));
  rows.emplace_back("pipeline_parallel_microbatch_size", std::to_string(r.layout.micro_batch));
  if (!r.even_stages()) {
    rows.emplace_back("module_fqns_per_model_part", parts_text(r));
    return;
  }
  // By itself torchtitan counts the ends as a layer each.
  rows.emplace_back("pipeline_parallel_layers_per_stage", std::to_string(r.stage_layers.front()));
  rows.emplace_back("pipeline_parallel_first_stage_less_layers", "0");
  rows.emplace_back("pipeline_parallel_last_stage_less_layers", "0");
}

Rows parallelism_rows(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  const auto number = [](std::int64_t value) { return std::to_string(value); };
  // A context group's parameters are sharded at least over itself.
  const bool sharded = r.sharding != Sharding::kNone && l.fsdp_d % l.cp == 0;
  Rows rows = {{"data_parallel_replicate_degree", number(sharded ? l.replicate_d : l.dp)},
               {"data_parallel_shard_degree", number(sharded ? l.fsdp_d / l.cp : 1)},
               {"fsdp_reshard_after_forward", quoted(reshard(r, account))},
               {"tensor_parallel_degree", number(l.tp)},
               {"pipeline_parallel_degree", number(l.pp)}};
  add_pipeline(r, rows);
  rows.emplace_back("context_parallel_degree", number(l.cp));
  if (l.cp > 1) {
    rows.emplace_back("context_parallel_rotate_method",
                      quoted(r.gathers_keys ? "allgather" : "alltoall"));
  }
  if (!r.model.is_moe()) return rows;
  rows.emplace_back("expert_parallel_degree", number(l.ep));
  rows.emplace_back("expert_tensor_parallel_degree", number(l.etp));
  if (l.ep > 1 && r.dispatcher == Dispatcher::kDeduplicated) {
    rows.emplace_back("expert_parallel_comm_backend", quoted("deepep"));
  }
  return rows;
}

std::string float8_text(const Recipe& r) {
  if (r.precision != Precision::kFp8) return "";
  const bool moe = r.model.is_moe();
  std::string text = table(
      "model", {{"converters", moe ? "[\"quantize.linear.float8\", \"quantize.grouped_mm.float8\"]"
                                   : "[\"quantize.linear.float8\"]"}});
  text += table("quantize.linear.float8",
                {{"filter_fqns", moe ? "[\"output\", \"router.gate\"]" : "[\"output\"]"}});
  if (moe) text += table("quantize.grouped_mm.float8", {{"fqns", "[\"experts\"]"}});
  return text;
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
  d.sharding = *d.fsdp_d > 1 ? Sharding::kParameters : Sharding::kNone;
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

void read_types(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const std::string type = s.word_or(kType, {"bfloat16", "float32"}, "bfloat16");
  s.find("/training/mixed_precision_reduce", false);
  d.keys["precision"] = kType;
  d.precision = type == "bfloat16" ? Precision::kBf16 : Precision::kFp32;
  import.expect_precision(*d.precision, kType, "trains in " + type);
  const Setting* converters = s.find(kConverters, false);
  if (converters == nullptr) return;
  for (const char* word : {"float8", "mx"}) {
    if (converters->value.find(word) == std::string::npos) continue;
    d.precision = Precision::kFp8;
    d.keys["precision"] = kConverters;
  }
}

void read_policy(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const std::int64_t layers = import.target().model.layers;
  const std::string mode =
      s.word_or(kMode, {"none", "full", "selective", "memory_budget"}, "selective");
  const Setting* option = s.find(kOption, false);
  d.keys["recompute"] = kMode;
  Recompute r;
  r.full = mode == "full";
  // By default every second layer.
  r.ops = mode == "selective" && option != nullptr && option->value == "op";
  if (r.full || mode == "none" || (r.ops && import.all_axes())) {
    d.recompute = r;
  } else {
    s.set_aside(kMode, import.all_axes() ? "recomputes every other layer, or to a budget: left to "
                                           "the search"
                                         : "no class of a plan: recompute is left to the search");
  }
  const std::string kept = s.word_or(kReshard, {"default", "always", "never"}, "default");
  // By default parameters stay gathered where there are stages.
  const bool keeps = kept == "never" || (kept == "default" && d.pp > 1);
  d.keys["keeps"] = kReshard;
  d.keeps_gathered = keeps;
  if (!import.all_axes()) import.pin("keep_layers", keeps ? layers : 0, kReshard);
  if (import.all_axes() && d.pp > 1 && !keeps) {
    s.set_aside(kReshard, "between stages a job gathers parameters once a step");
  }
  if (s.boolean("/training/enable_cpu_offload").value_or(false)) {
    s.set_aside("/training/enable_cpu_offload", "moves parameters and gradients too: left out");
  }
}

// Layers of each part by the names of its modules.
std::vector<std::int64_t> layers_of_parts(const std::string& text) {
  std::vector<std::int64_t> layers;
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '[' && ++depth == 2) layers.push_back(0);
    if (text[i] == ']') --depth;
    if (!layers.empty() && text.compare(i, 7, "layers.") == 0) ++layers.back();
  }
  return layers;
}

// As torchtitan deals them: the ends count as so many layers of the first and the last stage.
void deal_stages(Import& import, Degrees& d, bool several) {
  Settings& s = import.settings();
  const std::int64_t first = s.integer(kFirstLess, 0, 1000).value_or(1);
  const std::int64_t last = s.integer(kLastLess, 0, 1000).value_or(1);
  const auto each = s.integer(kPerStage);
  if (!s.problems().empty()) return;
  const std::int64_t all = import.target().model.layers + first + last;
  const std::int64_t stages = each ? (all + *each - 1) / *each : d.pp * (several ? 2 : 1);
  const char* key = each ? kPerStage : kPp;
  std::vector<std::int64_t> layers;
  for (std::int64_t i = 0; i < stages && stages <= all; ++i) {
    layers.push_back(all / stages + (i < all % stages ? 1 : 0));
  }
  if (layers.empty() || layers.front() < first || layers.back() < last) {
    s.problem(s.where(key), fmt::format("{} stages for {} layers and ends", stages, all),
              "fewer stages, or other layers per stage");
    return;
  }
  layers.front() -= first;
  layers.back() -= last;
  import.take_stages(d, std::move(layers), key);
}

void read_pipeline(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const std::string word = s.has(kSchedule) ? s.find(kSchedule)->value : "1F1B";
  d.keys["schedule"] = kSchedule;
  if (d.pp == 1) return;
  const bool single = word == "1F1B" || word == "GPipe";
  if (word == "GPipe") {
    d.schedule = PipelineSchedule::kGpipe;
  } else if (word == "Interleaved1F1B") {
    d.schedule = PipelineSchedule::kInterleaved;
  } else if (word != "1F1B") {
    d.schedule.reset();
    s.set_aside(kSchedule, "'" + word + "' is no schedule of a job: left to the search");
  }
  if (const Setting* parts = s.find(kParts)) {
    import.take_stages(d, layers_of_parts(parts->value), kParts);
  } else {
    deal_stages(import, d, !single);
  }
  if (!s.problems().empty() || single == (d.virtual_stages == 1)) return;
  s.problem(s.where(kSchedule), fmt::format("{} with {} stages a rank", word, d.virtual_stages),
            single ? "it takes one: raise pipeline_parallel_layers_per_stage"
                   : "it takes several: lower pipeline_parallel_layers_per_stage");
}

// Of a pass through a pipeline, or of a micro-batch.
void read_batch(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const auto local = s.integer(kLocal);
  d.keys["micro_batch"] = kLocal;
  d.micro_batch = local;
  if (d.pp == 1) return;
  d.keys["micro_batch"] = kMicro;
  d.micro_batch = s.integer_or(kMicro, 1);
  if (local && *local % *d.micro_batch != 0) {
    s.problem(
        s.where(kMicro),
        fmt::format("pipeline_parallel_microbatch_size {} does not divide local_batch_size {}",
                    *d.micro_batch, *local),
        "take a divisor");
  }
  const auto global = s.integer(kBatch, -1);
  if (!local || !global || *global < 1 || !s.problems().empty()) return;
  const std::int64_t data = import.data_ranks(d);
  if (data == 0 || *global <= product({data / d.cp, *local})) return;
  s.set_aside(kLocal, "the pipeline runs empty between passes: a job takes a step in one");
}

}  // namespace

std::string write_torchtitan(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  check_layout(r, account);
  account.said("host_optimizer");
  if (r.policy.host_optimizer) {
    account.unsaid("host_optimizer",
                   "enable_cpu_offload would move parameters and gradients too: more memory");
  }
  const auto number = [](std::int64_t value) { return std::to_string(value); };
  const std::int64_t local = l.pp > 1 ? l.micro_batch * passes_in_a_row(r) : l.micro_batch;
  std::string text =
      fmt::format("# [model] wants the name and flavor of {} layers, hidden size {}, {} heads.\n",
                  r.model.layers, r.model.hidden, r.model.heads);
  text += float8_text(r);
  text += table("training", {{"local_batch_size", number(local)},
                             {"global_batch_size", number(r.global_sequences)},
                             {"seq_len", number(r.sequence_tokens)},
                             {"mixed_precision_param", quoted(dtype_name(r))},
                             {"mixed_precision_reduce", quoted("float32")}});
  text += table("parallelism", parallelism_rows(r, account));
  return text + table("activation_checkpoint", checkpoint_rows(r, account));
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
  d.sequence_parallel = true;
  d.pp = import.degree(d, "pp", kPp);
  d.cp = import.degree(d, "cp", kCp);
  d.keys["exchange"] = kRotate;
  const std::string rotate = s.word_or(kRotate, {"allgather", "alltoall"}, "allgather");
  if (rotate == "allgather") d.exchange = ContextExchange::kAllGather;
  d.ep = import.degree(d, "ep", kEp);
  d.etp = import.degree(d, "etp", kEtp);
  d.keys["dispatcher"] = kBackend;
  const std::string backend = s.word_or(kBackend, {"standard", "deepep", "hybridep"}, "standard");
  if (backend != "standard") d.dispatcher = Dispatcher::kDeduplicated;
  read_batch(import, d);
  s.expect("/training/seq_len", target.workload.sequence_tokens, target.workload.name);
  // -1: one pass, whatever the data axis.
  const auto global = s.integer(kBatch, -1);
  const bool given = global && *global != -1;
  if (!given && d.pp == 1) d.accumulation = 1, d.keys["accumulation"] = kBatch;
  read_types(import, d);
  if (target.all_axes && s.problems().empty()) read_pipeline(import, d);
  read_sharding(import, d);
  read_policy(import, d);
  import.finish(d, given ? kBatch : "");
  return import.take();
}

}  // namespace orrery::handover
