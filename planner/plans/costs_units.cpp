// Prices of units, alone and joined to buckets; and what the members of an expert group compute
// where nobody waits for the slowest.
#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "core/program/wire.h"
#include "core/program/work.h"
#include "planner/plans/costs.h"
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

}  // namespace

Sharding dense_sharding(const Layout& l) {
  const bool inner = l.dense_inner == "fsdp";
  return {l.fsdp_d, inner ? 1 : l.replicate_d, l.replicate_d, inner ? l.fsdp_d : 1};
}

Sharding expert_sharding(const Layout& l) {
  return {l.fsdp_e, l.expert_inner == "ep" ? l.ep : 1, l.replicate_e, l.ep * l.fsdp_e};
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
  c.update = memory(static_cast<double>(7 * c.shard_bytes), PassKind::kOptimizer);
  if (cluster_.device.host_bandwidth.value() > 0) {
    c.copy = whole_ns(simulator::copy_time(cluster_.device, static_cast<double>(c.shard_bytes)));
  }
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

CandidateCosts Costs::all_unit_costs(const Layout& l, const Chunks& chunks) {
  CandidateCosts c;
  const Sharding dense = dense_sharding(l), expert = expert_sharding(l);
  const UnitSizes& sizes = unit_sizes(l.ep);
  const BlockShape shape = shape_of(l, chunks);
  const auto price = [&](std::int64_t numel, const Sharding& s, const char* unit) {
    return unit_costs(numel, s, gradient_dtype(model_, shape, unit));
  };
  c.embed = price(sizes.embed, dense, "embed");
  c.head = price(sizes.head, dense, "head");
  c.dense_layer = price(sizes.dense_layer, dense, "layer");
  c.moe_layer = price(sizes.moe_layer, dense, "layer");
  c.experts = price(sizes.experts, expert, "layer/experts");
  const std::int64_t moe = moe_layers(model_.layers);
  const std::int64_t gradients = c.embed.shard_bytes + c.head.shard_bytes +
                                 (model_.layers - moe) * c.dense_layer.shard_bytes +
                                 moe * (c.moe_layer.shard_bytes + c.experts.shard_bytes);
  c.norm = memory(static_cast<double>(gradients));
  c.label_count = collective(l.world(), 1, OpKind::kCountTokens, all_reduce_wire(l.world(), 1, 8));
  c.metrics =
      collective(l.world(), 1, OpKind::kReduceMetrics, all_reduce_wire(l.world(), kNumMetrics, 8));
  if (model_.router_bias && workload_.bias_speed > 0) {
    const std::int64_t elements = moe * model_.experts, each = size_of(stat_dtype(shape.compute));
    c.world_loads =
        collective(l.world(), 1, OpKind::kAllReduce, all_reduce_wire(l.world(), elements, each));
    c.bias = memory(static_cast<double>(2 * elements * each));
  }
  return c;
}

const UnitSums& Costs::unit_sums(const Layout& l, const Choice& choice) {
  const Sharding d = dense_sharding(l), e = expert_sharding(l);
  const Key key = {d.shards,
                   d.shard_stride,
                   e.shards,
                   e.shard_stride,
                   l.ep,
                   choice.chunks.gather_layers,
                   choice.policy.keep_layers,
                   choice.chunks.domino > 1,
                   chunked(l, choice.chunks)};
  const auto found = sums_.find(key);
  if (found != sums_.end()) return found->second;
  return sums_.emplace(key, sum_units(l, choice)).first->second;
}

// Buckets as Lowering::make_units joins them. Of a pass, a bucket is gathered once forward and,
// unless it is kept or is the last, once more backward.
UnitSums Costs::sum_units(const Layout& l, const Choice& choice) {
  UnitSums sums;
  const BlockShape shape = shape_of(l, choice.chunks);
  const Sharding dense = dense_sharding(l), expert = expert_sharding(l);
  const UnitSizes& sizes = unit_sizes(l.ep);
  std::int64_t gradients = 0;
  const auto add = [&](std::int64_t numel, const Sharding& s, const char* unit, double gathers) {
    if (numel == 0) return;
    const UnitCosts u = unit_costs(numel, s, gradient_dtype(model_, shape, unit));
    gradients += u.shard_bytes;
    if (u.sharded) {
      sums.fsdp += gathers * u.gather + u.reduce;
    } else {
      sums.compute += gathers * u.gather;
    }
    sums.compute += u.accumulate;
    sums.replicate += u.replicate;
    sums.update += u.update;
    sums.copy += u.copy;
  };
  add(sizes.embed, dense, "embed", 1);
  add(sizes.head, dense, "head", 1);
  const std::int64_t layers = model_.layers, size = choice.chunks.gather_layers;
  for (std::int64_t first = 0; first < layers; first += size) {
    const std::int64_t next = std::min(layers, first + size);
    const std::int64_t moe = moe_layers(next) - moe_layers(first);
    const bool stays = next == layers || next - 1 >= layers - choice.policy.keep_layers;
    const double gathers = stays ? 1 : 2;
    add((next - first - moe) * sizes.dense_layer + moe * sizes.moe_layer, dense, "layer", gathers);
    add(moe * sizes.experts, expert, "layer/experts", gathers);
  }
  sums.norm = memory(static_cast<double>(gradients));
  return sums;
}

const RankCosts& Costs::rank_costs(const Layout& l, const Chunks& chunks) {
  const Key key = {l.micro_batch,
                   l.sp,
                   l.ep,
                   l.expert_inner == "ep" ? 1 : l.fsdp_e,
                   l.accumulation,
                   chunks.domino,
                   chunks.exchange_parts,
                   l.dispatcher == "all_gather"};
  const auto found = ranks_.find(key);
  if (found != ranks_.end()) return found->second;
  return ranks_.emplace(key, price_ranks(l, chunks)).first->second;
}

RankCosts Costs::price_ranks(const Layout& l, const Chunks& chunks) {
  RankCosts out;
  const simulator::Loads& drawn = loads(l, chunks);
  const BlockShape shape = shape_of(l, chunks);
  const ModelBlocks b = family_of(model_).blocks(model_, shape);
  const std::vector<Work> again = forward_work(b.experts);
  // Forward and backward of one part, as ops: each is rounded alone.
  std::vector<std::vector<Work>> ops = {again, backward_work(b.experts)};
  if (shape.gather_dispatch) {
    for (const auto& work :
         {forward_work(b.select), forward_work(b.spread), backward_work(b.spread)}) {
      ops.push_back(work);
    }
  }
  const std::int64_t part = model_.experts / l.ep / chunks.exchange_parts;
  // Of a large world with equal loads one rank is replayed.
  const bool whole = l.world() <= simulator::kMaxUnfolded || workload_.expert_load_cv > 0;
  VarBase vars;
  vars.route = 0;
  for (std::int64_t r = 0; r < (whole ? l.ep : 1); ++r) {
    RankCosts::Member member;
    member.again_before.assign(at(model_.layers + 1), 0);
    auto next = drawn.begin();
    for (std::int64_t i = 0; i < shape.micro_batches * model_.layers; ++i) {
      const std::int64_t layer = i % model_.layers;
      if (!model_.moe_layer[at(layer)]) continue;
      auto first = next++->begin() + r * part * chunks.exchange_parts;
      for (std::int64_t p = 0; p < chunks.exchange_parts; ++p, first += part) {
        const std::int64_t rows = std::accumulate(first, first + part, std::int64_t{0});
        const std::vector<std::int64_t> values = {rows * l.ep};
        const auto price = [&](const std::vector<Work>& work) {
          return whole_ns(simulator::work_time(cluster_.device, work, values, vars));
        };
        member.again_before[at(layer + 1)] += price(again);
        for (const std::vector<Work>& op : ops) member.all += price(op);
      }
    }
    for (std::size_t n = 1; n < member.again_before.size(); ++n) {
      member.again_before[n] += member.again_before[n - 1];
    }
    out.members.push_back(std::move(member));
  }
  if (shape.gather_dispatch) price_gathers(l, shape, out);
  return out;
}

void Costs::price_gathers(const Layout& l, const BlockShape& shape, RankCosts& out) const {
  const std::int64_t stride = l.expert_inner == "ep" ? 1 : l.fsdp_e;
  const std::int64_t element = size_of(shape.compute);
  const auto gather = [&](std::int64_t cols, std::int64_t bytes) {
    return collective(l.ep, stride, OpKind::kAllGatherRows,
                      all_gather_wire(l.ep, shape.tokens() * cols * bytes));
  };
  const auto scatter = [&](std::int64_t cols) {
    return collective(l.ep, stride, OpKind::kReduceScatterRows,
                      reduce_scatter_wire(l.ep, shape.tokens() * cols, element));
  };
  out.gather_again = gather(model_.hidden, element) + gather(model_.top_k, element);
  out.gather_fwd =
      out.gather_again + gather(model_.top_k, size_of(DType::kInt64)) + scatter(model_.hidden);
  out.gather_bwd = gather(model_.hidden, element) + scatter(model_.hidden) + scatter(model_.top_k);
}

}  // namespace orrery::planner
