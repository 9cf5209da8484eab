// Lowering, the step as a whole: groups, blocks, units, records of size variables, passes.
//
// A pass takes `domino` micro-batches through the model together. It is a sequence of segments:
// embedding, layers forward, head and loss, layers backward, embedding backward. A segment says
// which units' parameters it needs; gathers run `prefetch_depth` buckets ahead, reduce-scatters are
// collected one segment later.
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

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

std::int32_t add_block(Role& role, const Block& block) {
  if (block.prims.empty()) return -1;
  role.blocks.push_back(block);
  return narrow(static_cast<std::int64_t>(role.blocks.size()) - 1);
}

void append(Unit& bucket, const Unit& unit) {
  bucket.params.insert(bucket.params.end(), unit.params.begin(), unit.params.end());
  bucket.numel += unit.numel;
}

}  // namespace

Lowering::Lowering(const Plan& plan)
    : plan_(plan),
      shape_(block_shape(plan)),
      domino_(narrow(plan.chunks.domino)),
      parts_(narrow(plan.chunks.exchange_parts)) {}

Program Lowering::run() {
  make_groups();
  make_blocks();
  make_units();
  make_records();
  make_segments();
  data();
  for (std::int32_t a = 0; a < narrow(plan_.layout.accumulation); ++a) pass(a * domino_);
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
  group("sp", l.sp, 1);
}

void Lowering::make_blocks() {
  blocks_ = family_of(plan_.model).blocks(plan_.model, shape_);
  const auto add = [&](const Block& b) { return add_block(role_, b); };
  block_ids_.embed = add(blocks_.embed);
  block_ids_.attention = add(blocks_.attention);
  block_ids_.qkv = add(blocks_.qkv);
  block_ids_.core = add(blocks_.core);
  block_ids_.out = add(blocks_.out);
  block_ids_.mlp = add(blocks_.mlp);
  block_ids_.router = add(blocks_.router);
  block_ids_.router_replay = add(blocks_.router_replay);
  block_ids_.select = add(blocks_.select);
  block_ids_.select_replay = add(blocks_.select_replay);
  block_ids_.experts = add(blocks_.experts);
  block_ids_.spread = add(blocks_.spread);
  block_ids_.shared = add(blocks_.shared);
  block_ids_.merge = add(blocks_.merge);
  block_ids_.balance = add(blocks_.balance);
  block_ids_.loss = add(blocks_.loss);
  block_ids_.loss_tail = add(blocks_.loss_tail);
}

// The family's units, one a layer, joined to buckets of `gather_layers` layers.
void Lowering::make_units() {
  const std::int64_t size = plan_.chunks.gather_layers, layers = plan_.model.layers;
  layer_units_.assign(index(layers), -1);
  expert_units_.assign(index(layers), -1);
  std::int64_t layer = -1;
  Unit dense, expert;
  const auto close_bucket = [&] {
    const std::int64_t first = layer / size * size;
    const std::string name = "layers." + std::to_string(first) + "-" + std::to_string(layer);
    const auto put = [&](Unit& bucket, std::vector<std::int32_t>& units, const char* suffix) {
      if (bucket.params.empty()) return;
      if (layer > first) bucket.name = name + suffix;
      for (std::int64_t i = first; i <= layer; ++i) {
        if (!bucket.is_expert || is_moe(i)) {
          units[index(i)] = narrow(static_cast<std::int64_t>(role_.units.size()));
        }
      }
      add_unit(std::exchange(bucket, {}));
      unit_layer_.back() = first;
      kept_units_.back() = layer >= layers - plan_.policy.keep_layers;
    };
    put(dense, layer_units_, "");
    put(expert, expert_units_, "/experts");
  };
  for (Unit& unit : family_of(plan_.model).units(plan_.model, plan_.layout.ep)) {
    const bool of_layer = unit.name.rfind("layer.", 0) == 0;
    if (of_layer && !unit.is_expert) {
      if (layer >= 0 && (layer + 1) % size == 0) close_bucket();
      ++layer;
    } else if (!of_layer && layer >= 0) {
      close_bucket();
    }
    if (!of_layer) {
      std::int32_t& id = unit.name == "embed" ? embed_unit_ : head_unit_;
      id = narrow(static_cast<std::int64_t>(role_.units.size()));
      add_unit(std::move(unit));
      continue;
    }
    for (Param& p : unit.params) p.layer = narrow(layer);
    Unit& bucket = unit.is_expert ? expert : dense;
    if (bucket.params.empty()) {
      bucket = std::move(unit);
    } else {
      append(bucket, unit);
    }
  }
}

void Lowering::add_unit(Unit unit) {
  const Workload& w = plan_.workload;
  const std::int64_t shards = unit.is_expert ? plan_.layout.fsdp_e : plan_.layout.fsdp_d;
  unit.shard_group = unit.is_expert ? kGroupIds.fsdp_e : kGroupIds.fsdp_d;
  unit.replicate_group = unit.is_expert ? kGroupIds.replicate_e : kGroupIds.replicate_d;
  unit.shard_numel = (unit.numel + shards - 1) / shards;
  unit.resident = shards == 1 && w.compute == w.master;
  unit.grad_dtype = gradient_dtype(plan_.model, shape_, unit.name);
  const auto persistent = [&](const char* what, BufferClass cls, MemorySpace space) {
    return buffer(unit.name + what, cls, SizeExpr::constant(unit.shard_numel), 1, w.master, {},
                  space);
  };
  const MemorySpace moments =
      plan_.policy.host_optimizer ? MemorySpace::kHost : MemorySpace::kDevice;
  unit.shard = persistent("/shard", BufferClass::kParameterShard, MemorySpace::kDevice);
  unit.moment1 = persistent("/moment1", BufferClass::kOptimizer, moments);
  unit.moment2 = persistent("/moment2", BufferClass::kOptimizer, moments);
  role_.units.push_back(std::move(unit));
  unit_layer_.push_back(-1);
  kept_units_.push_back(false);
}

void Lowering::make_records() {
  role_.route.ep = narrow(plan_.layout.ep);
  role_.route.local_experts =
      plan_.model.is_moe() ? narrow(plan_.model.experts / plan_.layout.ep / parts_) : 0;
  const auto record = [&](std::int32_t size, const std::string& name) {
    const std::int32_t base = role_.num_vars;
    role_.num_vars += size;
    role_.var_names.resize(index(role_.num_vars));
    role_.var_names[index(base)] = name;
    return base;
  };
  for (std::int64_t m = 0; m < shape_.micro_batches; ++m) {
    const std::string batch = "/mb." + std::to_string(m);
    batch_bases_.push_back(record(BatchVars::size(), "batch" + batch));
    for (std::int64_t i = 0; i < plan_.model.layers; ++i) {
      route_bases_.push_back(-1);
      for (std::int32_t p = 0; is_moe(i) && p < parts_; ++p) {
        const std::string part = parts_ > 1 ? "/part." + std::to_string(p) : "";
        const std::int32_t base =
            record(role_.route.size(), "route/" + layer_path(i) + batch + part);
        if (p == 0) route_bases_.back() = base;
      }
    }
  }
}

void Lowering::make_segments() {
  const auto layers = index(plan_.model.layers);
  for (std::int64_t a = 0; a < plan_.layout.accumulation; ++a) {
    segments_.push_back({embed_unit_});
    // A layer needs its whole bucket: all layers of a bucket ask for the same.
    const auto layer_segment = [&](std::size_t i) {
      std::vector<std::int32_t> units = {layer_units_[i]};
      for (std::size_t k = 0; k < layers; ++k) {
        if (layer_units_[k] == layer_units_[i] && expert_units_[k] >= 0) {
          units.push_back(expert_units_[k]);
          break;
        }
      }
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
  for (std::int64_t m = 0; m < shape_.micro_batches; ++m) {
    const std::string name = "data/mb." + std::to_string(m);
    ids_.push_back(buffer(name + "/ids", BufferClass::kActivation, tokens, 1, DType::kInt64));
    labels_.push_back(buffer(name + "/labels", BufferClass::kActivation, tokens, 1, DType::kInt64));
    load.out.push_back(ids_.back());
    load.out.push_back(labels_.back());
    count.in.push_back(labels_.back());
  }
  label_count_ = buffer("data/label_count", BufferClass::kActivation, SizeExpr::constant(1), 1,
                        DType::kFloat64);
  metrics_ = buffer("metrics", BufferClass::kActivation, SizeExpr::constant(kNumMetrics), 1,
                    DType::kFloat64);
  count.out = {label_count_};
  count.group = kGroupIds.world;
  count.host_sync = true;
  add(std::move(load));
  add(std::move(count));
  biases_.assign(index(plan_.model.layers), -1);
  if (!plan_.model.router_bias) return;
  const DType stats = stat_dtype(shape_.compute);
  std::int64_t moe_layers = 0;
  for (std::int64_t i = 0; i < plan_.model.layers; ++i) {
    if (!is_moe(i)) continue;
    ++moe_layers;
    biases_[index(i)] = buffer(layer_path(i) + "/moe/router_bias", BufferClass::kParameterShard,
                               SizeExpr::constant(1), plan_.model.experts, stats);
  }
  if (plan_.workload.bias_speed > 0) {
    loads_ = buffer("optimizer/loads", BufferClass::kActivation, SizeExpr::constant(moe_layers),
                    plan_.model.experts, stats);
  }
}

void Lowering::pass(std::int32_t first) {
  const std::int64_t layers = plan_.model.layers;
  first_ = first;
  layers_.assign(index(layers * domino_), {});
  backward_.assign(index(domino_), {});
  x_.assign(index(domino_), -1);
  open_.assign(index(domino_), -1);
  gradients_.clear();
  next_swap_in_ = plan_.policy.swap_layers - 1;

  begin_segment();
  embed_forward();
  end_segment();
  for (std::int64_t i = 0; i < layers; ++i) {
    begin_segment();
    forward(i);
    end_segment();
  }
  begin_segment();
  swap_in(layers - plan_.policy.swap_distance);
  loss();
  reduce(head_unit_);
  end_segment();
  for (std::int64_t i = layers; i-- > 0;) {
    begin_segment();
    swap_in(i - plan_.policy.swap_distance);
    recompute(i);
    backward(i);
    end_segment();
  }
  begin_segment();
  embed_backward();
  reduce(embed_unit_);
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
  step.micro_batches = narrow(shape_.micro_batches);
  step.sequences = plan_.layout.micro_batch;
  step.sequence_tokens = shape_.sequence_tokens;
  step.valid_tokens = shape_.valid_tokens;
  step.sp = shape_.sp;
  step.global_sequences = plan_.workload.global_sequences;
  step.compute = plan_.workload.compute;
  step.master = plan_.workload.master;
  step.balance_over_world = plan_.workload.balance_scope == BalanceScope::kMicrobatchGlobal;
  step.balance_over_sp = !step.balance_over_world && shape_.sp > 1;
  step.bias_speed = plan_.workload.bias_speed;
}

bool Lowering::is_moe(std::int64_t layer) const {
  return plan_.model.moe_layer[index(layer)];
}

bool Lowering::again_attention(std::int64_t layer) const {
  return layer < std::max(plan_.policy.recompute_layers, plan_.policy.recompute_attention);
}

bool Lowering::again_ffn(std::int64_t layer) const {
  return layer < std::max(plan_.policy.recompute_layers, plan_.policy.recompute_ffn);
}

bool Lowering::again_experts(std::int64_t layer) const {
  return is_moe(layer) && !again_ffn(layer) && layer < plan_.policy.recompute_experts;
}

VarBase Lowering::vars_of(std::int32_t m, std::int64_t layer, std::int32_t part) const {
  VarBase vars;
  vars.batch = batch_bases_[index(m)];
  if (layer >= 0) {
    const std::int32_t base = route_bases_[index(m * plan_.model.layers + layer)];
    vars.route = base < 0 ? base : base + part * role_.route.size();
  }
  return vars;
}

Program lower(const Plan& plan) {
  return Lowering(plan).run();
}

}  // namespace orrery
