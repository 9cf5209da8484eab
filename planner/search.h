// Best-first search of a space: cheap bounds for all, tighter ones for those that come up, replays
// for those that may be the best. It ends when no bound is left below the best replay, so what it
// found is the optimum of the space.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "core/program/program.h"
#include "planner/bound.h"
#include "planner/footprint.h"
#include "planner/space.h"

namespace orrery::planner {

// A candidate by its place in the space; earlier is simpler.
struct Place {
  std::int32_t recompute = 0, layout = 0, chunks = 0;
  auto operator<=>(const Place&) const = default;
};

// What a replay said.
struct Trial {
  Place place;
  Layout layout;
  Choice choice;
  Prediction predicted;
  Nanoseconds step;
  bool fits = false;
  // Means over the replayed ranks; compute includes recompute.
  Seconds compute, recompute, exposed, idle;
};

// Part of a space. An empty `member` takes every layout, an empty `recompute` every depth.
struct Subspace {
  std::function<bool(const Layout&)> member;
  std::optional<std::int64_t> recompute;
};

// Memory that a plan may use on one device.
Bytes usable_memory(const Cluster& cluster);

class Search {
 public:
  Search(const Request& request, Space space);

  // Finds the best that fits, if any does.
  void run();
  const std::optional<Trial>& best() const { return best_; }
  double bound_remaining_ns() const { return bound_remaining_; }  // after run()
  std::int64_t replayed() const { return static_cast<std::int64_t>(trials_.size()); }
  // Candidates whose bound run() evaluated, and legal ones that it found not to fit: by their
  // state, by the bound of their memory, or by replay. Of what it did not come to, nothing is
  // known.
  std::int64_t bounded() const { return bounded_; }
  std::int64_t unfit() const { return unfit_; }
  const Space& space() const { return space_; }
  // All that was replayed, in order.
  const std::vector<Trial>& trials() const { return trials_; }

  // Whether shards, moments and gradients alone fit under any layout.
  bool state_fits();
  // Of the candidates of a family: the best by bound that fits, replayed; and the one of least
  // memory, by bound, then by replay of the first few.
  std::optional<Trial> best_of(const Subspace& family);
  std::optional<Trial> smallest_of(const Subspace& family);

  Plan plan_of(const Layout& layout, const Choice& choice) const;

 private:
  struct Node {
    double key = 0;
    Place place;
    bool walked = false;  // key is bound(), else quick_bound()
    bool operator>(const Node& o) const { return key != o.key ? key > o.key : place > o.place; }
  };
  using Queue = std::priority_queue<Node, std::vector<Node>, std::greater<>>;
  const Layout& layout(Place p) const { return space_.layouts[static_cast<std::size_t>(p.layout)]; }
  Choice choice(Place p) const {
    const std::vector<Chunks>& chunks = space_.chunks.at(layout(p).micro_batch);
    return {chunks[static_cast<std::size_t>(p.chunks)],
            {space_.recompute[static_cast<std::size_t>(p.recompute)]}};
  }
  CandidateCosts prices(Place p);
  double quick(Place p);
  Bytes state(const Layout& layout);
  Bytes memory(Place p);
  const Trial& replay(Place p);
  std::vector<Node> nodes(const Subspace& family);
  // Pops one node: gives it the depth of recompute that it needs to fit, a tighter bound, or a
  // replay, which is returned. Fewer layers run again are never slower, so of candidates that
  // differ in nothing else only the first that fits can be the best. With `missed`, what replays
  // took beyond the bound of memory, depths that will hardly fit are skipped: quicker, not exact.
  const Trial* advance(Queue& queue, std::int32_t deepest, Bytes* missed);
  std::int32_t depth_that_fits(Place place, std::int32_t last, Bytes extra);
  // The candidates of this layout and chunks from `place` on to before `depth` (-1: to the last).
  std::int64_t depths_between(Place place, std::int32_t depth) const;
  void count_unfit_states();
  void push_deeper(Queue& queue, Place place, std::int32_t depth);
  bool dominated(Place p);
  std::int32_t deepest(const Subspace& family) const;

  const Request& request_;
  Space space_;
  Costs costs_;
  Footprints footprints_;
  std::vector<Trial> trials_;
  std::map<Place, std::size_t> tried_;
  // Choices that fit, by layout and prefetch depth.
  std::map<std::pair<std::int32_t, std::int64_t>, std::vector<Place>> fitting_;
  std::map<std::pair<std::int32_t, bool>, CandidateCosts> layout_prices_;
  std::vector<Node> shallow_;  // all layouts and chunks, at the first depth of recompute
  std::optional<Trial> best_;
  double bound_remaining_ = 0;
  std::int64_t bounded_ = 0, unfit_ = 0;
  bool counts_ = false;  // while run() counts: what explains comes later
};

}  // namespace orrery::planner
