// Ties, risk and the odds of fitting.
#include "planner/plans/decide.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

#include "core/program/lower.h"
#include "planner/plans/footprint.h"
#include "planner/plans/search.h"
#include "simulator/binding.h"
#include "simulator/document_cost.h"
#include "simulator/simulator.h"

namespace orrery::planner {
namespace {

// Beyond this the fastest is told apart in any case that is met, and no replay is spent.
constexpr double kWindow = 0.15;
// Draws of a step for its 90th percentile; the deviation of a normal one that p90 is away.
constexpr std::uint64_t kStepDraws = 8;
constexpr double kP90Deviations = 1.2816;
// Fewer draws where the program is long: at most so many ops in all, but never fewer than these.
constexpr std::int64_t kDrawnOps = 4'000'000;
constexpr int kLeastDraws = 8;
// Memory is held back this often before it is said that nothing fits surely enough.
constexpr int kHoldings = 3;
constexpr double kEulerGamma = 0.57721566490153286, kPi = 3.14159265358979324;

struct Moments {
  double mean = 0, deviation = 0;
};

Moments moments(const std::vector<double>& draws) {
  Moments m;
  const auto n = static_cast<double>(draws.size());
  m.mean = std::accumulate(draws.begin(), draws.end(), 0.0) / n;
  double squares = 0;
  for (const double d : draws) squares += (d - m.mean) * (d - m.mean);
  // Of the next draw: the mean is known only from these.
  if (draws.size() > 1) m.deviation = std::sqrt(squares / (n - 1) * (1 + 1 / n));
  return m;
}

Plan plan_with(const Plan& like, const RunnerUp& r) {
  Plan plan = like;
  plan.layout = r.layout;
  plan.chunks = r.chunks;
  plan.policy = r.policy;
  plan.predicted = r.predicted;
  plan.sha256 = plan_sha256(plan);
  return plan;
}

simulator::Simulation replayed(const Plan& plan, const Program& program, std::uint64_t seed) {
  simulator::Options options;
  options.events = options.document_cost = false;
  options.seed = seed;
  auto simulated = simulator::simulate(plan, program, options);
  CHECK(simulated.ok(), "a legal plan that cannot be simulated: " + simulated.error().text());
  return std::move(simulated).value();
}

bool draws_loads(const Plan& plan) {
  return plan.model.is_moe() && plan.workload.expert_load_cv > 0;
}

Parts parts_of(const simulator::Simulation& s) {
  Parts parts;
  const double share = 1 / static_cast<double>(s.ranks.size());
  for (const simulator::Breakdown& rank : s.ranks) {
    parts.compute_s += rank.compute.value() * share;
    parts.exposed_s += rank.exposed.value() * share;
    parts.idle_s += rank.idle.value() * share;
  }
  return parts;
}

// A plan that may be taken.
struct Candidate {
  RunnerUp plan;
  Parts parts;
  double score_s = 0;  // of the rule's risk
  bool tie = false;
};

Candidate weighed(const Plan& like, const RunnerUp& r, Risk risk) {
  const Plan plan = plan_with(like, r);
  const Program program = lower(plan);
  Candidate c{r, parts_of(replayed(plan, program, 0)), r.predicted.step.value(), false};
  if (risk == Risk::kExpected) return c;
  std::vector<double> steps = {c.score_s};
  for (std::uint64_t seed = 1; seed < kStepDraws && draws_loads(plan); ++seed) {
    steps.push_back(replayed(plan, program, seed).prediction.step.value());
  }
  const Moments m = moments(steps);
  c.score_s = m.mean + std::hypot((r.predicted.p90 - r.predicted.step).value(),
                                  kP90Deviations * m.deviation);
  return c;
}

double relative_width(const Prediction& p) {
  return p.step.value() > 0 ? (p.p90 - p.step).value() / p.step.value() : 0;
}

// The best and the runners-up that are near it and fit: the least score first.
std::vector<Candidate> candidates(const Plan& plan, Risk risk) {
  std::vector<Candidate> all;
  const RunnerUp best{plan.layout, plan.chunks, plan.policy, plan.predicted, "", false};
  all.push_back(weighed(plan, best, risk));
  const Bytes usable = usable_memory(plan.cluster);
  for (const RunnerUp& r : plan.runners_up) {
    const bool near = r.predicted.step.value() <= plan.predicted.step.value() * (1 + kWindow);
    if (near && r.predicted.peak <= usable) all.push_back(weighed(plan, r, risk));
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.score_s < b.score_s; });
  const double relative = relative_width(plan.predicted);
  for (Candidate& c : all) {
    c.tie = c.score_s - all.front().score_s <= noise_s(c.parts, all.front().parts, relative);
  }
  return all;
}

// In the order in which they are looked at: ties by simplicity, then the others by score.
void order(std::vector<Candidate>& all, bool simplest) {
  if (!simplest) return;
  const auto rest =
      std::stable_partition(all.begin(), all.end(), [](const Candidate& c) { return c.tie; });
  std::stable_sort(all.begin(), rest,
                   [](const Candidate& a, const Candidate& b) { return simpler(a.plan, b.plan); });
}

bool same(const RunnerUp& a, const RunnerUp& b) {
  return a.layout == b.layout && a.chunks == b.chunks && a.policy == b.policy;
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "nothing" : text;
}

// Makes `chosen` the plan; the one that was it goes among the runners-up.
void take(Plan& plan, const RunnerUp& chosen) {
  const RunnerUp before{plan.layout, plan.chunks, plan.policy, plan.predicted, "", false};
  if (same(before, chosen)) return;
  RunnerUp other = before;
  other.lost_by =
      fmt::format("{:+.2f} %: less simple, it uses {}, the plan taken {}",
                  (before.predicted.step.value() / chosen.predicted.step.value() - 1) * 100,
                  listed(mechanisms(before.layout, before.chunks, before.policy)),
                  listed(mechanisms(chosen.layout, chosen.chunks, chosen.policy)));
  std::erase_if(plan.runners_up, [&](const RunnerUp& r) { return same(r, chosen); });
  plan = plan_with(plan, chosen);
  plan.predicted.document_cost = simulator::document_cost(plan);
  plan.runners_up.insert(plan.runners_up.begin(), std::move(other));
}

// Marks the ties, and takes the first in order that fits surely enough; false where none does,
// with what the fastest needs then in `needed`.
bool take_one(Plan& plan, const DecisionRule& rule, double& needed) {
  std::vector<Candidate> all = candidates(plan, rule.risk);
  const double fastest = plan.predicted.step.value();
  const auto usable = static_cast<double>(usable_memory(plan.cluster).value());
  order(all, rule.simplest);
  for (const Candidate& c : all) {
    if (!c.tie) continue;
    const std::vector<double> peaks =
        drawn_peaks(plan_with(plan, c.plan), rule.fit_probability > 0 ? kDraws : 1);
    const double odds = probability_within(peaks, usable);
    if (&c == &all.front()) needed = quantile_of(peaks, rule.fit_probability);
    if (odds < rule.fit_probability) continue;
    take(plan, c.plan);
    plan.decision = {rule.risk == Risk::kP90 ? "p90" : "expected", rule.fit_probability, odds,
                     Bytes(0), fastest};
    for (RunnerUp& r : plan.runners_up) {
      r.tie = std::any_of(all.begin(), all.end(),
                          [&](const Candidate& other) { return other.tie && same(other.plan, r); });
    }
    return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> mechanisms(const Layout& l, const Chunks& c, const MemoryPolicy& p) {
  std::vector<std::string> used;
  const auto add = [&](bool uses, const char* name) {
    if (uses) used.emplace_back(name);
  };
  add(p.host_optimizer, "host optimizer");
  add(p.swap_layers > 0, "swap");
  add(l.sp > 1, "sp");
  add(l.ep > 1, "ep");
  add(l.tp > 1, "tp");
  add(l.cp > 1, "cp");
  add(l.pp > 1, "pp");
  add(l.replicate_d > 1, "replicas");
  add(l.replicate_e > 1 && l.ep > 1, "expert replicas");
  add(l.ep > 1 && l.dispatcher != "all_to_all", "all-gather dispatch");
  add(c.domino > 1, "interleaving");
  add(c.exchange_parts > 1, "exchange parts");
  add(c.gather_layers > 1, "buckets of layers");
  add(p.keep_layers > 0, "kept layers");
  add(p.recompute_layers > 0, "recompute");
  add(p.recompute_attention > 0, "recompute of attention");
  add(p.recompute_ffn > 0, "recompute of the MLP");
  add(p.recompute_experts > 0, "recompute of experts");
  add(c.loss_tokens > 0, "loss chunks");
  add(c.attention_query > 0, "attention chunks");
  add(c.prefetch_depth != 1, "other prefetch");
  return used;
}

bool simpler(const RunnerUp& a, const RunnerUp& b) {
  const auto key = [](const RunnerUp& r) {
    const auto used = mechanisms(r.layout, r.chunks, r.policy);
    const auto count = [&](std::initializer_list<const char*> names) {
      return std::count_if(used.begin(), used.end(), [&](const std::string& u) {
        return std::any_of(names.begin(), names.end(), [&](const char* n) { return u == n; });
      });
    };
    const MemoryPolicy& p = r.policy;
    return std::make_tuple(
        used.size(), count({"host optimizer", "swap"}),
        count({"sp", "ep", "tp", "cp", "pp", "replicas", "expert replicas"}),
        count({"all-gather dispatch", "interleaving", "exchange parts", "buckets of layers"}),
        p.recompute_layers + p.recompute_attention + p.recompute_ffn + p.recompute_experts,
        r.layout.accumulation);
  };
  return key(a) < key(b);
}

double noise_s(const Parts& a, const Parts& b, double relative) {
  const double differs =
      std::hypot(a.compute_s - b.compute_s, a.exposed_s - b.exposed_s, a.idle_s - b.idle_s);
  return std::max(kNoiseFloor * std::min(a.step_s(), b.step_s()), relative * differs);
}

double probability_within(const std::vector<double>& draws, double limit) {
  const Moments m = moments(draws);
  if (m.deviation <= 0) return m.mean <= limit ? 1 : 0;
  const double scale = m.deviation * std::sqrt(6.0) / kPi, mode = m.mean - kEulerGamma * scale;
  return std::exp(-std::exp(-(limit - mode) / scale));
}

double quantile_of(const std::vector<double>& draws, double probability) {
  const Moments m = moments(draws);
  if (m.deviation <= 0 || probability <= 0 || probability >= 1) return m.mean;
  const double scale = m.deviation * std::sqrt(6.0) / kPi, mode = m.mean - kEulerGamma * scale;
  return mode - scale * std::log(-std::log(probability));
}

std::vector<double> drawn_peaks(const Plan& plan, int draws) {
  const bool drawn = draws_loads(plan);
  if (!drawn) draws = 1;
  const Program program = lower(plan);
  std::vector<double> peaks;
  std::vector<std::int32_t> ranks;  // one expert group: the others route the same loads
  const Group& group = program.ep_group();
  for (std::int32_t i = 0; i < (drawn ? group.size : 1); ++i) ranks.push_back(i * group.stride);
  const auto ops = static_cast<std::int64_t>(program.roles[0].ops.size() * ranks.size());
  draws = std::min(draws, std::max(kLeastDraws, static_cast<int>(kDrawnOps / ops)));
  for (int seed = 0; seed < draws; ++seed) {
    std::int64_t peak = 0;
    const simulator::Loads loads =
        simulator::draw_loads(plan, program.roles[0], static_cast<std::uint64_t>(seed));
    for (const std::int32_t rank : ranks) {
      const Binding binding = simulator::binding_of(plan, program, rank, loads);
      peak = std::max(peak, simulator::memory_timeline(program.role_of(rank), binding.values).peak);
    }
    peaks.push_back(static_cast<double>(peak));
  }
  return peaks;
}

Result<Outcome> decide(const Request& original, const DecisionRule& rule) {
  Request request = original;
  if (!request.probes) request.probes = std::make_shared<ProbeStore>();
  Bytes held(0);
  for (int holding = 0;; ++holding) {
    TRY(Outcome outcome, plan(request));
    if (!outcome.best) return outcome;
    Plan& best = *outcome.best;
    best.cluster = original.cluster;
    best.sha256 = plan_sha256(best);
    double needed = 0;
    if (take_one(best, rule, needed)) {
      best.decision.held_back = held;
      return outcome;
    }
    const std::int64_t usable = usable_memory(original.cluster).value();
    const std::int64_t more = static_cast<std::int64_t>(needed) - usable;
    if (holding == kHoldings || more <= 0) {
      Outcome unsure;
      unsure.shortage =
          Shortage{Bytes(static_cast<std::int64_t>(needed)), Bytes(usable), best.predicted.memory,
                   "a lower --fit-probability, or more devices"};
      unsure.nearest = std::move(best);
      return unsure;
    }
    held += Bytes(more);
    request.cluster.device.reserved += Bytes(more);
  }
}

}  // namespace orrery::planner
