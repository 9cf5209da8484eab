// DeepSpeed's JSON, by its documentation of the configuration. ZeRO 3 shards parameters over all
// ranks, or (MiCS) over groups of mics_shard_size neighbours; experts over ranks (AutoEP) are for
// stages 0 to 2; the exchange of heads (Ulysses) is the mesh data_parallel_size x
// sequence_parallel_size. JSON has no comments: what is not said is only reported.
#include <fmt/format.h>

#include <utility>

#include "handover/account.h"
#include "handover/degrees.h"
#include "handover/engines.h"

namespace orrery::handover {
namespace {

constexpr const char* kStage = "/zero_optimization/stage";
constexpr const char* kGroup = "/zero_optimization/mics_shard_size";
constexpr const char* kOffload = "/zero_optimization/offload_optimizer/device";
constexpr const char* kMicro = "/train_micro_batch_size_per_gpu";
constexpr const char* kPasses = "/gradient_accumulation_steps";
constexpr const char* kBatch = "/train_batch_size";
constexpr const char* kSp = "/sequence_parallel_size";
constexpr const char* kDp = "/data_parallel_size";
constexpr const char* kTp = "/tensor_parallel/autotp_size";
constexpr const char* kEp = "/expert_parallel/autoep_size";
constexpr const char* kBf16 = "/bf16/enabled";
constexpr const char* kFp16 = "/fp16/enabled";
constexpr const char* kToHost = "/activation_checkpointing/cpu_checkpointing";

void check_sharding(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  const bool params = r.sharding == Sharding::kParameters && r.data_ranks() > 1;
  const bool states = r.sharding != Sharding::kNone && r.data_ranks() > 1;
  if (params && l.tp > 1) {
    account.refuse("tp", fmt::format("tp = {}", l.tp),
                   "AutoTP is for ZeRO 0 to 2: parameters are not sharded beside it",
                   r.of_job ? "plan again with --pin tp=1, or --pin sharding=gradients"
                            : "plan again with --pin tp=1, or --pin fsdp_d=1");
  }
  if (params && r.of_job && l.fsdp_d == 1) {
    account.refuse_value("fsdp_d", "parameters that one rank has are not sharded",
                         fmt::format("fsdp_d={}, or sharding=none", r.data_ranks()));
  }
  if (states && !params && l.replicate_d > 1) {
    account.refuse_value("replicate_d",
                         "ZeRO 1 and 2 shard over all ranks; groups (MiCS) are of ZeRO 3",
                         "replicate_d=1");
  }
  account.require_order("dense_inner", l.dense_inner, "fsdp", dense_order_matters(l));
  if (r.model.is_moe() && l.ep > 1 && params) {
    account.refuse("ep", fmt::format("ep = {}", l.ep),
                   "DeepSpeed spreads experts over ranks (AutoEP) with ZeRO 0 to 2 alone",
                   r.of_job ? "plan again with --pin ep=1, or --pin sharding=gradients"
                            : "plan again with --pin ep=1, or --pin fsdp_d=1");
  }
}

void check_layout(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  const char* axis = "not in DeepSpeed's JSON: it is in the code of the model";
  refuse_stages(r, axis, account);
  if (l.cp > 1 && r.of_job) {
    account.refuse_value("exchange",
                         "DeepSpeed shares sequences by exchanging heads (Ulysses) alone",
                         "exchange=all_to_all, or cp=1");
  } else {
    account.refuse_axis("cp", l.cp, "DeepSpeed shares sequences by exchanging heads (sp) alone");
  }
  account.refuse_axis("etp", l.etp, axis);
  if (r.of_job && r.sequence_parallel) {
    account.refuse_value("sequence_parallel", "AutoTP leaves norms and sums whole on every rank",
                         "sequence_parallel=false");
  }
  check_sharding(r, account);
  if (!r.model.is_moe()) return;
  if (l.ep > 1 && r.dispatcher != Dispatcher::kAllToAll) {
    account.refuse("dispatcher", name_of(r.dispatcher), "DeepSpeed sends rows by all-to-all",
                   "plan again with --pin dispatcher=all_to_all");
  }
  if (r.of_job || (l.ep > 1 && l.fsdp_d > 1)) return;
  const std::int64_t ranks = l.fsdp_d * l.replicate_d * l.tp;
  const char* why = "experts are sharded and replicated as dense parameters are";
  account.require("fsdp_e", l.fsdp_e, l.fsdp_d, why);
  account.require("replicate_e", l.replicate_e, ranks / l.ep / l.fsdp_d, why);
  account.require_order("expert_inner", l.expert_inner, "ep", expert_order_matters(l));
}

Json zero_of(const Recipe& r) {
  const Layout& l = r.layout;
  const int stage = r.data_ranks() > 1 ? static_cast<int>(r.sharding) : 0;
  Json zero = Json::object().set("stage", stage);
  if (stage == 3 && l.replicate_d > 1) zero.set("mics_shard_size", l.fsdp_d);
  if (stage > 0) zero.set("overlap_comm", true).set("contiguous_gradients", true);
  if (stage == 3) {
    // Elements gathered ahead: so many mean layers.
    const std::int64_t layer = parameter_count(r.model) / r.model.layers;
    zero.set("stage3_prefetch_bucket_size",
             product({r.chunks.prefetch_depth, r.chunks.gather_layers, layer}));
  }
  if (r.policy.host_optimizer) {
    zero.set("offload_optimizer", Json::object().set("device", "cpu").set("pin_memory", true));
  }
  return zero;
}

void account_policy(const Recipe& r, Account& account) {
  const MemoryPolicy& p = r.policy;
  account.said("host_optimizer");
  if (recompute_word(r.recompute) != "none") {
    account.unsaid(r.recompute.full ? r.whole_field() : r.modules_field(),
                   "the model's code switches recompute on, as "
                   "model.gradient_checkpointing_enable()");
  }
  if (r.chunks.prefetch_depth != 1) {
    account.unsaid("prefetch_depth", "counted in elements (stage3_prefetch_bucket_size)");
  }
  const bool all = p.swap_layers == p.recompute_layers;
  if (p.swap_layers > 0 && all) account.said("swap_layers");
}

void read_sharding(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const std::int64_t stage = s.integer(kStage, 0, 3).value_or(0);
  const std::int64_t group = s.integer(kGroup, -1).value_or(-1);
  d.keys["fsdp_d"] = d.keys["fsdp_e"] = group > 0 ? kGroup : kStage;
  d.keys["replicate_d"] = d.keys["replicate_e"] = d.keys["fsdp_d"];
  if (stage == 3 && d.ep > 1) {
    s.problem(s.where(kEp), fmt::format("autoep_size {} with ZeRO stage 3", d.ep),
              "experts over ranks are for stages 0 to 2: lower the stage, or take autoep_size 1");
  }
  s.set_aside("/zero_optimization/zero_hpz_partition_size",
              "a second copy of the parameters inside a node has no word in a plan");
  if ((stage == 1 || stage == 2) && !import.all_axes()) {
    s.set_aside(kStage, "a plan shards parameters too, or nothing: left to the search");
    return;
  }
  if (group > 0 && stage != 3) {
    s.problem(s.where(kGroup), fmt::format("mics_shard_size {} with ZeRO stage {}", group, stage),
              "groups are of stage 3");
  }
  if (stage == 3 && d.tp > 1) {
    s.problem(s.where(kTp), fmt::format("autotp_size {} with ZeRO stage 3", d.tp),
              "tensor parallelism is for stages 0 to 2: lower the stage, or take autotp_size 1");
  }
  if (!s.problems().empty()) return;
  d.sharding = static_cast<Sharding>(stage);
  if (stage == 3) d.keeps_gathered = false;
  const std::int64_t data = import.data_ranks(d), experts = import.expert_ranks(d);
  if (data == 0 || experts == 0) return;
  const std::int64_t shards = stage == 0 ? 1 : group > 0 ? group : data;
  if (data % shards != 0) {
    s.problem(s.where(kGroup),
              fmt::format("mics_shard_size {} does not divide {} ranks", shards, data),
              "take a divisor");
    return;
  }
  d.fsdp_d = d.fsdp_e = shards;
  d.replicate_d = data / shards;
  if (experts / d.ep % shards == 0) {
    d.replicate_e = experts / d.ep / shards;
  } else {
    d.fsdp_e.reset();
  }
}

void read_policy(Import& import) {
  Settings& s = import.settings();
  const std::string device = s.word_or(kOffload, {"none", "cpu", "nvme"}, "none");
  if (device == "nvme") {
    s.set_aside(kOffload, "moments on a disk have no word in a plan: left to the search");
  } else {
    import.pin_of_plan("host_optimizer", device == "cpu" ? "true" : "false", "false", kOffload);
  }
  const std::string params =
      s.word_or("/zero_optimization/offload_param/device", {"none", "cpu", "nvme"}, "none");
  if (params != "none") {
    s.set_aside("/zero_optimization/offload_param/device",
                "parameters off the device have no word in a plan");
  }
  if (s.boolean(kToHost).value_or(false)) import.pin_of_plan("swap_layers", "all", "0", kToHost);
  s.set_aside("/zero_optimization/stage3_prefetch_bucket_size",
              "counts elements, a plan layers: left to the search");
}

void read_types(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const bool bf16 = s.boolean(kBf16).value_or(false), fp16 = s.boolean(kFp16).value_or(false);
  if (bf16 && fp16) s.problem(s.where(kFp16), "fp16 beside bf16", "DeepSpeed takes one");
  const char* key = fp16 ? kFp16 : kBf16;
  d.keys["precision"] = key;
  d.precision = fp16 ? Precision::kFp16 : bf16 ? Precision::kBf16 : Precision::kFp32;
  // "auto" leaves it to the launching program.
  if (!bf16 && !fp16 && (s.forgotten(kBf16) || s.forgotten(kFp16))) d.precision.reset();
  if (bf16 || fp16) import.expect_precision(*d.precision, key, name_of(*d.precision));
}

}  // namespace

std::string write_deepspeed(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  check_layout(r, account);
  account_policy(r, account);
  Json json = Json::object();
  json.set("train_batch_size", r.global_sequences)
      .set("train_micro_batch_size_per_gpu", l.micro_batch)
      .set("gradient_accumulation_steps", passes_in_a_row(r));
  if (l.sp > 1) json.set("data_parallel_size", l.dp).set("sequence_parallel_size", l.sp);
  if (l.tp > 1) json.set("tensor_parallel", Json::object().set("autotp_size", l.tp));
  if (r.model.is_moe() && l.ep > 1) {
    json.set("expert_parallel", Json::object().set("enabled", true).set("autoep_size", l.ep));
  }
  json.set("bf16", Json::object().set("enabled", dtype_name(r) == "bfloat16"));
  if (r.precision == Precision::kFp16) json.set("fp16", Json::object().set("enabled", true));
  json.set("zero_optimization", zero_of(r));
  if (r.policy.swap_layers > 0 && r.policy.swap_layers == r.policy.recompute_layers) {
    json.set("activation_checkpointing", Json::object().set("cpu_checkpointing", true));
  }
  return json.dump() + "\n";
}

bool is_deepspeed(const std::string& text) {
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return false;
  if (text[text.find_first_not_of(" \t\r\n")] != '{') return false;
  for (const char* key : {"zero_optimization", "train_micro_batch_size_per_gpu",
                          "gradient_accumulation_steps", "train_batch_size"}) {
    if (text.find(key) != std::string::npos) return true;
  }
  return false;
}

Result<Imported> read_deepspeed(const std::string& text, const std::string& place,
                                const Target& target) {
  TRY(const Json json, Json::parse(text, place));
  Settings settings(place);
  // "auto": the launching program fills it in (Hugging Face's Trainer).
  add_json(json, "", settings);
  settings.forget("auto", "'auto': the launching program decides");
  Import import("deepspeed", std::move(settings), target);
  Settings& s = import.settings();
  Degrees d;
  d.sp = import.degree(d, "sp", kSp);
  d.tp = import.degree(d, "tp", kTp);
  d.sequence_parallel = false;
  d.keys["sequence_parallel"] = kTp;
  const bool spreads = s.boolean("/expert_parallel/enabled").value_or(false);
  if (spreads) d.ep = import.degree(d, "ep", kEp);
  d.micro_batch = s.integer(kMicro);
  d.accumulation = s.integer(kPasses);
  d.keys["micro_batch"] = kMicro;
  d.keys["accumulation"] = kPasses;
  read_sharding(import, d);
  read_policy(import);
  if (const auto dp = s.integer(kDp); dp && s.problems().empty()) {
    const std::int64_t world = product({*dp, d.sp, d.tp});
    if (world != target.world) import.expect_world(world, kDp);
  }
  read_types(import, d);
  import.finish(d, kBatch);
  return import.take();
}

}  // namespace orrery::handover
