// Prices of blocks, routed rows and exchanges. The bytes of the ops that run no block are those of
// simulator/op_cost.cpp; the property test of the bound holds the two together.
#include "planner/plans/costs.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "core/program/wire.h"
#include "core/program/work.h"
#include "simulator/binding.h"
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

std::int64_t bytes_of(const Block& block, ValueId v) {
  return block.values[static_cast<std::size_t>(v)].bytes().c0;
}

// What moves experts' loads and exchanges, beside the layout's own numbers.
std::vector<std::int64_t> routing_key(const Layout& l, const Chunks& c) {
  return {l.micro_batch, l.sp, l.ep, l.accumulation, c.domino};
}

}  // namespace

Costs::Costs(const Model& model, const Cluster& cluster, const Workload& workload)
    : model_(model), cluster_(cluster), workload_(workload), moe_before_(1, 0) {
  shaped_.model = model;
  shaped_.workload = workload;
  for (const bool moe : model.moe_layer) moe_before_.push_back(moe_before_.back() + (moe ? 1 : 0));
}

bool Costs::chunked(const Layout& layout, const Chunks& chunks) const {
  return loss_chunks(shape_of(layout, chunks)) > 1;
}

BlockShape Costs::shape_of(const Layout& layout, const Chunks& chunks) const {
  shaped_.layout = layout;
  shaped_.chunks = chunks;
  return block_shape(shaped_);
}

double Costs::memory(double bytes, PassKind pass) const {
  return whole_ns(simulator::memory_time(cluster_.device, pass, bytes, 1));
}

double Costs::collective(std::int64_t size, std::int64_t stride, OpKind kind,
                         WireBytes wire) const {
  const Group group{"", static_cast<std::int32_t>(size), static_cast<std::int32_t>(stride)};
  return whole_ns(simulator::collective_time(cluster_, group, kind, wire) + cluster_.device.launch);
}

// What moves between blocks: sequences to heads and back, counts to the loads of the step.
void Costs::price_turns(const Layout& layout, const ModelBlocks& b, BlockCosts& c) const {
  if (layout.sp > 1) {
    const auto turn = [&](std::int64_t bytes) {
      const std::int64_t wire = bytes / layout.sp * (layout.sp - 1);
      return collective(layout.sp, 1, OpKind::kAllToAll, {wire, wire});
    };
    c.to_heads = turn(bytes_of(b.qkv, b.qkv.outputs[0]));
    c.to_rows = turn(bytes_of(b.core, b.core.outputs[0]));
  }
  if (!model_.router_bias || workload_.bias_speed <= 0) return;
  for (const Value& v : b.router.values) {
    if (v.name == "counts") c.loads = memory(static_cast<double>(3 * v.bytes().c0));
  }
}

const BlockCosts& Costs::block_costs(const Layout& layout, const Chunks& chunks) {
  const std::array<std::int64_t, 9> key = {
      layout.micro_batch,     layout.sp,          layout.ep,
      layout.accumulation,    chunks.domino,      layout.dispatcher == "all_gather",
      chunks.attention_query, chunks.loss_tokens, chunks.exchange_parts};
  const auto found = blocks_.find(key);
  if (found != blocks_.end()) return found->second;
  const BlockShape shape = shape_of(layout, chunks);
  const ModelBlocks b = family_of(model_).blocks(model_, shape);
  // One batch record (pairs) in front; routed blocks are priced by routed_costs.
  Program program;
  program.groups.resize(4);
  program.roles.resize(1);
  Role& role = program.roles[0];
  role.ranks = {0};
  role.var_names = {"batch/mb.0"};
  role.num_vars = BatchVars::size();
  const std::vector<std::int64_t> values = simulator::binding_of(shaped_, program, 0, {}).values;
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
  const std::int64_t labels = shape.micro_batches * shape.tokens() * size_of(DType::kInt64);
  c.load = memory(static_cast<double>(2 * 2 * labels));
  c.embed_fwd = fwd(b.embed);
  c.embed_bwd = bwd(b.embed);
  c.attention_fwd = fwd(b.attention);
  c.attention_bwd = bwd(b.attention);
  c.qkv_fwd = fwd(b.qkv);
  c.qkv_bwd = bwd(b.qkv);
  c.core_fwd = fwd(b.core);
  c.core_bwd = bwd(b.core);
  c.out_fwd = fwd(b.out);
  c.out_bwd = bwd(b.out);
  price_turns(layout, b, c);
  c.mlp_fwd = fwd(b.mlp);
  c.mlp_bwd = bwd(b.mlp);
  c.router_fwd = fwd(b.router);
  c.router_bwd = bwd(b.router);
  c.replay_fwd = fwd(b.router_replay);
  c.replay_bwd = bwd(b.router_replay);
  c.shared_fwd = fwd(b.shared);
  c.shared_bwd = bwd(b.shared);
  c.merge_fwd = fwd(b.merge);
  c.merge_bwd = bwd(b.merge);
  c.balance = both(b.balance);
  const std::int64_t whole_chunks = shape.tokens() / loss_chunk_rows(shape);
  c.loss = static_cast<double>(whole_chunks) * both(b.loss) + both(b.loss_tail);
  return blocks_.emplace(key, c).first->second;
}

// What every rank routes in each micro-batch and MoE layer, as the nominal replay draws it.
const simulator::Loads& Costs::loads(const Layout& layout, const Chunks& chunks) {
  const BlockShape shape = shape_of(layout, chunks);
  const Key key = {shape.tokens(), shape.micro_batches};
  const auto found = loads_.find(key);
  if (found != loads_.end()) return found->second;
  Role role;
  for (std::int64_t m = 0; m < shape.micro_batches; ++m) {
    for (std::int64_t i = 0; i < model_.layers; ++i) {
      if (!model_.moe_layer[at(i)]) continue;
      role.var_names.push_back("route/layer." + std::to_string(i) + "/mb." + std::to_string(m));
    }
  }
  return loads_.emplace(key, simulator::draw_loads(shaped_, role, 0)).first->second;
}

const RoutedCosts& Costs::routed_costs(const Layout& layout, const Chunks& chunks) {
  const Key key = routing_key(layout, chunks);
  const auto found = routed_.find(key);
  if (found != routed_.end()) return found->second;
  const simulator::Loads& drawn = loads(layout, chunks);
  Layout exchanged = layout;
  exchanged.dispatcher = "all_to_all";
  Chunks whole = chunks;
  whole.exchange_parts = 1;
  const BlockShape shape = shape_of(exchanged, whole);
  const std::int64_t layers = model_.layers, records = shape.micro_batches * layers;
  RoutedCosts c;
  c.experts_fwd.assign(at(records), 0);
  c.experts_bwd.assign(at(records), 0);
  c.most.assign(at(records), 0);
  c.least.assign(at(records), 0);
  const Block experts = family_of(model_).blocks(model_, shape).experts;
  const std::vector<Work> fwd = forward_work(experts), bwd = backward_work(experts);
  const std::int64_t local = model_.experts / layout.ep;
  VarBase vars;
  vars.route = 0;
  auto next = drawn.begin();
  for (std::size_t i = 0; i < at(records); ++i) {
    const std::size_t layer = i % at(layers);
    if (!model_.moe_layer[layer]) continue;
    const std::vector<std::int64_t>& rows = *next++;
    std::int64_t most = 0, least = std::numeric_limits<std::int64_t>::max();
    for (auto first = rows.begin(); first != rows.end(); first += local) {
      const std::int64_t sent = std::accumulate(first, first + local, std::int64_t{0});
      most = std::max(most, sent);
      least = std::min(least, sent);
    }
    c.most[i] = most;
    c.least[i] = least;
    const std::vector<std::int64_t> values = {most * layout.ep};
    c.experts_fwd[i] = whole_ns(simulator::work_time(cluster_.device, fwd, values, vars));
    c.experts_bwd[i] = whole_ns(simulator::work_time(cluster_.device, bwd, values, vars));
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

const ExchangeCosts& Costs::exchange_costs(const Layout& layout, const Chunks& chunks) {
  const std::int64_t stride = layout.expert_inner == "ep" ? 1 : layout.fsdp_e;
  Key key = routing_key(layout, chunks);
  key.push_back(stride);
  const auto found = exchanges_.find(key);
  if (found != exchanges_.end()) return found->second;
  const RoutedCosts& routed = routed_costs(layout, chunks);
  ExchangeCosts c;
  c.exchange.assign(routed.most.size(), 0);
  c.sum_before.assign(at(model_.layers + 1), 0);
  const std::int64_t ep = layout.ep;
  const std::int64_t slots = shape_of(layout, chunks).tokens() * model_.top_k;
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

void Costs::add_routing(const Layout& layout, const Chunks& chunks, CandidateCosts& c) {
  if (!model_.is_moe()) return;
  c.routed = &routed_costs(layout, chunks);
  c.exchange = &exchange_costs(layout, chunks);
}

CandidateCosts Costs::candidate(const Layout& layout, const Chunks& chunks) {
  CandidateCosts c = all_unit_costs(layout, chunks);
  add_routing(layout, chunks, c);
  c.block = &block_costs(layout, chunks);
  return c;
}

}  // namespace orrery::planner
