// See degrees.h.
#include "handover/degrees.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace orrery::handover {

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
  const std::int64_t row = product({dp, *d.micro_batch, d.domino});
  const auto key = [&](const char* field) {
    const auto found = d.keys.find(field);
    return found == d.keys.end() ? std::string() : found->second;
  };
  if (global % row != 0) {
    settings_.problem(
        where_of(d, "micro_batch"),
        fmt::format("{} sequences a step do not divide by dp {} x micro-batch {}{}", global, dp,
                    *d.micro_batch, d.domino > 1 ? fmt::format(" x {} interleaved", d.domino) : ""),
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
  pin("micro_batch", *d.micro_batch, key("micro_batch"));
  pin("accumulation", global / row, key(d.accumulation ? "accumulation" : "micro_batch"));
}

void Import::finish(const Degrees& d, const std::string& batch_key) {
  if (!settings_.problems().empty()) return;  // what follows from a wrong degree helps nobody
  const std::int64_t data = data_ranks(d);
  const std::int64_t experts = expert_ranks(d);
  if (data == 0 || experts == 0) return;
  const std::int64_t dp = data / (d.cp * d.sp);
  const auto key = [&](const std::string& field) {
    const auto found = d.keys.find(field);
    return found == d.keys.end() ? std::string() : found->second;
  };
  const std::pair<const char*, std::int64_t> axes[] = {
      {"dp", dp}, {"tp", d.tp}, {"pp", d.pp}, {"cp", d.cp}, {"sp", d.sp}};
  for (const auto& [name, value] : axes) pin(name, value, key(name));
  if (d.replicate_d && d.fsdp_d) {
    pin("replicate_d", *d.replicate_d, key("replicate_d"));
    pin("fsdp_d", *d.fsdp_d, key("fsdp_d"));
    if (*d.replicate_d > 1 && *d.fsdp_d > 1) pin("dense_inner", d.dense_inner, "");
  }
  // The expert axes of a dense model shape nothing.
  if (target_.model.is_moe()) {
    pin("ep", d.ep, key("ep"));
    pin("etp", d.etp, key("etp"));
    if (d.replicate_e && d.fsdp_e) {
      pin("replicate_e", *d.replicate_e, key("replicate_e"));
      pin("fsdp_e", *d.fsdp_e, key("fsdp_e"));
      if (d.ep > 1 && *d.replicate_e * *d.fsdp_e > 1) pin("expert_inner", d.expert_inner, "");
    }
    if (d.ep > 1) pin("dispatcher", d.dispatcher, key("dispatcher"));
  }
  pin_batch(d, dp, batch_key);
}

Result<Imported> Import::take() {
  if (!settings_.problems().empty()) return Error{ErrorCode::kInvalid, settings_.problems()};
  imported_.unused = settings_.unused();
  return std::move(imported_);
}

}  // namespace orrery::handover
