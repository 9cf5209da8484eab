// XTuner V1, by its FSDPConfig, TrainerConfig and MoEConfig. Ranks of an expert group are
// neighbours; dense parameters are replicated over them and sharded over the others. A pack is a
// micro-batch: pack_max_length holds micro_batch rows, and global_batch_size counts packs.
#include <fmt/format.h>

#include <algorithm>
#include <locale>
#include <sstream>
#include <utility>

#include "handover/account.h"
#include "handover/degrees.h"
#include "handover/engines.h"
#include "handover/python_config.h"

namespace orrery::handover {
namespace {

// Layers that XTuner recomputes at most, and keeps gathered at least: the last one of a model with
// experts is needed at once.
std::int64_t last_kept(const Model& model) {
  return model.is_moe() ? 1 : 0;
}

void check_experts(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  const std::int64_t world = l.dp * l.sp, parts = product({l.ep, l.etp});
  if (parts > 1) {
    const char* why =
        "beside expert parallelism dense parameters are replicated over the ranks "
        "that share experts, and sharded over the others";
    account.require("replicate_d", l.replicate_d, parts, why);
    account.require("fsdp_d", l.fsdp_d, world / parts, why);
    account.require_order("dense_inner", l.dense_inner, "replicate", dense_order_matters(l));
    if (!r.of_job) {
      account.require("replicate_e", l.replicate_e, 1, "experts have no replicas there");
      account.require("fsdp_e", l.fsdp_e, world / parts,
                      "experts are sharded over all other ranks");
      account.require_order("expert_inner", l.expert_inner, "ep", expert_order_matters(l));
    }
  } else {
    account.require_order("dense_inner", l.dense_inner, "fsdp", dense_order_matters(l));
    if (!r.of_job) {
      const char* why = "without expert parallelism experts are sharded as the rest";
      account.require("fsdp_e", l.fsdp_e, l.fsdp_d, why);
      account.require("replicate_e", l.replicate_e, l.replicate_d, why);
    }
  }
  if (l.ep > 1 && r.dispatcher == Dispatcher::kAllGather) {
    account.refuse("dispatcher", name_of(r.dispatcher),
                   "XTuner gathers tokens for grouped routers of eight experts' groups alone",
                   "plan again with --pin dispatcher=all_to_all");
  }
}

void check_layout(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  refuse_stages(r, "XTuner has no pipeline", account);
  account.refuse_axis("tp", l.tp, "no layer of XTuner is tensor-parallel but experts");
  if (l.cp > 1 && r.of_job) {
    account.refuse_value("exchange", "XTuner shares sequences by exchanging heads (Ulysses) alone",
                         "exchange=all_to_all, or cp=1");
  } else {
    account.refuse_axis("cp", l.cp, "XTuner shares sequences by exchanging heads (sp) alone");
  }
  if (r.of_job && r.sharding != Sharding::kParameters && r.data_ranks() > 1) {
    account.refuse_value("sharding", "XTuner shards parameters too (FSDP), always",
                         "sharding=parameters");
  }
  if (r.model.is_moe()) {
    check_experts(r, account);
  } else {
    account.require_order("dense_inner", l.dense_inner, "fsdp", dense_order_matters(l));
  }
}

// The share of layers whose floor is `layers` of `all`: between two counts, so that no rounding
// loses one.
std::string ratio_of(std::int64_t layers, std::int64_t all) {
  if (layers >= all) return "1.0";
  if (layers == 0) return "0.0";
  return fmt::format("{:.6f}", (static_cast<double>(layers) + 0.5) / static_cast<double>(all));
}

// Recompute, reshard and swap, as keyword arguments of FSDPConfig.
std::string policy_arguments(const Recipe& r, Account& account) {
  const std::int64_t all = r.model.layers, least = last_kept(r.model);
  std::int64_t again = 0;
  if (r.recompute.full) again = r.recompute.full_layers > 0 ? r.recompute.full_layers : all;
  again = std::min(again, all);
  if (!r.recompute.full && recompute_word(r.recompute) != "none") {
    if (r.of_job) account.unsaid("recompute", "layers are recomputed whole there, or not at all");
  } else if (again <= all - least) {
    account.said(r.whole_field());
  } else {
    account.unsaid(r.whole_field(), "the last layer is never recomputed: needed at once");
  }
  const bool never = r.kept_layers == all;
  // One layer more or less is no matter of a job.
  if (r.kept_layers == least || never || r.of_job) {
    account.said(r.keep_field());
  } else {
    account.unsaid(r.keep_field(), least == 0 ? "all layers are gathered again for backward"
                                              : "the last layer alone stays gathered");
  }
  return fmt::format("    recompute_ratio={},\n    reshard_after_forward={},\n",
                     ratio_of(again, all), never ? "False" : "True");
}

bool swaps_all(const MemoryPolicy& p) {
  return p.swap_layers > 0 && p.swap_layers == p.recompute_layers;
}

std::string import_lines(const Recipe& r) {
  std::string text =
      "import os\n\n"
      "from xtuner.v1.config import AdamWConfig, FSDPConfig\n"
      "from xtuner.v1.datasets.config import DataloaderConfig\n";
  if (r.precision == Precision::kFp8) {
    text += "from xtuner.v1.float8.config import Float8Config, ScalingGranularity\n";
  }
  text +=
      "from xtuner.v1.loss import CELossConfig\n"
      "from xtuner.v1.model import get_model_config_from_hf\n"
      "from xtuner.v1.train import TrainerConfig\n\n";
  if (swaps_all(r.policy)) {
    text += "os.environ[\"XTUNER_ACTIVATION_OFFLOAD\"] = \"1\"\n";
  }
  return text;
}

std::string model_lines(const Recipe& r) {
  const Layout& l = r.layout;
  std::string text = fmt::format(
      "MODEL_PATH = os.environ[\"MODEL_PATH\"]  # {} layers, hidden size {}, {} experts\n"
      "model_cfg = get_model_config_from_hf(MODEL_PATH)\n",
      r.model.layers, r.model.hidden, r.model.experts);
  if (r.precision == Precision::kFp8) {
    text +=
        "model_cfg.float8_cfg = Float8Config(\n"
        "    scaling_granularity_gemm=ScalingGranularity.TILEWISE,\n"
        "    scaling_granularity_grouped_gemm=ScalingGranularity.TILEWISE,\n)\n";
  }
  if (!r.model.is_moe()) return text;
  text += fmt::format("model_cfg.ep_size = {}\nmodel_cfg.expert_tp_size = {}\n", l.ep, l.etp);
  if (l.ep > 1) {
    const bool deepep = r.dispatcher == Dispatcher::kDeduplicated;
    text += fmt::format("model_cfg.dispatcher = \"{}\"\n", deepep ? "deepep" : "all2all");
  }
  return text;
}

// A key of a call in a Python file, of an attribute there, or of a JSON of the trainer.
struct Names {
  const char *call, *attribute, *json;
};

constexpr Names kEp = {"FSDPConfig.ep_size", "model_cfg.ep_size", "/fsdp_cfg/ep_size"};
constexpr Names kShards = {"FSDPConfig.hsdp_sharding_size", "", "/fsdp_cfg/hsdp_sharding_size"};
constexpr Names kTp = {"FSDPConfig.tp_size", "", "/fsdp_cfg/tp_size"};
constexpr Names kEtp = {"MoEConfig.expert_tp_size", "model_cfg.expert_tp_size",
                        "/model_cfg/expert_tp_size"};
constexpr Names kSp = {"TrainerConfig.sp_size", "trainer.sp_size", "/sp_size"};
constexpr Names kDomino = {"TrainerConfig.intra_layer_micro_batch",
                           "trainer.intra_layer_micro_batch", "/intra_layer_micro_batch"};
constexpr Names kBatch = {"TrainerConfig.global_batch_size", "trainer.global_batch_size",
                          "/global_batch_size"};
constexpr Names kPack = {"DataloaderConfig.pack_max_length", "", "/dataloader_cfg/pack_max_length"};
constexpr Names kRatio = {"FSDPConfig.recompute_ratio", "", "/fsdp_cfg/recompute_ratio"};
constexpr Names kReshard = {"FSDPConfig.reshard_after_forward", "",
                            "/fsdp_cfg/reshard_after_forward"};
constexpr Names kHost = {"AdamWConfig.swap_optimizer", "", "/optim_cfg/swap_optimizer"};
constexpr Names kLoss = {"CELossConfig.mode", "", "/loss_cfg/mode"};
constexpr Names kChunk = {"CELossConfig.chunk_size", "", "/loss_cfg/chunk_size"};
constexpr Names kDispatcher = {"MoEConfig.dispatcher", "model_cfg.dispatcher",
                               "/model_cfg/dispatcher"};

// The first of the names that the file sets; the call's where it sets none.
std::string key_of(Settings& s, const Names& names) {
  for (const char* name : {names.call, names.attribute, names.json}) {
    if (*name != '\0' && s.where(name) != s.place()) return name;
  }
  return names.call;
}

// A setting of the model: of a MoEConfig, or of a class of its own ("Qwen3MoE30BA3Config").
std::string model_key_of(Settings& s, const Names& names, const char* end) {
  const std::vector<std::string> keys = s.keys_ending(end);
  return keys.empty() ? key_of(s, names) : keys.front();
}

std::optional<double> share(const std::string& text) {
  std::istringstream in(text);
  in.imbue(std::locale::classic());
  double value = 0;
  if (!(in >> value) || !in.eof() || !(value >= 0 && value <= 1)) return std::nullopt;
  return value;
}

void read_policy(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const std::int64_t all = import.target().model.layers, least = last_kept(import.target().model);
  const std::string ratio_key = key_of(s, kRatio);
  d.keys["recompute"] = ratio_key;
  const auto set_again = [&](std::int64_t layers) {
    d.recompute = Recompute{};
    d.recompute->full = layers > 0;
    d.recompute->full_layers = layers;
  };
  if (const Setting* ratio = s.find(ratio_key, false)) {
    const auto value = share(ratio->value);
    if (value) {
      const auto layers = static_cast<std::int64_t>(static_cast<double>(all) * *value);
      set_again(std::min(layers, all - least));
    } else {
      s.problem(ratio->where, "recompute_ratio '" + ratio->value + "' is no share of the layers",
                "from 0 to 1");
    }
  } else if (s.where(ratio_key) == s.place()) {
    set_again(all - least);  // XTuner's default is 1.0
  }
  const std::string reshard_key = key_of(s, kReshard);
  const bool reshards = s.boolean(reshard_key).value_or(true);
  d.keeps_gathered = !reshards;
  d.keys["keeps"] = reshard_key;
  if (!import.all_axes()) import.pin("keep_layers", reshards ? least : all, reshard_key);
  const std::string host_key = key_of(s, kHost);
  const bool on_host = s.boolean(host_key).value_or(false);
  import.pin_of_plan("host_optimizer", on_host ? "true" : "false", "false", host_key);
  if (s.boolean("environ.XTUNER_ACTIVATION_OFFLOAD").value_or(false)) {
    import.pin_of_plan("swap_layers", "all", "0", "environ.XTUNER_ACTIVATION_OFFLOAD");
    import.pin_of_plan("swap_distance", "1", "1", "environ.XTUNER_ACTIVATION_OFFLOAD");
  }
  for (const char* key : {"FSDPConfig.cpu_offload", "/fsdp_cfg/cpu_offload"}) {
    if (s.boolean(key).value_or(false)) {
      s.set_aside(key, "moves parameters and gradients too, which a plan cannot");
    }
  }
}

void read_types(Import& import, Degrees& d) {
  Settings& s = import.settings();
  d.precision = Precision::kBf16;  // XTuner's default
  for (const char* key : {"FSDPConfig.param_dtype", "/fsdp_cfg/param_dtype"}) {
    const Setting* type = s.find(key, false);
    if (type == nullptr) continue;
    d.keys["precision"] = key;
    const bool bf16 = type->value.find("16") != std::string::npos;
    d.precision = bf16 ? Precision::kBf16 : Precision::kFp32;
    if (bf16) import.expect_precision(Precision::kBf16, key, "param_dtype " + type->value);
  }
  for (const char* key : {"Float8Config.scaling_granularity_gemm",
                          "/model_cfg/float8_cfg/scaling_granularity_gemm"}) {
    const bool set = s.find(key, false) != nullptr || s.where(key) != s.place();
    if (!set) continue;
    d.keys["precision"] = key;
    d.precision = Precision::kFp8;
  }
}

void read_loss(Import& import, const Degrees& d) {
  Settings& s = import.settings();
  const std::string key = key_of(s, kLoss), size_key = key_of(s, kChunk);
  const std::string mode = s.word_or(key, {"eager", "chunk", "liger"}, "eager");
  if (mode == "chunk") {
    // Of the rows that a rank has; a larger chunk is no chunk.
    const std::int64_t tokens = import.target().workload.sequence_tokens;
    const std::int64_t rows =
        product({d.micro_batch.value_or(0), tokens / d.sp + (tokens % d.sp > 0 ? 1 : 0)});
    const std::int64_t size = s.integer_or(size_key, 1024);
    import.pin_of_plan("loss_tokens", std::to_string(rows > 0 && size > rows ? 0 : size), "0",
                       size_key);
  } else if (mode == "eager") {
    import.pin_of_plan("loss_tokens", "0", "0", key);
  } else {
    s.set_aside(key, "a fused loss has no word in a plan: left to the search");
  }
}

void read_sharding(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const std::string key = key_of(s, kShards);
  d.keys["fsdp_d"] = d.keys["fsdp_e"] = d.keys["replicate_d"] = d.keys["replicate_e"] = key;
  s.forget("None", "");
  s.forget("null", "");
  const auto shards = s.integer(key);
  const std::int64_t parts = product({d.ep, d.etp});
  if (!s.problems().empty()) return;
  const std::int64_t data = import.data_ranks(d), experts = import.expert_ranks(d);
  if (data == 0 || experts == 0) return;
  if (shards && parts > 1) {
    s.problem(s.where(key), fmt::format("hsdp_sharding_size {} with ep_size {}", *shards, d.ep),
              "replicas are for models without expert parallelism: drop one of them");
    return;
  }
  if (shards && data % *shards != 0) {
    s.problem(s.where(key),
              fmt::format("hsdp_sharding_size {} does not divide {} ranks", *shards, data),
              "take a divisor");
    return;
  }
  d.sharding = data > 1 ? Sharding::kParameters : Sharding::kNone;
  d.fsdp_d = d.fsdp_e = parts > 1 ? data / parts : shards.value_or(data);
  d.replicate_d = data / *d.fsdp_d;
  d.replicate_e = parts > 1 ? 1 : *d.replicate_d;
  if (parts > 1) d.dense_inner = "replicate";
}

// Packs are micro-batches; their rows are the workload's.
void read_batch(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const Workload& w = import.target().workload;
  const std::string pack_key = key_of(s, kPack), batch_key = key_of(s, kBatch);
  d.keys["micro_batch"] = pack_key;
  const auto pack = s.integer(pack_key);
  if (pack && *pack % w.sequence_tokens != 0) {
    s.problem(s.where(pack_key),
              fmt::format("packs of {} tokens are no whole rows of {} of {}", *pack,
                          w.sequence_tokens, w.name),
              "name a workload of such rows");
  } else if (pack) {
    d.micro_batch = *pack / w.sequence_tokens;
  }
  const auto packs = s.integer(batch_key);
  if (!packs || !pack) return;
  const std::int64_t tokens = product({*packs, *pack});
  if (tokens == w.global_tokens()) return;
  s.problem(s.where(batch_key),
            fmt::format("{} packs of {} tokens are {} tokens a step, but {} has {}", *packs, *pack,
                        tokens, w.name, w.global_tokens()),
            "name the workload of this file, or mend it");
}

}  // namespace

std::string write_xtuner(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  const MemoryPolicy& p = r.policy;
  check_layout(r, account);
  for (const char* field : {"loss_tokens", "domino", "host_optimizer"}) account.said(field);
  if (swaps_all(p)) {
    account.said("swap_layers");
    if (p.swap_distance == 1) account.said("swap_distance");
    if (p.swap_distance != 1) {
      account.unsaid("swap_distance", "XTuner brings inputs back one layer ahead");
    }
  }
  const std::string policy = policy_arguments(r, account);
  std::string text = import_lines(r) + model_lines(r);
  text += fmt::format("fsdp_cfg = FSDPConfig(\n    ep_size={},\n", l.ep);
  if (product({l.ep, l.etp}) == 1 && l.replicate_d > 1) {
    text += fmt::format("    hsdp_sharding_size={},\n", l.fsdp_d);
  }
  text += policy + fmt::format("    param_dtype=\"{}\",\n)\n", dtype_name(r));
  const std::int64_t chunk = r.chunks.loss_tokens;
  text += chunk == 0
              ? "loss_cfg = CELossConfig(mode=\"eager\")\n"
              : fmt::format("loss_cfg = CELossConfig(mode=\"chunk\", chunk_size={})\n", chunk);
  text += fmt::format("optim_cfg = AdamWConfig(swap_optimizer={})\n",
                      p.host_optimizer ? "True" : "False");
  text += fmt::format("# A pack is a micro-batch of {} rows; add dataset_config_list.\n",
                      l.micro_batch);
  text += fmt::format("dataloader_cfg = DataloaderConfig(pack_max_length={})\n",
                      l.micro_batch * r.sequence_tokens);
  return text +
         fmt::format(
             "\ntrainer = TrainerConfig(\n    model_cfg=model_cfg,\n    load_from=MODEL_PATH,\n"
             "    tokenizer_path=MODEL_PATH,\n    fsdp_cfg=fsdp_cfg,\n    optim_cfg=optim_cfg,\n"
             "    loss_cfg=loss_cfg,\n    dataloader_cfg=dataloader_cfg,\n    "
             "global_batch_size={},\n"
             "    sp_size={},\n    intra_layer_micro_batch={},\n)\n",
             r.global_sequences / l.micro_batch, l.sp, r.chunks.domino);
}

bool is_xtuner(const std::string& text) {
  for (const char* word : {"xtuner", "FSDPConfig(", "TrainerConfig(", "\"fsdp_cfg\""}) {
    if (text.find(word) != std::string::npos) return true;
  }
  return false;
}

Result<Imported> read_xtuner(const std::string& text, const std::string& place,
                             const Target& target) {
  Settings settings(place);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] == '{') {
    TRY(const Json json, Json::parse(text, place));
    add_json(json, "", settings);
  } else {
    TRY(settings, parse_python(text, place));
  }
  Import import("xtuner", std::move(settings), target);
  Settings& s = import.settings();
  Degrees d;
  d.ep = import.degree(d, "ep", key_of(s, kEp));
  d.etp = import.degree(d, "etp", model_key_of(s, kEtp, ".expert_tp_size"));
  d.sp = import.degree(d, "sp", key_of(s, kSp));
  d.domino = s.integer_or(key_of(s, kDomino), 1);
  import.pin_of_plan("domino", std::to_string(d.domino), "1", key_of(s, kDomino));
  if (s.integer_or(key_of(s, kTp), 1) > 1) {
    s.problem(s.where(key_of(s, kTp)), "tp_size only repeats data there: no layer is split by it",
              "set it to 1");
  }
  // The model's own setting, where the file has both.
  std::vector<std::string> keys = s.keys_ending(".ep_size");
  keys.emplace_back("/model_cfg/ep_size");
  for (const std::string& key : keys) {
    const auto ep = s.integer(key);
    if (ep && *ep != d.ep) {
      s.problem(s.where(key), fmt::format("ep_size {} here and {} in FSDPConfig", *ep, d.ep),
                "both have to be the same");
    }
  }
  const std::string dispatcher_key = model_key_of(s, kDispatcher, ".dispatcher");
  d.keys["dispatcher"] = dispatcher_key;
  const std::string dispatcher =
      s.word_or(dispatcher_key, {"None", "null", "all2all", "deepep", "agrs"}, "all2all");
  if (dispatcher == "agrs") d.dispatcher = Dispatcher::kAllGather;
  if (dispatcher == "deepep") d.dispatcher = Dispatcher::kDeduplicated;
  read_sharding(import, d);
  read_batch(import, d);
  read_policy(import, d);
  read_types(import, d);
  read_loss(import, d);
  import.finish(d, "");
  return import.take();
}

}  // namespace orrery::handover
