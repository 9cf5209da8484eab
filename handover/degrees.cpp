// See degrees.h.
#include "handover/degrees.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace orrery::handover {
namespace {

std::string key_of(const Degrees& d, const std::string& field) {
  const auto found = d.keys.find(field);
  return found == d.keys.end() ? std::string() : found->second;
}

}  // namespace

std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t result = 1;
  for (const std::int64_t factor : factors) {
    if (__builtin_mul_overflow(result, factor, &result)) {
      return std::numeric_limits<std::int64_t>::max();
    }
  }
  return result;
}

std::int64_t Import::degree(Degrees& degrees, const std::string& field, const std::string& key) {
  degrees.keys[field] = key;
  return settings_.integer_or(key, 1);
}

std::string Import::where_of(const Degrees& degrees, const std::string& field) const {
  const auto key = degrees.keys.find(field);
  return key == degrees.keys.end() ? settings_.place() : settings_.where(key->second);
}

void Import::take_stages(Degrees& d, std::vector<std::int64_t> layers, const std::string& key) {
  const auto stages = static_cast<std::int64_t>(layers.size());
  const std::int64_t sum = std::accumulate(layers.begin(), layers.end(), std::int64_t{0});
  d.keys["stage_layers"] = d.keys["virtual_stages"] = key;
  if (stages == 0 || stages % d.pp != 0) {
    settings_.problem(
        settings_.where(key),
        fmt::format("{} stages are no multiple of the {} ranks of the pipeline", stages, d.pp),
        "each rank has as many stages as another");
  } else if (sum != target_.model.layers) {
    settings_.problem(settings_.where(key),
                      fmt::format("the stages have {} layers, but {} has {}", sum,
                                  target_.model.name, target_.model.layers),
                      "name the model of this file, or mend it");
  } else {
    d.virtual_stages = stages / d.pp;
    d.stage_layers = std::move(layers);
  }
}

std::int64_t Import::data_ranks(const Degrees& d) {
  const std::int64_t model = product({d.tp, d.pp});
  const std::int64_t parts = product({model, d.cp, d.sp});
  if (parts > 0 && target_.world % parts == 0) return target_.world / model;
  const char* first = d.tp > 1 ? "tp" : d.pp > 1 ? "pp" : d.cp > 1 ? "cp" : "sp";
  settings_.problem(where_of(d, first),
                    fmt::format("tp {} x pp {} x cp {} x sp {} does not divide {} devices", d.tp,
                                d.pp, d.cp, d.sp, target_.world),
                    "plan on a cluster of a multiple of it, or lower one of them");
  return 0;
}

std::int64_t Import::expert_ranks(const Degrees& d) {
  const std::int64_t stage = target_.world / std::max<std::int64_t>(1, d.pp);
  const std::int64_t parts = product({d.ep, d.etp});
  if (!target_.model.is_moe()) {
    if (parts == 1) return stage;
    settings_.problem(
        where_of(d, "ep"),
        fmt::format("ep {} x etp {}, but {} has no experts", d.ep, d.etp, target_.model.name),
        "leave it out, or name the model of this file");
    return 0;
  }
  if (target_.model.experts % d.ep != 0) {
    settings_.problem(where_of(d, "ep"),
                      fmt::format("{} experts do not divide by ep {}", target_.model.experts, d.ep),
                      "take a divisor of the experts");
    return 0;
  }
  if (stage % parts == 0) return stage;
  settings_.problem(
      where_of(d, "ep"),
      fmt::format("ep {} x etp {} does not divide the {} ranks of a stage", d.ep, d.etp, stage),
      "take a divisor of them");
  return 0;
}

void Import::pin(const std::string& name, const std::string& value, const std::string& key) {
  imported_.pins.push_back({name, value, key.empty() ? settings_.place() : settings_.where(key)});
}

void Import::pin(const std::string& name, std::int64_t value, const std::string& key) {
  pin(name, std::to_string(value), key);
}

void Import::pin_of_plan(const std::string& name, const std::string& value,
                         const std::string& plain, const std::string& key) {
  if (!all_axes()) {
    pin(name, value, key);
  } else if (value != plain) {
    settings_.set_aside(key, name + " = " + value + ": jobs are not priced with it");
  }
}

void Import::expect_precision(Precision precision, const std::string& key,
                              const std::string& what) {
  const Workload& w = target_.workload;
  const bool bf16 = precision == Precision::kBf16 || precision == Precision::kFp8;
  const bool same = bf16 ? w.compute == DType::kBFloat16
                         : precision == Precision::kFp32 && w.compute == DType::kFloat32;
  if (all_axes() || same) return;
  settings_.problem(
      settings_.where(key),
      fmt::format("{}, but {} computes in {}", what, w.name, orrery::name_of(w.compute)),
      "name a workload that computes as this file does");
}

void Import::expect_world(std::int64_t world, const std::string& key) {
  if (world == target_.world) return;
  settings_.problem(
      settings_.where(key),
      fmt::format("launches {} ranks, but the cluster has {} devices", world, target_.world),
      "name a cluster of as many: --cluster NAMEx" + std::to_string(world));
}

void Import::pin_batch(const Degrees& d, std::int64_t dp, const std::string& batch_key) {
  const std::int64_t global = target_.workload.global_sequences;
  if (!batch_key.empty()) settings_.expect(batch_key, global, target_.workload.name);
  if (!d.micro_batch) return;
  const std::int64_t passes = all_axes() ? 1 : d.domino;
  const std::int64_t row = product({dp, *d.micro_batch, passes});
  if (global % row != 0) {
    settings_.problem(
        where_of(d, "micro_batch"),
        fmt::format("{} sequences a step do not divide by dp {} x micro-batch {}{}", global, dp,
                    *d.micro_batch, passes > 1 ? fmt::format(" x {} interleaved", passes) : ""),
        "take a micro-batch that divides them");
    return;
  }
  if (d.accumulation && *d.accumulation != global / row) {
    settings_.problem(
        where_of(d, "accumulation"),
        fmt::format("accumulation {} x dp {} x micro-batch {} is not the {} "
                    "sequences of a step of {}",
                    *d.accumulation, dp, *d.micro_batch, global, target_.workload.name),
        fmt::format("accumulation {} is", global / row));
    return;
  }
  pin("micro_batch", *d.micro_batch, key_of(d, "micro_batch"));
  if (all_axes()) return;
  pin("accumulation", global / row, key_of(d, d.accumulation ? "accumulation" : "micro_batch"));
}

void Import::pin_recompute_of_plan(const Degrees& d) {
  if (!d.recompute) return;
  const Recompute& r = *d.recompute;
  const std::int64_t layers = target_.model.layers;
  const std::string key = key_of(d, "recompute");
  if (r.full && r.full_layers > 0 && d.pp > 1) {
    settings_.set_aside(key, "counts layers of each stage: left to the search");
    return;
  }
  pin("recompute_layers", !r.full ? 0 : r.full_layers > 0 ? r.full_layers : layers, key);
  const std::string word = recompute_word(r);
  if (r.full || word == "none") return;
  std::vector<bool> ffn(kNumModules, false);
  for (const Module m : {Module::kMlp, Module::kRouter, Module::kDispatch, Module::kExperts,
                         Module::kExpertActivation, Module::kSharedExperts}) {
    ffn[static_cast<std::size_t>(m)] = true;
  }
  const Model& m = target_.model;
  if (modules_of(m, r.modules) == modules_of(m, ffn)) {
    pin("recompute_ffn", layers, key);
  } else {
    settings_.set_aside(key, "a plan runs MLP and MoE again as a whole: left to the search");
  }
}

void Import::pin_plan(const Degrees& d, std::int64_t dp) {
  pin_recompute_of_plan(d);
  const std::pair<const char*, std::int64_t> axes[] = {
      {"dp", dp}, {"tp", d.tp}, {"pp", d.pp}, {"cp", d.cp}, {"sp", d.sp}};
  for (const auto& [name, value] : axes) pin(name, value, key_of(d, name));
  if (d.replicate_d && d.fsdp_d) {
    pin("replicate_d", *d.replicate_d, key_of(d, "replicate_d"));
    pin("fsdp_d", *d.fsdp_d, key_of(d, "fsdp_d"));
    if (*d.replicate_d > 1 && *d.fsdp_d > 1) pin("dense_inner", d.dense_inner, "");
  }
  // The expert axes of a dense model shape nothing.
  if (!target_.model.is_moe()) return;
  pin("ep", d.ep, key_of(d, "ep"));
  pin("etp", d.etp, key_of(d, "etp"));
  if (d.replicate_e && d.fsdp_e) {
    pin("replicate_e", *d.replicate_e, key_of(d, "replicate_e"));
    pin("fsdp_e", *d.fsdp_e, key_of(d, "fsdp_e"));
    if (d.ep > 1 && *d.replicate_e * *d.fsdp_e > 1) pin("expert_inner", d.expert_inner, "");
  }
  if (d.ep == 1) return;
  const bool gathers = d.dispatcher == Dispatcher::kAllGather;
  pin("dispatcher", name_of(gathers ? Dispatcher::kAllGather : Dispatcher::kAllToAll),
      key_of(d, "dispatcher"));
}

void Import::pin_stages(const Degrees& d) {
  if (d.schedule && (d.pp > 1 || *d.schedule == PipelineSchedule::kOverlapped)) {
    pin("schedule", name_of(*d.schedule), key_of(d, "schedule"));
  }
  if (d.pp == 1) return;
  pin("virtual_stages", d.virtual_stages, key_of(d, "virtual_stages"));
  const std::int64_t stages = product({d.pp, d.virtual_stages});
  if (d.stage_layers.empty() || d.stage_layers == even_layers(target_.model.layers, stages)) {
    pin("stage_layers", "even", key_of(d, "stage_layers"));
    return;
  }
  std::string counts;
  for (const std::int64_t layers : d.stage_layers) {
    counts += (counts.empty() ? "" : ",") + std::to_string(layers);
  }
  pin("stage_layers", counts, key_of(d, "stage_layers"));
}

// Heads alone are the exchange all_to_all of cp.
void Import::pin_context(const Degrees& d) {
  const bool heads = d.sp > 1 && d.cp == 1;
  pin("cp", heads ? d.sp : d.cp, key_of(d, heads ? "sp" : "cp"));
  if (d.cp > 1 || heads) {
    pin("exchange", name_of(heads ? ContextExchange::kAllToAll : d.exchange),
        key_of(d, "exchange"));
  }
  if (d.cp > 1 && d.sp > 1) pin("sp", d.sp, key_of(d, "sp"));
}

void Import::pin_sharding(const Degrees& d, std::int64_t data) {
  if (data == 1 || !d.sharding) return;
  pin("sharding", name_of(*d.sharding), key_of(d, "fsdp_d"));
  if (*d.sharding == Sharding::kNone || !d.fsdp_d || !d.replicate_d) return;
  pin("fsdp_d", *d.fsdp_d, key_of(d, "fsdp_d"));
  pin("replicate_d", *d.replicate_d, key_of(d, "replicate_d"));
  // Between stages a job gathers parameters once a step.
  const bool says = d.keeps_gathered && *d.sharding == Sharding::kParameters && d.pp == 1;
  if (says) pin("keeps_gathered", *d.keeps_gathered ? "true" : "false", key_of(d, "keeps"));
}

void Import::pin_recompute(const Degrees& d) {
  if (!d.recompute) return;
  const std::string key = key_of(d, "recompute");
  Recompute r = *d.recompute;
  r.modules = modules_of(target_.model, r.modules);
  pin("recompute", recompute_word(r), key);
  if (!r.full) return;
  std::vector<std::int64_t> layers = d.stage_layers;
  if (layers.empty()) {
    layers = even_layers(target_.model.layers, product({d.pp, d.virtual_stages}));
  }
  const std::int64_t most = *std::max_element(layers.begin(), layers.end());
  pin("full_layers", r.full_layers > 0 ? std::min(r.full_layers, most) : most, key);
}

void Import::pin_job(const Degrees& d, std::int64_t dp) {
  pin("tp", d.tp, key_of(d, "tp"));
  if (d.tp > 1 && d.sequence_parallel) {
    pin("sequence_parallel", *d.sequence_parallel ? "true" : "false",
        key_of(d, "sequence_parallel"));
  }
  pin("pp", d.pp, key_of(d, "pp"));
  pin_stages(d);
  pin_context(d);
  pin("dp", dp, "");
  if (target_.model.is_moe()) {
    pin("ep", d.ep, key_of(d, "ep"));
    pin("etp", d.etp, key_of(d, "etp"));
    if (d.ep > 1) pin("dispatcher", name_of(d.dispatcher), key_of(d, "dispatcher"));
  }
  pin_sharding(d, product({dp, d.cp, d.sp}));
  pin_recompute(d);
  if (d.precision) pin("precision", name_of(*d.precision), key_of(d, "precision"));
}

void Import::finish(const Degrees& d, const std::string& batch_key) {
  if (!settings_.problems().empty()) return;  // what follows from a wrong degree helps nobody
  const std::int64_t data = data_ranks(d);
  const std::int64_t experts = expert_ranks(d);
  if (data == 0 || experts == 0) return;
  const std::int64_t stages = product({d.pp, d.virtual_stages});
  if (all_axes() && stages > target_.model.layers && d.stage_layers.empty()) {
    settings_.problem(where_of(d, "pp"),
                      fmt::format("{} stages, but {} has {} layers", stages, target_.model.name,
                                  target_.model.layers),
                      "lower pp or the virtual stages");
    return;
  }
  const std::int64_t dp = data / (d.cp * d.sp);
  if (all_axes()) {
    pin_job(d, dp);
  } else {
    pin_plan(d, dp);
  }
  pin_batch(d, dp, batch_key);
}

Result<Imported> Import::take() {
  if (!settings_.problems().empty()) return Error{ErrorCode::kInvalid, settings_.problems()};
  imported_.unused = settings_.unused();
  return std::move(imported_);
}

}  // namespace orrery::handover
