// Best first over blocks, rounds over threads. See search.h.
#include "planner/jobs/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

namespace orrery::planner::jobs {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr std::size_t kFirstRound = 8, kLargestRound = 256;

// The most bytes with which a job fits with the probability.
double most_bytes(double probability, double usable) {
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

Search::Search(const Job& base, const Space& space, double probability_fits, int threads)
    : base_(base),
      space_(space),
      units_(base),
      shapes_(base, space, units_),
      probability_fits_(probability_fits),
      most_bytes_(
          most_bytes(probability_fits, static_cast<double>(base.cluster.device.memory.value()))),
      crew_(threads_of(threads)) {
  for (std::size_t t = 0; t < crew_.size(); ++t) {
    workers_.push_back(std::make_unique<Worker>(base_, space_, units_, shapes_));
  }
  bounds_.resize(space_.blocks.size());
  std::vector<std::int64_t> counts(bounds_.size());
  crew_.run(bounds_.size(), 64, [&](std::size_t thread, std::size_t i) {
    bounds_[i] = least_seconds(*workers_[thread], space_.blocks[i]);
  });
  bounded_ = static_cast<std::int64_t>(bounds_.size());
  order_.resize(bounds_.size());
  for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<std::uint32_t>(i);
  std::sort(order_.begin(), order_.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::tuple(bounds_[a], a) < std::tuple(bounds_[b], b);
  });
}

Search::~Search() = default;

double Search::least_seconds(Worker& worker, const Block& block) const {
  Bound& bound = worker.bound;
  bound.enter(block);
  double least = kNone;
  for (const std::int64_t v :
       virtual_stages_of(base_, space_.choices, block.pp, bound.micro_batches())) {
    const Line line = bound.line(v, 0, -1);
    for (const PipelineSchedule schedule : schedules_of(space_.choices, block.pp, v, block.ep)) {
      least = std::min(least, bound.floor_seconds(line, schedule));
    }
  }
  return least;
}

// Members of the block whose bound is not above `limit` and whose memory may fit.
void Search::collect(Worker& worker, const Block& block, double limit, const Family& family,
                     Expanded& out) const {
  Bound& bound = worker.bound;
  const Choices& c = space_.choices;
  bound.enter(block);
  worker.open.clear();
  const auto add = [&](const Line& line, PipelineSchedule schedule) {
    const double floor = bound.floor_seconds(line, schedule);
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
                          choice.keeps_gathered};
      if (family.member && !family.member(block, member)) continue;
      if (bound.bytes(line, schedule, s) > most_bytes_) continue;
      const double seconds = bound.seconds(line, schedule, s);
      ++out.bounded;
      if (seconds > limit) {
        out.skipped = std::min(out.skipped, seconds);
      } else {
        worker.open.push_back({seconds, member});
      }
    }
  };
  for (const std::int64_t v : virtual_stages_of(base_, c, block.pp, bound.micro_batches())) {
    // What runs again only adds: schedules that are too slow without it are left.
    std::vector<PipelineSchedule> schedules;
    const Line plain = bound.line(v, 0, -1);
    for (const PipelineSchedule schedule : schedules_of(c, block.pp, v, block.ep)) {
      const double floor = bound.floor_seconds(plain, schedule);
      ++out.bounded;
      if (floor > limit) {
        out.skipped = std::min(out.skipped, floor);
      } else {
        schedules.push_back(schedule);
      }
    }
    worker.light.clear();
    for (std::size_t s = 0; !schedules.empty() && s < bound.shardings().size(); ++s) {
      if (bound.state_bytes(v, s) <= most_bytes_) worker.light.push_back(s);
    }
    for (std::size_t r = 0; !worker.light.empty() && r < c.recompute.size(); ++r) {
      const std::vector<std::int64_t> depths =
          c.recompute[r].full() ? full_layers_of(c, base_.model.layers, block.pp * v)
                                : std::vector<std::int64_t>{0};
      for (const std::int64_t depth : depths) {
        const Line line = bound.line(v, r, depth);
        for (const PipelineSchedule schedule : schedules) add(line, schedule);
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
    if (open.bound > std::min(limit, out.best_s)) {
      out.skipped = std::min(out.skipped, open.bound);
      break;
    }
    set_member(space_.choices, open.member, worker.job);
    const simulator::JobPrediction p = simulator::predict(worker.job);
    ++out.replayed;
    if (p.probability_fits < probability_fits_) continue;
    const double step = p.step.value();
    const bool simpler = out.best && step == out.best_s &&
                         simplicity(block, open.member) < simplicity(block, *out.best);
    if (step < out.best_s || simpler) {
      out.best_s = step;
      out.best = open.member;
    }
  }
  return out;
}

Outcome Search::best_of(const Family& family, std::size_t most_blocks) {
  Outcome out;
  out.best_s = kNone;
  out.bounded = bounded_;
  double skipped = kNone;
  std::vector<std::uint32_t> members;
  for (const std::uint32_t b : order_) {
    if (takes(family, space_.blocks[b])) members.push_back(b);
  }
  std::size_t round = kFirstRound, at = 0;
  const bool proves = most_blocks == 0;
  std::vector<Expanded> found;
  while (at < members.size() && bounds_[members[at]] <= out.best_s) {
    if (!proves && out.best && at >= most_blocks) break;
    std::size_t end = at;
    while (end < members.size() && end < at + round && bounds_[members[end]] <= out.best_s) ++end;
    found.assign(end - at, {});
    crew_.run(end - at, 1, [&](std::size_t thread, std::size_t i) {
      found[i] = expand(*workers_[thread], space_.blocks[members[at + i]], out.best_s, family);
    });
    for (std::size_t i = 0; i < found.size(); ++i) {
      const Expanded& e = found[i];
      out.bounded += e.bounded;
      out.replayed += e.replayed;
      skipped = std::min(skipped, e.skipped);
      if (!e.best) continue;
      const Candidate candidate{space_.blocks[members[at + i]], *e.best};
      const bool simpler = out.best && e.best_s == out.best_s &&
                           simplicity(candidate.block, candidate.member) <
                               simplicity(out.best->block, out.best->member);
      if (e.best_s < out.best_s || simpler) {
        out.best_s = e.best_s;
        out.best = candidate;
      }
    }
    at = end;
    round = std::min(kLargestRound, 2 * round);
  }
  if (at < members.size()) skipped = std::min(skipped, bounds_[members[at]]);
  if (!out.best) out.best_s = 0;
  out.bound_remaining_s = skipped == kNone ? out.best_s : skipped;
  return out;
}

Job Search::job_of(const Candidate& candidate) const {
  Job job = base_;
  set_block(candidate.block, job);
  set_member(space_.choices, candidate.member, job);
  return job;
}

simulator::JobPrediction Search::predict(const Candidate& candidate) const {
  return simulator::predict(job_of(candidate));
}

std::optional<Candidate> Search::smallest() {
  struct Least {
    double bytes = kNone;
    Member member;
  };
  const Choices& c = space_.choices;
  const std::size_t recompute = c.recompute.size() - 1;
  std::vector<Least> least(space_.blocks.size());
  crew_.run(least.size(), 64, [&](std::size_t thread, std::size_t i) {
    Bound& bound = workers_[thread]->bound;
    const Block& block = space_.blocks[i];
    bound.enter(block);
    const auto chunks = virtual_stages_of(base_, c, block.pp, bound.micro_batches());
    if (chunks.empty()) return;
    const auto schedules = schedules_of(c, block.pp, chunks.front(), block.ep);
    if (schedules.empty()) return;
    const std::int64_t depth =
        c.recompute[recompute].full()
            ? full_layers_of(c, base_.model.layers, block.pp * chunks.front()).back()
            : 0;
    const Line line = bound.line(chunks.front(), recompute, depth);
    for (std::size_t s = 0; s < bound.shardings().size(); ++s) {
      const double bytes = bound.bytes(line, schedules.front(), s);
      if (bytes >= least[i].bytes) continue;
      const ShardingChoice& choice = bound.shardings()[s];
      least[i] = {bytes,
                  {static_cast<std::int32_t>(chunks.front()), static_cast<std::int32_t>(depth),
                   static_cast<std::int32_t>(choice.fsdp_d), static_cast<std::uint8_t>(recompute),
                   schedules.front(), choice.sharding, choice.keeps_gathered}};
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
    const Candidate candidate{space_.blocks[order[i]], least[order[i]].member};
    const double bytes = predict(candidate).allocated_bytes;
    if (bytes >= best_bytes) continue;
    best_bytes = bytes;
    best = candidate;
  }
  return best;
}

}  // namespace orrery::planner::jobs
