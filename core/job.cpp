// Names of a job's words, and the rules that it keeps.
#include "core/job.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/check.h"

namespace orrery {
namespace {

template <std::size_t kCount, class Enum>
const char* pick(const char* const (&names)[kCount], Enum value) {
  return names[static_cast<std::size_t>(value)];
}

class Rules {
 public:
  // Notes a violation unless `holds`.
  void check(bool holds, const char* rule, const std::string& reason) {
    if (!holds) found.push_back({rule, reason});
  }
  void divides(std::int64_t part, std::int64_t whole, const char* rule, const std::string& what) {
    check(part > 0 && whole % part == 0, rule,
          std::to_string(part) + " does not divide " + what + " " + std::to_string(whole));
  }
  std::vector<Violation> found;
};

// Products of two such numbers, and those of axes that make up a world, can be counted.
constexpr std::int64_t kMostRanks = std::int64_t{1} << 20, kMostTimes = std::int64_t{1} << 24;
constexpr std::int64_t kMostTokens = std::int64_t{1} << 31;

void check_range(const Job& job, Rules& rules) {
  struct Count {
    const char* name;
    std::int64_t value, most;
  };
  const Layout& l = job.layout;
  const Count counts[] = {{"dp", l.dp, kMostRanks},
                          {"cp", l.cp, kMostRanks},
                          {"sp", l.sp, kMostRanks},
                          {"tp", l.tp, kMostRanks},
                          {"pp", l.pp, kMostRanks},
                          {"ep", l.ep, kMostRanks},
                          {"etp", l.etp, kMostRanks},
                          {"fsdp_d", l.fsdp_d, kMostRanks},
                          {"replicate_d", l.replicate_d, kMostRanks},
                          {"micro_batch", l.micro_batch, kMostTimes},
                          {"virtual_stages", job.virtual_stages, kMostTimes},
                          {"sequence_tokens", job.sequence_tokens, kMostTokens},
                          {"global_sequences", job.global_sequences, kMostTokens}};
  for (const auto& [name, value, most] : counts) {
    rules.check(value >= 1 && value <= most, "range",
                std::string(name) + " is " + std::to_string(value) + ", not between 1 and " +
                    std::to_string(most));
  }
}

// dp x cp x sp x tp x pp, each in range; where that is more than kMostRanks, something more.
std::int64_t world_of(const Layout& l) {
  std::int64_t world = 1;
  for (const std::int64_t axis : {l.dp, l.cp, l.sp, l.tp, l.pp}) {
    world *= axis;
    if (world > kMostRanks) return world;
  }
  return world;
}

void check_documents(const Job& job, Rules& rules) {
  if (job.documents.empty()) return;
  std::int64_t sum = 0;
  for (const std::int64_t tokens : job.documents) {
    rules.check(tokens >= 1, "documents", "one of " + std::to_string(tokens) + " tokens");
    sum += tokens;
  }
  rules.check(sum == job.sequence_tokens, "documents",
              "they have " + std::to_string(sum) + " tokens, a sequence " +
                  std::to_string(job.sequence_tokens));
}

void check_stages(const Job& job, Rules& rules) {
  const std::vector<std::int64_t>& counts = job.stage_layers;
  const std::int64_t stages = job.stages(), layers = job.model.layers;
  if (counts.empty()) {
    rules.check(stages <= layers, "layers_divide",
                std::to_string(stages) + " stages for " + std::to_string(layers) + " layers");
    return;
  }
  rules.check(static_cast<std::int64_t>(counts.size()) == stages, "stage_layers",
              "layers of " + std::to_string(counts.size()) + " stages, there are " +
                  std::to_string(stages));
  const std::int64_t sum = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  rules.check(
      sum == layers, "stage_layers",
      "stages have " + std::to_string(sum) + " layers, the model " + std::to_string(layers));
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const bool end = i == 0 || i + 1 == counts.size();
    rules.check(counts[i] >= (end ? 0 : 1), "stage_layers",
                "stage " + std::to_string(i) + " has " + std::to_string(counts[i]) + " layers");
  }
}

}  // namespace

const char* name_of(Precision precision) {
  return pick({"fp32", "tf32", "fp16", "bf16", "fp8"}, precision);
}

const char* name_of(Sharding sharding) {
  return pick({"none", "optimizer", "gradients", "parameters"}, sharding);
}

const char* name_of(PipelineSchedule schedule) {
  return pick({"gpipe", "1f1b", "interleaved", "zero_bubble", "overlapped"}, schedule);
}

const char* name_of(ContextExchange exchange) {
  return pick({"ring", "all_to_all", "all_gather"}, exchange);
}

const char* name_of(Dispatcher dispatcher) {
  return pick({"all_to_all", "deduplicated", "all_gather"}, dispatcher);
}

const char* name_of(Module module) {
  return pick({"norm", "projections", "latent_up", "core_attention", "output", "mlp", "router",
               "dispatch", "experts", "expert_activation", "shared_experts", "ends"},
              module);
}

std::vector<Violation> violations(const Job& job) {
  Rules rules;
  check_range(job, rules);
  if (!rules.found.empty()) return rules.found;
  const Layout& l = job.layout;
  const Model& m = job.model;
  const std::int64_t world = world_of(l);
  const bool countless = world > kMostRanks;
  rules.check(world == job.cluster.devices, "world",
              "dp x cp x sp x tp x pp is " +
                  (countless ? "more than " + std::to_string(kMostRanks) : std::to_string(world)) +
                  ", the cluster has " + std::to_string(job.cluster.devices) + " devices");
  if (countless) return rules.found;
  rules.divides(l.dp * l.micro_batch, job.global_sequences, "batch",
                "(dp x micro_batch) the global batch of");
  if (!m.is_latent() && m.heads >= l.tp * l.sp) {
    rules.divides(l.tp * l.sp, m.heads, "heads_divide", "(tp x sp) the heads,");
  }
  rules.check(l.tp * l.sp <= m.heads, "heads_divide",
              "tp x sp is " + std::to_string(l.tp * l.sp) + ", there are " +
                  std::to_string(m.heads) + " heads");
  const bool moves = l.cp > 1 && job.context == ContextExchange::kAllToAll;
  rules.check(!moves || l.tp * l.sp * l.cp <= m.heads, "heads_divide",
              "ranks that exchange heads are " + std::to_string(l.tp * l.sp * l.cp) +
                  " (tp x sp x cp), there are " + std::to_string(m.heads) + " heads");
  check_stages(job, rules);
  const bool chunks = job.schedule == PipelineSchedule::kInterleaved ||
                      job.schedule == PipelineSchedule::kOverlapped;
  rules.check(job.virtual_stages == 1 || chunks, "schedule",
              "several virtual stages take the interleaved or the overlapped schedule");
  rules.check(
      job.virtual_stages == 1 || job.micro_batches() <= l.pp || job.micro_batches() % l.pp == 0,
      "schedule",
      "the interleaved schedule takes a multiple of pp " + std::to_string(l.pp) +
          " micro-batches, not " + std::to_string(job.micro_batches()));
  rules.check(l.ep == 1 || m.is_moe(), "experts_divide", "ep without experts");
  if (m.is_moe()) {
    rules.divides(l.ep, m.experts, "experts_divide", "(ep) the experts,");
    rules.divides(l.ep * l.etp, l.dp * l.cp * l.sp * l.tp, "experts_divide",
                  "(ep x etp) the ranks of a stage,");
  }
  rules.divides(l.cp * l.sp, job.sequence_tokens, "context", "(cp x sp) a sequence of");
  check_documents(job, rules);
  rules.check(l.fsdp_d * l.replicate_d == l.dp * l.cp * l.sp, "sharding",
              "fsdp_d x replicate_d is " + std::to_string(l.fsdp_d * l.replicate_d) +
                  ", the data axis has " + std::to_string(l.dp * l.cp * l.sp) + " ranks");
  return rules.found;
}

std::vector<std::int64_t> even_layers(std::int64_t layers, std::int64_t stages) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), layers / stages);
  std::int64_t left = layers % stages;
  for (std::int64_t i = 1; left > 0 && i < stages - 1; ++i, --left) {
    ++counts[static_cast<std::size_t>(i)];
  }
  for (std::int64_t i = 0; left > 0; ++i, --left) ++counts[static_cast<std::size_t>(i)];
  return counts;
}

std::vector<std::int64_t> equal_documents(std::int64_t sequence_tokens, double mean) {
  CHECK(sequence_tokens >= 1 && mean > 0, "documents of nothing");
  const double fitting = std::round(static_cast<double>(sequence_tokens) / mean);
  const auto count =
      static_cast<std::int64_t>(std::clamp(fitting, 1.0, static_cast<double>(sequence_tokens)));
  std::vector<std::int64_t> documents(static_cast<std::size_t>(count), sequence_tokens / count);
  for (std::int64_t i = 0; i < sequence_tokens % count; ++i) {
    ++documents[static_cast<std::size_t>(i)];
  }
  return documents;
}

}  // namespace orrery
