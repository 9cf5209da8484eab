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

constexpr std::int64_t kMaxPrefetch = 8, kMaxDomino = 8;

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
  const std::array<std::pair<const char*, std::int64_t>, 4> axes = {
      {{"cp", l.cp}, {"tp", l.tp}, {"pp", l.pp}, {"etp", l.etp}}};
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

// All-to-all of heads around attention: every rank of a sequence has as many query heads, and whole
// key heads or one of them repeated.
void check_heads(Rules& rules, const Model& model, const Workload& workload, const Layout& l) {
  rules.require(model.heads % l.sp == 0, "heads_divide",
                fmt::format("{} heads do not divide by sp {}", model.heads, l.sp));
  rules.require(
      model.kv_heads % l.sp == 0 || l.sp % model.kv_heads == 0, "heads_divide",
      fmt::format("{} key heads and sp {} do not divide one another", model.kv_heads, l.sp));
  rules.require(l.sp <= workload.sequence_tokens, "heads_divide",
                fmt::format("sp {} is more than the {} tokens of a sequence", l.sp,
                            workload.sequence_tokens));
}

void check_exchange(Rules& rules, const Model& model, const Layout& l, const Chunks& c) {
  rules.require(l.dispatcher == "all_to_all" || l.dispatcher == "all_gather", "dispatcher",
                "dispatcher is '" + l.dispatcher + "', not 'all_to_all' or 'all_gather'");
  const bool gathers = l.dispatcher == "all_gather";
  rules.require(
      !gathers || l.ep > 1, "dispatcher",
      fmt::format("dispatcher 'all_gather' with ep {}: there is nothing to gather", l.ep));
  rules.require(c.domino >= 1 && c.domino <= kMaxDomino, "chunk_ranges",
                fmt::format("domino {} is not in 1 .. {}", c.domino, kMaxDomino));
  rules.require(c.exchange_parts >= 1, "exchange_parts",
                fmt::format("exchange_parts {} must be at least 1", c.exchange_parts));
  if (c.exchange_parts <= 1) return;
  rules.require(l.ep > 1 && !gathers, "exchange_parts",
                fmt::format("exchange_parts {} without an all-to-all between experts (ep {}, {})",
                            c.exchange_parts, l.ep, l.dispatcher));
  rules.require(model.experts / l.ep % c.exchange_parts == 0, "exchange_parts",
                fmt::format("{} local experts do not divide into {} parts", model.experts / l.ep,
                            c.exchange_parts));
}

void check_policy(Rules& rules, const Model& model, const MemoryPolicy& p) {
  const std::array<std::pair<const char*, std::int64_t>, 4> depths = {
      {{"recompute_layers", p.recompute_layers},
       {"recompute_attention", p.recompute_attention},
       {"recompute_ffn", p.recompute_ffn},
       {"recompute_experts", p.recompute_experts}}};
  for (const auto& [name, value] : depths) {
    rules.require(value >= 0 && value <= model.layers, "recompute_range",
                  fmt::format("{} {} is not in 0 .. {} layers", name, value, model.layers));
  }
  rules.require(
      p.recompute_experts == 0 || model.is_moe(), "recompute_range",
      fmt::format("recompute_experts {}, but {} has no experts", p.recompute_experts, model.name));
  rules.require(p.swap_layers >= 0 && p.swap_layers <= p.recompute_layers, "swap_range",
                fmt::format("swap_layers {} is not in 0 .. {}, the layers recomputed whole",
                            p.swap_layers, p.recompute_layers));
  rules.require(p.swap_distance >= 1 && p.swap_distance <= kMaxPrefetch, "swap_range",
                fmt::format("swap_distance {} is not in 1 .. {}", p.swap_distance, kMaxPrefetch));
  rules.require(
      p.keep_layers >= 0 && p.keep_layers <= model.layers, "keep_range",
      fmt::format("keep_layers {} is not in 0 .. {} layers", p.keep_layers, model.layers));
}

void check_chunks(Rules& rules, const Model& model, const Workload& workload, const Layout& l,
                  const Chunks& c, const MemoryPolicy& policy) {
  const std::int64_t local = (workload.sequence_tokens + l.sp - 1) / l.sp;
  const std::int64_t rows = product({l.micro_batch, local});
  rules.require(c.loss_tokens >= 0 && c.loss_tokens <= rows, "chunk_ranges",
                fmt::format("loss_tokens {} is not in 0 .. {} (micro-batch {} x {} tokens)",
                            c.loss_tokens, rows, l.micro_batch, local));
  rules.require(c.attention_query >= 0, "chunk_ranges",
                fmt::format("attention_query {} is negative", c.attention_query));
  rules.require(c.prefetch_depth >= 0 && c.prefetch_depth <= kMaxPrefetch, "chunk_ranges",
                fmt::format("prefetch_depth {} is not in 0 .. {}", c.prefetch_depth, kMaxPrefetch));
  rules.require(
      c.gather_layers >= 1 && c.gather_layers <= model.layers, "chunk_ranges",
      fmt::format("gather_layers {} is not in 1 .. {} layers", c.gather_layers, model.layers));
  check_exchange(rules, model, l, c);
  check_policy(rules, model, policy);
}

}  // namespace

std::vector<Violation> violations(const Model& model, const Cluster& cluster,
                                  const Workload& workload, const Layout& layout,
                                  const Chunks& chunks, const MemoryPolicy& policy) {
  Rules rules;
  // The other rules are about what the engine does with a model.
  rules.require(executes(model), "engine_family",
                fmt::format("{} is of the family {}, which the engine does not run: it can be "
                            "simulated as a job only",
                            model.name, model.model_type));
  if (!executes(model)) return rules.take();
  if (!check_positive(rules, layout)) return rules.take();  // the rest divides by them
  check_engine_axes(rules, layout);
  check_world(rules, model, cluster, layout);
  const std::int64_t batch =
      product({layout.dp, layout.micro_batch, chunks.domino, layout.accumulation});
  rules.require(
      batch == workload.global_sequences, "batch_divides",
      fmt::format("dp {} x micro-batch {} x {}accumulation {} = {} sequences a step, but {} "
                  "has {}",
                  layout.dp, layout.micro_batch,
                  chunks.domino > 1 ? fmt::format("domino {} x ", chunks.domino) : "",
                  layout.accumulation, batch, workload.name, workload.global_sequences));
  rules.require(layout.dense_inner == "fsdp" || layout.dense_inner == "replicate", "order_names",
                "dense_inner is '" + layout.dense_inner + "', not 'fsdp' or 'replicate'");
  rules.require(layout.expert_inner == "ep" || layout.expert_inner == "fsdp", "order_names",
                "expert_inner is '" + layout.expert_inner + "', not 'ep' or 'fsdp'");
  check_heads(rules, model, workload, layout);
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

namespace {

// What differs from "nothing interleaved, recomputed, moved or kept".
std::string describe_policy(const Chunks& chunks, const MemoryPolicy& policy) {
  std::string text;
  const auto add = [&](const char* name, std::int64_t value, std::int64_t plain) {
    if (value != plain) text += fmt::format(" | {} {}", name, value);
  };
  add("domino", chunks.domino, 1);
  add("exchange parts", chunks.exchange_parts, 1);
  add("recompute", policy.recompute_layers, 0);
  add("recompute attention", policy.recompute_attention, 0);
  add("recompute ffn", policy.recompute_ffn, 0);
  add("recompute experts", policy.recompute_experts, 0);
  add("swap", policy.swap_layers, 0);
  if (policy.swap_layers > 0) add("swap distance", policy.swap_distance, 1);
  add("keep", policy.keep_layers, 0);
  if (policy.host_optimizer) text += " | host optimizer";
  return text;
}

}  // namespace

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
  if (l.dispatcher == "all_gather") text += " | all-gather dispatch";
  text += fmt::format(" | micro-batch {} x {}", l.micro_batch, l.accumulation);
  text += describe_policy(chunks, policy);
  if (chunks.loss_tokens > 0) text += fmt::format(" | loss chunk {}", chunks.loss_tokens);
  if (chunks.attention_query > 0) {
    text += fmt::format(" | attention chunk {}", chunks.attention_query);
  }
  text += fmt::format(" | prefetch {}", chunks.prefetch_depth);
  if (chunks.gather_layers > 1) text += fmt::format(" x {} layers", chunks.gather_layers);
  return text;
}

Plan shortened(Plan plan, std::int64_t passes) {
  std::int64_t& accumulation = plan.layout.accumulation;
  if (accumulation <= passes) return plan;
  plan.workload.global_sequences = plan.workload.global_sequences / accumulation * passes;
  accumulation = passes;
  return plan;
}

}  // namespace orrery
