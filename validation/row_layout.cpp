// The layout of a published row: its axes, and over which ranks what is split.
#include <fmt/format.h>

#include <charconv>
#include <numeric>

#include "validation/jobs.h"
#include "validation/words.h"

namespace orrery::validation {
namespace {

std::optional<std::int64_t> whole_number(const std::string& word) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

void set_data_axis(const PublishedRow& row, std::int64_t gpus, Layout& l, RowJob& out) {
  const std::int64_t rest = l.tp * l.pp * l.cp * l.sp;
  if (gpus % rest != 0) {
    out.refused.push_back(
        {"plan.dp", fmt::format("{} devices are no multiple of tp x pp x cp = {}", gpus, rest)});
    return;
  }
  l.dp = completed(row.plan.dp, "dp", gpus / rest, "devices / (tp pp cp)", out);
  if (l.world() != gpus) {
    out.refused.push_back(
        {"plan.dp", fmt::format("dp x tp x pp x cp is {}, of {} devices", l.world(), gpus)});
  }
}

void set_expert_axis(const PublishedRow& row, const Model& model, Layout& l, RowJob& out) {
  if (!model.is_moe()) return;
  l.ep = completed(row.plan.ep, "ep", 1, "not stated", out);
  // Megatron's expert tensor parallelism is that of the rest unless it is set; experts that are
  // spread over all of a stage leave no room for it.
  const std::int64_t stage = l.world() / l.pp;
  const bool room = stage % (l.ep * l.tp) == 0;
  l.etp = completed(row.plan.etp, "etp", room ? l.tp : 1, room ? "that of tp" : "no room", out);
  if (stage % (l.ep * l.etp) != 0) {
    out.refused.push_back(
        {"plan.ep", fmt::format("ep {} x etp {} does not divide the {} devices of a stage", l.ep,
                                l.etp, stage)});
  }
}

// Ranks of the data axis that share a copy of what is split.
std::int64_t shard_ranks(const PublishedRow& row, const Layout& l, std::int64_t data, RowJob& out) {
  if (const auto group = whole_number(extra_of(row.plan, "zero1_group")); group && *group > 0) {
    return std::gcd(*group, data);
  }
  if (mentions(row.plan.fsdp, "HSDP")) {
    const std::int64_t node = std::gcd(data, row.cluster.gpus_per_node.value_or(8));
    out.completed.push_back(fmt::format("fsdp={} (HSDP: within a node)", node));
    return node;
  }
  const std::string own = extra_of(row.plan, "fsdp_shard_size");
  const auto size = whole_number(own.empty() ? row.plan.fsdp : own);
  const bool parameters = row.plan.zero_stage.value_or(0) >= 2;
  // A size that is dp stands for the whole data axis: FSDP shards over context ranks too.
  if (!parameters || !size || *size < 1 || *size == l.dp || *size == data) return data;
  if (data % *size != 0) {
    out.refused.push_back(
        {"plan.fsdp", fmt::format("{} does not divide the data axis of {}", *size, data)});
    return data;
  }
  return *size;
}

// A rank's batch that is said goes through a pipeline in as many parts as there are stages.
std::pair<std::int64_t, std::string> micro_batch_default(const PlanFacts& plan, const Stack& stack,
                                                         std::int64_t stages) {
  const auto batch = whole_number(extra_of(plan, "local_batch"));
  if (stages > 1 && batch && *batch >= stages && *batch % stages == 0) {
    return {*batch / stages, "local batch / pp"};
  }
  return {stack.micro_batch, "default of " + stack.name};
}

}  // namespace

Layout layout_of(const PublishedRow& row, const Model& model, const Stack& stack, RowJob& out) {
  const PlanFacts& p = row.plan;
  Layout l;
  const std::int64_t gpus = required(row.cluster.gpus, "cluster.gpus", out);
  l.tp = required(p.tp, "plan.tp", out);
  l.pp = required(p.pp, "plan.pp", out);
  l.cp = completed(p.cp, "cp", 1, "not stated", out);
  l.sp = completed(p.sp, "sp_ulysses", 1, "not stated", out);
  if (!out.refused.empty()) return l;
  set_data_axis(row, gpus, l, out);
  if (!out.refused.empty()) return l;
  set_expert_axis(row, model, l, out);
  const auto [batch, why] = micro_batch_default(p, stack, l.pp);
  l.micro_batch = completed(p.micro_batch, "micro_batch", batch, why, out);
  return l;
}

void set_sharding(const PublishedRow& row, Job& job, RowJob& out) {
  Layout& l = job.layout;
  const std::int64_t data = l.dp * l.cp * l.sp;
  std::int64_t stage = row.plan.zero_stage.value_or(1);
  if (!row.plan.zero_stage) out.completed.push_back("zero_stage=1 (not stated)");
  job.sharding = stage == 0   ? Sharding::kNone
                 : stage == 1 ? Sharding::kOptimizer
                              : Sharding::kParameters;
  // Stage 2 of the rows is FSDP that keeps parameters; ZeRO's own stage 2 has a word.
  job.keeps_gathered = stage == 2;
  const std::string printed = extra_of(row.plan, "parallelism_printed");
  const bool zero2 = mentions(printed, "zero2") || (stage == 2 && row.plan.fsdp.empty());
  if (stage == 2 && zero2) {
    job.sharding = Sharding::kGradients;
    job.keeps_gathered = false;
  }
  const std::int64_t shard = job.sharding == Sharding::kNone ? 1 : shard_ranks(row, l, data, out);
  l.fsdp_d = shard;
  l.replicate_d = data / shard;
  if (job.model.is_moe() && out.refused.empty()) {
    const std::int64_t rest = l.world() / l.pp / (l.ep * l.etp);
    l.fsdp_e = shard == data ? rest : std::gcd(rest, shard);
    l.replicate_e = rest / l.fsdp_e;
  } else {
    l.fsdp_e = l.fsdp_d;
    l.replicate_e = l.replicate_d;
  }
}

}  // namespace orrery::validation
