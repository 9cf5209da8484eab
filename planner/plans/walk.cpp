// The walk. It follows core/program/lower*.cpp: segments, gathers ahead of use, reductions
// collected one segment later; it keeps only times.
#include <algorithm>
#include <vector>

#include "planner/plans/bound.h"

namespace orrery::planner {
namespace {

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
        late_(costs.workload().balance_scope == BalanceScope::kMicrobatchGlobal || layout.sp > 1),
        per_batch_(2 * costs.model().layers + 3),
        gathered_(at(kFirst + 2 * costs.model().layers), kAway) {}

  double run() {
    lanes_.compute(prices_.block->load);
    label_count_ = lanes_.post(prices_.label_count);
    for (std::int64_t m = 0; m < layout_.accumulation; ++m) micro_batch(m);
    flush();
    if (prices_.world_loads > 0) lanes_.post(prices_.world_loads);
    lanes_.wait(last_sum_);
    lanes_.compute(prices_.norm);
    const double normed = lanes_.now();
    lanes_.wait(lanes_.post(prices_.metrics));
    double updates = prices_.embed.update + prices_.head.update;
    double copies = 2 * (prices_.embed.copy + prices_.head.copy);
    for (std::int64_t i = 0; i < model_.layers; ++i) {
      const UnitCosts& u = unit(kFirst + 2 * i);
      updates += u.update + (moe(i) ? prices_.experts.update : 0);
      copies += 2 * (u.copy + (moe(i) ? prices_.experts.copy : 0));
    }
    if (!choice_.policy.host_optimizer) return lanes_.now() + updates + prices_.bias;
    // Moments are brought from the norm on, and taken back once the first is updated.
    return std::max(normed + copies,
                    lanes_.now() + std::max(updates + prices_.bias, prices_.embed.update + copies));
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

  // Compute beside an exchange, or after it where there is none.
  void exchange(double ns, double beside) {
    if (layout_.ep > 1) {
      lanes_.exchange(std::max(ns, beside));
    } else {
      lanes_.compute(beside);
    }
  }

  void attend() {
    const BlockCosts& b = *prices_.block;
    lanes_.compute(b.attention_fwd + b.qkv_fwd);
    if (layout_.sp == 1) return;
    lanes_.exchange(b.to_heads);
    lanes_.compute(b.core_fwd);
    lanes_.exchange(b.to_rows);
    lanes_.compute(b.out_fwd);
  }

  void attend_backward() {
    const BlockCosts& b = *prices_.block;
    lanes_.compute(b.attention_bwd + b.out_bwd);
    if (layout_.sp == 1) return;
    lanes_.exchange(b.to_rows);
    lanes_.compute(b.core_bwd);
    lanes_.exchange(b.to_heads);
    lanes_.compute(b.qkv_bwd);
  }

  void forward(std::int64_t m, std::int64_t i, bool again) {
    const BlockCosts& b = *prices_.block;
    use(kFirst + 2 * i);
    attend();
    if (!moe(i)) {
      lanes_.compute(b.mlp_fwd);
      return;
    }
    const std::size_t record = at(m * model_.layers + i);
    const double rows = prices_.exchange->exchange[record];
    lanes_.compute(again ? b.replay_fwd : b.router_fwd + b.loads);
    if (!again) count(b);
    // Shared experts run beside: a rank that comes early may be through with them by then, and the
    // next wait may be for that one. (Backward, the next wait is for who comes last here.)
    exchange(rows, 0);
    if (layout_.ep == 1) lanes_.compute(b.shared_fwd);
    use(kFirst + 2 * i + 1);
    lanes_.compute(prices_.routed->experts_fwd[record]);
    exchange(rows, !again && late_ ? b.balance : 0);
    if (!again) lanes_.compute(b.merge_fwd);
  }

  // The balancing loss runs beside the exchange of counts; where these come late, beside the
  // combine.
  void count(const BlockCosts& b) {
    const ExchangeCosts& e = *prices_.exchange;
    const double balance = late_ ? 0 : b.balance;
    if (layout_.ep == 1) {
      lanes_.compute(e.counts + balance);
    } else {
      lanes_.exchange(e.balance_counts + std::max(e.counts, balance));
    }
  }

  void backward(std::int64_t m, std::int64_t i, bool again) {
    const BlockCosts& b = *prices_.block;
    if (moe(i)) {
      const std::size_t record = at(m * model_.layers + i);
      const double rows = prices_.exchange->exchange[record];
      lanes_.compute(b.merge_bwd);
      exchange(rows, 0);
      use(kFirst + 2 * i + 1);
      lanes_.compute(prices_.routed->experts_bwd[record]);
      reduce(kFirst + 2 * i + 1);
      exchange(rows, b.shared_bwd);
      use(kFirst + 2 * i);
      lanes_.compute(again ? b.replay_bwd : b.router_bwd);
    } else {
      use(kFirst + 2 * i);
      lanes_.compute(b.mlp_bwd);
    }
    attend_backward();
    reduce(kFirst + 2 * i);
  }

  const Model& model_;
  const Layout& layout_;
  const Choice& choice_;
  const CandidateCosts& prices_;
  Lanes lanes_;
  const bool late_;               // the balancing loss waits for sums over other ranks
  const std::int64_t per_batch_;  // segments of a micro-batch
  std::vector<int> gathered_;     // by unit: its gather, or kAway, or kAtHand
  std::vector<Reduction> pending_;
  std::int64_t segment_ = 0;
  int label_count_ = -1, last_sum_ = -1;
  bool last_batch_ = false;
};

}  // namespace

double walk(const Costs& costs, const Layout& layout, const Choice& choice,
            const CandidateCosts& prices, const Slowdowns& slowdowns) {
  return Walk(costs, layout, choice, prices, slowdowns).run();
}

}  // namespace orrery::planner
