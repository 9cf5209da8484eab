// Seeds, the changes of one mechanism at a time, and the descent.
#include "planner/plans/refine.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>

namespace orrery::planner {
namespace {

constexpr std::size_t kSeeds = 12;
constexpr std::int64_t kReplays = 80, kReplayedOps = 6'000'000;

struct Point {
  Layout layout;
  Choice choice;
};

class Refinement {
 public:
  Refinement(Search& search, const Request& request)
      : search_(search), request_(request), pins_(search.space().pins) {}

  Refined run() {
    if (search_.stopped()) return {};
    std::vector<Trial> seeds = choose_seeds();
    if (seeds.empty()) return {};
    const Trial start = *search_.best();
    // Interleaving is what changes most: one look at it orders the seeds.
    for (Trial& seed : seeds) {
      for (const Point& p : interleaved(point_of(seed), 2)) keep_better(seed, try_point(p, seed));
    }
    std::stable_sort(seeds.begin(), seeds.end(),
                     [](const Trial& a, const Trial& b) { return a.step < b.step; });
    for (const Trial& seed : seeds) {
      if (spent()) break;
      descend(seed);
    }
    if (best_ && best_->step < start.step) result_.best = best_;
    return result_;
  }

 private:
  static Point point_of(const Trial& t) { return {t.layout, t.choice}; }
  bool spent() const {
    return result_.replays >= kReplays || ops_ >= kReplayedOps || search_.stopped();
  }

  // The best plans of distinct layouts, and of the families whose exchanges can be hidden.
  std::vector<Trial> choose_seeds() {
    std::vector<Trial> all;
    for (const Trial& t : search_.trials()) {
      if (t.fits) all.push_back(t);
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Trial& a, const Trial& b) { return a.step < b.step; });
    std::vector<Trial> seeds;
    const auto add = [&](const Trial& t) {
      const bool known = std::any_of(seeds.begin(), seeds.end(),
                                     [&](const Trial& s) { return s.layout == t.layout; });
      if (!known) seeds.push_back(t);
    };
    for (const Trial& t : all) {
      if (seeds.size() < kSeeds) add(t);
    }
    for (const auto& family :
         {std::function<bool(const Layout&)>([](const Layout& l) { return l.ep > 1; }),
          std::function<bool(const Layout&)>([](const Layout& l) { return l.sp > 1; })}) {
      Subspace space;
      space.member = family;
      if (const auto found = search_.best_of(space)) add(*found);
    }
    return seeds;
  }

  static void keep_better(Trial& current, const std::optional<Trial>& next) {
    if (next && next->fits && next->step < current.step) current = *next;
  }

  void descend(Trial current) {
    for (bool better = true; better && !spent();) {
      const Nanoseconds before = current.step;
      for (const auto& change : changes()) {
        for (const Point& p : change(point_of(current))) {
          keep_better(current, try_point(p, current));
        }
      }
      better = current.step < before;
    }
  }

  // Gives the point the least recompute that fits, and replays it.
  std::optional<Trial> try_point(Point p, const Trial& from) {
    // What the bound of memory misses of a replay differs little between neighbours.
    if (!legal(p)) return std::nullopt;
    Bytes missed = from.predicted.peak - search_.memory_of(from.layout, from.choice);
    for (int attempt = 0; attempt < 2 && !spent(); ++attempt) {
      if (!tune(p, missed)) return std::nullopt;
      if (!seen_.insert(describe(p.layout, p.choice.chunks, p.choice.policy)).second) {
        return std::nullopt;
      }
      ++result_.replays;
      Trial t = search_.replay_of(p.layout, p.choice);
      ops_ += t.ops;
      if (t.fits) {
        if (!best_ || t.step < best_->step) best_ = t;
        return t;
      }
      missed = t.predicted.peak - search_.memory_of(p.layout, p.choice);
    }
    return std::nullopt;
  }

  bool legal(const Point& p) const {
    return violations(request_.model, request_.cluster, request_.workload, p.layout,
                      p.choice.chunks, p.choice.policy)
        .empty();
  }

  bool fits(const Point& p, Bytes missed) {
    return search_.memory_of(p.layout, p.choice) + missed <= usable_memory(request_.cluster) &&
           search_.host_fits(p.layout, p.choice);
  }

  // The least value in 0 .. all that fits, if any does: memory falls as it rises.
  bool least(Point& p, const std::function<void(Point&, std::int64_t)>& set, Bytes missed) {
    std::int64_t low = -1, high = request_.model.layers;
    set(p, high);
    if (!fits(p, missed)) return false;
    while (high - low > 1) {
      const std::int64_t middle = low + (high - low) / 2;
      set(p, middle);
      (fits(p, missed) ? high : low) = middle;
    }
    set(p, high);
    return true;
  }

  bool tune(Point& p, Bytes missed) {
    const bool swaps = p.choice.policy.swap_layers > 0;
    if (pins_.has("recompute_layers") || pins_.has("swap_layers")) return fits(p, missed);
    const auto whole = [&](Point& q, std::int64_t n) {
      q.choice.policy.recompute_layers = n;
      q.choice.policy.swap_layers = swaps ? n : 0;
    };
    if (!least(p, whole, missed)) return false;
    if (p.choice.policy.recompute_layers > 0) return true;
    // Room is left: fewer layers of what is run again in part.
    const MemoryPolicy part = p.choice.policy;
    const auto some = [&](Point& q, std::int64_t n) {
      const auto up_to = [&](std::int64_t all) { return all > 0 ? n : 0; };
      q.choice.policy.recompute_attention = up_to(part.recompute_attention);
      q.choice.policy.recompute_ffn = up_to(part.recompute_ffn);
      q.choice.policy.recompute_experts = up_to(part.recompute_experts);
    };
    return least(p, some, missed);
  }

  using Change = std::function<std::vector<Point>(const Point&)>;
  std::vector<Change> changes() {
    const auto each_domino = [this](const Point& p) {
      std::vector<Point> out;
      for (const std::int64_t domino : {1, 2, 4}) {
        const std::vector<Point> some = interleaved(p, domino);
        out.insert(out.end(), some.begin(), some.end());
      }
      return out;
    };
    const auto of = [this](const char* pin, std::vector<std::int64_t> values,
                           std::int64_t& (*field)(Point&)) {
      return [this, pin, values, field](const Point& p) {
        std::vector<Point> out;
        for (const std::int64_t v : values) {
          Point q = p;
          if (pins_.has(pin) || field(q) == v) continue;
          field(q) = v;
          out.push_back(q);
        }
        return out;
      };
    };
    const std::int64_t layers = request_.model.layers;
    return {each_domino,
            [this](const Point& p) { return dispatched(p); },
            of("exchange_parts", {1, 2, 4},
               [](Point& p) -> std::int64_t& { return p.choice.chunks.exchange_parts; }),
            [this](const Point& p) { return recomputed(p); },
            of("gather_layers", {1, 2, 4},
               [](Point& p) -> std::int64_t& { return p.choice.chunks.gather_layers; }),
            of("keep_layers", {0, std::min<std::int64_t>(2, layers), layers / 8},
               [](Point& p) -> std::int64_t& { return p.choice.policy.keep_layers; }),
            of("prefetch_depth", {0, 1, 2, 3},
               [](Point& p) -> std::int64_t& { return p.choice.chunks.prefetch_depth; })};
  }

  // The rank's sequences divided over `domino` micro-batches a pass: in smaller micro-batches, or
  // in fewer passes.
  std::vector<Point> interleaved(const Point& p, std::int64_t domino) const {
    const std::int64_t mine = p.choice.chunks.domino;
    if (pins_.has("domino") || domino == mine) return {};
    const std::int64_t tokens = p.layout.micro_batch * mine, passes = p.layout.accumulation * mine;
    std::vector<Point> out;
    Point q = p;
    q.choice.chunks.domino = domino;
    if (tokens % domino == 0 && !pins_.has("micro_batch")) {
      q.layout.micro_batch = tokens / domino;
      const std::int64_t rows =
          q.layout.micro_batch *
          ((request_.workload.sequence_tokens + q.layout.sp - 1) / q.layout.sp);
      if (q.choice.chunks.loss_tokens >= rows && !pins_.has("loss_tokens")) {
        q.choice.chunks.loss_tokens = 0;
      }
      out.push_back(q);
    }
    if (passes % domino == 0 && !pins_.has("accumulation")) {
      q = p;
      q.choice.chunks.domino = domino;
      q.layout.accumulation = passes / domino;
      out.push_back(q);
    }
    return out;
  }

  std::vector<Point> dispatched(const Point& p) const {
    if (pins_.has("dispatcher") || p.layout.ep == 1) return {};
    Point q = p;
    const bool gathers = p.layout.dispatcher == "all_gather";
    q.layout.dispatcher = gathers ? "all_to_all" : "all_gather";
    if (!gathers && q.choice.chunks.exchange_parts > 1) {
      if (pins_.has("exchange_parts")) return {};
      q.choice.chunks.exchange_parts = 1;
    }
    return {q};
  }

  // What is run again in part, in all layers; whole layers make up for the rest.
  std::vector<Point> recomputed(const Point& p) const {
    for (const char* pin : {"recompute_attention", "recompute_ffn", "recompute_experts"}) {
      if (pins_.has(pin)) return {};
    }
    const std::int64_t all = request_.model.layers, experts = request_.model.is_moe() ? all : 0;
    std::vector<Point> out;
    const auto add = [&](std::int64_t attention, std::int64_t ffn, std::int64_t part) {
      Point q = p;
      q.choice.policy.recompute_attention = attention;
      q.choice.policy.recompute_ffn = ffn;
      q.choice.policy.recompute_experts = part;
      out.push_back(q);
    };
    if (experts > 0) {
      add(0, 0, experts);
      add(all, 0, experts);
    }
    add(all, 0, 0);
    add(0, all, 0);
    add(0, 0, 0);
    return out;
  }

  Search& search_;
  const Request& request_;
  const Pins& pins_;
  Refined result_;
  std::optional<Trial> best_;
  std::set<std::string> seen_;
  std::int64_t ops_ = 0;
};

}  // namespace

Refined refine(Search& search, const Request& request) {
  return Refinement(search, request).run();
}

}  // namespace orrery::planner
