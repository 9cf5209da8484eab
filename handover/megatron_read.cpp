// Reading of Megatron-LM's flags. What it does where a flag is absent is what is read.
#include <fmt/format.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "handover/degrees.h"
#include "handover/engines.h"
#include "handover/megatron.h"
#include "handover/megatron_stages.h"
#include "handover/shell_flags.h"

namespace orrery::handover {
namespace megatron {
namespace {

constexpr const char* kLayersOfVirtual = "--num-layers-per-virtual-pipeline-stage";
constexpr const char* kFirst = "--decoder-first-pipeline-num-layers";
constexpr const char* kLast = "--decoder-last-pipeline-num-layers";
constexpr const char* kCountsEmbedding = "--account-for-embedding-in-pipeline-split";
constexpr const char* kCountsLoss = "--account-for-loss-in-pipeline-split";

// ZeRO 1 of Megatron's own optimizer, or what Megatron-FSDP or torch's shards.
std::optional<Sharding> read_strategy(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const bool torch_fsdp = s.has("--use-torch-fsdp2");
  const bool fsdp = s.has(kFsdp) || s.has("--use-custom-fsdp") || torch_fsdp;
  const std::vector<std::string> words = {"no_shard", "optim", "optim_grads", "optim_grads_params"};
  const std::string strategy =
      s.word_or(kStrategy, words, torch_fsdp ? "optim_grads_params" : "no_shard");
  const bool states = s.has(kStates);
  const auto at = std::find(words.begin(), words.end(), strategy) - words.begin();
  Sharding sharding = static_cast<Sharding>(fsdp ? at : 0);
  if (sharding == Sharding::kNone && states) sharding = Sharding::kOptimizer;
  d.keys["fsdp_d"] = fsdp && at > 0 ? kStrategy : kStates;
  d.keys["replicate_d"] = d.keys["replicate_e"] = kInstances;
  if (s.word_or("--outer-dp-sharding-strategy", {"no_shard", "optim"}, "no_shard") != "no_shard") {
    s.set_aside("--outer-dp-sharding-strategy", "replicas have whole optimizer states here");
  }
  if (strategy != "no_shard" && !fsdp) {
    s.set_aside(kStrategy, std::string("Megatron reads it beside ") + kFsdp + " alone");
  }
  if (import.all_axes() || sharding == Sharding::kNone || sharding == Sharding::kParameters) {
    return sharding;
  }
  s.set_aside(fsdp && at > 0 ? kStrategy : kStates,
              "a plan shards parameters too, or nothing: left to the search");
  return std::nullopt;
}

void read_sharding(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const auto sharding = read_strategy(import, d);
  const std::int64_t instances = s.integer_or(kInstances, 1);
  if (!sharding || !s.problems().empty()) return;
  d.sharding = sharding;
  if (*sharding == Sharding::kParameters) d.keeps_gathered = false;
  const std::int64_t data = import.data_ranks(d), stage = import.expert_ranks(d);
  if (data == 0 || stage == 0) return;
  const std::int64_t experts = stage / (d.ep * d.etp);
  const bool shards = *sharding != Sharding::kNone;
  const std::int64_t replicas = shards ? instances : data;
  if (shards && (data % instances != 0 || experts % instances != 0)) {
    s.problem(s.where(kInstances),
              fmt::format("{} {} does not divide the {} data-parallel ranks of dense and the {} of "
                          "expert parameters",
                          kInstances, instances, data, experts),
              "take a divisor of both");
    return;
  }
  d.replicate_d = replicas;
  d.fsdp_d = data / replicas;
  d.replicate_e = shards ? instances : experts;
  d.fsdp_e = experts / *d.replicate_e;
}

// Context parallelism is a ring, an exchange of heads (Ulysses), or both in two levels.
void read_context(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const std::int64_t all = import.degree(d, "cp", kCp);
  d.keys["sp"] = kCp;
  d.keys["exchange"] = kExchange;
  const std::string type =
      s.word_or(kExchange, {"p2p", "all_gather", "allgather", "a2a", "a2a+p2p"}, "p2p");
  if (type == "a2a") {
    d.sp = all;
  } else if (type != "a2a+p2p") {
    d.cp = all;
    if (type != "p2p") d.exchange = ContextExchange::kAllGather;
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

// Layers of the stages' ranks in turns: each rank has as many in all its virtual stages.
void deal(Import& import, Degrees& d, const std::vector<std::int64_t>& ranks, const char* key) {
  std::vector<std::int64_t> layers;
  for (std::int64_t v = 0; v < d.virtual_stages; ++v) {
    for (const std::int64_t all : ranks) {
      if (all % d.virtual_stages != 0) {
        import.settings().problem(
            import.settings().where(key),
            fmt::format("{} layers of a rank do not divide by its {} virtual stages", all,
                        d.virtual_stages),
            fmt::format("{} takes any layers of each", kStages));
        return;
      }
      layers.push_back(all / d.virtual_stages);
    }
  }
  import.take_stages(d, std::move(layers), key);
}

// Fewer or more layers in the first and the last rank; the others share the rest.
void read_uneven(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const auto first = s.integer(kFirst), last = s.integer(kLast);
  const std::int64_t ends = (first ? 1 : 0) + (last ? 1 : 0);
  if (ends == 0 || d.pp <= ends || !s.problems().empty()) return;
  const char* key = first ? kFirst : kLast;
  const std::int64_t rest = import.target().model.layers - first.value_or(0) - last.value_or(0);
  if (rest < 0 || rest % (d.pp - ends) != 0) {
    s.problem(s.where(key),
              fmt::format("the other {} ranks cannot share {} layers", d.pp - ends, rest),
              "change the layers of the first or the last");
    return;
  }
  std::vector<std::int64_t> ranks(static_cast<std::size_t>(d.pp), rest / (d.pp - ends));
  if (first) ranks.front() = *first;
  if (last) ranks.back() = *last;
  deal(import, d, ranks, key);
}

// Layers, and the ends where these count as one each.
std::int64_t counted_layers(Import& import) {
  Settings& s = import.settings();
  return import.target().model.layers + (s.has(kCountsEmbedding) ? 1 : 0) +
         (s.has(kCountsLoss) ? 1 : 0);
}

// The embedding and the loss count as a layer each, of the first and the last virtual stage.
void read_counted_ends(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const bool embedding = s.has(kCountsEmbedding), loss = s.has(kCountsLoss);
  if ((!embedding && !loss) || d.pp == 1) return;
  const char* key = embedding ? kCountsEmbedding : kCountsLoss;
  const std::int64_t stages = product({d.pp, d.virtual_stages});
  const std::int64_t all = counted_layers(import);
  if (stages > all || all % stages != 0) {
    s.problem(s.where(key),
              fmt::format("{} layers and ends do not divide by {} stages", all, stages),
              "change pp or the virtual stages");
    return;
  }
  std::vector<std::int64_t> layers(static_cast<std::size_t>(stages), all / stages);
  if (embedding) --layers.front();
  if (loss) --layers.back();
  import.take_stages(d, std::move(layers), key);
}

// Virtual stages by number, by their layers, or all stages spelled out; Megatron takes one of them.
void read_virtual(Import& import, Degrees& d) {
  Settings& s = import.settings();
  d.keys["virtual_stages"] = kVirtual;
  std::string given;
  for (const char* key : {kVirtual, kLayersOfVirtual, kStages}) {
    if (!s.has(key)) continue;
    if (!given.empty()) {
      s.problem(s.where(key), fmt::format("{} beside {}", key, given),
                "Megatron takes one of them");
      return;
    }
    given = key;
  }
  if (given == kVirtual) d.virtual_stages = s.integer_or(kVirtual, 1);
  if (given == kLayersOfVirtual) {
    d.keys["virtual_stages"] = kLayersOfVirtual;
    const std::int64_t each = s.integer_or(kLayersOfVirtual, 1);
    const std::int64_t parts = product({d.pp, each}), layers = counted_layers(import);
    if (layers % parts != 0) {
      s.problem(s.where(kLayersOfVirtual),
                fmt::format("{} layers of {} do not divide by {} ranks x {} layers", layers,
                            import.target().model.name, d.pp, each),
                fmt::format("{} takes any layers of each stage", kStages));
      return;
    }
    d.virtual_stages = layers / parts;
  }
  if (given == kStages && s.problems().empty()) {
    const Setting* text = s.find(kStages);
    auto layers = parse_stages(text->value, text->where);
    if (layers.ok()) {
      import.take_stages(d, std::move(layers).value(), kStages);
    } else {
      const Problem& p = layers.error().problems.front();
      s.problem(p.where, std::string(kStages) + " " + p.message, p.hint);
    }
  }
}

void read_pipeline(Import& import, Degrees& d) {
  Settings& s = import.settings();
  read_virtual(import, d);
  constexpr std::int64_t kMostVirtual = 4096;
  if (d.virtual_stages > kMostVirtual || d.pp > kMostVirtual) {
    s.problem(s.where(d.pp > kMostVirtual ? kPp : kVirtual), "more stages than can be meant",
              fmt::format("at most {}", kMostVirtual));
    return;
  }
  if (s.problems().empty() && d.stage_layers.empty()) read_uneven(import, d);
  if (s.problems().empty() && d.stage_layers.empty()) read_counted_ends(import, d);
  if (d.pp == 1 && d.virtual_stages > 1) {
    s.problem(s.where(d.keys["virtual_stages"]),
              fmt::format("{} virtual stages without a pipeline", d.virtual_stages),
              fmt::format("{} is more than 1 where there are some", kPp));
  }
  d.keys["schedule"] = kOverlapped;
  if (s.has(kOverlapped)) {
    d.schedule = PipelineSchedule::kOverlapped;
  } else if (d.virtual_stages > 1) {
    d.keys["schedule"] = d.keys["virtual_stages"];
    d.schedule = PipelineSchedule::kInterleaved;
  }
}

// Words of --recompute-modules; one that is unknown leaves recompute to the search.
std::optional<std::vector<bool>> read_modules(Settings& s) {
  const Setting* given = s.find(kModules);
  std::istringstream words(given == nullptr ? "core_attn" : given->value);
  std::vector<bool> modules(kNumModules, false);
  for (std::string word; words >> word;) {
    const auto row = std::find_if(module_words().begin(), module_words().end(),
                                  [&](const ModuleWord& m) { return word == m.word; });
    if (row == module_words().end()) {
      s.set_aside(kModules, "'" + word + "' is no module of a layer here: left to the search");
      return std::nullopt;
    }
    for (const Module m : row->modules) modules[static_cast<std::size_t>(m)] = true;
  }
  return modules;
}

void read_recompute(Import& import, Degrees& d) {
  Settings& s = import.settings();
  std::string kind = s.word_or(kGranularity, {"full", "selective"}, "");
  const std::string method = s.word_or(kMethod, {"uniform", "block"}, "");
  const auto number = s.integer(kRecomputed, 1, import.target().model.layers);
  d.keys["recompute"] = kGranularity;
  // Attention's core alone, which flash kernels run again by themselves.
  if (s.has("--recompute-activations") && kind.empty()) {
    d.keys["recompute"] = "--recompute-activations";
    kind = "selective";
  }
  Recompute r;
  if (kind == "full" && method.empty()) {
    s.problem(s.where(kGranularity), fmt::format("full recompute without {}", kMethod),
              "uniform recomputes all layers, block the first of each stage");
  } else if (kind == "full") {
    r.full = true;
    d.keys["recompute"] = kMethod;
    if (method == "block") {
      if (!number) return;
      r.full_layers = *number;
      d.keys["recompute"] = kRecomputed;
    }
  } else if (kind == "selective") {
    if (s.has(kModules)) d.keys["recompute"] = kModules;
    const auto modules = read_modules(s);
    if (!modules) return;
    r.modules = *modules;
  }
  d.recompute = std::move(r);
}

void read_dispatcher(Import& import, Degrees& d) {
  Settings& s = import.settings();
  d.keys["dispatcher"] = kDispatcher;
  const std::string word =
      s.word_or(kDispatcher, {"allgather", "alltoall", "alltoall_seq", "flex"}, "allgather");
  s.word_or(kBackend, {"deepep", "hybridep"}, "deepep");
  s.has("--moe-enable-deepep");
  d.dispatcher = Dispatcher::kAllToAll;
  if (word == "allgather") d.dispatcher = Dispatcher::kAllGather;
  if (word == "flex") d.dispatcher = Dispatcher::kDeduplicated;
}

void read_types(Import& import, Degrees& d) {
  Settings& s = import.settings();
  const bool bf16 = s.has("--bf16"), fp16 = s.has("--fp16");
  if (bf16 && fp16) s.problem(s.where("--fp16"), "--fp16 beside --bf16", "Megatron takes one");
  const char* key = fp16 ? "--fp16" : "--bf16";
  d.keys["precision"] = key;
  d.precision = fp16 ? Precision::kFp16 : bf16 ? Precision::kBf16 : Precision::kFp32;
  if (bf16 || fp16) import.expect_precision(*d.precision, key, key);
  // In 8 bit its products, not its rows.
  if (!s.has(kFp8)) return;
  d.precision = Precision::kFp8;
  d.keys["precision"] = kFp8;
  s.has("--fp8-recipe");
}

// Sizes that must be those of the model and workload that are planned for.
void read_sizes(Import& import) {
  Settings& s = import.settings();
  const Model& m = import.target().model;
  const Workload& w = import.target().workload;
  std::vector<std::pair<const char*, std::int64_t>> sizes = {
      {"--num-layers", m.layers},           {"--hidden-size", m.hidden},
      {"--num-attention-heads", m.heads},   {"--num-experts", m.experts},
      {"--moe-ffn-hidden-size", m.moe_ffn}, {"--moe-router-topk", m.top_k}};
  if (m.is_latent()) {
    sizes.emplace_back("--q-lora-rank", m.latent.q_rank);
    sizes.emplace_back("--kv-lora-rank", m.latent.kv_rank);
    sizes.emplace_back("--qk-head-dim", m.latent.nope_dim);
    sizes.emplace_back("--qk-pos-emb-head-dim", m.latent.rope_dim);
    sizes.emplace_back("--v-head-dim", m.latent.v_dim);
  } else {
    sizes.emplace_back("--num-query-groups", m.kv_heads);
    sizes.emplace_back("--kv-channels", m.head_dim);
  }
  if (m.shared_ffn > 0) {
    sizes.emplace_back("--moe-shared-expert-intermediate-size", m.shared_ffn);
  }
  for (const auto& [key, value] : sizes) s.expect(key, value, m.name);
  s.expect("--seq-length", w.sequence_tokens, w.name);
  const auto further = s.integer("--mtp-num-layers", 0);
  if (further && *further != m.mtp_layers) {
    s.set_aside("--mtp-num-layers", fmt::format("{} has {} such layers", m.name, m.mtp_layers));
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
}  // namespace megatron

Result<Imported> read_megatron(const std::string& text, const std::string& place,
                               const Target& target) {
  using namespace megatron;  // NOLINT: the flags of this file
  Import import("megatron", parse_shell_flags(text, place, {kModules, kLevels}), target);
  Settings& s = import.settings();
  s.set_aside("if", "conditions are not evaluated: the flags of every branch are read");
  s.set_aside("--moe-router-force-load-balancing",
              "takes a workload of balanced experts: expert_load_cv 0");
  for (const char* key : {"--rdzv-backend", "--rdzv-endpoint"}) s.find(key, false);
  Degrees d;
  d.tp = import.degree(d, "tp", kTp);
  d.sequence_parallel = s.has(kSequence);
  d.keys["sequence_parallel"] = kSequence;
  if (!target.all_axes) s.set_aside(kSequence, "follows the tensor axis in a plan");
  d.pp = import.degree(d, "pp", kPp);
  d.ep = import.degree(d, "ep", kEp);
  d.keys["etp"] = s.has(kEtp) ? kEtp : kTp;
  d.etp = s.integer_or(kEtp, target.model.is_moe() ? d.tp : 1);  // Megatron's default
  read_context(import, d);
  read_dispatcher(import, d);
  d.keys["micro_batch"] = "--micro-batch-size";
  d.micro_batch = s.integer("--micro-batch-size");
  read_world(import);
  read_sizes(import);
  read_types(import, d);
  if (target.all_axes && s.problems().empty()) read_pipeline(import, d);
  read_sharding(import, d);
  read_recompute(import, d);
  const bool offloads = s.has("--optimizer-cpu-offload");
  import.pin_of_plan("host_optimizer", offloads ? "true" : "false", "false",
                     "--optimizer-cpu-offload");
  import.finish(d, "--global-batch-size");
  return import.take();
}

}  // namespace orrery::handover
