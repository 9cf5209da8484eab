// The job behind a request, and reading of its pins. See request.h.
#include "planner/jobs/request.h"

#include <algorithm>

#include "core/quantity.h"
#include "planner/jobs/choices.h"
#include "planner/pinned_number.h"

namespace orrery::planner::jobs {
namespace {

using Names = std::vector<std::string>;

const Names& numeric() {
  static const Names kNames = {"tp",     "cp",          "sp",          "pp",
                               "dp",     "ep",          "etp",         "micro_batch",
                               "fsdp_d", "replicate_d", "full_layers", "virtual_stages"};
  return kNames;
}

template <class Enum>
Names names_of(std::initializer_list<Enum> values) {
  Names names;
  for (const Enum value : values) names.emplace_back(name_of(value));
  return names;
}

const std::map<std::string, Names>& words() {
  static const std::map<std::string, Names> kWords = {
      {"sequence_parallel", {"true", "false"}},
      {"keeps_gathered", {"true", "false"}},
      {"exchange",
       names_of({ContextExchange::kRing, ContextExchange::kAllToAll, ContextExchange::kAllGather})},
      {"dispatcher",
       names_of({Dispatcher::kAllToAll, Dispatcher::kDeduplicated, Dispatcher::kAllGather})},
      {"sharding", names_of({Sharding::kNone, Sharding::kOptimizer, Sharding::kGradients,
                             Sharding::kParameters})},
      {"schedule", names_of({PipelineSchedule::kGpipe, PipelineSchedule::kOneForwardOneBackward,
                             PipelineSchedule::kInterleaved, PipelineSchedule::kZeroBubble,
                             PipelineSchedule::kOverlapped})},
      {"precision", names_of({Precision::kFp32, Precision::kBf16, Precision::kFp8})},
      {"stage_layers",
       names_of({Deal::kEven, Deal::kLast, Deal::kFirst, Deal::kEnds, Deal::kBalanced})},
      {"recompute", recompute_names()}};
  return kWords;
}

std::string joined(const Names& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// "bf16,fp8"; empty where it is no list of precisions, each named once.
std::vector<Precision> precisions_of(const std::string& text) {
  std::vector<Precision> out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, comma - at);
    bool known = false;
    for (const Precision p : {Precision::kFp32, Precision::kBf16, Precision::kFp8}) {
      if (word != name_of(p) || std::find(out.begin(), out.end(), p) != out.end()) continue;
      out.push_back(p);
      known = true;
    }
    if (!known) return {};
    at = comma + 1;
  }
  return out;
}

}  // namespace

Job base_job(const Request& request) {
  Job job;
  job.model = request.model;
  job.cluster = request.cluster;
  job.stack = request.stack;
  const Workload& w = request.workload;
  job.sequence_tokens = w.sequence_tokens;
  job.global_sequences = w.global_sequences;
  job.expert_load_cv = w.expert_load_cv;
  const std::vector<std::int64_t> documents = w.typical_documents(0);
  if (documents.size() > 1) job.documents = documents;
  for (const auto& [name, value] : request.pins) {
    if (name != "precision") continue;
    const std::vector<Precision> named = precisions_of(value);
    if (!named.empty()) job.precision = named.front();
  }
  simulator::apply(request.parameters.values, job);
  return job;
}

Result<Pins> Pins::parse(const std::vector<std::pair<std::string, std::string>>& given) {
  Pins pins;
  std::vector<Problem> problems;
  for (const auto& [name, text] : given) {
    const std::string where = "--pin " + name;
    const auto word = words().find(name);
    if (pins.numbers_.count(name) + pins.words_.count(name) > 0) {
      problems.push_back({where, "is given twice", "keep one"});
    } else if (name == "precision") {
      pins.precisions_ = precisions_of(text);
      if (pins.precisions_.empty()) {
        problems.push_back({where, "'" + text + "' is not a list of its values",
                            "each once, of " + joined(word->second) + ": bf16,fp8"});
      }
      pins.words_[name] = text;
    } else if (word != words().end()) {
      const Names& values = word->second;
      const bool modules = name == "recompute" && recompute_named(text).has_value();
      if (!modules && std::find(values.begin(), values.end(), text) == values.end()) {
        const char* more = name == "recompute" ? ", or modules as norm+mlp" : "";
        problems.push_back(
            {where, "'" + text + "' is not a value of it", "one of " + joined(values) + more});
      }
      pins.words_[name] = text;
    } else if (std::find(numeric().begin(), numeric().end(), name) == numeric().end()) {
      const std::string close = nearest(name, pinnable());
      problems.push_back(
          {where, "is no axis of a job",
           close.empty() ? "known: " + joined(pinnable()) : "did you mean '" + close + "'?"});
    } else if (const auto value = pinned_number(text, 1)) {
      pins.numbers_[name] = *value;
    } else {
      problems.push_back(
          {where, "'" + text + "' is not a whole number from 1 to " + std::to_string(kMostPinned),
           "--pin tp=4"});
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kUsage, std::move(problems)};
  return pins;
}

std::optional<std::int64_t> Pins::number(const std::string& name) const {
  const auto found = numbers_.find(name);
  return found == numbers_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::string> Pins::word(const std::string& name) const {
  const auto found = words_.find(name);
  return found == words_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<std::string> pinnable() {
  Names names = numeric();
  for (const auto& [name, values] : words()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> values_of(const std::string& name) {
  const auto found = words().find(name);
  return found == words().end() ? Names() : found->second;
}

}  // namespace orrery::planner::jobs
