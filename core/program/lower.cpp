// Lowering, the step as a whole: groups, blocks, units, records of size variables, micro-batches.
//
// A micro-batch is a sequence of segments: embedding, layers forward, head and loss, layers
// backward, embedding backward. A segment says which units' parameters it needs; gathers run
// `prefetch_depth` segments ahead, reduce-scatters are collected one segment later.
#include "core/program/lower.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/program/lowering.h"

namespace orrery {
namespace {

std::int32_t narrow(std::int64_t value) {
  return static_cast<std::int32_t>(value);
}

std::int32_t add_block(Role& role, const Block& block) {
  if (block.prims.empty()) return -1;
  role.blocks.push_back(block);
  return narrow(static_cast<std::int64_t>(role.blocks.size()) - 1);
}

}  // namespace

Lowering::Lowering(const Plan& plan) : plan_(plan) {
  const Layout& layout = plan.layout;
  shape_.sequences = layout.micro_batch;
  shape_.sequence_tokens = plan.workload.sequence_tokens;
  shape_.valid_tokens = plan.workload.sequence_tokens;
  shape_.global_sequences = plan.workload.global_sequences;
  shape_.dp = layout.dp;
  shape_.micro_batches = layout.accumulation;
  shape_.ep = layout.ep;
  shape_.attention_query = plan.chunks.attention_query;
  shape_.loss_tokens = plan.chunks.loss_tokens;
  shape_.compute = plan.workload.compute;
  shape_.master = plan.workload.master;
  shape_.balance_scope = plan.workload.balance_scope;
}

Program Lowering::run() {
  make_groups();
  make_blocks();
  make_units();
  make_records();
  data();
  for (std::int32_t m = 0; m < narrow(plan_.layout.accumulation); ++m) micro_batch(m);
  optimizer();
  finish();
  return std::move(program_);
}

void Lowering::make_groups() {
  const Layout& l = plan_.layout;
  const auto group = [&](const char* name, std::int64_t size, std::int64_t stride) {
    program_.groups.push_back({name, narrow(size), narrow(stride)});
  };
  const bool fsdp_inner = l.dense_inner == "fsdp", ep_inner = l.expert_inner == "ep";
  program_.world = narrow(l.world());
  group("world", l.world(), 1);
  group("fsdp_d", l.fsdp_d, fsdp_inner ? 1 : l.replicate_d);
  group("replicate_d", l.replicate_d, fsdp_inner ? l.fsdp_d : 1);
  // The expert factors of a model without experts shape nothing.
  const bool moe = plan_.model.is_moe();
  const std::int64_t fsdp_e = moe ? l.fsdp_e : 1, replicate_e = moe ? l.replicate_e : 1;
  group("ep", l.ep, ep_inner ? 1 : fsdp_e);
  group("fsdp_e", fsdp_e, ep_inner ? l.ep : 1);
  group("replicate_e", replicate_e, l.ep * fsdp_e);
}

void Lowering::make_blocks() {
  blocks_ = family_of(plan_.model).blocks(plan_.model, shape_);
  block_ids_.embed = add_block(role_, blocks_.embed);
  block_ids_.attention = add_block(role_, blocks_.attention);
  block_ids_.mlp = add_block(role_, blocks_.mlp);
  block_ids_.router = add_block(role_, blocks_.router);
  block_ids_.router_replay = add_block(role_, blocks_.router_replay);
  block_ids_.experts = add_block(role_, blocks_.experts);
  block_ids_.merge = add_block(role_, blocks_.merge);
  block_ids_.balance = add_block(role_, blocks_.balance);
  block_ids_.loss = add_block(role_, blocks_.loss);
  block_ids_.loss_tail = add_block(role_, blocks_.loss_tail);
}

void Lowering::make_units() {
  const Workload& w = plan_.workload;
  role_.units = family_of(plan_.model).units(plan_.model, plan_.layout.ep);
  for (std::int32_t u = 0; u < narrow(static_cast<std::int64_t>(role_.units.size())); ++u) {
    Unit& unit = role_.units[static_cast<std::size_t>(u)];
    const std::int64_t shards = unit.is_expert ? plan_.layout.fsdp_e : plan_.layout.fsdp_d;
    unit.shard_group = unit.is_expert ? kGroupIds.fsdp_e : kGroupIds.fsdp_d;
    unit.replicate_group = unit.is_expert ? kGroupIds.replicate_e : kGroupIds.replicate_d;
    unit.shard_numel = (unit.numel + shards - 1) / shards;
    unit.resident = shards == 1 && w.compute == w.master;
    unit.grad_dtype = gradient_dtype(plan_.model, shape_, unit.name);
    if (unit.name == "embed") embed_unit_ = u;
    if (unit.name == "head") head_unit_ = u;
    if (unit.is_expert) {
      expert_units_.back() = u;
    } else if (unit.name.rfind("layer.", 0) == 0) {
      layer_units_.push_back(u);
      expert_units_.push_back(-1);
    }
    const auto persistent = [&](const char* what, BufferClass cls) {
      return buffer(unit.name + what, cls, SizeExpr::constant(unit.shard_numel), 1, w.master);
    };
    unit.shard = persistent("/shard", BufferClass::kParameterShard);
    unit.moment1 = persistent("/moment1", BufferClass::kOptimizer);
    unit.moment2 = persistent("/moment2", BufferClass::kOptimizer);
  }
}

void Lowering::make_records() {
  role_.route.ep = narrow(plan_.layout.ep);
  role_.route.local_experts =
      plan_.model.is_moe() ? narrow(plan_.model.experts / plan_.layout.ep) : 0;
  const auto record = [&](std::int32_t size, const std::string& name) {
    const std::int32_t base = role_.num_vars;
    role_.num_vars += size;
    role_.var_names.resize(static_cast<std::size_t>(role_.num_vars));
    role_.var_names[static_cast<std::size_t>(base)] = name;
    return base;
  };
  for (std::int64_t m = 0; m < plan_.layout.accumulation; ++m) {
    const std::string batch = "/mb." + std::to_string(m);
    batch_bases_.push_back(record(BatchVars::size(), "batch" + batch));
    for (std::int64_t i = 0; i < plan_.model.layers; ++i) {
      route_bases_.push_back(
          is_moe(i) ? record(role_.route.size(), "route/" + layer_path(i) + batch) : -1);
    }
  }
  const auto layers = static_cast<std::size_t>(plan_.model.layers);
  for (std::int64_t m = 0; m < plan_.layout.accumulation; ++m) {
    segments_.push_back({embed_unit_});
    const auto layer_segment = [&](std::size_t i) {
      std::vector<std::int32_t> units = {layer_units_[i]};
      if (expert_units_[i] >= 0) units.push_back(expert_units_[i]);
      segments_.push_back(std::move(units));
    };
    for (std::size_t i = 0; i < layers; ++i) layer_segment(i);
    segments_.push_back({head_unit_});
    if (plan_.model.tied_head) segments_.back().push_back(embed_unit_);
    for (std::size_t i = layers; i-- > 0;) layer_segment(i);
    segments_.push_back({});  // embedding backward needs no parameters
  }
}

void Lowering::data() {
  const SizeExpr tokens = SizeExpr::constant(shape_.tokens());
  Op load = op(OpKind::kLoadBatch, Phase::kData, Lane::kCompute, "data/load", 0);
  Op count = op(OpKind::kCountTokens, Phase::kData, Lane::kFsdp, "data/count", 0);
  for (std::int64_t m = 0; m < plan_.layout.accumulation; ++m) {
    const std::string name = "data/mb." + std::to_string(m);
    ids_.push_back(buffer(name + "/ids", BufferClass::kActivation, tokens, 1, DType::kInt64));
    labels_.push_back(buffer(name + "/labels", BufferClass::kActivation, tokens, 1, DType::kInt64));
    load.out.push_back(ids_.back());
    load.out.push_back(labels_.back());
    count.in.push_back(labels_.back());
  }
  label_count_ = buffer("data/label_count", BufferClass::kActivation, SizeExpr::constant(1), 1,
                        DType::kFloat64);
  metrics_ = buffer("metrics", BufferClass::kActivation, SizeExpr::constant(5), 1, DType::kFloat64);
  count.out = {label_count_};
  count.group = kGroupIds.world;
  count.host_sync = true;
  add(std::move(load));
  add(std::move(count));
}

void Lowering::micro_batch(std::int32_t m) {
  const std::int64_t layers = plan_.model.layers;
  layers_.assign(static_cast<std::size_t>(layers), {});
  gradients_.clear();

  begin_segment();
  BufferId x = embed_forward(m);
  end_segment();
  for (std::int64_t i = 0; i < layers; ++i) {
    begin_segment();
    x = forward(m, i, x, !recomputed(i));
    end_segment();
  }
  begin_segment();
  BufferId d_x = loss(m, x);
  reduce(head_unit_, m);
  end_segment();
  for (std::int64_t i = layers; i-- > 0;) {
    begin_segment();
    if (recomputed(i)) recompute(m, i);
    d_x = backward(m, i, d_x);
    reduce(layer_units_[static_cast<std::size_t>(i)], m);
    end_segment();
  }
  begin_segment();
  embed_backward(m, d_x);
  reduce(embed_unit_, m);
  end_segment();
}

void Lowering::finish() {
  assign_dependencies(role_);
  assign_lifetimes(role_);
  role_.name = "all";
  for (std::int32_t r = 0; r < program_.world; ++r) role_.ranks.push_back(r);
  program_.roles.push_back(std::move(role_));
  program_.plan_hash = plan_.sha256;
  StepConstants& step = program_.step;
  step.micro_batches = narrow(plan_.layout.accumulation);
  step.sequences = plan_.layout.micro_batch;
  step.sequence_tokens = plan_.workload.sequence_tokens;
  step.global_sequences = plan_.workload.global_sequences;
  step.compute = plan_.workload.compute;
  step.master = plan_.workload.master;
  step.balance_over_world = plan_.workload.balance_scope == BalanceScope::kMicrobatchGlobal;
}

bool Lowering::is_moe(std::int64_t layer) const {
  return plan_.model.moe_layer[static_cast<std::size_t>(layer)];
}

bool Lowering::recomputed(std::int64_t layer) const {
  return layer < plan_.policy.recompute_layers;
}

VarBase Lowering::vars_of(std::int32_t m, std::int64_t layer) const {
  VarBase vars;
  vars.batch = batch_bases_[static_cast<std::size_t>(m)];
  if (layer >= 0) {
    vars.route = route_bases_[static_cast<std::size_t>(m * plan_.model.layers + layer)];
  }
  return vars;
}

Program lower(const Plan& plan) {
  return Lowering(plan).run();
}

}  // namespace orrery
