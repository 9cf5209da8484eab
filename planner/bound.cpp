// The bounds. The walk follows core/program/lower*.cpp: segments, gathers ahead of use, reductions
// collected one segment later; it keeps only times.
#include "planner/bound.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace orrery::planner {
namespace {

// The walk looks at one rank that is the slowest of its expert group at every exchange. Ranks that
// are less loaded may overlap their collectives a little better, so the bound stays this share of
// the slowdowns below the walk. Of thirty thousand random plans none was beyond half of it.
constexpr double kSlack = 0.06;

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

// The chain of compute and exchanges of one rank, and the fsdp lane beside it.
class Lanes {
 public:
  explicit Lanes(const Slowdowns& slowdowns) : slow_(slowdowns) {}

  // Appends a collective to the fsdp lane, now; returns its number.
  int post(double ns) {
    queue_.push_back(ns);
    return static_cast<int>(queue_.size()) - 1;
  }
  void wait(int number) {
    if (number < 0) return;
    while (head_ <= static_cast<std::size_t>(number)) {
      now_ += queue_[head_];
      ++head_;
    }
  }
  void compute(double ns) {
    while (ns > 0) {
      if (head_ == queue_.size()) {
        now_ += ns;
        return;
      }
      const double mine = ns * slow_.compute, other = queue_[head_] * slow_.link;
      if (mine < other) {
        queue_[head_] -= mine / slow_.link;
        now_ += mine;
        return;
      }
      ns -= other / slow_.compute;
      now_ += other;
      ++head_;
    }
  }
  // An exchange: collectives beside it run at full speed.
  void exchange(double ns) {
    now_ += ns;
    while (head_ < queue_.size() && ns > 0) {
      const double done = std::min(ns, queue_[head_]);
      queue_[head_] -= done;
      ns -= done;
      if (queue_[head_] > 0) return;
      ++head_;
    }
  }
  double now() const { return now_; }

 private:
  Slowdowns slow_;
  std::vector<double> queue_;  // what remains of each
  std::size_t head_ = 0;       // the first that has not ended
  double now_ = 0;
};

// Units by number: embed, head, then layers and their experts in turn.
constexpr std::int64_t kEmbed = 0, kHead = 1, kFirst = 2;
constexpr int kAway = -2, kAtHand = -1;

class Walk {
 public:
  Walk(const Costs& costs, const Layout& layout, const Choice& choice, const CandidateCosts& prices,
       const Slowdowns& slowdowns)
      : model_(costs.model()),
        layout_(layout),
        choice_(choice),
        prices_(prices),
        lanes_(slowdowns),
        balanced_(costs.model().balance_coefficient > 0),
        global_(costs.workload().balance_scope == BalanceScope::kMicrobatchGlobal),
        per_batch_(2 * costs.model().layers + 3),
        gathered_(at(kFirst + 2 * costs.model().layers), kAway) {}

  double run() {
    lanes_.compute(prices_.block->load);
    label_count_ = lanes_.post(prices_.label_count);
    for (std::int64_t m = 0; m < layout_.accumulation; ++m) micro_batch(m);
    flush();
    lanes_.wait(last_sum_);
    lanes_.compute(prices_.norm);
    lanes_.wait(lanes_.post(prices_.metrics));
    lanes_.compute(prices_.embed.update + prices_.head.update);
    for (std::int64_t i = 0; i < model_.layers; ++i) {
      lanes_.compute(unit(kFirst + 2 * i).update);
      if (moe(i)) lanes_.compute(prices_.experts.update);
    }
    return lanes_.now();
  }

 private:
  struct Reduction {
    std::int64_t unit;
    int number;
    std::int64_t segment;
    bool last;  // the step's last of this unit: summed over the replicas next
  };

  bool moe(std::int64_t layer) const { return model_.moe_layer[at(layer)]; }
  const UnitCosts& unit(std::int64_t u) const {
    if (u == kEmbed) return prices_.embed;
    if (u == kHead) return prices_.head;
    if (u % 2 == 1) return prices_.experts;
    return moe((u - kFirst) / 2) ? prices_.moe_layer : prices_.dense_layer;
  }

  // Calls visit(unit) for what segment s needs, in the order of gathering.
  template <class Visit>
  void units_of(std::int64_t s, Visit visit) const {
    const std::int64_t i = s % per_batch_, layers = model_.layers;
    if (i == 0) {
      visit(kEmbed);
    } else if (i == layers + 1) {
      visit(kHead);
      if (model_.tied_head) visit(kEmbed);
    } else if (i < per_batch_ - 1) {
      const std::int64_t layer = i <= layers ? i - 1 : 2 * layers + 1 - i;
      visit(kFirst + 2 * layer);
      if (moe(layer)) visit(kFirst + 2 * layer + 1);
    }
  }

  void begin() {
    const std::int64_t last =
        std::min(segment_ + choice_.chunks.prefetch_depth, per_batch_ * layout_.accumulation - 1);
    for (std::int64_t s = segment_; s <= last; ++s) {
      units_of(s, [&](std::int64_t u) {
        const UnitCosts& price = unit(u);
        if (gathered_[at(u)] != kAway) return;
        gathered_[at(u)] = kAtHand;
        if (price.sharded) {
          gathered_[at(u)] = lanes_.post(price.gather);
        } else if (!price.resident) {
          lanes_.compute(price.gather);
        }
      });
    }
  }

  void end() {
    units_of(segment_, [&](std::int64_t u) {
      bool soon = false;
      for (std::int64_t s = segment_ + 1; s <= segment_ + 2; ++s) {
        if (s < per_batch_ * layout_.accumulation) {
          units_of(s, [&](std::int64_t other) { soon = soon || other == u; });
        }
      }
      if (!soon) gathered_[at(u)] = kAway;
    });
    flush();
    ++segment_;
  }

  void use(std::int64_t u) { lanes_.wait(gathered_[at(u)]); }

  void reduce(std::int64_t u) {
    if (!unit(u).sharded) {
      accumulate(u, last_batch_);
      return;
    }
    pending_.push_back({u, lanes_.post(unit(u).reduce), segment_, last_batch_});
  }

  void accumulate(std::int64_t u, bool last) {
    lanes_.compute(unit(u).accumulate);
    if (last && unit(u).replicate > 0) last_sum_ = lanes_.post(unit(u).replicate);
  }

  void flush() {
    std::size_t kept = 0;
    for (const Reduction& r : pending_) {
      if (r.segment < segment_) {
        lanes_.wait(r.number);
        accumulate(r.unit, r.last);
      } else {
        pending_[kept++] = r;
      }
    }
    pending_.resize(kept);
  }

  void micro_batch(std::int64_t m) {
    const BlockCosts& b = *prices_.block;
    last_batch_ = m + 1 == layout_.accumulation;
    begin();
    use(kEmbed);
    lanes_.compute(b.embed_fwd);
    end();
    for (std::int64_t i = 0; i < model_.layers; ++i) {
      begin();
      forward(m, i, false);
      end();
    }
    begin();
    lanes_.wait(label_count_);
    use(kHead);
    if (model_.tied_head) use(kEmbed);
    lanes_.compute(b.loss);
    reduce(kHead);
    end();
    for (std::int64_t i = model_.layers; i-- > 0;) {
      begin();
      const bool again = i < choice_.policy.recompute_layers;
      if (again) forward(m, i, true);
      backward(m, i, again);
      end();
    }
    begin();
    lanes_.compute(b.embed_bwd);
    reduce(kEmbed);
    end();
  }

  void forward(std::int64_t m, std::int64_t i, bool again) {
    const BlockCosts& b = *prices_.block;
    use(kFirst + 2 * i);
    lanes_.compute(b.attention_fwd);
    if (!moe(i)) {
      lanes_.compute(b.mlp_fwd);
      return;
    }
    const std::size_t record = at(m * model_.layers + i);
    lanes_.compute(again ? b.replay_fwd : b.router_fwd);
    if (!again) count(b);
    lanes_.exchange(prices_.exchange->exchange[record]);
    use(kFirst + 2 * i + 1);
    lanes_.compute(prices_.routed->experts_fwd[record]);
    lanes_.exchange(prices_.exchange->exchange[record]);
    if (!again) lanes_.compute(b.merge_fwd);
  }

  // The balancing loss runs beside the exchange of counts, or beside the combine.
  void count(const BlockCosts& b) {
    const ExchangeCosts& e = *prices_.exchange;
    if (layout_.ep == 1) {
      lanes_.compute(e.counts + (balanced_ ? b.balance : 0));
    } else {
      lanes_.exchange(e.balance_counts + std::max(e.counts, balanced_ && !global_ ? b.balance : 0));
    }
  }

  void backward(std::int64_t m, std::int64_t i, bool again) {
    const BlockCosts& b = *prices_.block;
    if (moe(i)) {
      const std::size_t record = at(m * model_.layers + i);
      lanes_.compute(b.merge_bwd);
      lanes_.exchange(prices_.exchange->exchange[record]);
      use(kFirst + 2 * i + 1);
      lanes_.compute(prices_.routed->experts_bwd[record]);
      reduce(kFirst + 2 * i + 1);
      lanes_.exchange(prices_.exchange->exchange[record]);
      use(kFirst + 2 * i);
      lanes_.compute(again ? b.replay_bwd : b.router_bwd);
    } else {
      use(kFirst + 2 * i);
      lanes_.compute(b.mlp_bwd);
    }
    lanes_.compute(b.attention_bwd);
    reduce(kFirst + 2 * i);
  }

  const Model& model_;
  const Layout& layout_;
  const Choice& choice_;
  const CandidateCosts& prices_;
  Lanes lanes_;
  const bool balanced_, global_;
  const std::int64_t per_batch_;  // segments of a micro-batch
  std::vector<int> gathered_;     // by unit: its gather, or kAway, or kAtHand
  std::vector<Reduction> pending_;
  std::int64_t segment_ = 0;
  int label_count_ = -1, last_sum_ = -1;
  bool last_batch_ = false;
};

struct LayerCounts {
  double dense = 0, moe = 0;
};

// Of the first n layers.
LayerCounts layers_below(const Costs& costs, std::int64_t n) {
  const std::int64_t moe = costs.moe_layers(n);
  return {static_cast<double>(n - moe), static_cast<double>(moe)};
}

}  // namespace

double walk(const Costs& costs, const Layout& layout, const Choice& choice,
            const CandidateCosts& prices, const Slowdowns& slowdowns) {
  return Walk(costs, layout, choice, prices, slowdowns).run();
}

double bound(const Costs& costs, const Layout& layout, const Choice& choice,
             const CandidateCosts& prices) {
  const Cluster& cluster = costs.cluster();
  const double slow = std::max(cluster.compute_slowdown, cluster.link_slowdown) - 1;
  const double slowed =
      walk(costs, layout, choice, prices, {cluster.compute_slowdown, cluster.link_slowdown}) *
      (1 - kSlack * slow);
  if (slow == 0) return std::floor(slowed);
  return std::floor(std::max(slowed, walk(costs, layout, choice, prices, {})));
}

double recompute_time(const Costs& costs, const Layout& layout, const Choice& choice,
                      const CandidateCosts& p) {
  const std::int64_t n = choice.policy.recompute_layers;
  const LayerCounts again = layers_below(costs, n);
  const BlockCosts& b = *p.block;
  const double batch =
      static_cast<double>(n) * b.attention_fwd + again.dense * b.mlp_fwd + again.moe * b.replay_fwd;
  const double experts = p.routed == nullptr ? 0 : p.routed->fwd_before[at(n)];
  return static_cast<double>(layout.accumulation) * batch + experts;
}

double quick_bound(const Costs& costs, const Layout& layout, const Choice& choice,
                   const CandidateCosts& p) {
  const Model& model = costs.model();
  const BlockCosts& b = *p.block;
  const std::int64_t n = choice.policy.recompute_layers;
  const LayerCounts all = layers_below(costs, model.layers), again = layers_below(costs, n);
  const auto batches = static_cast<double>(layout.accumulation);
  const auto layers = static_cast<double>(model.layers);
  double batch = b.embed_fwd + b.embed_bwd + b.loss;
  batch += layers * (b.attention_fwd + b.attention_bwd) + static_cast<double>(n) * b.attention_fwd;
  batch += all.dense * (b.mlp_fwd + b.mlp_bwd) + again.dense * b.mlp_fwd;
  batch += all.moe * (b.router_fwd + b.merge_fwd + b.merge_bwd);
  batch += (all.moe - again.moe) * b.router_bwd + again.moe * (b.replay_fwd + b.replay_bwd);
  const auto each = [&](auto member) {
    return p.embed.*member + p.head.*member + all.dense * p.dense_layer.*member +
           all.moe * (p.moe_layer.*member + p.experts.*member);
  };
  double chain = b.load + batches * (batch + each(&UnitCosts::accumulate));
  double exchanges = 0;
  chain += each(&UnitCosts::update) + p.norm + p.metrics;
  if (model.is_moe()) {
    chain += p.routed->sum_fwd + p.routed->sum_bwd + p.routed->fwd_before[at(n)];
    exchanges = 4 * p.exchange->sum + 2 * p.exchange->sum_before[at(n)] +
                batches * all.moe * p.exchange->counts;
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
  // Collectives hide beside exchanges for nothing and beside compute at the price of slowing it.
  const Cluster& cluster = costs.cluster();
  const double price = std::min(1.0, cluster.link_slowdown * (1 - 1 / cluster.compute_slowdown));
  const double both = chain + exchanges + price * std::max(0.0, fsdp - exchanges);
  return std::floor(std::max(both, fsdp + p.metrics));
}

}  // namespace orrery::planner
