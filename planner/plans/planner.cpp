// The planner: enumerates, searches, explains, and checks what it is about to return.
#include "planner/plans/planner.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

#include "core/check.h"
#include "core/program/lower.h"
#include "core/program/verify.h"
#include "planner/plans/explain.h"
#include "planner/plans/footprint.h"
#include "planner/plans/refine.h"
#include "planner/plans/search.h"
#include "simulator/document_cost.h"

namespace orrery::planner {
namespace {

constexpr std::int64_t kPassesOfMisfits = 4;

// Of a plan that is not returned to be run, `passes` are enough to look at: the others repeat them.
void check_sound(const Plan& plan, std::int64_t passes = std::numeric_limits<std::int64_t>::max()) {
  const std::vector<Finding> findings = verify(lower(shortened(plan, passes)));
  CHECK(findings.empty(), "a plan whose program is unsound: " + findings.front().rule + ": " +
                              findings.front().message);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The search's own figures, before anything else is replayed to explain.
void add_proof(const Search& search, Plan& plan) {
  plan.rejected = search.space().rejected;
  plan.proof.legal = search.space().legal;
  if (search.host_unfit() > 0) plan.rejected.push_back({"host_memory", search.host_unfit()});
  // Legal, but found not to fit; what the search did not come to is not in it.
  if (search.unfit() > 0) plan.rejected.push_back({"memory", search.unfit()});
  plan.proof.bounded = search.bounded();
  plan.proof.replayed = search.replayed();
}

void set_plan(const Search& search, const Trial& trial, Plan& plan) {
  const Plan found = search.plan_of(trial.layout, trial.choice);
  plan.model = found.model;
  plan.cluster = found.cluster;
  plan.workload = found.workload;
  plan.layout = found.layout;
  plan.chunks = found.chunks;
  plan.policy = found.policy;
  plan.sha256 = found.sha256;
  plan.predicted = trial.predicted;
  plan.predicted.document_cost = simulator::document_cost(plan);
}

}  // namespace

double unproved_gap(const Proof& proof) {
  if (proof.best_s <= 0 || proof.bound_remaining_s >= proof.best_s) return 0;
  return 1 - proof.bound_remaining_s / proof.best_s;
}

Result<Outcome> plan(const Request& original) {
  const auto start = std::chrono::steady_clock::now();
  Request request = original;
  if (!request.probes) request.probes = std::make_shared<ProbeStore>();
  TRY(Space space, enumerate(request));
  Search search(request, std::move(space));
  search.run();
  Outcome outcome;
  Plan plan;
  add_proof(search, plan);
  if (!search.best()) {
    const Trial least = *search.smallest_of({});
    plan.proof.replayed = search.replayed();
    set_plan(search, least, plan);
    check_sound(plan, kPassesOfMisfits);
    Advice found = advice(request);
    if (found.nearest) check_sound(found.nearest->plan);
    outcome.shortage = Shortage{least.predicted.peak, usable_memory(request.cluster),
                                least.predicted.memory, std::move(found.text)};
    outcome.nearest_feasible = std::move(found.nearest);
    plan.proof.seconds = seconds_since(start);
    outcome.nearest = std::move(plan);
    return outcome;
  }
  const Trial proved = *search.best();
  plan.proof.best_s = proved.predicted.step.value();
  const double remaining = search.bound_remaining_ns();
  // Nothing left: what remains is nothing better.
  plan.proof.bound_remaining_s =
      std::isfinite(remaining) ? remaining * 1e-9 : proved.predicted.step.value();
  const Refined refined = refine(search, request);
  plan.proof.refined = refined.replays;
  const Trial chosen = refined.best.value_or(proved);
  set_plan(search, chosen, plan);
  check_sound(plan);
  if (!search.stopped()) plan.fits_because = fit_reasons(search, chosen);
  plan.runners_up = runners_up(search, request, chosen);
  plan.proof.seconds = seconds_since(start);
  outcome.best = std::move(plan);
  return outcome;
}

}  // namespace orrery::planner
