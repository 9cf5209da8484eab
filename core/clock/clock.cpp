// The replay loop: start what can start, advance to the next end, repeat.
#include "core/clock/clock.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "core/check.h"
#include "core/clock/issue.h"

namespace orrery {
namespace {

// Work is counted in thousandths of a nanosecond; an undisturbed op does 1000 of them a nanosecond.
constexpr std::int64_t kFullRate = 1000;
// A transfer's claim to a core against that of compute: Linux's weights of niceness 0 and 10, as
// the engine has them (engine/cores.h).
constexpr std::int64_t kTransferWeight = 9;

std::int64_t slowed_rate(double slowdown) {
  CHECK(slowdown >= 1 && std::isfinite(slowdown),
        "a slowdown below one: " + std::to_string(slowdown));
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::floor(kFullRate / slowdown)));
}

// Something that runs: one compute op of one rank, or one collective of several.
struct Running {
  std::vector<std::size_t> ranks;  // indexes into the replayed ranks
  OpId op = -1;                    // of the first of them
  Lane lane = Lane::kCompute;
  std::int64_t remaining = 0;
  Share share;  // of each rank
};

struct Instance {
  std::vector<std::size_t> members;  // replayed ranks of one (lane, group instance)
  std::size_t posted = 0;            // how many wait at their next collective
};

class Clock {
 public:
  Clock(const Program& program, const std::vector<RankDurations>& ranks, const ClockRates& rates)
      : program_(program),
        ranks_(ranks),
        slow_compute_(slowed_rate(rates.compute_slowdown)),
        slow_link_(slowed_rate(rates.link_slowdown)),
        cores_(static_cast<std::int64_t>(std::llround(rates.cores * kFullRate))),
        on_host_(rates.computes_on_host),
        core_ranks_(rates.core_ranks),
        link_ranks_(rates.link_ranks) {
    CHECK(rates.cores >= 0 && rates.core_ranks >= 1, "cores that nobody has");
    links_.resize(link_ranks_.size());
    for (const RankDurations& r : ranks) roles_.push_back(&program.role_of(r.rank));
    prepare();
  }

  Replay run() {
    for (std::size_t r = 0; r < ranks_.size(); ++r) dirty_.push_back(r);
    start_ready();
    while (!running_.empty()) {
      advance();
      start_ready();
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      CHECK(ended_[r] == roles_[r]->ops.size(),
            "the program of rank " + std::to_string(ranks_[r].rank) + " cannot end");
    }
    result_.end = Nanoseconds(now_);
    return std::move(result_);
  }

 private:
  using Queues = std::array<std::vector<OpId>, kNumLanes>;

  void prepare() {
    const std::size_t n = ranks_.size();
    result_.times.resize(n);
    ended_.assign(n, 0);
    done_.resize(n);
    queues_.resize(n);
    heads_.assign(n, {});
    busy_.assign(n, {});
    waiting_.assign(n, {});
    issued_.assign(n, 0);
    for (std::size_t r = 0; r < n; ++r) {
      const Role& role = *roles_[r];
      if (on_host_) host_waits_.push_back(host_waits(role));
      CHECK(ranks_[r].durations.size() == role.ops.size(), "one duration an op");
      CHECK(ranks_[r].shares.empty() || ranks_[r].shares.size() == role.ops.size(),
            "one share an op");
      result_.times[r].resize(role.ops.size());
      done_[r].assign(role.ops.size(), false);
      for (std::size_t i = 0; i < role.ops.size(); ++i) {
        CHECK(ranks_[r].durations[i].value() >= 0, "a negative duration of " + role.ops[i].path);
        queues_[r][static_cast<std::size_t>(role.ops[i].lane)].push_back(static_cast<OpId>(i));
      }
      for (std::size_t g = 0; g < program_.groups.size(); ++g) {
        for (const Lane lane : kNetworkLanes) {
          instance_of(r, static_cast<std::size_t>(lane), static_cast<std::int32_t>(g))
              .members.push_back(r);
        }
      }
    }
  }

  Instance& instance_of(std::size_t r, std::size_t lane, std::int32_t group) {
    const Group& g = program_.groups[static_cast<std::size_t>(group)];
    return instances_[{static_cast<std::int32_t>(lane), group, g.first_of(ranks_[r].rank)}];
  }

  bool ready(std::size_t r, const Op& op) const {
    return std::all_of(op.deps.begin(), op.deps.end(),
                       [&](OpId dep) { return done_[r][static_cast<std::size_t>(dep)]; });
  }

  // Lets the host of a rank go on: up to a compute op that has not ended, or a wait.
  void issue(std::size_t r) {
    const std::vector<Op>& ops = roles_[r]->ops;
    std::size_t& next = issued_[r];
    while (next < ops.size()) {
      if (next > 0 && ops[next - 1].lane == Lane::kCompute && !done_[r][next - 1]) return;
      const OpId awaited = host_waits_[r][next];
      if (awaited >= 0 && !done_[r][static_cast<std::size_t>(awaited)]) return;
      ++next;
    }
  }

  // Starts every op that can start; only ranks in dirty_ can have gained one.
  void start_ready() {
    for (std::size_t d = 0; d < dirty_.size(); ++d) {
      const std::size_t r = dirty_[d];
      if (on_host_) issue(r);
      for (std::size_t lane = 0; lane < kNumLanes; ++lane) {
        if (busy_[r][lane] || waiting_[r][lane] || heads_[r][lane] >= queues_[r][lane].size()) {
          continue;
        }
        const OpId id = queues_[r][lane][heads_[r][lane]];
        const Op& op = roles_[r]->ops[static_cast<std::size_t>(id)];
        if (on_host_ && static_cast<std::size_t>(id) >= issued_[r]) continue;
        if (!ready(r, op)) continue;
        result_.times[r][static_cast<std::size_t>(id)].posted_ns = now_;
        if (!is_network(op.lane)) {
          start({r}, lane);
        } else {
          waiting_[r][lane] = true;
          Instance& instance = instance_of(r, lane, op.group);
          if (++instance.posted == instance.members.size()) {
            instance.posted = 0;
            start(instance.members, lane);
          }
        }
      }
    }
    dirty_.clear();
  }

  // The slowest member's; of a link that members share, all their bytes, one after the other.
  std::int64_t duration_of(const Running& running, std::size_t lane) const {
    std::int64_t slowest = 0, fixed = 0, on_link = 0, sent = 0, received = 0;
    const bool parted = parts_link(running);
    std::size_t link = 0;
    for (const std::size_t r : running.ranks) {
      const auto id = static_cast<std::size_t>(queues_[r][lane][heads_[r][lane]]);
      const std::int64_t ns = ranks_[r].durations[id].value();
      slowest = std::max(slowest, ns);
      if (!parted) continue;
      const Share& share = ranks_[r].shares[id];
      if (link_of(running, r) != link) sent = received = 0;
      link = link_of(running, r);
      sent += share.sent_ns;
      received += share.received_ns;
      on_link = std::max({on_link, sent, received});
      fixed = std::max(fixed, ns - std::max(share.sent_ns, share.received_ns));
    }
    return parted ? fixed + on_link : slowest;
  }

  // Starts the op at the head of `lane` on each of `members`.
  void start(const std::vector<std::size_t>& members, std::size_t lane) {
    Running running;
    running.ranks = members;
    running.lane = static_cast<Lane>(lane);
    for (const std::size_t r : members) {
      const OpId id = queues_[r][lane][heads_[r][lane]];
      if (running.op < 0) running.op = id;
      waiting_[r][lane] = false;
      busy_[r][lane] = true;
      result_.times[r][static_cast<std::size_t>(id)].start_ns = now_;
      if (!ranks_[r].shares.empty()) running.share = ranks_[r].shares[static_cast<std::size_t>(id)];
    }
    running.remaining = kFullRate * duration_of(running, lane);
    running_.push_back(std::move(running));
  }

  std::size_t machine_of(std::size_t r) const {
    return static_cast<std::size_t>(ranks_[r].rank / core_ranks_);
  }

  static std::int64_t& at(std::vector<std::int64_t>& counts, std::size_t i) {
    if (i >= counts.size()) counts.resize(i + 1, 0);
    return counts[i];
  }

  // Whether transfers part the link that bounds this one.
  bool parts_link(const Running& running) const {
    const auto tier = static_cast<std::size_t>(running.share.tier);
    return running.share.tier >= 0 && tier < link_ranks_.size() && link_ranks_[tier] > 0;
  }

  std::size_t link_of(const Running& running, std::size_t r) const {
    return static_cast<std::size_t>(ranks_[r].rank /
                                    link_ranks_[static_cast<std::size_t>(running.share.tier)]);
  }

  // Calls `visit(link)` for each link that the members have.
  template <class Visit>
  void for_links(const Running& running, Visit visit) const {
    std::size_t last = static_cast<std::size_t>(-1);
    for (const std::size_t r : running.ranks) {
      const std::size_t link = link_of(running, r);
      if (link != last) visit(link);
      last = link;
    }
  }

  // What the ops that run ask for: of the cores of each machine, of each link.
  void count_demand() {
    std::fill(compute_demand_.begin(), compute_demand_.end(), 0);
    std::fill(transfer_demand_.begin(), transfer_demand_.end(), 0);
    for (auto& tier : links_) std::fill(tier.begin(), tier.end(), 0);
    for (const Running& running : running_) {
      if (cores_ > 0) {
        auto& demand = running.lane == Lane::kCompute ? compute_demand_ : transfer_demand_;
        for (const std::size_t r : running.ranks) at(demand, machine_of(r)) += running.share.cpu;
      }
      if (!parts_link(running)) continue;
      auto& counts = links_[static_cast<std::size_t>(running.share.tier)];
      for_links(running, [&](std::size_t link) { ++at(counts, link); });
    }
  }

  // Thousandths that an op of a lane gets of what it asks of the cores of machine m: transfers have
  // more weight than compute.
  std::int64_t granted(Lane lane, std::size_t m) {
    const std::int64_t compute = at(compute_demand_, m), transfers = at(transfer_demand_, m);
    if (compute + transfers <= cores_) return kFullRate;
    const std::int64_t weighted = kTransferWeight * transfers;
    const std::int64_t given =
        std::min(transfers, cores_ * weighted / std::max<std::int64_t>(1, weighted + compute));
    return lane == Lane::kCompute ? (cores_ - given) * kFullRate / compute
                                  : given * kFullRate / transfers;
  }

  // Of its rate, what the cores leave an op: all that does not ask for a core, and its part of the
  // rest; then its part of the most asked link.
  std::int64_t shared(const Running& running, std::int64_t rate) {
    if (cores_ > 0 && running.share.cpu > 0) {
      std::int64_t least = kFullRate;
      for (const std::size_t r : running.ranks) {
        least = std::min(least, granted(running.lane, machine_of(r)));
      }
      rate = rate * (kFullRate - running.share.cpu * (kFullRate - least) / kFullRate) / kFullRate;
    }
    if (parts_link(running)) {
      std::int64_t beside = 1;
      const auto& counts = links_[static_cast<std::size_t>(running.share.tier)];
      for_links(running, [&](std::size_t link) { beside = std::max(beside, counts[link]); });
      rate /= beside;
    }
    return std::max<std::int64_t>(1, rate);
  }

  std::int64_t rate(const Running& running) { return shared(running, own_rate(running)); }

  std::int64_t own_rate(const Running& running) const {
    constexpr auto compute = static_cast<std::size_t>(Lane::kCompute);
    if (running.lane == Lane::kCompute) {
      const auto& busy = busy_[running.ranks[0]];
      const bool beside = std::any_of(std::begin(kNetworkLanes), std::end(kNetworkLanes),
                                      [&](Lane l) { return busy[static_cast<std::size_t>(l)]; });
      return beside ? slow_compute_ : kFullRate;
    }
    if (!is_network(running.lane)) return kFullRate;  // copy engines are of neither
    const bool beside = std::any_of(running.ranks.begin(), running.ranks.end(),
                                    [&](std::size_t r) { return busy_[r][compute]; });
    return beside ? slow_link_ : kFullRate;
  }

  void advance() {
    count_demand();
    std::int64_t dt = std::numeric_limits<std::int64_t>::max();
    for (const Running& r : running_) {
      const std::int64_t speed = rate(r);
      dt = std::min(dt, (r.remaining + speed - 1) / speed);
    }
    now_ += dt;
    std::vector<std::int64_t> speeds;
    for (const Running& r : running_) speeds.push_back(rate(r));
    std::vector<Running> still, over;
    for (std::size_t i = 0; i < running_.size(); ++i) {
      running_[i].remaining -= dt * speeds[i];
      (running_[i].remaining <= 0 ? over : still).push_back(std::move(running_[i]));
    }
    running_ = std::move(still);
    std::sort(over.begin(), over.end(), [&](const Running& a, const Running& b) {
      return a.ranks[0] != b.ranks[0] ? a.ranks[0] < b.ranks[0] : a.op < b.op;
    });
    for (const Running& r : over) end(r);
    std::sort(dirty_.begin(), dirty_.end());
    dirty_.erase(std::unique(dirty_.begin(), dirty_.end()), dirty_.end());
  }

  void end(const Running& running) {
    const auto lane = static_cast<std::size_t>(running.lane);
    for (const std::size_t r : running.ranks) {
      const auto id = static_cast<std::size_t>(queues_[r][lane][heads_[r][lane]++]);
      busy_[r][lane] = false;
      done_[r][id] = true;
      ++ended_[r];
      result_.times[r][id].end_ns = now_;
      dirty_.push_back(r);
    }
  }

  const Program& program_;
  const std::vector<RankDurations>& ranks_;
  const std::int64_t slow_compute_, slow_link_;
  const std::int64_t cores_;  // thousandths
  const bool on_host_;
  std::vector<std::size_t> issued_;  // ops that the host of each rank has issued
  std::vector<std::vector<OpId>> host_waits_;
  const std::int32_t core_ranks_;
  const std::vector<std::int32_t>& link_ranks_;
  std::vector<std::int64_t> compute_demand_, transfer_demand_;  // thousandths of a core, by machine
  std::vector<std::vector<std::int64_t>> links_;                // transfers, by tier and link
  std::vector<const Role*> roles_;
  std::vector<Queues> queues_;
  std::vector<std::array<std::size_t, kNumLanes>> heads_;
  std::vector<std::array<bool, kNumLanes>> busy_, waiting_;
  std::vector<std::vector<bool>> done_;
  std::vector<std::size_t> ended_;
  std::map<std::array<std::int32_t, 3>, Instance> instances_;
  std::vector<Running> running_;
  std::vector<std::size_t> dirty_;
  std::int64_t now_ = 0;
  Replay result_;
};

}  // namespace

Replay replay(const Program& program, const std::vector<RankDurations>& ranks,
              const ClockRates& rates) {
  CHECK(!ranks.empty(), "nothing to replay");
  return Clock(program, ranks, rates).run();
}

}  // namespace orrery
