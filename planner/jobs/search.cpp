// Best first over blocks, rounds over threads. See search.h.
#include "planner/jobs/search.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <tuple>
#include <utility>

namespace orrery::planner::jobs {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr std::size_t kFirstRound = 8, kLargestRound = 256;
constexpr std::size_t kNoBlocks = std::numeric_limits<std::size_t>::max();

// The most bytes with which a job fits with the probability.
double most_bytes_of(double probability, double usable) {
  double low = usable * 1e-3, high = usable * 1e3;
  for (int i = 0; i < 200; ++i) {
    const double middle = std::sqrt(low * high);
    (simulator::probability_fits(middle, usable) >= probability ? low : high) = middle;
  }
  return high;
}

bool takes(const Family& family, const Block& block) {
  return !family.block || family.block(block);
}

}  // namespace

std::size_t threads_of(int threads) {
  if (threads > 0) return static_cast<std::size_t>(threads);
  return std::max(1U, std::thread::hardware_concurrency());
}

// One a thread.
struct Search::Worker {
  Worker(const Job& base, const Space& space, const UnitNumbers& units, const Shapes& shapes)
      : bound(base, space, units, shapes), job(base) {}
  Bound bound;
  Job job;  // that is predicted
  struct Open {
    double bound = 0;
    Member member;
  };
  std::vector<Open> open;
  std::vector<std::size_t> light;  // shardings whose states fit
};

struct Search::Expanded {
  std::optional<Member> best;
  double best_s = kNone, skipped = kNone;
  std::int64_t bounded = 0, replayed = 0;
};

struct Search::Running {
  std::vector<std::uint32_t> members;  // blocks of the family, from the least ideal bound on
  std::size_t at = 0;                  // the first that is not tightened
  std::vector<std::pair<double, std::uint32_t>> heap;  // tightened, not opened: the least on top
  std::size_t round = kFirstRound, opened = 0;
  double skipped = kNone;  // the least score of what was not predicted, at least

  double top() const { return heap.empty() ? kNone : heap.front().first; }
  void push(double bound, std::uint32_t block) {
    heap.emplace_back(bound, block);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  std::uint32_t pop() {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const std::uint32_t block = heap.back().second;
    heap.pop_back();
    return block;
  }
};

Search::Search(const Job& base, const Space& space, SearchRule rule)
    : base_(base),
      space_(space),
      rule_(std::move(rule)),
      units_(base),
      shapes_(base, space, units_),
      most_bytes_(most_bytes_of(rule_.probability_fits,
                                static_cast<double>(base.cluster.device.memory.value()))),
      crew_(threads_of(rule_.threads)) {
  for (std::size_t t = 0; t < crew_.size(); ++t) {
    workers_.push_back(std::make_unique<Worker>(base_, space_, units_, shapes_));
  }
  bound_blocks();
}

Search::~Search() = default;

// In parts of blocks that lie side by side and share prices, the parts in an order that jumps over
// the space: the first are of all kinds, and a search that may be told to stop looks at them first.
void Search::bound_blocks() {
  constexpr std::size_t kPart = 64, kFirstParts = 64, kJump = 7919;  // a prime
  constexpr std::size_t kFirstBlocks = 32;                           // of them opened
  const std::size_t blocks = space_.blocks.size(), parts = (blocks + kPart - 1) / kPart;
  const std::size_t jump = parts % kJump == 0 ? 1 : kJump;
  ideal_.assign(blocks, kNone);
  tight_.assign(blocks, 0);
  const auto bound = [&](std::size_t thread, std::size_t turn) {
    const std::size_t first = turn * jump % parts * kPart;
    for (std::size_t i = first; i < std::min(blocks, first + kPart); ++i) {
      ideal_[i] = least_seconds(*workers_[thread], space_.blocks[i], true);
    }
  };
  const std::size_t early = std::min(parts, kFirstParts);
  crew_.run(early, 1, bound);
  if (rule_.stop) {
    sort_blocks();
    seed_ = best_of({}, kFirstBlocks);
  }
  crew_.run(parts - early, 1, [&](std::size_t thread, std::size_t turn) {
    if (!stopped()) bound(thread, early + turn);
  });
  sort_blocks();
  all_bounded_ = order_.size() == blocks;
  bounded_ = static_cast<std::int64_t>(order_.size());
}

void Search::sort_blocks() {
  order_.clear();
  for (std::size_t i = 0; i < ideal_.size(); ++i) {
    if (ideal_[i] < kNone) order_.push_back(static_cast<std::uint32_t>(i));
  }
  std::sort(order_.begin(), order_.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::tuple(ideal_[a], a) < std::tuple(ideal_[b], b);
  });
}

bool Search::stopped() const {
  if (!stopped_ && rule_.stop && rule_.stop()) stopped_ = true;
  return stopped_;
}

double Search::score_of(const Job& job, const simulator::JobPrediction& p, double limit) const {
  return rule_.score == nullptr ? p.step.value() : rule_.score->of(job, p, limit);
}

double Search::least_score(double step) const {
  return rule_.score == nullptr ? step : step * rule_.score->least();
}

// `ideal`: whatever way layers are dealt out.
double Search::least_seconds(Worker& worker, const Block& block, bool ideal) const {
  Bound& bound = worker.bound;
  bound.enter(block);
  double least = kNone;
  for (const std::int64_t v :
       virtual_stages_of(base_, space_.choices, block.pp, bound.micro_batches())) {
    const auto schedules = schedules_of(space_.choices, block.pp, v, block.ep);
    if (ideal) {
      for (const PipelineSchedule schedule : schedules) {
        least = std::min(least, bound.ideal_seconds(v, schedule));
      }
      continue;
    }
    for (const PipelineSchedule schedule : schedules) {
      if (bound.ideal_seconds(v, schedule) >= least) continue;
      for (const Deal deal : deals_of(space_.choices.deal, base_.model.layers, block.pp * v)) {
        least = std::min(least, bound.floor_seconds(bound.line(v, 0, -1, deal), schedule));
      }
    }
  }
  return least;
}

// Members of the block whose score may be at most `limit` and whose memory may fit.
void Search::collect(Worker& worker, const Block& block, double limit, const Family& family,
                     Expanded& out) const {
  Bound& bound = worker.bound;
  const Choices& c = space_.choices;
  bound.enter(block);
  worker.open.clear();
  const auto add = [&](const Line& line, PipelineSchedule schedule) {
    const double floor = least_score(bound.floor_seconds(line, schedule));
    ++out.bounded;
    if (floor > limit) {
      out.skipped = std::min(out.skipped, floor);
      return;
    }
    for (const std::size_t s : worker.light) {
      const ShardingChoice& choice = bound.shardings()[s];
      const Member member{static_cast<std::int32_t>(line.virtual_stages),
                          static_cast<std::int32_t>(line.full_layers),
                          static_cast<std::int32_t>(choice.fsdp_d),
                          static_cast<std::uint8_t>(line.recompute),
                          schedule,
                          choice.sharding,
                          choice.keeps_gathered,
                          line.deal};
      if (family.member && !family.member(block, member)) continue;
      if (bound.bytes(line, schedule, s) > most_bytes_) continue;
      const double seconds = least_score(bound.seconds(line, schedule, s));
      ++out.bounded;
      if (seconds > limit) {
        out.skipped = std::min(out.skipped, seconds);
      } else {
        worker.open.push_back({seconds, member});
      }
    }
  };
  const auto left = [&](double score) {
    ++out.bounded;
    if (score <= limit) return false;
    out.skipped = std::min(out.skipped, score);
    return true;
  };
  for (const std::int64_t v : virtual_stages_of(base_, c, block.pp, bound.micro_batches())) {
    std::vector<PipelineSchedule> possible;
    for (const PipelineSchedule schedule : schedules_of(c, block.pp, v, block.ep)) {
      if (!left(least_score(bound.ideal_seconds(v, schedule)))) possible.push_back(schedule);
    }
    if (possible.empty()) continue;
    const std::vector<Deal> deals = deals_of(c.deal, base_.model.layers, block.pp * v);
    for (const Deal deal : deals) {
      if (bound.repeats(deals, v, deal)) continue;
      // What runs again only adds: schedules that are too slow without it are left.
      std::vector<PipelineSchedule> schedules;
      const Line plain = bound.line(v, 0, -1, deal);
      for (const PipelineSchedule schedule : possible) {
        if (!left(least_score(bound.floor_seconds(plain, schedule)))) schedules.push_back(schedule);
      }
      worker.light.clear();
      for (std::size_t s = 0; !schedules.empty() && s < bound.shardings().size(); ++s) {
        if (bound.state_bytes(v, deal, s) <= most_bytes_) worker.light.push_back(s);
      }
      for (std::size_t r = 0; !worker.light.empty() && r < c.recompute.size(); ++r) {
        for (const std::int64_t depth : depths_of(c, r, base_.model.layers, block.pp * v)) {
          const Line line = bound.line(v, r, depth, deal);
          for (const PipelineSchedule schedule : schedules) add(line, schedule);
        }
      }
    }
  }
}

Search::Expanded Search::expand(Worker& worker, const Block& block, double limit,
                                const Family& family) const {
  Expanded out;
  collect(worker, block, limit, family, out);
  std::sort(worker.open.begin(), worker.open.end(),
            [&](const Worker::Open& a, const Worker::Open& b) {
              if (a.bound != b.bound) return a.bound < b.bound;
              return simplicity(block, a.member) < simplicity(block, b.member);
            });
  set_block(block, worker.job);
  for (const Worker::Open& open : worker.open) {
    const double least = std::min(limit, out.best_s);
    if (open.bound > least || (least < kNone && stopped())) {
      out.skipped = std::min(out.skipped, open.bound);
      break;
    }
    set_member(space_.choices, open.member,
               worker.bound.stage_layers(open.member.virtual_stages, open.member.deal), worker.job);
    const simulator::JobPrediction p = simulator::predict(worker.job);
    ++out.replayed;
    const double needed = p.allocated_bytes + base_.stack.reserve_bytes;
    if (p.probability_fits < rule_.probability_fits || needed > most_bytes_) continue;
    const double score = score_of(worker.job, p, least);
    const bool simpler = out.best && score == out.best_s &&
                         simplicity(block, open.member) < simplicity(block, *out.best);
    if (score < out.best_s || simpler) {
      out.best_s = score;
      out.best = open.member;
    }
  }
  return out;
}

// The next blocks get the bound of layers as they are dealt out.
void Search::tighten(Running& r, Outcome& out) {
  constexpr std::size_t kMost = 512;
  const std::size_t first = r.at;
  while (r.at < r.members.size() && r.at < first + kMost &&
         least_score(ideal_[r.members[r.at]]) <= out.best_s) {
    ++r.at;
  }
  crew_.run(r.at - first, 8, [&](std::size_t thread, std::size_t i) {
    const std::uint32_t b = r.members[first + i];
    if (tight_[b] == 0) tight_[b] = least_seconds(*workers_[thread], space_.blocks[b], false);
  });
  out.bounded += static_cast<std::int64_t>(r.at - first);
  for (std::size_t i = first; i < r.at; ++i) {
    r.push(least_score(tight_[r.members[i]]), r.members[i]);
  }
}

// Predicts what is in the blocks on top of the heap.
void Search::open(Running& r, const Family& family, Outcome& out) {
  std::vector<std::uint32_t> blocks;
  while (blocks.size() < r.round && !r.heap.empty() && r.top() <= out.best_s) {
    blocks.push_back(r.pop());
  }
  std::vector<Expanded> found(blocks.size());
  crew_.run(blocks.size(), 1, [&](std::size_t thread, std::size_t i) {
    if (out.best && stopped()) {
      found[i].skipped = least_score(tight_[blocks[i]]);
    } else {
      found[i] = expand(*workers_[thread], space_.blocks[blocks[i]], out.best_s, family);
    }
  });
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Expanded& e = found[i];
    out.bounded += e.bounded;
    out.replayed += e.replayed;
    r.skipped = std::min(r.skipped, e.skipped);
    if (!e.best) continue;
    const Candidate candidate{space_.blocks[blocks[i]], *e.best};
    const bool simpler = out.best && e.best_s == out.best_s &&
                         simplicity(candidate.block, candidate.member) <
                             simplicity(out.best->block, out.best->member);
    if (e.best_s < out.best_s || simpler) {
      out.best_s = e.best_s;
      out.best = candidate;
    }
  }
  r.opened += blocks.size();
  r.round = std::min(kLargestRound, 2 * r.round);
}

// Of a thousand blocks, the job that needs least memory, if it fits.
void Search::rescue(Outcome& out) {
  constexpr std::size_t kBlocks = 1000;
  const auto least = smallest(std::max<std::size_t>(1, space_.blocks.size() / kBlocks));
  if (!least) return;
  const simulator::JobPrediction p = predict(*least);
  ++out.replayed;
  if (p.probability_fits < rule_.probability_fits) return;
  out.best = least;
  out.best_s = score_of(job_of(*least), p, kNone);
}

void Search::limit_memory(double bytes) {
  most_bytes_ = most_bytes_of(rule_.probability_fits, bytes);
}

Outcome Search::best_of(const Family& family, std::size_t most_blocks,
                        const std::optional<Candidate>& known) {
  constexpr std::size_t kBeyond = 64;  // blocks that are opened after time is over
  Outcome out;
  out.best_s = kNone;
  out.bounded = bounded_;
  const bool whole = !family.block && !family.member;
  if (whole && seed_.best) {
    out.best = seed_.best;
    out.best_s = seed_.best_s;
  }
  if (known) {
    out.best = known;
    out.best_s = score_of(job_of(*known), predict(*known), kNone);
  }
  out.replayed = seed_.replayed;
  Running r;
  for (const std::uint32_t b : order_) {
    if (takes(family, space_.blocks[b])) r.members.push_back(b);
  }
  const auto next = [&] {
    return r.at < r.members.size() ? least_score(ideal_[r.members[r.at]]) : kNone;
  };
  std::size_t beyond = kNoBlocks;  // opened when time was over
  while (std::min(next(), r.top()) < kNone && std::min(next(), r.top()) <= out.best_s) {
    if (stopped()) beyond = std::min(beyond, r.opened);
    const bool over = beyond != kNoBlocks || (most_blocks > 0 && r.opened >= most_blocks);
    out.stopped = out.best ? over : beyond != kNoBlocks && r.opened >= beyond + kBeyond;
    if (out.stopped) break;
    if (next() <= r.top()) {
      tighten(r, out);
    } else {
      open(r, family, out);
    }
  }
  if (out.stopped && !out.best && whole) rescue(out);
  double remaining = std::min({r.skipped, next(), r.top()});
  if (!all_bounded_) remaining = 0;
  if (!out.best) out.best_s = 0;
  out.bound_remaining_s = remaining == kNone ? out.best_s : remaining;
  return out;
}

Near Search::near(double limit, double most_step, std::size_t most) {
  Near out;
  std::vector<std::uint32_t> blocks;
  for (const std::uint32_t b : order_) {
    if (least_score(ideal_[b]) <= limit && ideal_[b] <= most_step) blocks.push_back(b);
  }
  out.complete = all_bounded_;
  std::vector<std::vector<Member>> members(blocks.size());
  std::vector<std::int64_t> bounded(blocks.size());
  crew_.run(blocks.size(), 4, [&](std::size_t thread, std::size_t i) {
    if (stopped() || tight_[blocks[i]] > most_step) return;
    Worker& worker = *workers_[thread];
    Expanded e;
    collect(worker, space_.blocks[blocks[i]], std::min(limit, least_score(most_step)), {}, e);
    for (const Worker::Open& open : worker.open) members[i].push_back(open.member);
    bounded[i] = e.bounded;
  });
  std::vector<std::pair<Simplicity, Candidate>> found;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Block& block = space_.blocks[blocks[i]];
    for (const Member& m : members[i]) found.push_back({simplicity(block, m), {block, m}});
    out.bounded += bounded[i];
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  if (found.size() > most) {
    out.complete = false;
    found.resize(most);
  }
  std::vector<Near::One> all(found.size());
  std::vector<char> is_near(found.size()), seen(found.size());
  crew_.run(found.size(), 16, [&](std::size_t thread, std::size_t i) {
    if (stopped()) return;
    Job& job = workers_[thread]->job;
    set(*workers_[thread], found[i].second, job);
    const simulator::JobPrediction p = simulator::predict(job);
    seen[i] = 1;
    if (p.probability_fits < rule_.probability_fits || p.step.value() > most_step) return;
    all[i] = {found[i].second, score_of(job, p, limit), p.step.value(), p.parts};
    is_near[i] = all[i].score <= limit ? 1 : 0;
  });
  for (std::size_t i = 0; i < all.size(); ++i) {
    out.replayed += seen[i];
    if (is_near[i] != 0) out.all.push_back(all[i]);
  }
  out.complete = out.complete && !stopped_;
  return out;
}

void Search::set(Worker& worker, const Candidate& candidate, Job& job) const {
  const Member& m = candidate.member;
  set_block(candidate.block, job);
  std::vector<std::int64_t> layers;
  if (m.deal != Deal::kEven) {
    worker.bound.enter(candidate.block);
    layers = worker.bound.stage_layers(m.virtual_stages, m.deal);
  }
  set_member(space_.choices, m, std::move(layers), job);
}

Job Search::job_of(const Candidate& candidate) const {
  Job job = base_;
  set(*workers_.front(), candidate, job);
  return job;
}

simulator::JobPrediction Search::predict(const Candidate& candidate) const {
  return simulator::predict(job_of(candidate));
}

std::optional<Candidate> Search::smallest(std::size_t stride) {
  struct Least {
    double bytes = kNone;
    Member member;
  };
  const Choices& c = space_.choices;
  const std::size_t recompute = c.recompute.size() - 1;
  std::vector<Least> least((space_.blocks.size() + stride - 1) / stride);
  crew_.run(least.size(), 64, [&](std::size_t thread, std::size_t i) {
    Bound& bound = workers_[thread]->bound;
    const Block& block = space_.blocks[i * stride];
    bound.enter(block);
    const auto chunks = virtual_stages_of(base_, c, block.pp, bound.micro_batches());
    if (chunks.empty()) return;
    const auto schedules = schedules_of(c, block.pp, chunks.front(), block.ep);
    if (schedules.empty()) return;
    const std::int64_t depth =
        c.recompute[recompute].full()
            ? full_layers_of(c, base_.model.layers, block.pp * chunks.front()).back()
            : 0;
    const Deal deal = deals_of(c.deal, base_.model.layers, block.pp * chunks.front()).front();
    const Line line = bound.line(chunks.front(), recompute, depth, deal);
    for (std::size_t s = 0; s < bound.shardings().size(); ++s) {
      const double bytes = bound.bytes(line, schedules.front(), s);
      if (bytes >= least[i].bytes) continue;
      const ShardingChoice& choice = bound.shardings()[s];
      least[i] = {bytes,
                  {static_cast<std::int32_t>(chunks.front()), static_cast<std::int32_t>(depth),
                   static_cast<std::int32_t>(choice.fsdp_d), static_cast<std::uint8_t>(recompute),
                   schedules.front(), choice.sharding, choice.keeps_gathered, deal}};
    }
  });
  std::vector<std::size_t> order(least.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return least[a].bytes < least[b].bytes; });
  std::optional<Candidate> best;
  double best_bytes = kNone;
  constexpr std::size_t kMostPredicted = 256;
  for (std::size_t i = 0; i < std::min(kMostPredicted, order.size()); ++i) {
    if (least[order[i]].bytes > best_bytes) break;
    const Candidate candidate{space_.blocks[order[i] * stride], least[order[i]].member};
    const double bytes = predict(candidate).allocated_bytes;
    if (bytes >= best_bytes) continue;
    best_bytes = bytes;
    best = candidate;
  }
  return best;
}

}  // namespace orrery::planner::jobs
