// Megatron-LM: names of flags and their meaning by its arguments.py and transformer_config.py (core
// 0.16), its guide to Megatron-FSDP and that to pipeline layouts. Ulysses' exchange of heads is
// context parallelism of the type "a2a" there; the overlapped schedule, its combined 1F1B.
#include "handover/megatron.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "handover/degrees.h"
#include "handover/engines.h"

namespace orrery::handover {
namespace megatron {
namespace {

void check_experts(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  if (!r.model.is_moe()) return;
  if (l.tp > 1 && !r.sequence_parallel) {
    account.refuse_value("sequence_parallel",
                         "Megatron's experts take it beside tensor parallelism",
                         "sequence_parallel=true");
  }
  const bool ddp = r.sharding == Sharding::kNone;
  const std::int64_t ranks =
      r.data_ranks() * l.tp / std::max<std::int64_t>(1, product({l.ep, l.etp}));
  const std::int64_t instances = ddp ? ranks : l.replicate_d;
  if (r.of_job) {
    if (ranks % instances == 0) return;
    account.refuse_value(
        "replicate_d", fmt::format("the {} ranks that share experts are no multiple of it", ranks),
        "replicate_d=1");
    return;
  }
  const char* why = ddp ? "with replicated dense parameters experts are replicated too"
                        : "experts have as many replicas as dense parameters";
  account.require("replicate_e", l.replicate_e, instances, why);
  account.require("fsdp_e", l.fsdp_e, ranks / std::max<std::int64_t>(1, instances), why);
  account.require_order("expert_inner", l.expert_inner, "ep", expert_order_matters(l));
}

void check_overlapped(const Recipe& r, Account& account) {
  const char* why = "exchanges hide beside another micro-batch where there are some: ep > 1";
  if (r.layout.ep == 1) account.refuse_value("schedule", why, "schedule=1f1b");
  if (r.layout.pp > 1 && r.virtual_stages == 1) {
    account.refuse_value("virtual_stages", "Megatron's overlapped schedule takes several",
                         "virtual_stages=2");
  }
  if (r.dispatcher == Dispatcher::kAllGather) {
    account.refuse_value("dispatcher", "Megatron overlaps all-to-all exchanges alone",
                         "dispatcher=all_to_all");
  }
  if (r.recompute.full) {
    account.refuse_value("recompute", "Megatron runs no whole layer again in this schedule",
                         "recompute=none");
  }
  if (r.precision == Precision::kFp32) {
    account.refuse_value("precision", "Megatron overlaps exchanges of 16 bit rows alone",
                         "precision=bf16");
  }
  if (r.model.mtp_layers > 1) {
    account.refuse("model", fmt::format("{} layers for further tokens", r.model.mtp_layers),
                   "Megatron's overlapped schedule takes one",
                   "plan again with --pin schedule=interleaved");
  }
}

void check_stages(const Recipe& r, Account& account) {
  const bool several = r.virtual_stages > 1;
  switch (r.schedule) {
    case PipelineSchedule::kOverlapped:
      check_overlapped(r, account);
      break;
    case PipelineSchedule::kInterleaved:
      if (!several) {
        account.refuse_value("virtual_stages", "an interleaved schedule has several",
                             "virtual_stages=2, or schedule=1f1b");
      }
      break;
    case PipelineSchedule::kOneForwardOneBackward:
      break;
    default:
      account.refuse_value("schedule", "Megatron has 1F1B, interleaved or overlapped",
                           "schedule=1f1b");
  }
  if (several && r.layout.pp == 1) {
    account.refuse_value("virtual_stages", "without stages there is one", "virtual_stages=1");
  }
  require_whole_rounds(r, account);
}

void check_layout(const Recipe& r, Account& account) {
  const Layout& l = r.layout;
  account.require_order("dense_inner", l.dense_inner, "fsdp", dense_order_matters(l));
  const std::int64_t context = l.cp * l.sp;
  if (context > 1 && r.sequence_tokens % (2 * context) != 0) {
    account.refuse(
        l.cp > 1 ? "cp" : "sp", fmt::format("{} context ranks", context),
        fmt::format("each takes two parts of a sequence, of {} tokens", r.sequence_tokens),
        "plan again with --pin cp=1");
  }
  if (l.cp > 1 && l.sp > 1 && r.gathers_keys) {
    account.refuse_value("exchange", "beside exchanged heads keys go round in a ring there",
                         "exchange=ring");
  }
  check_experts(r, account);
  check_stages(r, account);
}

void context_flags(const Recipe& r, Lines& lines) {
  const Layout& l = r.layout;
  add(lines, kCp, l.cp * l.sp);
  if (l.sp > 1 && l.cp > 1) {
    lines.push_back(fmt::format("{} a2a+p2p", kExchange));
    lines.push_back(fmt::format("{} {} {}", kLevels, l.sp, l.cp));
  } else if (l.sp > 1) {
    lines.push_back(fmt::format("{} a2a", kExchange));
  } else if (l.cp > 1 && r.of_job) {
    lines.push_back(fmt::format("{} {}", kExchange, r.gathers_keys ? "all_gather" : "p2p"));
  }
}

void stage_flags(const Recipe& r, Lines& lines) {
  add(lines, kPp, r.layout.pp);
  if (!r.even_stages()) {
    lines.push_back(
        fmt::format("{} \"{}\"", kStages, stage_text(r.stage_layers, r.model.mtp_layers)));
  } else if (r.virtual_stages > 1) {
    add(lines, kVirtual, r.virtual_stages);
  }
  if (r.schedule == PipelineSchedule::kOverlapped) lines.emplace_back(kOverlapped);
}

void dispatcher_flags(const Recipe& r, Lines& lines) {
  switch (r.dispatcher) {
    case Dispatcher::kAllToAll:
      lines.push_back(fmt::format("{} alltoall", kDispatcher));
      break;
    case Dispatcher::kAllGather:
      lines.push_back(fmt::format("{} allgather", kDispatcher));
      break;
    case Dispatcher::kDeduplicated:
      lines.push_back(fmt::format("{} flex", kDispatcher));
      lines.push_back(fmt::format("{} deepep", kBackend));
      lines.emplace_back("--moe-router-dtype fp32");  // DeepEP takes weights of rows in fp32
      break;
  }
}

void sharding_flags(const Recipe& r, Lines& lines) {
  const bool fsdp = r.sharding == Sharding::kGradients || r.sharding == Sharding::kParameters;
  if (r.sharding == Sharding::kNone) return;
  if (fsdp) {
    const bool all = r.sharding == Sharding::kParameters;
    lines.emplace_back(kFsdp);
    lines.push_back(fmt::format("{} {}", kStrategy, all ? "optim_grads_params" : "optim_grads"));
  }
  lines.emplace_back(kStates);
  if (fsdp) {
    lines.emplace_back("--no-gradient-accumulation-fusion");
    lines.emplace_back("--ckpt-format fsdp_dtensor");
  }
  if (r.layout.replicate_d > 1) {
    add(lines, kInstances, r.layout.replicate_d);
    if (fsdp) lines.emplace_back("--outer-dp-sharding-strategy no_shard");
  }
}

void type_flags(const Recipe& r, Lines& lines) {
  if (dtype_name(r) == "bfloat16") lines.emplace_back("--bf16");
  if (r.precision == Precision::kFp16) lines.emplace_back("--fp16");
  if (r.precision != Precision::kFp8) return;
  // By blocks, in the way that the device's units take: those of Blackwell have scales of 32.
  const bool blackwell =
      r.device.find("b200") != std::string::npos || r.device.find("b300") != std::string::npos;
  lines.push_back(fmt::format("{} e4m3", kFp8));
  lines.push_back(fmt::format("--fp8-recipe {}", blackwell ? "mxfp8" : "blockwise"));
}

// What the job's stack does beside the layout, where it is Megatron's.
void stack_flags(const Recipe& r, Lines& lines) {
  if (!r.stack || r.stack->family != "megatron") return;
  const Stack& s = *r.stack;
  const bool shards = r.sharding != Sharding::kNone;
  if (s.overlaps_gradients) lines.emplace_back("--overlap-grad-reduce");
  if (s.overlaps_gradients && s.overlaps_parameters && shards) {
    lines.emplace_back("--overlap-param-gather");
  }
  if (s.overlaps_tensor && r.sequence_parallel) lines.emplace_back("--tp-comm-overlap");
  if (!s.fp32_gradients && dtype_name(r) == "bfloat16") {
    lines.emplace_back("--grad-reduce-in-bf16");
  }
  if (s.loss == LossKernel::kFused) {
    lines.emplace_back("--cross-entropy-loss-fusion --cross-entropy-fusion-impl te");
  }
}

Lines layout_flags(const Recipe& r) {
  const Layout& l = r.layout;
  Lines lines;
  add(lines, kTp, l.tp);
  if (r.sequence_parallel) lines.emplace_back(kSequence);
  stage_flags(r, lines);
  context_flags(r, lines);
  if (r.model.is_moe()) {
    add(lines, kEp, l.ep);
    add(lines, kEtp, l.etp);
    dispatcher_flags(r, lines);
  }
  sharding_flags(r, lines);
  add(lines, "--micro-batch-size", l.micro_batch);
  add(lines, "--global-batch-size", r.global_sequences);
  add(lines, "--seq-length", r.sequence_tokens);
  type_flags(r, lines);
  return lines;
}

void whole_layers(const Recipe& r, Account& account, Lines& lines) {
  lines.push_back(fmt::format("{} full", kGranularity));
  const bool all = r.of_job ? r.recomputes_all() : !r.counts_by_stage;
  lines.push_back(fmt::format("{} {}", kMethod, all ? "uniform" : "block"));
  add(lines, kRecomputed, all ? 1 : r.recompute.full_layers);
  if (r.counts_by_stage) {
    account.said(r.whole_field());
  } else {
    account.unsaid(r.whole_field(), "with stages all layers are recomputed: slower");
  }
}

// The words that are wholly among the modules, larger ones first; those of no word are noted.
void selected_modules(const Recipe& r, Account& account, Lines& lines) {
  std::vector<bool> left = r.recompute.modules;
  std::string words, kept;
  for (const ModuleWord& row : module_words()) {
    // Dispatch may not run again beside another micro-batch.
    const bool exchanges =
        std::find(row.modules.begin(), row.modules.end(), Module::kDispatch) != row.modules.end();
    if (exchanges && r.schedule == PipelineSchedule::kOverlapped) continue;
    std::vector<bool> own(kNumModules, false);
    for (const Module m : row.modules) own[static_cast<std::size_t>(m)] = true;
    own = modules_of(r.model, own);
    bool some = false, all = true;
    for (std::size_t m = 0; m < own.size(); ++m) {
      some = some || own[m];
      all = all && (!own[m] || left[m]);
    }
    if (!some || !all) continue;
    for (std::size_t m = 0; m < own.size(); ++m) left[m] = left[m] && !own[m];
    words += std::string(" ") + row.word;
  }
  for (int m = 0; m < kNumModules; ++m) {
    if (!left[static_cast<std::size_t>(m)]) continue;
    kept += (kept.empty() ? "" : ", ") + std::string(name_of(static_cast<Module>(m)));
  }
  if (!words.empty()) {
    lines.push_back(fmt::format("{} selective", kGranularity));
    lines.push_back(fmt::format("{}{}", kModules, words));
  }
  if (kept.empty()) {
    account.said(r.modules_field());
  } else {
    account.unsaid(r.modules_field(), kept + " keep their activations: more memory");
  }
}

void recompute_flags(const Recipe& r, Account& account, Lines& lines) {
  const std::vector<bool>& modules = r.recompute.modules;
  if (r.recompute.full) {
    whole_layers(r, account, lines);
  } else if (std::find(modules.begin(), modules.end(), true) != modules.end()) {
    selected_modules(r, account, lines);
  }
  if (r.policy.host_optimizer) {
    lines.emplace_back("--optimizer-cpu-offload");
    lines.emplace_back("--use-precision-aware-optimizer");
  }
  account.said("host_optimizer");
  if (r.of_job && r.layout.pp > 1 && r.sharding == Sharding::kParameters) {
    account.unsaid("gathering", "once a step", "for each micro-batch: more communication");
  }
}

std::string array(const char* name, const Lines& lines) {
  std::string text = fmt::format("{}=(\n", name);
  for (const std::string& line : lines) text += "  " + line + "\n";
  return text + ")\n";
}

// Kernels that overlap with collectives are issued in one queue where ranks share a layer; FSDP and
// overlapped exchanges want several.
std::string environment(const Recipe& r) {
  const bool several = r.sharding == Sharding::kGradients || r.sharding == Sharding::kParameters ||
                       r.schedule == PipelineSchedule::kOverlapped;
  const bool one = r.layout.tp > 1 || r.layout.cp * r.layout.sp > 1;
  if (!several && !one) return "";
  return fmt::format(
      "export CUDA_DEVICE_MAX_CONNECTIONS=\"${{CUDA_DEVICE_MAX_CONNECTIONS:-{}}}\"\n",
      several ? 32 : 1);
}

std::string launch(const Recipe& r) {
  const std::int64_t node = r.devices_per_node;
  const bool whole = node > 0 && r.devices % node == 0;
  return fmt::format(
      "torchrun --nnodes {} --nproc-per-node {} \\\n"
      "  --rdzv-backend c10d --rdzv-endpoint "
      "\"${{MASTER_ADDR:-localhost}}:${{MASTER_PORT:-29500}}\" "
      "\\\n  pretrain_gpt.py \"${{LAYOUT_ARGS[@]}}\" \"${{MODEL_ARGS[@]}}\" \"$@\"\n",
      whole ? r.devices / node : 1, whole ? node : r.devices);
}

}  // namespace

const std::vector<ModuleWord>& module_words() {
  static const std::vector<ModuleWord> rows = {
      {"core_attn", {Module::kCoreAttention}},
      {"layernorm", {Module::kNorm}},
      {"mla_up_proj", {Module::kLatentUp}},
      {"mlp", {Module::kMlp}},
      {"moe",
       {Module::kRouter, Module::kDispatch, Module::kExperts, Module::kExpertActivation,
        Module::kSharedExperts}},
      {"moe_act", {Module::kExpertActivation}},
      {"shared_experts", {Module::kSharedExperts}}};
  return rows;
}

std::string stage_text(const std::vector<std::int64_t>& layers, std::int64_t mtp_layers) {
  const auto repeated = [](char c, std::int64_t times) {
    constexpr std::int64_t kSpelled = 3;
    return times > kSpelled ? fmt::format("{}*{}", c, times)
                            : std::string(static_cast<std::size_t>(times), c);
  };
  std::string text = "E";
  for (std::size_t i = 0; i < layers.size();) {
    const bool end = i == 0 || i + 1 == layers.size();
    std::size_t next = i + 1;
    while (!end && next + 1 < layers.size() && layers[next] == layers[i]) ++next;
    const std::string stage = repeated('t', layers[i]);
    const std::string border = next == layers.size() ? "" : "|";
    text += next - i > 1 ? fmt::format("({}|)*{}", stage, next - i) : stage + border;
    i = next;
  }
  return text + repeated('m', mtp_layers) + "L";
}

}  // namespace megatron

std::string write_megatron(const Recipe& recipe, Account& account) {
  using namespace megatron;  // NOLINT: the flags of this file
  check_layout(recipe, account);
  Lines flags = layout_flags(recipe);
  recompute_flags(recipe, account, flags);
  stack_flags(recipe, flags);
  const Lines model = model_flags(recipe, account);
  return "# More flags follow the script's name: --data-path, --lr, --save ...\n\n" +
         array("LAYOUT_ARGS", flags) + "\n" + array("MODEL_ARGS", model) + "\n" +
         environment(recipe) + launch(recipe);
}

bool is_megatron(const std::string& text) {
  for (const char* flag : {megatron::kTp, megatron::kPp, megatron::kEp, megatron::kCp,
                           "--micro-batch-size", "--num-layers"}) {
    if (text.find(flag) != std::string::npos) return true;
  }
  return false;
}

}  // namespace orrery::handover
