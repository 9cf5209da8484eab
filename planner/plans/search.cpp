// The search. Recompute depth is not branched on: the shallowest that fits is looked for.
#include "planner/plans/search.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <set>

#include "core/check.h"
#include "core/program/lower.h"
#include "simulator/simulator.h"

namespace orrery::planner {
namespace {

// Replays in search of the least memory, and ops of replays after which no more begin beyond these.
constexpr int kSmallestReplays = 16;
constexpr std::int64_t kSmallestOps = 100'000;
// Passes of a step that show its peak: gradients are there from the second on.
constexpr std::int64_t kShortPasses = 2;
// Replays of a family before the bound of its next member is taken to be out of reach.
constexpr int kFamilyReplays = 8;

Seconds mean(const simulator::Simulation& s, Seconds simulator::Breakdown::*part) {
  Seconds sum(0);
  for (const simulator::Breakdown& b : s.ranks) sum += b.*part;
  return sum * (1 / static_cast<double>(s.ranks.size()));
}

// Chunks of no rows are the whole.
std::int64_t rows_of(std::int64_t chunk) {
  return chunk > 0 ? chunk : std::numeric_limits<std::int64_t>::max();
}

// Of a family's chunks those that hold least: gathered as late, and attention cut as small, as may
// be; the loss cut as small as may be, or whole, which may give its gradient a smaller dtype.
std::vector<std::int32_t> smallest_chunks(const Subspace& family, const std::vector<Chunks>& all) {
  Chunks least;
  least.prefetch_depth = least.attention_query = least.loss_tokens =
      std::numeric_limits<std::int64_t>::max();
  std::vector<std::int32_t> allowed, out;
  for (std::size_t c = 0; c < all.size(); ++c) {
    if (family.chunked && !family.chunked(all[c])) continue;
    allowed.push_back(static_cast<std::int32_t>(c));
    least.prefetch_depth = std::min(least.prefetch_depth, all[c].prefetch_depth);
    least.attention_query = std::min(least.attention_query, rows_of(all[c].attention_query));
    least.loss_tokens = std::min(least.loss_tokens, rows_of(all[c].loss_tokens));
  }
  for (const std::int32_t i : allowed) {
    const Chunks& c = all[static_cast<std::size_t>(i)];
    if (c.prefetch_depth == least.prefetch_depth &&
        rows_of(c.attention_query) == least.attention_query &&
        (c.loss_tokens == 0 || c.loss_tokens == least.loss_tokens)) {
      out.push_back(i);
    }
  }
  return out;
}

}  // namespace

Bytes usable_memory(const Cluster& cluster) {
  return cluster.device.memory - cluster.device.reserved;
}

Bytes host_bytes(const Cluster& cluster, Bytes rank) {
  const std::int64_t ranks = std::min(cluster.devices, cluster.devices_per_node);
  return Bytes(rank.value() * std::max<std::int64_t>(1, ranks));
}

Search::Search(const Request& request, Space space)
    : request_(request),
      space_(std::move(space)),
      costs_(request.model, request.cluster, request.workload),
      prices_(costs_, space_),
      footprints_(costs_, request.probes) {}

double Search::quick_of_layout(Place p) {
  p.chunks = 0;
  const auto last = static_cast<std::int32_t>(prices_.chunks(p.layout).size()) - 1;
  const auto bounded = [&](bool chunked) {
    CandidateCosts c = prices_.routed(p.layout, chunked);
    c.block = &prices_.least_blocks(p.layout);
    return quick_bound(costs_, layout(p), choice(p), c);
  };
  const bool chunked = prices_.loss_chunked(p.layout, 0);
  const double least = bounded(chunked);
  // The gradient of the head has another dtype where the loss runs in chunks.
  if (prices_.loss_chunked(p.layout, last) == chunked) return least;
  return std::min(least, bounded(!chunked));
}

CandidateCosts Search::prices(Place p) {
  return prices_.candidate(p.layout, p.chunks);
}

double Search::quick(Place p) {
  return quick_bound(costs_, layout(p), choice(p), prices(p));
}

KnownProbes& Search::known_probes(Place p) {
  const Layout& l = layout(p);
  const std::size_t sharded = (l.fsdp_d > 1 ? 2U : 0U) + (l.fsdp_e > 1 ? 1U : 0U);
  if (probes_.empty()) probes_.resize(4 * prices_.kinds());
  std::vector<KnownProbes>& by_chunks = probes_[4 * prices_.kind_of(p.layout) + sharded];
  if (by_chunks.empty()) by_chunks.resize(prices_.chunks(p.layout).size());
  return by_chunks[static_cast<std::size_t>(p.chunks)];
}

Bytes Search::memory(Place p) {
  const bool chunked = prices_.loss_chunked(p.layout, p.chunks);
  return footprints_.least(layout(p), choice(p), prices_.units(p.layout, chunked), known_probes(p));
}

Bytes Search::memory_of(const Layout& l, const Choice& c) {
  return footprints_.least(l, c, costs_.all_unit_costs(l, c.chunks));
}

bool Search::host_fits(const Layout& l, const Choice& c) {
  return host_fits(l, c, costs_.all_unit_costs(l, c.chunks));
}

bool Search::host_fits(const Layout& l, const Choice& c, const CandidateCosts& units) const {
  const Cluster& cluster = request_.cluster;
  if (cluster.host_memory.value() == 0 || (c.policy.swap_layers == 0 && !c.policy.host_optimizer)) {
    return true;
  }
  return host_bytes(cluster, footprints_.host(l, c, units)) <= cluster.host_memory;
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

Trial Search::replay_of(const Layout& l, const Choice& c) {
  Trial t = replayed(plan_of(l, c));
  t.recompute = to_seconds(Nanoseconds(
      static_cast<std::int64_t>(recompute_time(costs_, l, c, costs_.candidate(l, c.chunks)))));
  return t;
}

Trial Search::replayed(const Plan& plan) const {
  Trial t;
  t.layout = plan.layout;
  t.choice = {plan.chunks, plan.policy};
  simulator::Options options;
  options.events = options.document_cost = false;
  const Program program = lower(plan);
  const auto simulated = simulator::simulate(plan, program, options);
  CHECK(simulated.ok(), "a legal plan that cannot be simulated: " + simulated.error().text());
  const simulator::Simulation& s = simulated.value();
  const Cluster& cluster = request_.cluster;
  t.predicted = s.prediction;
  t.step = s.step;
  t.ops = static_cast<std::int64_t>(program.roles[0].ops.size() * s.ranks.size());
  t.host_peak = s.host_peak;
  t.fits =
      s.peak <= usable_memory(cluster) &&
      (cluster.host_memory.value() == 0 || host_bytes(cluster, s.host_peak) <= cluster.host_memory);
  t.compute = mean(s, &simulator::Breakdown::compute);
  t.exposed = mean(s, &simulator::Breakdown::exposed);
  t.idle = mean(s, &simulator::Breakdown::idle);
  return t;
}

const Trial& Search::replay(Place p) {
  const auto known = tried_.find(p);
  if (known != tried_.end()) return trials_[known->second];
  Trial t = replay_of(layout(p), choice(p));
  t.place = p;
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
// chunks, less on the host. Such a choice cannot be slower.
bool Search::dominated(Place p) {
  const Choice mine = choice(p);
  const auto group = fitting_.find({p.layout, mine.chunks.prefetch_depth});
  if (group == fitting_.end()) return false;
  const CandidateCosts own = prices(p);
  return std::any_of(group->second.begin(), group->second.end(), [&](Place q) {
    const MemoryPolicy policy = choice(q).policy;
    const CandidateCosts other = prices(q);
    return policy.recompute_layers <= mine.policy.recompute_layers &&
           policy.swap_layers <= mine.policy.swap_layers &&
           policy.host_optimizer <= mine.policy.host_optimizer &&
           other.block->loss <= own.block->loss && other.head.reduce <= own.head.reduce &&
           other.block->attend_fwd() <= own.block->attend_fwd() &&
           other.block->attend_bwd() <= own.block->attend_bwd();
  });
}

std::int32_t Search::open_depths(std::int32_t l, std::int32_t lane) {
  if (open_.empty()) open_.resize(space_.layouts.size());
  std::vector<std::int32_t>& open = open_[static_cast<std::size_t>(l)];
  if (!open.empty()) return open[static_cast<std::size_t>(lane)];
  const Layout& layout = space_.layouts[static_cast<std::size_t>(l)];
  const Chunks& chunks = prices_.chunks(l).front();
  const CandidateCosts& units = prices_.units(l, prices_.loss_chunked(l, 0));
  for (const std::vector<MemoryPolicy>& policies : space_.policies) {
    if (footprints_.state(layout, policies.front(), units) > usable_memory(request_.cluster)) {
      open.push_back(0);
      continue;
    }
    // What is swapped rises with the depth.
    const auto end =
        std::partition_point(policies.begin(), policies.end(), [&](const MemoryPolicy& p) {
          return host_fits(layout, {chunks, p}, units);
        });
    open.push_back(static_cast<std::int32_t>(end - policies.begin()));
  }
  return open[static_cast<std::size_t>(lane)];
}

Search::Depths Search::depths_of(const Subspace& family, std::int32_t layout, std::int32_t lane) {
  const std::vector<MemoryPolicy>& policies = line(lane);
  if (family.policy && !family.policy(policies.front())) return {};
  const std::int32_t open = open_depths(layout, lane);
  if (!family.recompute) return {0, open};
  for (std::int32_t d = 0; d < open; ++d) {
    if (policies[static_cast<std::size_t>(d)].recompute_layers == *family.recompute) {
      return {d, d + 1};
    }
  }
  return {};
}

std::vector<Search::Node> Search::nodes(const Subspace& family) {
  const auto lines = static_cast<std::int32_t>(space_.policies.size());
  const auto first_of = [&](const Subspace& f, Place& p) {
    for (p.line = 0; p.line < lines; ++p.line) {
      const Depths depths = depths_of(f, p.layout, p.line);
      p.depth = depths.begin;
      if (!depths.none()) return true;
    }
    return false;
  };
  if (shallow_.empty()) {
    for (std::size_t l = 0; l < space_.layouts.size(); ++l) {
      Place p;
      p.layout = static_cast<std::int32_t>(l);
      if (!first_of({}, p)) continue;
      p.chunks = -1;
      shallow_.push_back({quick_of_layout(p), p, false});
    }
  }
  std::vector<Node> all;
  for (Node n : shallow_) {
    if (family.member && !family.member(layout(n.place))) continue;
    const Place shallow = n.place;
    if ((family.policy || family.recompute) && !first_of(family, n.place)) continue;
    if (n.place != shallow) n.key = quick_of_layout(n.place);
    all.push_back(n);
  }
  return all;
}

// The first depth after `from` whose bound of memory leaves room for `extra`; -1: none. Memory
// falls with every layer run again, but for the last, whose forward tape would go at once.
std::int32_t Search::depth_that_fits(Place place, std::int32_t last, Bytes extra) {
  const Bytes usable = usable_memory(request_.cluster) - extra;
  const auto may_fit = [&](std::int32_t depth) {
    place.depth = depth;
    return memory(place) <= usable;
  };
  std::int32_t low = place.depth;
  if (low >= last) return -1;
  std::int32_t high = may_fit(last) ? last : (last - 1 > low && may_fit(last - 1) ? last - 1 : -1);
  while (high - low > 1) {
    const std::int32_t middle = low + (high - low) / 2;
    (may_fit(middle) ? high : low) = middle;
  }
  return high;
}

void Search::count_unfit_states() {
  const auto lines = static_cast<std::int32_t>(space_.policies.size());
  for (std::size_t l = 0; l < space_.layouts.size(); ++l) {
    const Layout& layout = space_.layouts[l];
    const auto chunks = static_cast<std::int64_t>(space_.chunks_of(layout).size());
    for (std::int32_t k = 0; k < lines; ++k) {
      const auto all = static_cast<std::int64_t>(line(k).size());
      const std::int64_t open = open_depths(static_cast<std::int32_t>(l), k);
      if (open == all) continue;
      const Choice last = {space_.chunks_of(layout).front(), line(k).back()};
      (host_fits(layout, last) ? unfit_ : host_unfit_) += chunks * (all - open);
    }
  }
}

void Search::push(Queue& queue, Place place) {
  if (counts_) ++bounded_;
  queue.push({quick(place), place, false});
}

// The bound of the layout was that of all its chunks: none counts again.
void Search::push_chunks(Queue& queue, Place place, const Subspace& family) {
  const std::vector<Chunks>& all = space_.chunks_of(layout(place));
  for (std::size_t c = 0; c < all.size(); ++c) {
    if (family.chunked && !family.chunked(all[c])) continue;
    place.chunks = static_cast<std::int32_t>(c);
    queue.push({quick(place), place, false});
  }
}

// On to `depth`; where that is -1, none before `end` fits.
void Search::push_deeper(Queue& queue, Place place, std::int32_t depth, std::int32_t end) {
  if (counts_) unfit_ += (depth < 0 ? end : depth) - place.depth;
  if (depth < 0) return;
  place.depth = depth;
  push(queue, place);
}

// The other lines of a place that does not fit, if it is the first of its layout and chunks.
void Search::push_lines(Queue& queue, Place place, const Subspace& family) {
  for (std::int32_t k = 0; k <= place.line; ++k) {
    const Depths depths = depths_of(family, place.layout, k);
    if (!depths.none() && (k < place.line || depths.begin < place.depth)) return;
  }
  const auto lines = static_cast<std::int32_t>(space_.policies.size());
  for (std::int32_t k = place.line + 1; k < lines; ++k) {
    const Depths depths = depths_of(family, place.layout, k);
    if (depths.none()) continue;
    push(queue, {k, depths.begin, place.layout, place.chunks});
  }
}

const Trial* Search::advance(Queue& queue, const Subspace& family, Bytes* missed) {
  const Node node = queue.top();
  queue.pop();
  if (node.place.chunks < 0) {
    push_chunks(queue, node.place, family);
    return nullptr;
  }
  if (missed == nullptr && dominated(node.place)) return nullptr;
  const Bytes extra = missed == nullptr ? Bytes(0) : *missed;
  const std::int32_t end = depths_of(family, node.place.layout, node.place.line).end;
  const bool may_fit = memory(node.place) <= usable_memory(request_.cluster) - extra;
  if (node.walked && may_fit) {
    const Trial& t = replay(node.place);
    if (t.fits) return &t;
    push_lines(queue, node.place, family);
    if (missed == nullptr) {
      const std::int32_t next = node.place.depth + 1;
      push_deeper(queue, node.place, next < end ? next : -1, end);
    } else {
      *missed = std::max(*missed, t.predicted.peak - memory(node.place));
      push_deeper(queue, node.place, depth_that_fits(node.place, end - 1, *missed), end);
    }
    return &t;
  }
  if (!may_fit) {
    push_lines(queue, node.place, family);
    push_deeper(queue, node.place, depth_that_fits(node.place, end - 1, extra), end);
    return nullptr;
  }
  const double walked = bound(costs_, layout(node.place), choice(node.place), prices(node.place));
  queue.push({std::max(walked, node.key), node.place, true});
  return nullptr;
}

bool Search::stopped() {
  if (!stopped_ && request_.stop) stopped_ = request_.stop();
  return stopped_;
}

bool Search::out_of_time() {
  if (!stopped()) return false;
  if (!best_ && !dived_) {
    dived_ = true;
    counts_ = false;
    best_of({});
    counts_ = true;
  }
  return best_.has_value();
}

void Search::run(std::int64_t most_steps) {
  Queue queue(std::greater<>(), nodes({}));
  bound_remaining_ = std::numeric_limits<double>::infinity();
  const auto all = static_cast<std::int64_t>(queue.size());
  std::int64_t done = 0;
  for (const Node& n : shallow_) {
    bounded_ += static_cast<std::int64_t>(space_.chunks_of(layout(n.place)).size());
  }
  count_unfit_states();
  if (!may_fit()) {
    unfit_ = space_.legal - host_unfit_;
    return;
  }
  counts_ = true;
  while (!queue.empty()) {
    if (best_ && queue.top().key >= static_cast<double>(best_->step.value())) {
      bound_remaining_ = queue.top().key;
      break;
    }
    if (++done > most_steps || out_of_time()) {  // what is left is bounded by the first of it
      bound_remaining_ = queue.top().key;
      break;
    }
    if (request_.progress && done % 1024 == 0) request_.progress(done, std::max(done, all));
    advance(queue, {}, nullptr);
  }
  counts_ = false;
}

// False only where the bound of memory alone rules out every candidate: of each layout that holds
// least of its kind, under the chunks that hold least, the deepest policy of each line, or the one
// before it (see depth_that_fits).
bool Search::may_fit() {
  const Bytes usable = usable_memory(request_.cluster);
  for (const std::int32_t l : lightest({})) {
    const std::vector<std::int32_t> chunks =
        smallest_chunks({}, space_.chunks_of(space_.layouts[static_cast<std::size_t>(l)]));
    for (std::size_t k = 0; k < space_.policies.size(); ++k) {
      const std::int32_t open = open_depths(l, static_cast<std::int32_t>(k));
      for (std::int32_t d = std::max(0, open - 2); d < open; ++d) {
        for (const std::int32_t c : chunks) {
          if (memory({static_cast<std::int32_t>(k), d, l, c}) <= usable) return true;
        }
      }
    }
  }
  return false;
}

bool Search::state_fits() {
  for (std::size_t l = 0; l < space_.layouts.size(); ++l) {
    for (std::size_t k = 0; k < space_.policies.size(); ++k) {
      if (open_depths(static_cast<std::int32_t>(l), static_cast<std::int32_t>(k)) > 0) return true;
    }
  }
  return false;
}

std::optional<Trial> Search::best_of(const Subspace& family) {
  Queue queue(std::greater<>(), nodes(family));
  Bytes missed(0);
  for (int replays = 0; !queue.empty() && replays < kFamilyReplays;) {
    const Trial* t = advance(queue, family, &missed);
    if (t == nullptr) continue;
    if (t->fits) return *t;
    ++replays;
  }
  return std::nullopt;
}

// Of the lines of one place for moments, the last asks least of the device.
std::vector<std::pair<std::int32_t, std::int32_t>> Search::deepest_of(const Subspace& family,
                                                                      std::int32_t l,
                                                                      bool any_host) {
  const Layout& layout = space_.layouts[static_cast<std::size_t>(l)];
  const Chunks& chunks = prices_.chunks(l).front();
  const CandidateCosts& units = prices_.units(l, prices_.loss_chunked(l, 0));
  std::array<std::pair<std::int32_t, std::int32_t>, 2> by_host = {{{-1, -1}, {-1, -1}}};
  for (std::size_t k = 0; k < space_.policies.size(); ++k) {
    const std::vector<MemoryPolicy>& policies = space_.policies[k];
    if (family.policy && !family.policy(policies.front())) continue;
    const bool blind = policies.back().swap_layers > 0 && !footprints_.bounds_swap();
    if (blind && by_host[policies.front().host_optimizer ? 1 : 0].first >= 0) continue;
    for (std::size_t d = policies.size(); d-- > 0;) {
      if (family.recompute && policies[d].recompute_layers != *family.recompute) continue;
      if (!any_host && !host_fits(layout, {chunks, policies[d]}, units)) continue;
      by_host[policies[d].host_optimizer ? 1 : 0] = {static_cast<std::int32_t>(k),
                                                     static_cast<std::int32_t>(d)};
      break;
    }
  }
  std::vector<std::pair<std::int32_t, std::int32_t>> out;
  for (const auto& place : by_host) {
    if (place.first >= 0) out.push_back(place);
  }
  return out;
}

std::vector<std::int32_t> Search::lightest(const Subspace& family) {
  // Of the candidates of one key, only state differs: by micro-batch, sp, ep, how often gradients
  // are summed, what is sharded at all, and the dispatcher.
  std::map<std::vector<std::int64_t>, std::pair<std::int64_t, std::int32_t>> least;
  MemoryPolicy policy;
  for (std::size_t i = 0; i < space_.layouts.size(); ++i) {
    const Layout& l = space_.layouts[i];
    if (family.member && !family.member(l)) continue;
    const auto index = static_cast<std::int32_t>(i);
    const CandidateCosts& units = prices_.units(index, prices_.loss_chunked(index, 0));
    const std::pair<std::int64_t, std::int32_t> mine = {footprints_.state(l, policy, units).value(),
                                                        static_cast<std::int32_t>(i)};
    const std::vector<std::int64_t> key = {l.micro_batch,  l.sp,         l.ep,
                                           l.accumulation, l.fsdp_d > 1, l.fsdp_e > 1};
    const auto [at, fresh] = least.emplace(key, mine);
    if (!fresh) at->second = std::min(at->second, mine);
  }
  std::vector<std::int32_t> out;
  for (const auto& [key, light] : least) out.push_back(light.second);
  return out;
}

std::optional<Trial> Search::smallest_of(const Subspace& family) {
  const auto found = smallest_place(family);
  if (!found) return std::nullopt;
  return replay(found->second);
}

bool Search::smallest_fits() {
  const auto found = smallest_place({});
  return found && found->first <= usable_memory(request_.cluster) &&
         host_fits(layout(found->second), choice(found->second));
}

std::optional<std::pair<Bytes, Place>> Search::smallest_place(const Subspace& family) {
  struct Small {
    std::int64_t bytes;
    Place place;
    auto operator<=>(const Small&) const = default;
  };
  std::vector<Small> all;
  const std::vector<std::int32_t> layouts = lightest(family);
  const auto collect = [&](bool any_host) {
    for (const std::int32_t l : layouts) {
      const std::vector<std::int32_t> chunks =
          smallest_chunks(family, space_.chunks_of(space_.layouts[static_cast<std::size_t>(l)]));
      for (const auto& [k, d] : deepest_of(family, l, any_host)) {
        for (const std::int32_t c : chunks) {
          const Place p{k, d, l, c};
          all.push_back({memory(p).value(), p});
        }
      }
    }
  };
  collect(false);
  if (all.empty()) collect(true);  // pinned to the host, which holds none of them
  std::sort(all.begin(), all.end());
  // One of each micro-batch, sp and ep first: within such a group the bound orders well, between
  // groups it does not see how unevenly experts are loaded.
  std::set<std::array<std::int64_t, 3>> groups;
  std::stable_partition(all.begin(), all.end(), [&](const Small& s) {
    const Layout& l = layout(s.place);
    return groups.insert({l.micro_batch, l.sp, l.ep}).second;
  });
  std::optional<std::pair<Bytes, Place>> found;
  std::int64_t replays = 0, ops = 0;
  for (const auto& [bytes, place] : all) {
    if (found && bytes >= found->first.value()) continue;
    if (replays++ >= kSmallestReplays && ops >= kSmallestOps) break;
    const Trial trial = short_replay(place);
    ops += trial.ops;
    if (!found || trial.predicted.peak < found->first) found = {trial.predicted.peak, place};
  }
  return found;
}

// A step of few passes: its peak is nearly that of many, for which loads are drawn more often.
Trial Search::short_replay(Place p) {
  if (layout(p).accumulation <= kShortPasses) return replay(p);
  return replayed(shortened(plan_of(layout(p), choice(p)), kShortPasses));
}

}  // namespace orrery::planner
