// What a file sets, in the words of plans and jobs, turned into pins against a world, a model and a
// workload.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/job.h"
#include "handover/settings.h"

namespace orrery::handover {

// Read or derived; nothing where the file leaves it open. dp, the factors of the world and the
// accumulation are derived by finish().
struct Degrees {
  // `sp`: ranks that exchange heads around attention; `cp`: those that share keys as `exchange`
  // says.
  std::int64_t tp = 1, pp = 1, cp = 1, sp = 1, ep = 1, etp = 1;
  std::optional<std::int64_t> replicate_d, fsdp_d, replicate_e, fsdp_e;
  std::optional<std::int64_t> micro_batch, accumulation;
  std::int64_t domino = 1;
  std::string dense_inner = "fsdp", expert_inner = "ep";
  Dispatcher dispatcher = Dispatcher::kAllToAll;
  ContextExchange exchange = ContextExchange::kRing;
  std::optional<Recompute> recompute;
  // Of jobs alone.
  std::optional<Sharding> sharding;
  std::optional<bool> sequence_parallel, keeps_gathered;
  std::optional<PipelineSchedule> schedule = PipelineSchedule::kOneForwardOneBackward;
  std::int64_t virtual_stages = 1;
  std::vector<std::int64_t> stage_layers;  // empty: dealt out evenly
  std::optional<Precision> precision;
  // Keys of the file by field, for the places of pins and problems.
  std::map<std::string, std::string> keys;
};

class Import {
 public:
  Import(std::string format, Settings settings, const Target& target)
      : settings_(std::move(settings)), target_(target) {
    imported_.format = std::move(format);
  }
  Settings& settings() { return settings_; }
  const Target& target() const { return target_; }
  bool all_axes() const { return target_.all_axes; }

  // A degree by its key, 1 where it is not set.
  std::int64_t degree(Degrees& degrees, const std::string& field, const std::string& key);
  // Ranks that hold different sequences or parts of them (dp x cp x sp), and those of one stage of
  // which experts are dealt (times tp): 0 where the degrees do not divide the world, or ep x etp
  // that, which is then a problem.
  std::int64_t data_ranks(const Degrees& degrees);
  std::int64_t expert_ranks(const Degrees& degrees);
  // Takes the layers of each virtual stage where they are those of the model and of as many stages
  // as pp divides; else a problem at `key`.
  void take_stages(Degrees& degrees, std::vector<std::int64_t> layers, const std::string& key);

  void pin(const std::string& name, const std::string& value, const std::string& key);
  void pin(const std::string& name, std::int64_t value, const std::string& key);
  // Of what plans alone have. A job leaves it out, with a note where it is not `plain`.
  void pin_of_plan(const std::string& name, const std::string& value, const std::string& plain,
                   const std::string& key);
  // Pins of all degrees. `batch_key`: of the sequences of a step, which must be the workload's.
  void finish(const Degrees& degrees, const std::string& batch_key);
  void expect_world(std::int64_t world, const std::string& key);
  // Of a plan, whose numbers' types are its workload's: a problem where the file's are others.
  // `what`: the setting as the file has it.
  void expect_precision(Precision precision, const std::string& key, const std::string& what);

  // The pins, or all problems.
  Result<Imported> take();

 private:
  std::string where_of(const Degrees& degrees, const std::string& field) const;
  void pin_batch(const Degrees& degrees, std::int64_t dp, const std::string& batch_key);
  void pin_recompute_of_plan(const Degrees& degrees);
  void pin_plan(const Degrees& degrees, std::int64_t dp);
  void pin_job(const Degrees& degrees, std::int64_t dp);
  void pin_stages(const Degrees& degrees);
  void pin_context(const Degrees& degrees);
  void pin_sharding(const Degrees& degrees, std::int64_t data);
  void pin_recompute(const Degrees& degrees);

  Settings settings_;
  const Target& target_;
  Imported imported_;
};

// A product that stays at the largest int64 rather than overflow.
std::int64_t product(std::initializer_list<std::int64_t> factors);

}  // namespace orrery::handover
