// The rules that a layout obeys, and how a plan is hashed and described.
#include "core/plan.h"

#include <fmt/format.h>

#include <array>
#include <initializer_list>
#include <limits>
#include <utility>

#include "core/hash.h"

namespace orrery {
namespace {

constexpr std::int64_t kMaxPrefetch = 8;

// A product that stays at the largest int64 rather than overflow.
std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t result = 1;
  for (const std::int64_t factor : factors) {
    if (__builtin_mul_overflow(result, factor, &result)) {
      return std::numeric_limits<std::int64_t>::max();
    }
  }
  return result;
}

class Rules {
 public:
  // Notes that `rule` is broken unless `holds`.
  void require(bool holds, const char* rule, std::string reason) {
    if (!holds) found_.push_back({rule, std::move(reason)});
  }
  std::vector<Violation> take() { return std::move(found_); }

 private:
  std::vector<Violation> found_;
};

// Degrees and batch sizes are counts of something.
bool check_positive(Rules& rules, const Layout& l) {
  const std::array<std::pair<const char*, std::int64_t>, 13> fields = {
      {{"dp", l.dp},
       {"cp", l.cp},
       {"sp", l.sp},
       {"tp", l.tp},
       {"pp", l.pp},
       {"replicate_d", l.replicate_d},
       {"fsdp_d", l.fsdp_d},
       {"replicate_e", l.replicate_e},
       {"fsdp_e", l.fsdp_e},
       {"ep", l.ep},
       {"etp", l.etp},
       {"micro_batch", l.micro_batch},
       {"accumulation", l.accumulation}}};
  bool all = true;
  for (const auto& [name, value] : fields) {
    all = all && value >= 1;
    rules.require(value >= 1, "positive", fmt::format("{} = {} must be at least 1", name, value));
  }
  return all;
}

void check_engine_axes(Rules& rules, const Layout& l) {
  const std::array<std::pair<const char*, std::int64_t>, 5> axes = {
      {{"cp", l.cp}, {"sp", l.sp}, {"tp", l.tp}, {"pp", l.pp}, {"etp", l.etp}}};
  for (const auto& [name, value] : axes) {
    rules.require(value == 1, "engine_axes",
                  fmt::format("{} = {}: this axis is not executable yet, only 1 is", name, value));
  }
}

void check_world(Rules& rules, const Model& model, const Cluster& cluster, const Layout& l) {
  const std::int64_t world = product({l.dp, l.cp, l.sp, l.tp, l.pp});
  rules.require(
      world == cluster.devices, "world_size",
      fmt::format("dp {} x cp {} x sp {} x tp {} x pp {} = {} ranks, but {} has {} devices", l.dp,
                  l.cp, l.sp, l.tp, l.pp, world, cluster.name, cluster.devices));
  const std::int64_t data = product({l.dp, l.cp, l.sp});
  const std::int64_t dense = product({l.replicate_d, l.fsdp_d});
  rules.require(dense == data, "world_factors",
                fmt::format("replicate_d {} x fsdp_d {} = {}, but dp {} x cp {} x sp {} = {}",
                            l.replicate_d, l.fsdp_d, dense, l.dp, l.cp, l.sp, data));
  if (!model.is_moe()) {
    rules.require(l.ep == 1 && l.etp == 1, "ep_without_experts",
                  fmt::format("ep {} x etp {}, but {} has no experts", l.ep, l.etp, model.name));
    return;  // the expert factors shape nothing
  }
  const std::int64_t stage = product({l.dp, l.cp, l.sp, l.tp});
  const std::int64_t expert = product({l.replicate_e, l.fsdp_e, l.ep, l.etp});
  rules.require(expert == stage, "expert_world_factors",
                fmt::format("replicate_e {} x fsdp_e {} x ep {} x etp {} = {}, but world / pp = {}",
                            l.replicate_e, l.fsdp_e, l.ep, l.etp, expert, stage));
  rules.require(model.experts % l.ep == 0, "experts_divide",
                fmt::format("{} experts do not divide by ep {}", model.experts, l.ep));
}

void check_chunks(Rules& rules, const Model& model, const Workload& workload, const Layout& l,
                  const Chunks& c, const MemoryPolicy& policy) {
  const std::int64_t rows = product({l.micro_batch, workload.sequence_tokens});
  rules.require(c.loss_tokens >= 0 && c.loss_tokens <= rows, "chunk_ranges",
                fmt::format("loss_tokens {} is not in 0 .. {} (micro-batch {} x {} tokens)",
                            c.loss_tokens, rows, l.micro_batch, workload.sequence_tokens));
  rules.require(c.attention_query >= 0, "chunk_ranges",
                fmt::format("attention_query {} is negative", c.attention_query));
  rules.require(c.prefetch_depth >= 0 && c.prefetch_depth <= kMaxPrefetch, "chunk_ranges",
                fmt::format("prefetch_depth {} is not in 0 .. {}", c.prefetch_depth, kMaxPrefetch));
  rules.require(policy.recompute_layers >= 0 && policy.recompute_layers <= model.layers,
                "recompute_range",
                fmt::format("recompute_layers {} is not in 0 .. {} layers", policy.recompute_layers,
                            model.layers));
}

}  // namespace

std::vector<Violation> violations(const Model& model, const Cluster& cluster,
                                  const Workload& workload, const Layout& layout,
                                  const Chunks& chunks, const MemoryPolicy& policy) {
  Rules rules;
  if (!check_positive(rules, layout)) return rules.take();  // the rest divides by them
  check_engine_axes(rules, layout);
  check_world(rules, model, cluster, layout);
  const std::int64_t batch = product({layout.dp, layout.micro_batch, layout.accumulation});
  rules.require(
      batch == workload.global_sequences, "batch_divides",
      fmt::format("dp {} x micro-batch {} x accumulation {} = {} sequences a step, but {} "
                  "has {}",
                  layout.dp, layout.micro_batch, layout.accumulation, batch, workload.name,
                  workload.global_sequences));
  rules.require(layout.dense_inner == "fsdp" || layout.dense_inner == "replicate", "order_names",
                "dense_inner is '" + layout.dense_inner + "', not 'fsdp' or 'replicate'");
  rules.require(layout.expert_inner == "ep" || layout.expert_inner == "fsdp", "order_names",
                "expert_inner is '" + layout.expert_inner + "', not 'ep' or 'fsdp'");
  check_chunks(rules, model, workload, layout, chunks, policy);
  return rules.take();
}

std::string plan_sha256(const Plan& plan) {
  Json inputs = Json::object();
  inputs.set("model", sha256_hex(to_json(plan.model).dump(-1)))
      .set("cluster", sha256_hex(to_json(plan.cluster).dump(-1)))
      .set("workload", sha256_hex(to_json(plan.workload).dump(-1)));
  Json json = Json::object();
  json.set("inputs", std::move(inputs))
      .set("layout", to_json(plan.layout))
      .set("chunks", to_json(plan.chunks))
      .set("memory_policy", to_json(plan.policy));
  return sha256_hex(json.dump(-1));
}

std::string describe(const Layout& l, const Chunks& chunks, const MemoryPolicy& policy) {
  std::string text = fmt::format("fsdp {}", l.fsdp_d);
  if (l.replicate_d > 1) text += fmt::format(" x replicate {}", l.replicate_d);
  if (l.dense_inner != "fsdp") text += " (replicate inside)";
  // Without expert parallelism the experts are sharded like the rest, unless the plan says
  // otherwise.
  const bool shaped = l.fsdp_e * l.replicate_e == l.fsdp_d * l.replicate_d && l.fsdp_e != l.fsdp_d;
  if (l.ep > 1 || shaped) {
    text += fmt::format(" | ep {}", l.ep);
    if (l.fsdp_e > 1) text += fmt::format(" x fsdp {}", l.fsdp_e);
    if (l.replicate_e > 1) text += fmt::format(" x replicate {}", l.replicate_e);
    if (l.expert_inner != "ep") text += " (fsdp inside)";
  }
  const std::array<std::pair<const char*, std::int64_t>, 5> axes = {
      {{"cp", l.cp}, {"sp", l.sp}, {"tp", l.tp}, {"pp", l.pp}, {"etp", l.etp}}};
  for (const auto& [name, value] : axes) {
    if (value > 1) text += fmt::format(" | {} {}", name, value);
  }
  text += fmt::format(" | micro-batch {} x {}", l.micro_batch, l.accumulation);
  if (policy.recompute_layers > 0) text += fmt::format(" | recompute {}", policy.recompute_layers);
  if (chunks.loss_tokens > 0) text += fmt::format(" | loss chunk {}", chunks.loss_tokens);
  if (chunks.attention_query > 0) {
    text += fmt::format(" | attention chunk {}", chunks.attention_query);
  }
  text += fmt::format(" | prefetch {}", chunks.prefetch_depth);
  return text;
}

}  // namespace orrery
