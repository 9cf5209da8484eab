// Request to plan: search, rivals, and what would make a job fit. See planner.h.
#include "planner/jobs/planner.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/quantity.h"
#include "planner/jobs/search.h"

namespace orrery::planner::jobs {
namespace {

// Of terms that differ by less than this part of the step nothing is said.
constexpr double kSaid = 0.005;

// Blocks that are looked at for the best of another family: enough to come near it.
constexpr std::size_t kFamilyBlocks = 256;

PlannedJob planned(const Request& request, const Search& search, const Candidate& candidate) {
  PlannedJob out{search.job_of(candidate), {}};
  out.predicted = simulator::predict_with(request.parameters, out.job);
  // As the nouns are, without the fitted values.
  out.job.cluster = request.cluster;
  out.job.stack = request.stack;
  return out;
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

void explain(const Request& request, Search& search, const Space& space, JobPlan& plan) {
  for (const Family& family : families_of(space.choices, plan.best->job)) {
    const bool any =
        !family.block || std::any_of(space.blocks.begin(), space.blocks.end(), family.block);
    if (!any) continue;
    const Outcome found = search.best_of(family, kFamilyBlocks);
    Rival rival{family.name, std::nullopt, "nothing of it fits",
                found.bound_remaining_s >= found.best_s};
    if (found.best) {
      rival.best = planned(request, search, *found.best);
      rival.lost_by = lost_by(plan.best->predicted, rival.best->predicted);
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

// A good one of a changed request, if the job that needs least memory fits.
std::optional<PlannedJob> best_of(const Request& request) {
  const Result<Pins> pins = Pins::parse(request.pins);
  if (!pins.ok()) return std::nullopt;
  const Job base = base_job(request);
  const Space space = make_space(base, choices_of(base, pins.value()));
  if (space.legal == 0) return std::nullopt;
  Search search(base, space, request.probability_fits, request.threads);
  const std::optional<Candidate> smallest = search.smallest();
  if (!smallest || search.predict(*smallest).probability_fits < request.probability_fits) {
    return std::nullopt;
  }
  const Outcome found = search.best_of({}, kFamilyBlocks);
  if (!found.best) return std::nullopt;
  return planned(request, search, *found.best);
}

// The cluster with so many devices: of its template where its name tells it, since a part of a node
// has no links beyond it; nullopt where there is none.
std::optional<Cluster> grown(const Cluster& cluster, std::int64_t devices) {
  if (const std::size_t x = cluster.name.rfind('x'); x != std::string::npos) {
    const std::string name = cluster.name.substr(0, x + 1) + std::to_string(devices);
    const Result<Cluster> larger = load_cluster(name);
    if (larger.ok() && larger.value().device == cluster.device) return larger.value();
  }
  if (cluster.tiers.size() < 2) return std::nullopt;
  Cluster out = cluster;
  out.devices = devices;
  return out;
}

// The first change after which something fits: a pin less, more devices, shorter sequences.
void find_change(const Request& request, JobPlan& plan) {
  const auto takes = [&](const Request& changed, const std::string& words) {
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
  constexpr std::int64_t kMostTimes = 64, kLeastTokens = 512;
  for (std::int64_t times = 2; times <= kMostTimes; times *= 2) {
    Request changed = request;
    const std::int64_t devices = request.cluster.devices * times;
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

// A number of devices that has legal jobs, where this one has none: a power of two below it.
std::string legal_devices(const Request& request) {
  for (std::int64_t devices = std::int64_t{1} << 40; devices > 0; devices /= 2) {
    if (devices >= request.cluster.devices) continue;
    Request changed = request;
    changed.cluster.devices = devices;
    const Job base = base_job(changed);
    if (make_space(base, choices_of(base, Pins())).legal == 0) continue;
    return "for example " + std::to_string(devices) + " devices";
  }
  return "another number of devices or sequences";
}

Error nothing_legal(const Request& request, const Space& space) {
  std::string rules;
  for (const auto& [rule, count] : space.removed) {
    if (count == 0) continue;
    rules += (rules.empty() ? "" : ", ") + rule + " " + std::to_string(count);
  }
  const bool pinned = !request.pins.empty();
  return Error::of(ErrorCode::kInfeasible, pinned ? "--pin" : "orrery plan",
                   "no job is legal; layouts that each rule removed: " + rules,
                   pinned ? "leave a pin out" : legal_devices(request));
}

}  // namespace

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
  if (base.precision == Precision::kFp8 && base.cluster.device.peak_fp8.value() <= 0) {
    return Error::of(ErrorCode::kInfeasible, "--pin precision=fp8",
                     base.cluster.device.name + " has no 8 bit products", "leave the pin out");
  }
  const Space space = make_space(base, choices_of(base, pins));
  if (space.legal == 0) return nothing_legal(request, space);
  Search search(base, space, request.probability_fits, request.threads);
  const Outcome found = search.best_of({});
  JobPlan out;
  out.removed = space.removed;
  out.proof = {space.legal,
               space.layouts,
               found.bounded,
               found.replayed,
               found.best_s,
               found.bound_remaining_s,
               0};
  out.proof.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (found.best) {
    out.best = planned(request, search, *found.best);
    if (request.explains) explain(request, search, space, out);
    return out;
  }
  if (const auto smallest = search.smallest()) out.nearest = planned(request, search, *smallest);
  if (request.explains) find_change(request, out);
  return out;
}

}  // namespace orrery::planner::jobs
