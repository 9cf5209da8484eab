// The names that can be pinned, and reading their values.
#include "planner/plans/pins.h"

#include <algorithm>
#include <utility>

#include "core/quantity.h"
#include "planner/pinned_number.h"

namespace orrery::planner {
namespace {

using Names = std::vector<std::string>;

const Names& numeric_pins() {
  static const Names kNames = {"dp",
                               "cp",
                               "sp",
                               "tp",
                               "pp",
                               "replicate_d",
                               "fsdp_d",
                               "replicate_e",
                               "fsdp_e",
                               "ep",
                               "etp",
                               "micro_batch",
                               "accumulation",
                               "loss_tokens",
                               "attention_query",
                               "prefetch_depth",
                               "gather_layers",
                               "domino",
                               "exchange_parts",
                               "recompute_layers",
                               "recompute_attention",
                               "recompute_ffn",
                               "recompute_experts",
                               "swap_layers",
                               "swap_distance",
                               "keep_layers"};
  return kNames;
}

// Those whose value is one of two words.
const std::map<std::string, Names>& word_pins() {
  static const std::map<std::string, Names> kNames = {{"dense_inner", {"fsdp", "replicate"}},
                                                      {"expert_inner", {"fsdp", "ep"}},
                                                      {"dispatcher", {"all_to_all", "all_gather"}},
                                                      {"host_optimizer", {"true", "false"}}};
  return kNames;
}

bool contains(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// "all": every layer.
bool counts_layers(const std::string& name) {
  return name.rfind("recompute_", 0) == 0 || name == "keep_layers";
}

}  // namespace

Result<Pins> Pins::parse(const Request& request) {
  Pins pins;
  Error error;
  error.code = ErrorCode::kUsage;
  for (const auto& [name, text] : request.pins) {
    const std::string where = "--pin " + name;
    const auto word = word_pins().find(name);
    if (pins.has(name)) {
      error.problems.push_back({where, "is given twice", "keep one"});
    } else if (word != word_pins().end()) {
      const Names& values = word->second;
      if (contains(values, text)) {
        pins.words_[name] = text;
      } else {
        error.problems.push_back({where, "'" + text + "' is not a value of it",
                                  "write '" + values[0] + "' or '" + values[1] + "'"});
      }
    } else if (!contains(numeric_pins(), name)) {
      const std::string close = nearest(name, pinnable());
      error.problems.push_back({where, "is no axis, chunk or policy of a plan",
                                close.empty() ? "" : "did you mean '" + close + "'?"});
    } else if (text == "all" && name == "swap_layers") {
      pins.words_[name] = text;
    } else {
      const bool all = text == "all" && counts_layers(name);
      const auto value = all ? std::optional<std::int64_t>(request.model.layers)
                             : pinned_number(text, -kMostPinned);
      if (value) {
        pins.numbers_[name] = *value;
      } else {
        error.problems.push_back(
            {where,
             "'" + text + "' is not a whole number of at most " + std::to_string(kMostPinned),
             "--pin ep=8"});
      }
    }
  }
  if (!error.problems.empty()) return error;
  return pins;
}

std::optional<std::int64_t> Pins::get(const std::string& name) const {
  const auto found = numbers_.find(name);
  if (found == numbers_.end()) return std::nullopt;
  return found->second;
}

std::int64_t Pins::get(const std::string& name, std::int64_t otherwise) const {
  return get(name).value_or(otherwise);
}

std::vector<std::int64_t> Pins::list(const std::string& name,
                                     std::vector<std::int64_t> otherwise) const {
  if (const auto value = get(name)) return {*value};
  return otherwise;
}

std::vector<std::string> Pins::words(const std::string& name,
                                     std::vector<std::string> otherwise) const {
  const auto found = words_.find(name);
  if (found == words_.end()) return otherwise;
  return {found->second};
}

bool Pins::has(const std::string& name) const {
  return numbers_.count(name) + words_.count(name) > 0;
}

std::vector<std::string> pinnable() {
  std::vector<std::string> names = numeric_pins();
  for (const auto& [name, values] : word_pins()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace orrery::planner
