// The bounds; the walk is in walk.cpp.
#include "planner/plans/bound.h"

#include <algorithm>
#include <cmath>

#include "simulator/simulator.h"

namespace orrery::planner {
namespace {

// The walk looks at one rank that is the slowest of its expert group at every exchange. Ranks that
// are less loaded may overlap their collectives a little better, so the bound stays this share of
// the slowdowns below the walk. Of thirty thousand random plans none was beyond half of it.
constexpr double kSlack = 0.06;

struct LayerCounts {
  double dense = 0, moe = 0;
};

// Of the first n layers.
LayerCounts layers_below(const Costs& costs, std::int64_t n) {
  const std::int64_t moe = costs.moe_layers(n);
  return {static_cast<double>(n - moe), static_cast<double>(moe)};
}

// How deep each class of work is run again.
struct Again {
  explicit Again(const MemoryPolicy& p)
      : attention(std::max(p.recompute_layers, p.recompute_attention)),
        ffn(std::max(p.recompute_layers, p.recompute_ffn)),
        experts(std::max(ffn, p.recompute_experts)) {}
  std::int64_t attention, ffn, experts;
};

// Compute of one rank outside of routed rows and units, of one micro-batch; what is run again
// apart.
struct Compute {
  double once = 0, again = 0;
};

Compute compute_of(const Costs& costs, const Choice& choice, const BlockCosts& b) {
  const Model& model = costs.model();
  const Again again(choice.policy);
  const LayerCounts all = layers_below(costs, model.layers), ffn = layers_below(costs, again.ffn);
  const auto layers = static_cast<double>(model.layers);
  Compute c;
  c.once = b.embed_fwd + b.embed_bwd + b.loss + layers * (b.attend_fwd() + b.attend_bwd()) +
           all.dense * (b.mlp_fwd + b.mlp_bwd) +
           all.moe * (b.router_fwd + b.loads + b.merge_fwd + b.merge_bwd) +
           (all.moe - ffn.moe) * b.router_bwd + ffn.moe * b.replay_bwd;
  c.again = static_cast<double>(again.attention) * b.attend_fwd() + ffn.dense * b.mlp_fwd +
            ffn.moe * b.replay_fwd;
  return c;
}

// Of a step, the layers' all-to-alls of shared sequences.
double sequence_exchanges(const Costs& costs, const Layout& layout, const Choice& choice,
                          const BlockCosts& b) {
  const Again again(choice.policy);
  const auto times = static_cast<double>(2 * costs.model().layers + again.attention);
  return static_cast<double>(layout.accumulation * choice.chunks.domino) * times *
         b.attend_exchange();
}

// Collectives hide beside compute at the price of slowing it.
double price_of_hiding(const Cluster& cluster) {
  return std::min(1.0, cluster.link_slowdown * (1 - 1 / cluster.compute_slowdown));
}

// What the copies of moments take beyond the updates that they run beside.
double host_tail(const Choice& choice, double copies, double updates) {
  return choice.policy.host_optimizer ? std::max(0.0, copies - updates) : 0;
}

// Compute of a step on one rank, undisturbed: on the fullest member of an expert group, and the
// mean over its members. A routed op is priced for each replayed member alone.
struct StepCompute {
  double fullest = 0, mean = 0;
};

StepCompute step_compute(Costs& costs, const Layout& layout, const Choice& choice,
                         const CandidateCosts& p) {
  const Model& model = costs.model();
  const BlockCosts& b = *p.block;
  const Again again(choice.policy);
  const LayerCounts all = layers_below(costs, model.layers), ffn = layers_below(costs, again.ffn);
  const auto passes = static_cast<double>(layout.accumulation);
  const double batches = passes * static_cast<double>(choice.chunks.domino);
  const UnitSums& units = costs.unit_sums(layout, choice);
  const Compute own = compute_of(costs, choice, b);
  double alike = b.load + batches * (own.once + own.again) + passes * units.compute + units.norm +
                 units.update + p.bias;
  if (!model.is_moe()) return {alike, alike};
  alike += batches * (all.moe * (b.shared_fwd + b.shared_bwd + b.balance) + ffn.moe * b.shared_fwd);
  if (layout.ep == 1) alike += batches * all.moe * p.exchange->counts;
  double most = 0, sum = 0;
  const RankCosts& ranks = costs.rank_costs(layout, choice.chunks);
  for (const RankCosts::Member& m : ranks.members) {
    const double routed = m.all + m.again_before[static_cast<std::size_t>(again.experts)];
    most = std::max(most, routed);
    sum += routed;
  }
  return {alike + most, alike + sum / static_cast<double>(ranks.members.size())};
}

// Where exchanges may hide: sums over lanes; a rounding of exchanges that go in parts is given
// away.
double relaxed_bound(Costs& costs, const Layout& layout, const Choice& choice,
                     const CandidateCosts& p) {
  const Model& model = costs.model();
  const BlockCosts& b = *p.block;
  const Again again(choice.policy);
  const LayerCounts all = layers_below(costs, model.layers), ffn = layers_below(costs, again.ffn);
  const auto passes = static_cast<double>(layout.accumulation);
  const double batches = passes * static_cast<double>(choice.chunks.domino);
  const UnitSums& units = costs.unit_sums(layout, choice);
  const double chain = step_compute(costs, layout, choice, p).fullest + p.metrics;
  double ep = 0;
  if (model.is_moe()) {
    const RankCosts& ranks = costs.rank_costs(layout, choice.chunks);
    if (layout.ep > 1) ep += batches * all.moe * p.exchange->counts;
    if (layout.dispatcher == "all_gather") {
      ep += batches *
            (all.moe * (ranks.gather_fwd + ranks.gather_bwd) + ffn.moe * ranks.gather_again);
    } else if (layout.ep > 1) {
      const double parts = static_cast<double>(choice.chunks.exchange_parts);
      ep += 4 * p.exchange->sum + 2 * p.exchange->sum_before[static_cast<std::size_t>(again.ffn)] -
            (parts > 1 ? 6 * batches * all.moe * parts : 0);
    }
  }
  const double sp = sequence_exchanges(costs, layout, choice, b);
  const double fsdp = passes * units.fsdp + units.replicate + p.label_count;
  const double tail = host_tail(choice, 2 * units.copy, units.update);
  const double hidden = std::max({ep, sp, fsdp});
  return std::floor(std::max(chain + price_of_hiding(costs.cluster()) * std::max(0.0, hidden),
                             hidden + p.metrics) +
                    tail);
}

// Ranks that share too few cores: nothing computes faster than all of them together. Where all are
// replayed.
double core_bound(Costs& costs, const Layout& layout, const Choice& choice,
                  const CandidateCosts& p) {
  const Cluster& cluster = costs.cluster();
  if (cluster.cores_per_node == 0 || cluster.devices > simulator::kMaxUnfolded) return 0;
  const std::int64_t sharing =
      std::min(cluster.devices_per_node * cluster.nodes_per_machine, cluster.devices);
  if (sharing <= cluster.cores_per_node) return 0;
  return step_compute(costs, layout, choice, p).mean * static_cast<double>(sharing) /
         static_cast<double>(cluster.cores_per_node);
}

}  // namespace

bool exposes_exchanges(const Layout& layout, const Choice& choice) {
  const Chunks& c = choice.chunks;
  const MemoryPolicy& p = choice.policy;
  const std::int64_t n = p.recompute_layers;
  return c.domino == 1 && c.exchange_parts == 1 && c.gather_layers == 1 && p.keep_layers == 0 &&
         layout.dispatcher == "all_to_all" && p.recompute_attention <= n && p.recompute_ffn <= n &&
         p.recompute_experts <= n;
}

double bound(Costs& costs, const Layout& layout, const Choice& choice,
             const CandidateCosts& prices) {
  const double cores = std::floor(core_bound(costs, layout, choice, prices));
  if (!exposes_exchanges(layout, choice)) {
    return std::max(cores, relaxed_bound(costs, layout, choice, prices));
  }
  const Cluster& cluster = costs.cluster();
  const double slow = std::max(cluster.compute_slowdown, cluster.link_slowdown) - 1;
  const double slowed =
      walk(costs, layout, choice, prices, {cluster.compute_slowdown, cluster.link_slowdown}) *
      (1 - kSlack * slow);
  double least =
      std::floor(slow == 0 ? slowed : std::max(slowed, walk(costs, layout, choice, prices, {})));
  // The walk leaves out shared experts.
  if (prices.block->shared_fwd > 0) {
    least = std::max(least, relaxed_bound(costs, layout, choice, prices));
  }
  return std::max(cores, least);
}

double recompute_time(const Costs& costs, const Layout& layout, const Choice& choice,
                      const CandidateCosts& p) {
  const Again again(choice.policy);
  const LayerCounts ffn = layers_below(costs, again.ffn);
  const double batches = static_cast<double>(layout.accumulation * choice.chunks.domino);
  const double experts =
      p.routed == nullptr ? 0 : p.routed->fwd_before[static_cast<std::size_t>(again.experts)];
  return batches * (compute_of(costs, choice, *p.block).again + ffn.moe * p.block->shared_fwd) +
         experts;
}

double quick_bound(Costs& costs, const Layout& layout, const Choice& choice,
                   const CandidateCosts& p) {
  if (!exposes_exchanges(layout, choice)) return relaxed_bound(costs, layout, choice, p);
  const Model& model = costs.model();
  const BlockCosts& b = *p.block;
  const std::int64_t n = choice.policy.recompute_layers;
  const LayerCounts all = layers_below(costs, model.layers);
  const auto batches = static_cast<double>(layout.accumulation);
  const auto each = [&](auto member) {
    return p.embed.*member + p.head.*member + all.dense * p.dense_layer.*member +
           all.moe * (p.moe_layer.*member + p.experts.*member);
  };
  const Compute own = compute_of(costs, choice, b);
  double chain = b.load + batches * (own.once + own.again + each(&UnitCosts::accumulate));
  double exchanges = sequence_exchanges(costs, layout, choice, b);
  const double updates = each(&UnitCosts::update);
  chain += updates + p.norm + p.metrics + p.bias;
  if (model.is_moe()) {
    chain +=
        p.routed->sum_fwd + p.routed->sum_bwd + p.routed->fwd_before[static_cast<std::size_t>(n)];
    // Shared experts run beside some of the exchanges; see the walk.
    const double rows = p.exchange->sum, more = p.exchange->sum_before[static_cast<std::size_t>(n)];
    const double shared = batches * all.moe * b.shared_bwd;
    exchanges +=
        3 * rows + 2 * more + std::max(rows, shared) + batches * all.moe * p.exchange->counts;
  }
  // Parameters of all layers but the last are gathered twice a micro-batch, where they are sharded.
  const auto twice = [&](const UnitCosts& u, double count) {
    return u.sharded ? count * (2 * u.gather + u.reduce) : 0.0;
  };
  double fsdp =
      twice(p.dense_layer, all.dense) + twice(p.moe_layer, all.moe) + twice(p.experts, all.moe);
  const bool last_moe = model.moe_layer.back();
  fsdp -= last_moe ? (p.moe_layer.sharded ? p.moe_layer.gather : 0) +
                         (p.experts.sharded ? p.experts.gather : 0)
                   : (p.dense_layer.sharded ? p.dense_layer.gather : 0);
  for (const UnitCosts* u : {&p.embed, &p.head}) fsdp += u->sharded ? u->gather + u->reduce : 0;
  fsdp = batches * fsdp + p.label_count + each(&UnitCosts::replicate);
  // Collectives hide beside exchanges for nothing.
  const double both =
      chain + exchanges + price_of_hiding(costs.cluster()) * std::max(0.0, fsdp - exchanges);
  const double tail = host_tail(choice, 2 * each(&UnitCosts::copy), updates);
  return std::floor(std::max(both, fsdp + p.metrics) + tail);
}

}  // namespace orrery::planner
