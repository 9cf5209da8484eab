// Best-first search of a space: cheap bounds for all, tighter ones for those that come up, replays
// for those that may be the best. It ends when no bound is left below the best replay, so what it
// found is the optimum of the space.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "core/program/program.h"
#include "planner/plans/bound.h"
#include "planner/plans/footprint.h"
#include "planner/plans/space.h"
#include "planner/plans/space_prices.h"

namespace orrery::planner {

// A candidate by its place in the space; earlier is simpler. `depth` counts along the line of
// policies `line`. In the queue, chunks -1 stands for all chunks of a layout.
struct Place {
  std::int32_t line = 0, depth = 0, layout = 0, chunks = 0;
  auto operator<=>(const Place&) const = default;
};

// What a replay said.
struct Trial {
  Place place;
  Layout layout;
  Choice choice;
  Prediction predicted;
  Nanoseconds step;
  Bytes host_peak;       // of a rank
  std::int64_t ops = 0;  // that were replayed
  bool fits = false;
  // Means over the replayed ranks; compute includes recompute.
  Seconds compute, recompute, exposed, idle;
};

// Part of a space: what is empty takes all.
struct Subspace {
  std::function<bool(const Layout&)> member;
  std::function<bool(const Chunks&)> chunked;
  std::function<bool(const MemoryPolicy&)> policy;  // of lines: recompute_layers aside
  std::optional<std::int64_t> recompute;
};

// Memory that a plan may use on one device.
Bytes usable_memory(const Cluster& cluster);

// What the ranks of a node keep on their host together.
Bytes host_bytes(const Cluster& cluster, Bytes rank);

class Search {
 public:
  Search(const Request& request, Space space);

  // Finds the best that fits, if any does; gives up after so many steps.
  void run(std::int64_t most_steps = std::numeric_limits<std::int64_t>::max());
  const std::optional<Trial>& best() const { return best_; }
  double bound_remaining_ns() const { return bound_remaining_; }  // after run()
  std::int64_t replayed() const { return static_cast<std::int64_t>(trials_.size()); }
  // Candidates whose bound run() evaluated, and legal ones that it found not to fit: by their
  // state, by the bound of their memory, or by replay; those that ask too much of the host's memory
  // are counted apart, all of them. Of what it did not come to, nothing is known.
  std::int64_t bounded() const { return bounded_; }
  std::int64_t unfit() const { return unfit_; }
  std::int64_t host_unfit() const { return host_unfit_; }
  const Space& space() const { return space_; }
  // Whether the request's `stop` has said so.
  bool stopped();
  // All that was replayed, in order.
  const std::vector<Trial>& trials() const { return trials_; }

  // Whether shards, moments and gradients alone fit under any layout.
  bool state_fits();
  // Of the candidates of a family: the best by bound that fits, replayed; and the one of least
  // memory, by bound, then by replay of the first few.
  std::optional<Trial> best_of(const Subspace& family);
  std::optional<Trial> smallest_of(const Subspace& family);
  // Whether the one of least memory fits, as far as a short step shows.
  bool smallest_fits();

  // A plan that need not be in the space, replayed; it is not among trials(). Legal ones only.
  Trial replay_of(const Layout& layout, const Choice& choice);
  // The bound of its memory, and whether the host holds what it sends there.
  Bytes memory_of(const Layout& layout, const Choice& choice);
  bool host_fits(const Layout& layout, const Choice& choice);

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
  const std::vector<MemoryPolicy>& line(std::int32_t l) const {
    return space_.policies[static_cast<std::size_t>(l)];
  }
  Choice choice(Place p) const {
    return {prices_.chunks(p.layout)[static_cast<std::size_t>(p.chunks)],
            line(p.line)[static_cast<std::size_t>(p.depth)]};
  }
  bool host_fits(const Layout& layout, const Choice& choice, const CandidateCosts& units) const;
  CandidateCosts prices(Place p);
  double quick(Place p);
  // No more than quick() of the place under any chunks.
  double quick_of_layout(Place p);
  KnownProbes& known_probes(Place p);
  Bytes memory(Place p);
  const Trial& replay(Place p);
  std::optional<std::pair<Bytes, Place>> smallest_place(const Subspace& family);
  Trial short_replay(Place p);
  Trial replayed(const Plan& plan) const;
  // Depths of a line that a search may use: from 0 on to before `end`; under a family that fixes
  // the depth, that one alone.
  struct Depths {
    std::int32_t begin = 0, end = 0;
    bool none() const { return begin >= end; }
  };
  Depths depths_of(const Subspace& family, std::int32_t layout, std::int32_t line);
  // Of a layout and a line: depths whose state and host memory fit; none where the state does not.
  std::int32_t open_depths(std::int32_t layout, std::int32_t line);
  std::vector<Node> nodes(const Subspace& family);
  // Pops one node: gives it the depth of recompute that it needs to fit, a tighter bound, or a
  // replay, which is returned. Fewer layers run again are never slower, nor is less on the host, so
  // of candidates that differ in nothing else only the first that fits can be the best; the lines
  // after the first are looked at where its first depth does not fit. With `missed`, what replays
  // took beyond the bound of memory, depths that will hardly fit are skipped: quicker, not exact.
  const Trial* advance(Queue& queue, const Subspace& family, Bytes* missed);
  std::int32_t depth_that_fits(Place place, std::int32_t last, Bytes extra);
  // Of each set of layouts that differ only in how parameters are sharded, the one that holds
  // least.
  std::vector<std::int32_t> lightest(const Subspace& family);
  // Of a family's lines the last for each place of moments, and of each the last depth that the
  // host holds (with `any_host`, the last).
  std::vector<std::pair<std::int32_t, std::int32_t>> deepest_of(const Subspace& family,
                                                                std::int32_t layout, bool any_host);
  void count_unfit_states();
  bool may_fit();
  // Whether run() ends here for want of time: not before there is a plan, for which it dives once.
  bool out_of_time();
  void push(Queue& queue, Place place);
  void push_deeper(Queue& queue, Place place, std::int32_t depth, std::int32_t end);
  void push_chunks(Queue& queue, Place place, const Subspace& family);
  void push_lines(Queue& queue, Place place, const Subspace& family);
  bool dominated(Place p);

  const Request& request_;
  Space space_;
  Costs costs_;
  SpacePrices prices_;
  Footprints footprints_;
  std::vector<std::vector<KnownProbes>> probes_;  // by kind of layout and what is sharded; chunks
  std::vector<Trial> trials_;
  std::map<Place, std::size_t> tried_;
  // Choices that fit, by layout and prefetch depth.
  std::map<std::pair<std::int32_t, std::int64_t>, std::vector<Place>> fitting_;
  std::vector<std::vector<std::int32_t>> open_;  // by layout and line, once asked for
  std::vector<Node> shallow_;  // all layouts, at the first line and depth that is open
  std::optional<Trial> best_;
  double bound_remaining_ = 0;
  std::int64_t bounded_ = 0, unfit_ = 0, host_unfit_ = 0;
  bool counts_ = false;  // while run() counts: what explains comes later
  bool stopped_ = false, dived_ = false;
};

}  // namespace orrery::planner
