// The planner: enumerates, searches, explains, and checks what it is about to return.
#include "planner/planner.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "core/check.h"
#include "core/program/lower.h"
#include "core/program/verify.h"
#include "planner/explain.h"
#include "planner/search.h"
#include "simulator/document_cost.h"

namespace orrery::planner {
namespace {

void check_sound(const Plan& plan) {
  const std::vector<Finding> findings = verify(lower(plan));
  CHECK(findings.empty(), "a plan whose program is unsound: " + findings.front().rule + ": " +
                              findings.front().message);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Plan plan_of_trial(const Search& search, const Trial& trial) {
  Plan plan = search.plan_of(trial.layout, trial.choice);
  plan.predicted = trial.predicted;
  plan.predicted.document_cost = simulator::document_cost(plan, lower(plan));
  plan.rejected = search.space().rejected;
  plan.proof.legal = search.space().legal;
  // Legal, but found not to fit; what the search did not come to is not in it.
  if (search.unfit() > 0) plan.rejected.push_back({"memory", search.unfit()});
  plan.proof.bounded = search.bounded();
  plan.proof.replayed = search.replayed();
  check_sound(plan);
  return plan;
}

}  // namespace

Result<Outcome> plan(const Request& request) {
  const auto start = std::chrono::steady_clock::now();
  TRY(Space space, enumerate(request));
  Search search(request, std::move(space));
  search.run();
  Outcome outcome;
  if (!search.best()) {
    const Trial least = *search.smallest_of({});
    outcome.nearest = plan_of_trial(search, least);
    Advice found = advice(request);
    if (found.nearest) check_sound(found.nearest->plan);
    outcome.shortage = Shortage{least.predicted.peak, usable_memory(request.cluster),
                                least.predicted.memory, std::move(found.text)};
    outcome.nearest_feasible = std::move(found.nearest);
    outcome.nearest->proof.seconds = seconds_since(start);
    return outcome;
  }
  const Trial best = *search.best();
  Plan plan = plan_of_trial(search, best);
  plan.proof.best_s = best.predicted.step.value();
  const double remaining = search.bound_remaining_ns();
  // Nothing left: what remains is nothing better.
  plan.proof.bound_remaining_s =
      std::isfinite(remaining) ? remaining * 1e-9 : best.predicted.step.value();
  plan.runners_up = runners_up(search, request);
  plan.proof.seconds = seconds_since(start);
  outcome.best = std::move(plan);
  return outcome;
}

}  // namespace orrery::planner
