// Prices of blocks, routed rows, exchanges and units. The bytes of the ops that run no block are
// those of simulator/op_cost.cpp; the property test of the bound holds the two together.
#include "planner/costs.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/program/wire.h"
#include "core/program/work.h"
#include "simulator/op_cost.h"
#include "simulator/simulator.h"

namespace orrery::planner {
namespace {

double whole_ns(Seconds s) {
  return static_cast<double>(to_nanoseconds(s).value());
}

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

// A program without ops, with the records of size variables that lowering makes: a draw depends on
// them alone.
Program records_of(const Plan& plan) {
  const Layout& l = plan.layout;
  Program program;
  program.world = static_cast<std::int32_t>(l.world());
  program.groups.resize(4);
  program.groups[static_cast<std::size_t>(kGroupIds.ep)] = {"ep", static_cast<std::int32_t>(l.ep),
                                                            1};
  Role role;
  role.ranks = {0};
  role.route.ep = static_cast<std::int32_t>(l.ep);
  role.route.local_experts = static_cast<std::int32_t>(plan.model.experts / l.ep);
  const auto record = [&](std::int32_t size, const std::string& name) {
    role.var_names.push_back(name);
    role.num_vars += size;
    role.var_names.resize(static_cast<std::size_t>(role.num_vars));
  };
  for (std::int64_t m = 0; m < l.accumulation; ++m) {
    record(BatchVars::size(), "batch/mb." + std::to_string(m));
    for (std::int64_t i = 0; i < plan.model.layers; ++i) {
      if (!plan.model.moe_layer[at(i)]) continue;
      record(role.route.size(), "route/layer." + std::to_string(i) + "/mb." + std::to_string(m));
    }
  }
  program.roles.push_back(std::move(role));
  return program;
}

}  // namespace

Costs::Costs(const Model& model, const Cluster& cluster, const Workload& workload)
    : model_(model), cluster_(cluster), workload_(workload), moe_before_(1, 0) {
  for (const bool moe : model.moe_layer) moe_before_.push_back(moe_before_.back() + (moe ? 1 : 0));
}

bool Costs::chunked(const Layout& layout, const Chunks& chunks) const {
  return loss_chunks(shape_of(layout, chunks)) > 1;
}

BlockShape Costs::shape_of(const Layout& layout, const Chunks& chunks) const {
  BlockShape shape;
  shape.sequences = layout.micro_batch;
  shape.sequence_tokens = workload_.sequence_tokens;
  shape.valid_tokens = workload_.sequence_tokens;
  shape.global_sequences = workload_.global_sequences;
  shape.dp = layout.dp;
  shape.micro_batches = layout.accumulation;
  shape.ep = layout.ep;
  shape.attention_query = chunks.attention_query;
  shape.loss_tokens = chunks.loss_tokens;
  shape.compute = workload_.compute;
  shape.balance_scope = workload_.balance_scope;
  return shape;
}

double Costs::memory(double bytes) const {
  return whole_ns(simulator::memory_time(cluster_.device, bytes, 1));
}

double Costs::collective(std::int64_t size, std::int64_t stride, OpKind kind,
                         WireBytes wire) const {
  const Group group{"", static_cast<std::int32_t>(size), static_cast<std::int32_t>(stride)};
  return whole_ns(simulator::collective_time(cluster_, group, kind, wire) + cluster_.device.launch);
}

const BlockCosts& Costs::block_costs(const Layout& layout, const Chunks& chunks) {
  const auto key =
      std::make_tuple(layout.micro_batch, layout.ep, chunks.attention_query, chunks.loss_tokens);
  const auto found = blocks_.find(key);
  if (found != blocks_.end()) return found->second;
  const BlockShape shape = shape_of(layout, chunks);
  const ModelBlocks b = family_of(model_).blocks(model_, shape);
  // One batch record (pairs) in front; routed blocks are priced by routed_costs.
  const std::vector<std::int64_t> values = {layout.micro_batch * workload_.pairs_per_sequence()};
  VarBase vars;
  vars.batch = 0;
  const auto time = [&](const std::vector<Work>& work) {
    return simulator::work_time(cluster_.device, work, values, vars);
  };
  const auto fwd = [&](const Block& block) {
    return block.prims.empty() ? 0 : whole_ns(time(forward_work(block)));
  };
  const auto bwd = [&](const Block& block) {
    return block.prims.empty() ? 0 : whole_ns(time(backward_work(block)));
  };
  const auto both = [&](const Block& block) {
    return block.prims.empty() ? 0
                               : whole_ns(time(forward_work(block)) + time(backward_work(block)));
  };
  BlockCosts c;
  const std::int64_t labels = layout.accumulation * shape.tokens() * size_of(DType::kInt64);
  c.load = memory(static_cast<double>(2 * 2 * labels));
  c.embed_fwd = fwd(b.embed);
  c.embed_bwd = bwd(b.embed);
  c.attention_fwd = fwd(b.attention);
  c.attention_bwd = bwd(b.attention);
  c.mlp_fwd = fwd(b.mlp);
  c.mlp_bwd = bwd(b.mlp);
  c.router_fwd = fwd(b.router);
  c.router_bwd = bwd(b.router);
  c.replay_fwd = fwd(b.router_replay);
  c.replay_bwd = bwd(b.router_replay);
  c.merge_fwd = fwd(b.merge);
  c.merge_bwd = bwd(b.merge);
  c.balance = both(b.balance);
  const std::int64_t whole_chunks = shape.tokens() / loss_chunk_rows(shape);
  c.loss = static_cast<double>(whole_chunks) * both(b.loss) + both(b.loss_tail);
  return blocks_.emplace(key, c).first->second;
}

// Rows that every rank sends to each peer, as the nominal replay draws them.
const RoutedCosts& Costs::routed_costs(const Layout& layout) {
  const auto key = std::make_tuple(layout.micro_batch, layout.ep);
  const auto found = routed_.find(key);
  if (found != routed_.end()) return found->second;
  const std::int64_t layers = model_.layers, records = layout.accumulation * layers;
  RoutedCosts c;
  c.experts_fwd.assign(at(records), 0);
  c.experts_bwd.assign(at(records), 0);
  c.most.assign(at(records), 0);
  c.least.assign(at(records), 0);
  Plan plan;
  plan.model = model_;
  plan.workload = workload_;
  plan.layout = layout;
  const Program program = records_of(plan);
  const Role& role = program.roles[0];
  const Binding draw = simulator::draw_binding(plan, program, 0, 0);
  const Block experts = family_of(model_).blocks(model_, shape_of(layout, {})).experts;
  const std::vector<Work> fwd = forward_work(experts), bwd = backward_work(experts);
  std::int64_t record = 0;
  for (std::size_t base = 0; base < role.var_names.size(); ++base) {
    const std::string& name = role.var_names[base];
    if (name.rfind("route/layer.", 0) != 0) continue;
    while (!model_.moe_layer[at(record % layers)]) ++record;
    const auto first = draw.values.begin() + static_cast<std::ptrdiff_t>(base) + role.route.sent(0);
    const auto [least, most] = std::minmax_element(first, first + role.route.ep);
    c.most[at(record)] = *most;
    c.least[at(record)] = *least;
    const std::vector<std::int64_t> rows = {*most * layout.ep};
    VarBase vars;
    vars.route = 0;
    c.experts_fwd[at(record)] = whole_ns(simulator::work_time(cluster_.device, fwd, rows, vars));
    c.experts_bwd[at(record)] = whole_ns(simulator::work_time(cluster_.device, bwd, rows, vars));
    ++record;
  }
  c.fwd_before.assign(at(layers + 1), 0);
  for (std::int64_t i = 0; i < records; ++i) {
    c.sum_fwd += c.experts_fwd[at(i)];
    c.sum_bwd += c.experts_bwd[at(i)];
    c.fwd_before[at(i % layers + 1)] += c.experts_fwd[at(i)];
  }
  for (std::size_t n = 1; n < c.fwd_before.size(); ++n) c.fwd_before[n] += c.fwd_before[n - 1];
  return routed_.emplace(key, std::move(c)).first->second;
}

const ExchangeCosts& Costs::exchange_costs(const Layout& layout) {
  const std::int64_t stride = layout.expert_inner == "ep" ? 1 : layout.fsdp_e;
  const auto key = std::make_tuple(layout.micro_batch, layout.ep, stride);
  const auto found = exchanges_.find(key);
  if (found != exchanges_.end()) return found->second;
  const RoutedCosts& routed = routed_costs(layout);
  ExchangeCosts c;
  c.exchange.assign(routed.most.size(), 0);
  c.sum_before.assign(at(model_.layers + 1), 0);
  const std::int64_t ep = layout.ep;
  const std::int64_t slots = layout.micro_batch * workload_.sequence_tokens * model_.top_k;
  const std::int64_t row_bytes = model_.hidden * size_of(workload_.compute);
  for (std::size_t i = 0; i < c.exchange.size(); ++i) {
    const auto layer = static_cast<std::int64_t>(i) % model_.layers;
    if (ep == 1 || !model_.moe_layer[at(layer)]) continue;
    // The fullest member receives most, the emptiest sends most; the slower of both is waited for.
    const std::int64_t received = (ep - 1) * routed.most[i];
    const std::int64_t sent = slots - routed.least[i];
    const std::int64_t bytes = std::max(received, sent) * row_bytes;
    c.exchange[i] = collective(ep, stride, OpKind::kAllToAllV, {bytes, bytes});
    c.sum += c.exchange[i];
    c.sum_before[at(layer + 1)] += c.exchange[i];
  }
  for (std::size_t n = 1; n < c.sum_before.size(); ++n) c.sum_before[n] += c.sum_before[n - 1];
  if (model_.is_moe()) {
    const std::int64_t local = model_.experts / ep;
    c.counts =
        ep > 1 ? collective(ep, stride, OpKind::kExchangeCounts, exchange_counts_wire(ep, local))
               : memory(static_cast<double>(local * size_of(DType::kInt64)));
    const bool spans = workload_.balance_scope == BalanceScope::kMicrobatchGlobal;
    if (spans && model_.balance_coefficient > 0 && ep > 1) {
      c.balance_counts = collective(
          layout.world(), 1, OpKind::kAllReduce,
          all_reduce_wire(layout.world(), model_.experts, size_of(stat_dtype(workload_.compute))));
    }
  }
  return exchanges_.emplace(key, std::move(c)).first->second;
}

UnitCosts Costs::unit_costs(std::int64_t numel, const Sharding& s, DType grad_dtype) const {
  UnitCosts c;
  if (numel == 0) return c;
  const std::int64_t shard = (numel + s.shards - 1) / s.shards;
  const std::int64_t master = size_of(workload_.master), compute = size_of(workload_.compute);
  const std::int64_t grad = size_of(grad_dtype);
  c.shard_bytes = shard * master;
  c.sharded = s.shards > 1;
  c.resident = !c.sharded && workload_.compute == workload_.master;
  if (c.sharded) {
    c.gather = collective(s.shards, s.shard_stride, OpKind::kAllGather,
                          all_gather_wire(s.shards, shard * compute));
    c.reduce = collective(s.shards, s.shard_stride, OpKind::kReduceScatter,
                          reduce_scatter_wire(s.shards, shard, grad));
  } else if (!c.resident) {
    c.gather = memory(static_cast<double>(c.shard_bytes + shard * compute));
  }
  c.accumulate = memory(static_cast<double>(shard * grad + 2 * c.shard_bytes));
  c.update = memory(static_cast<double>(7 * c.shard_bytes));
  if (s.replicas > 1) {
    c.replicate = collective(s.replicas, s.replica_stride, OpKind::kAllReduce,
                             all_reduce_wire(s.replicas, shard, master));
  }
  return c;
}

const UnitSizes& Costs::unit_sizes(std::int64_t ep) {
  const auto found = sizes_.find(ep);
  if (found != sizes_.end()) return found->second;
  UnitSizes sizes;
  std::int64_t layer = 0;
  for (const Unit& u : family_of(model_).units(model_, ep)) {
    if (u.name == "embed") {
      sizes.embed = u.numel;
    } else if (u.name == "head") {
      sizes.head = u.numel;
    } else if (u.is_expert) {
      sizes.experts = u.numel;
    } else {
      (model_.moe_layer[at(layer++)] ? sizes.moe_layer : sizes.dense_layer) = u.numel;
    }
  }
  return sizes_.emplace(ep, sizes).first->second;
}

CandidateCosts Costs::layout_costs(const Layout& layout, bool chunked_loss) {
  CandidateCosts c = all_unit_costs(layout, chunked_loss);
  if (model_.is_moe()) {
    c.routed = &routed_costs(layout);
    c.exchange = &exchange_costs(layout);
  }
  return c;
}

CandidateCosts Costs::all_unit_costs(const Layout& l, bool chunked_loss) {
  CandidateCosts c;
  const bool fsdp_inner = l.dense_inner == "fsdp", ep_inner = l.expert_inner == "ep";
  const Sharding dense{l.fsdp_d, fsdp_inner ? 1 : l.replicate_d, l.replicate_d,
                       fsdp_inner ? l.fsdp_d : 1};
  const Sharding expert{l.fsdp_e, ep_inner ? l.ep : 1, l.replicate_e, l.ep * l.fsdp_e};
  const UnitSizes& sizes = unit_sizes(l.ep);
  // A unit that is added to more than once a micro-batch keeps its gradient in the master dtype.
  const DType once = workload_.compute;
  c.embed = unit_costs(sizes.embed, dense, model_.tied_head ? workload_.master : once);
  c.head = unit_costs(sizes.head, dense, chunked_loss ? workload_.master : once);
  c.dense_layer = unit_costs(sizes.dense_layer, dense, once);
  c.moe_layer = unit_costs(sizes.moe_layer, dense, once);
  c.experts = unit_costs(sizes.experts, expert, once);
  const std::int64_t moe = moe_layers(model_.layers);
  const std::int64_t gradients = c.embed.shard_bytes + c.head.shard_bytes +
                                 (model_.layers - moe) * c.dense_layer.shard_bytes +
                                 moe * (c.moe_layer.shard_bytes + c.experts.shard_bytes);
  c.norm = memory(static_cast<double>(gradients));
  c.label_count = collective(l.world(), 1, OpKind::kCountTokens, all_reduce_wire(l.world(), 1, 8));
  c.metrics = collective(l.world(), 1, OpKind::kReduceMetrics, all_reduce_wire(l.world(), 4, 8));
  return c;
}

CandidateCosts Costs::candidate(const Layout& layout, const Chunks& chunks) {
  CandidateCosts c = layout_costs(layout, chunked(layout, chunks));
  c.block = &block_costs(layout, chunks);
  return c;
}

}  // namespace orrery::planner
