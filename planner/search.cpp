// The search. Recompute depth is not branched on: the shallowest that fits is looked for.
#include "planner/search.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "core/check.h"
#include "core/program/lower.h"
#include "simulator/simulator.h"

namespace orrery::planner {
namespace {

// Replays in search of the least memory, and of those how many of one micro-batch and ep: within
// such a group the bound orders well, between groups it does not see how unevenly experts are
// loaded.
constexpr int kSmallestReplays = 16;
constexpr int kSmallestOfGroup = 1;
// Replays of a family before the bound of its next member is taken to be out of reach.
constexpr int kFamilyReplays = 8;

Seconds mean(const simulator::Simulation& s, Seconds simulator::Breakdown::*part) {
  Seconds sum(0);
  for (const simulator::Breakdown& b : s.ranks) sum += b.*part;
  return sum * (1 / static_cast<double>(s.ranks.size()));
}

}  // namespace

Bytes usable_memory(const Cluster& cluster) {
  return cluster.device.memory - cluster.device.reserved;
}

Search::Search(const Request& request, Space space)
    : request_(request),
      space_(std::move(space)),
      costs_(request.model, request.cluster, request.workload),
      footprints_(costs_) {}

CandidateCosts Search::prices(Place p) {
  const Layout& l = layout(p);
  const Chunks& chunks = choice(p).chunks;
  const bool chunked = costs_.chunked(l, chunks);
  auto found = layout_prices_.find({p.layout, chunked});
  if (found == layout_prices_.end()) {
    found =
        layout_prices_.emplace(std::make_pair(p.layout, chunked), costs_.layout_costs(l, chunked))
            .first;
  }
  CandidateCosts c = found->second;
  c.block = &costs_.block_costs(l, chunks);
  return c;
}

double Search::quick(Place p) {
  return quick_bound(costs_, layout(p), choice(p), prices(p));
}

Bytes Search::state(const Layout& l) {
  return footprints_.state(l, costs_.all_unit_costs(l, false));
}

Bytes Search::memory(Place p) {
  const Layout& l = layout(p);
  const Choice c = choice(p);
  return footprints_.least(l, c, costs_.all_unit_costs(l, costs_.chunked(l, c.chunks)));
}

Plan Search::plan_of(const Layout& l, const Choice& c) const {
  Plan plan;
  plan.model = request_.model;
  plan.cluster = request_.cluster;
  plan.workload = request_.workload;
  plan.layout = l;
  plan.chunks = c.chunks;
  plan.policy = c.policy;
  plan.sha256 = plan_sha256(plan);
  return plan;
}

const Trial& Search::replay(Place p) {
  const auto known = tried_.find(p);
  if (known != tried_.end()) return trials_[known->second];
  Trial t;
  t.place = p;
  t.layout = layout(p);
  t.choice = choice(p);
  const Plan plan = plan_of(t.layout, t.choice);
  simulator::Options options;
  options.events = options.document_cost = false;
  const auto simulated = simulator::simulate(plan, lower(plan), options);
  CHECK(simulated.ok(), "a legal plan that cannot be simulated: " + simulated.error().text());
  const simulator::Simulation& s = simulated.value();
  t.predicted = s.prediction;
  t.step = s.step;
  t.fits = s.peak <= usable_memory(request_.cluster);
  t.compute = mean(s, &simulator::Breakdown::compute);
  t.exposed = mean(s, &simulator::Breakdown::exposed);
  t.idle = mean(s, &simulator::Breakdown::idle);
  t.recompute = to_seconds(Nanoseconds(
      static_cast<std::int64_t>(recompute_time(costs_, t.layout, t.choice, prices(p)))));
  tried_[p] = trials_.size();
  trials_.push_back(std::move(t));
  const Trial& done = trials_.back();
  if (done.fits) {
    fitting_[{p.layout, done.choice.chunks.prefetch_depth}].push_back(p);
    if (!best_ || std::make_pair(done.step, p) < std::make_pair(best_->step, best_->place)) {
      best_ = done;
    }
  }
  return done;
}

// True where a choice that fits does the same ops, each in no more time: fewer layers again, larger
// chunks. Such a choice cannot be slower.
bool Search::dominated(Place p) {
  const auto group = fitting_.find({p.layout, choice(p).chunks.prefetch_depth});
  if (group == fitting_.end()) return false;
  const CandidateCosts own = prices(p);
  return std::any_of(group->second.begin(), group->second.end(), [&](Place q) {
    const CandidateCosts other = prices(q);
    return q.recompute <= p.recompute && other.block->loss <= own.block->loss &&
           other.head.reduce <= own.head.reduce &&
           other.block->attention_fwd <= own.block->attention_fwd &&
           other.block->attention_bwd <= own.block->attention_bwd;
  });
}

std::int32_t Search::deepest(const Subspace& family) const {
  const auto all = static_cast<std::int32_t>(space_.recompute.size());
  if (!family.recompute) return all - 1;
  for (std::int32_t r = 0; r < all; ++r) {
    if (space_.recompute[static_cast<std::size_t>(r)] == *family.recompute) return r;
  }
  return -1;
}

std::vector<Search::Node> Search::nodes(const Subspace& family) {
  if (shallow_.empty()) {
    for (std::size_t l = 0; l < space_.layouts.size(); ++l) {
      if (state(space_.layouts[l]) > usable_memory(request_.cluster)) continue;
      const std::size_t chunks = space_.chunks.at(space_.layouts[l].micro_batch).size();
      for (std::size_t c = 0; c < chunks; ++c) {
        const Place p{0, static_cast<std::int32_t>(l), static_cast<std::int32_t>(c)};
        shallow_.push_back({quick(p), p, false});
      }
    }
  }
  std::vector<Node> all;
  const std::int32_t fixed = family.recompute ? deepest(family) : 0;
  if (fixed < 0) return all;
  for (Node n : shallow_) {
    if (family.member && !family.member(layout(n.place))) continue;
    n.place.recompute = fixed;
    if (fixed > 0) n.key = quick(n.place);
    all.push_back(n);
  }
  return all;
}

// The first depth after `from` whose bound of memory leaves room for `extra`; -1: none. Memory
// falls with every layer run again, but for the last, whose forward tape would go at once.
std::int32_t Search::depth_that_fits(Place place, std::int32_t last, Bytes extra) {
  const Bytes usable = usable_memory(request_.cluster) - extra;
  const auto may_fit = [&](std::int32_t depth) {
    place.recompute = depth;
    return memory(place) <= usable;
  };
  std::int32_t low = place.recompute;
  if (low >= last) return -1;
  std::int32_t high = may_fit(last) ? last : (last - 1 > low && may_fit(last - 1) ? last - 1 : -1);
  while (high - low > 1) {
    const std::int32_t middle = low + (high - low) / 2;
    (may_fit(middle) ? high : low) = middle;
  }
  return high;
}

std::int64_t Search::depths_between(Place place, std::int32_t depth) const {
  const auto all = static_cast<std::int64_t>(space_.recompute.size());
  return (depth < 0 ? all : depth) - place.recompute;
}

void Search::count_unfit_states() {
  const auto depths = static_cast<std::int64_t>(space_.recompute.size());
  for (const Layout& l : space_.layouts) {
    if (state(l) <= usable_memory(request_.cluster)) continue;
    unfit_ += static_cast<std::int64_t>(space_.chunks.at(l.micro_batch).size()) * depths;
  }
}

void Search::push_deeper(Queue& queue, Place place, std::int32_t depth) {
  if (counts_) unfit_ += depths_between(place, depth);
  if (depth < 0) return;
  if (counts_) ++bounded_;
  place.recompute = depth;
  queue.push({quick(place), place, false});
}

const Trial* Search::advance(Queue& queue, std::int32_t last, Bytes* missed) {
  const Node node = queue.top();
  queue.pop();
  if (missed == nullptr && dominated(node.place)) return nullptr;
  const Bytes extra = missed == nullptr ? Bytes(0) : *missed;
  const bool may_fit = memory(node.place) <= usable_memory(request_.cluster) - extra;
  if (node.walked && may_fit) {
    const Trial& t = replay(node.place);
    if (t.fits || node.place.recompute >= last) {
      if (counts_ && !t.fits) ++unfit_;
      return &t;
    }
    if (missed == nullptr) {
      push_deeper(queue, node.place, node.place.recompute + 1);
    } else {
      *missed = std::max(*missed, t.predicted.peak - memory(node.place));
      push_deeper(queue, node.place, depth_that_fits(node.place, last, *missed));
    }
    return &t;
  }
  if (!may_fit) {
    push_deeper(queue, node.place, depth_that_fits(node.place, last, extra));
    return nullptr;
  }
  const double walked = bound(costs_, layout(node.place), choice(node.place), prices(node.place));
  queue.push({std::max(walked, node.key), node.place, true});
  return nullptr;
}

void Search::run() {
  Queue queue(std::greater<>(), nodes({}));
  bound_remaining_ = std::numeric_limits<double>::infinity();
  const auto all = static_cast<std::int64_t>(queue.size());
  std::int64_t done = 0;
  bounded_ = all;
  count_unfit_states();
  counts_ = true;
  while (!queue.empty()) {
    if (best_ && queue.top().key >= static_cast<double>(best_->step.value())) {
      bound_remaining_ = queue.top().key;
      break;
    }
    if (request_.progress && ++done % 1024 == 0) request_.progress(done, std::max(done, all));
    advance(queue, deepest({}), nullptr);
  }
  counts_ = false;
}

bool Search::state_fits() {
  return std::any_of(space_.layouts.begin(), space_.layouts.end(),
                     [&](const Layout& l) { return state(l) <= usable_memory(request_.cluster); });
}

std::optional<Trial> Search::best_of(const Subspace& family) {
  Queue queue(std::greater<>(), nodes(family));
  const std::int32_t last = deepest(family);
  Bytes missed(0);
  for (int replays = 0; !queue.empty() && replays < kFamilyReplays;) {
    const Trial* t = advance(queue, last, &missed);
    if (t == nullptr) continue;
    if (t->fits) return *t;
    ++replays;
  }
  return std::nullopt;
}

std::optional<Trial> Search::smallest_of(const Subspace& family) {
  const std::int32_t depth = deepest(family);
  if (depth < 0) return std::nullopt;
  std::vector<std::int64_t> states;
  for (const Layout& l : space_.layouts) states.push_back(state(l).value());
  // Where no state fits, those that hold little more than the least, step gradients aside.
  const std::int64_t least_state = *std::min_element(states.begin(), states.end());
  const std::int64_t limit =
      std::max(usable_memory(request_.cluster).value(), least_state + least_state / 2);
  std::vector<std::pair<std::int64_t, Place>> all;
  for (std::size_t l = 0; l < states.size(); ++l) {
    const Layout& layout = space_.layouts[l];
    if (states[l] > limit || (family.member && !family.member(layout))) continue;
    for (std::size_t c = 0; c < space_.chunks.at(layout.micro_batch).size(); ++c) {
      const Place p{depth, static_cast<std::int32_t>(l), static_cast<std::int32_t>(c)};
      all.emplace_back(memory(p).value(), p);
    }
  }
  std::sort(all.begin(), all.end());
  std::optional<Trial> found;
  std::map<std::pair<std::int64_t, std::int64_t>, int> groups;
  std::int64_t previous = -1;
  int replays = 0;
  for (const auto& [bytes, place] : all) {
    if (found && (bytes >= found->predicted.peak.value() || replays >= kSmallestReplays)) break;
    if (bytes == previous) continue;  // the same memory in another order of ranks
    previous = bytes;
    if (groups[{layout(place).micro_batch, layout(place).ep}]++ >= kSmallestOfGroup) continue;
    ++replays;
    const Trial& t = replay(place);
    if (!found || t.predicted.peak < found->predicted.peak) found = t;
  }
  return found;
}

}  // namespace orrery::planner
