// Request to plan: search, rivals, and what would make a job fit. See planner.h.
#include "planner/jobs/planner.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/job_json.h"
#include "core/quantity.h"
#include "planner/jobs/changes.h"
#include "planner/jobs/decide.h"
#include "planner/jobs/frontier.h"
#include "planner/jobs/search.h"
#include "simulator/stages/memory.h"

namespace orrery::planner::jobs {
namespace {

// Of terms that differ by less than this part of the step nothing is said.
constexpr double kSaid = 0.005;

// Blocks that are looked at for the best of another family: enough to come near it.
constexpr std::size_t kFamilyBlocks = 128;
// And where jobs are ranked by their 90th percentile, which lies far above what is known without it
// of jobs that are unlike measured ones.
constexpr std::size_t kRiskBlocks = 1024, kRiskFamilyBlocks = 16;

// Ends of rows are rounded, not rows, so that they add up to the peak as it is shown.
std::vector<MemoryRow> memory_rows(const Job& job, double peak) {
  const simulator::MemoryParts parts = simulator::memory_parts(job);
  std::vector<MemoryRow> rows;
  double sum = 0;
  std::int64_t before = 0;
  const auto add = [&](const char* name, double bytes) {
    sum += bytes;
    const auto end = static_cast<std::int64_t>(sum + 1e-3);
    if (end > before) rows.push_back({name, Bytes(end - before)});
    before = end;
  };
  for (std::size_t c = 0; c < simulator::kNumMemoryClasses; ++c) {
    add(simulator::name_of(static_cast<simulator::MemoryClass>(c)), parts.bytes[c]);
  }
  add("allocator", peak - parts.total());
  return rows;
}

PlannedJob planned(const Request& request, const Search& search, const Candidate& candidate) {
  Job job = search.job_of(candidate);
  // As the nouns are, without the fitted values.
  job.cluster = request.cluster;
  job.stack = request.stack;
  return looked_at(request.parameters, std::move(job));
}

std::string lost_by(const simulator::JobPrediction& winner, const simulator::JobPrediction& rival) {
  std::vector<Term> terms = terms_of(rival.parts);
  const std::vector<Term> own = terms_of(winner.parts);
  for (std::size_t i = 0; i < terms.size(); ++i) terms[i].seconds -= own[i].seconds;
  std::stable_sort(terms.begin(), terms.end(),
                   [](const Term& a, const Term& b) { return a.seconds > b.seconds; });
  std::string text;
  for (std::size_t i = 0; i < 2; ++i) {
    if (terms[i].seconds < kSaid * winner.step.value()) break;
    text += (text.empty() ? "" : ", ") + terms[i].name + " +" +
            format_seconds(Seconds(terms[i].seconds));
  }
  return text.empty() ? "a little of everything" : text;
}

using OfBlock = std::function<bool(const Block&)>;
using OfMember = std::function<bool(const Block&, const Member&)>;

// Families that the winner is not in.
std::vector<Family> families_of(const Choices& choices, const Job& winner) {
  std::vector<Family> out;
  const auto axis = [&](const char* name, std::int64_t value, std::int32_t Block::*member) {
    const bool has = value > 1;
    out.push_back({std::string(has ? "no " : "") + name,
                   [=](const Block& b) { return (b.*member > 1) != has; },
                   {}});
  };
  const Layout& l = winner.layout;
  axis("tensor parallelism", l.tp, &Block::tp);
  axis("pipeline", l.pp, &Block::pp);
  if (winner.model.is_moe()) axis("expert parallelism", l.ep, &Block::ep);
  axis("context parallelism", l.cp, &Block::cp);
  axis("Ulysses (heads exchanged)", l.sp, &Block::sp);
  const bool fsdp = winner.sharding == Sharding::kParameters;
  out.push_back({fsdp ? "parameters whole" : "FSDP (parameters sharded)",
                 {},
                 [=](const Block&, const Member& m) {
                   return (m.sharding == Sharding::kParameters) != fsdp;
                 }});
  const auto recomputes = [&](const char* name, const std::function<bool(const Recompute&)>& is) {
    if (is(winner.recompute)) return;
    out.push_back({name, {}, [&choices, is](const Block&, const Member& m) {
                     return is(choices.recompute[m.recompute].recompute);
                   }});
  };
  recomputes("no recompute", [](const Recompute& r) { return r == Recompute{}; });
  recomputes("full recompute", [](const Recompute& r) { return r.full; });
  return out;
}

std::size_t most_blocks(Risk risk) {
  return risk == Risk::kP90 ? kRiskFamilyBlocks : kFamilyBlocks;
}

struct Searched {
  Family family;
  Outcome found;
};

bool belongs(const Candidate& c, const Family& family) {
  return (!family.block || family.block(c.block)) &&
         (!family.member || family.member(c.block, c.member));
}

// A search of so many blocks may miss what that of another family has found of this one.
void share(std::vector<Searched>& all) {
  for (Searched& own : all) {
    for (const Searched& other : all) {
      const Outcome &mine = own.found, &theirs = other.found;
      if (!theirs.best || !belongs(*theirs.best, own.family)) continue;
      if (mine.best && mine.best_s <= theirs.best_s) continue;
      own.found.best = theirs.best;
      own.found.best_s = theirs.best_s;
    }
  }
}

void explain(const Request& request, const Fastest& fastest, Search& search, const Space& space,
             JobPlan& plan) {
  std::vector<Searched> all;
  for (const Family& family : families_of(space.choices, plan.best->job)) {
    if (search.stopped()) break;
    const bool any =
        !family.block || std::any_of(space.blocks.begin(), space.blocks.end(), family.block);
    if (any) all.push_back({family, search.best_of(family, most_blocks(request.risk))});
  }
  share(all);
  for (const auto& [family, found] : all) {
    if (found.stopped && !found.best) continue;
    Rival rival{family.name, std::nullopt, "nothing of it fits",
                found.bound_remaining_s >= found.best_s};
    if (found.best) {
      rival.best = planned(request, search, *found.best);
      const simulator::JobPrediction& p = rival.best->predicted;
      const double score = score_of(p, request.risk);
      const bool faster = score < score_of(plan.best->predicted, request.risk);
      rival.tie = ties(fastest, score, p.step.value(), p.parts);
      rival.lost_by = faster ? "less simple" : lost_by(plan.best->predicted, p);
    }
    plan.rivals.push_back(std::move(rival));
  }
  std::stable_sort(plan.rivals.begin(), plan.rivals.end(), [](const Rival& a, const Rival& b) {
    const auto step = [](const Rival& r) {
      return r.best ? r.best->predicted.step.value() : HUGE_VAL;
    };
    return step(a) < step(b);
  });
}

SearchRule rule_of(const Request& request, const Score* score) {
  return {request.probability_fits, request.threads, request.stop, score};
}

void add_frontier(const Request& request, Search& search, const Candidate& best, JobPlan& plan) {
  const auto device = static_cast<double>(request.cluster.device.memory.value());
  const double reserve = search.job_of(best).stack.reserve_bytes;
  for (const FrontierStep& step : frontier_of(search, best, device, reserve)) {
    plan.frontier.push_back(
        {step.memory_bytes, step.searched_bytes, planned(request, search, step.candidate)});
  }
}

// A good one of a changed request, if the job that needs least memory fits.
std::optional<PlannedJob> best_of(const Request& request) {
  const Result<Pins> pins = Pins::parse(request.pins);
  if (!pins.ok()) return std::nullopt;
  const Job base = base_job(request);
  const Space space = make_space(base, choices_of(base, pins.value()));
  if (space.legal == 0) return std::nullopt;
  Search search(base, space, rule_of(request, nullptr));
  const std::optional<Candidate> smallest = search.smallest();
  if (!smallest || search.predict(*smallest).probability_fits < request.probability_fits) {
    return std::nullopt;
  }
  const Outcome found = search.best_of({}, kFamilyBlocks);
  if (!found.best) return std::nullopt;
  return planned(request, search, *found.best);
}

// Takes the fastest, or the simplest that ties with it.
Fastest decide(const Request& request, Search& search, const Candidate& best, JobPlan& plan) {
  plan.best = planned(request, search, best);
  const Fastest fastest = fastest_of(plan.best->predicted, request.risk);
  if (!request.simplest && !request.explains) return fastest;  // nobody asks what ties
  const Tied tied = find_ties(search, best, fastest, request.risk);
  plan.decision.ties = tied.count;
  plan.decision.complete = tied.complete;
  plan.proof.bounded += tied.bounded;
  plan.proof.replayed += tied.replayed;
  if (request.simplest && tied.simplest) {
    plan.decision.fastest = std::move(plan.best);
    plan.best = planned(request, search, *tied.simplest);
  }
  return fastest;
}

// A number of devices that has legal jobs, where this one has none: a power of two below it.
std::int64_t legal_devices(const Request& request) {
  for (std::int64_t devices = std::int64_t{1} << 40; devices > 0; devices /= 2) {
    if (devices >= request.cluster.devices) continue;
    Request changed = request;
    changed.cluster.devices = devices;
    const Job base = base_job(changed);
    if (make_space(base, choices_of(base, Pins())).legal > 0) return devices;
  }
  return 0;
}

// A request without a legal job, changed a little until one fits: a pin less, or none, a batch that
// divides, fewer devices.
std::optional<Problem> nearest_legal(const Request& request, std::int64_t fewer) {
  const auto near = [&](const Request& changed,
                        const std::string& words) -> std::optional<Problem> {
    const std::optional<PlannedJob> best = best_of(changed);
    if (!best) return std::nullopt;
    return Problem{"the nearest that fits",
                   words + " (" +
                       format_bytes(Bytes(static_cast<std::int64_t>(best->predicted.peak_bytes))) +
                       ", " + format_seconds(best->predicted.step) + " a step)",
                   words_of(best->job)};
  };
  for (std::size_t i = 0; i < request.pins.size(); ++i) {
    Request changed = request;
    changed.pins.erase(changed.pins.begin() + static_cast<std::ptrdiff_t>(i));
    const auto& [name, value] = request.pins[i];
    if (auto found = near(changed, "without --pin " + name + "=" + value)) return found;
  }
  if (request.pins.size() > 1) {
    Request changed = request;
    changed.pins.clear();
    if (auto found = near(changed, "without the pins")) return found;
  }
  const std::int64_t world = request.cluster.devices, batch = request.workload.global_sequences;
  for (const std::int64_t sequences : {batch / world * world, (batch / world + 1) * world}) {
    if (sequences <= 0 || sequences == batch) continue;
    Request changed = request;
    changed.workload.global_sequences = sequences;
    const std::string words = "a batch of " + std::to_string(sequences) + " sequences";
    if (auto found = near(changed, words)) return found;
  }
  if (fewer > 0) {
    Request changed = request;
    changed.cluster.devices = fewer;
    return near(changed, std::to_string(fewer) + " devices");
  }
  return std::nullopt;
}

Error nothing_legal(const Request& request, const Space& space) {
  std::string rules;
  for (const auto& [rule, count] : space.removed) {
    if (count == 0) continue;
    rules += (rules.empty() ? "" : ", ") + rule + " " + std::to_string(count);
  }
  const bool pinned = !request.pins.empty();
  const std::int64_t fewer = pinned ? 0 : legal_devices(request);
  Error error = Error::of(ErrorCode::kInfeasible, pinned ? "--pin" : "orrery plan",
                          "no job is legal; layouts that each rule removed: " + rules,
                          pinned      ? "leave a pin out"
                          : fewer > 0 ? "for example " + std::to_string(fewer) + " devices"
                                      : "another number of devices or sequences");
  if (auto near = nearest_legal(request, fewer)) error.problems.push_back(std::move(*near));
  return error;
}

}  // namespace

namespace {

// A lower bound: moments of all parameters, dealt out over all devices.
Bytes states_alone(const Model& model, std::int64_t devices) {
  return Bytes(2 * 4 * parameter_count(model) / devices);
}

}  // namespace

PlannedJob looked_at(const simulator::ParameterSet& parameters, Job job) {
  Job fitted = job;
  simulator::apply(parameters.values, fitted);
  PlannedJob out{std::move(job), simulator::predict_with(parameters, fitted), {}};
  out.memory = memory_rows(fitted, out.predicted.peak_bytes);
  return out;
}

// A pin less, more devices, shorter sequences.
void find_change(const Request& request, JobPlan& plan) {
  const auto takes = [&](const Request& changed, const std::string& words) {
    if (request.stop && request.stop()) return false;
    plan.changed = best_of(changed);
    if (plan.changed) plan.change = words;
    return plan.changed.has_value();
  };
  for (std::size_t i = 0; i < request.pins.size(); ++i) {
    Request changed = request;
    changed.pins.erase(changed.pins.begin() + static_cast<std::ptrdiff_t>(i));
    const auto& [name, value] = request.pins[i];
    if (takes(changed, "without --pin " + name + "=" + value)) return;
  }
  constexpr std::int64_t kMostTimes = 64, kMostDevices = 2048, kLeastTokens = 512;
  for (std::int64_t times = 2;; times *= 2) {
    const std::int64_t devices = request.cluster.devices * times;
    if (times > kMostTimes && devices > kMostDevices) break;
    if (states_alone(request.model, devices) > request.cluster.device.memory) continue;
    Request changed = request;
    const std::optional<Cluster> cluster = grown(request.cluster, devices);
    if (!cluster) break;
    changed.cluster = *cluster;
    if (takes(changed, std::to_string(devices) + " devices")) return;
  }
  for (std::int64_t tokens = request.workload.sequence_tokens / 2; tokens >= kLeastTokens;
       tokens /= 2) {
    Request changed = request;
    changed.workload.sequence_tokens = tokens;
    changed.workload.document_tokens = {tokens};
    changed.workload.document_lengths.reset();
    if (takes(changed, "sequences of " + std::to_string(tokens) + " tokens")) return;
  }
}

std::vector<Term> terms_of(const simulator::StepParts& p) {
  return {{"compute", p.compute},    {"host", p.host},           {"tensor", p.tensor},
          {"context", p.context},    {"experts", p.expert},      {"data", p.data},
          {"bubble", p.bubble},      {"optimizer", p.optimizer}, {"fixed", p.fixed},
          {"stragglers", p.straggle}};
}

Result<JobPlan> plan(const Request& request) {
  const auto began = std::chrono::steady_clock::now();
  TRY(const Pins pins, Pins::parse(request.pins));
  const Job base = base_job(request);
  const std::vector<Precision>& named = pins.precisions();
  const bool low = std::find(named.begin(), named.end(), Precision::kFp8) != named.end();
  if (low && base.cluster.device.peak_fp8.value() <= 0) {
    return Error::of(ErrorCode::kInfeasible, "--pin precision",
                     base.cluster.device.name + " has no 8 bit products", "leave the pin out");
  }
  const Space space = make_space(base, choices_of(base, pins));
  if (space.legal == 0) return nothing_legal(request, space);
  const Score score(request.parameters, request.risk);
  const bool risk = request.risk == Risk::kP90;
  Search search(base, space, rule_of(request, risk ? &score : nullptr));
  const Outcome found = search.best_of({}, risk ? kRiskBlocks : 0);
  JobPlan out;
  out.removed = space.removed;
  out.proof = {space.legal,
               space.layouts,
               found.bounded,
               found.replayed,
               found.best_s,
               found.bound_remaining_s,
               0};
  out.stopped = search.stopped();
  out.decision.risk = request.risk;
  out.decision.probability_fits = request.probability_fits;
  std::optional<Fastest> fastest;
  if (found.best) fastest = decide(request, search, *found.best, out);
  out.proof.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (found.best) {
    if (out.best->job.layout.pp > 1) {
      Job fitted = out.best->job;
      fitted.cluster = base.cluster;
      fitted.stack = base.stack;
      out.cells = simulator::cell_times(fitted);
    }
    if (request.explains) explain(request, *fastest, search, space, out);
    if (request.frontier) add_frontier(request, search, *found.best, out);
    return out;
  }
  if (out.stopped) return out;
  if (const auto smallest = search.smallest()) out.nearest = planned(request, search, *smallest);
  if (request.explains) find_change(request, out);
  return out;
}

}  // namespace orrery::planner::jobs
