// Random instances for the planner over all axes: models of few layers, clusters of few devices,
// stacks and links of all kinds.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "planner/jobs/search.h"
#include "tests/support/plans.h"
#include "tests/support/random_jobs.h"

namespace orrery::planner::jobs {

struct Instance {
  Job base;
  Pins pins;
  double probability_fits = 0.99;
};

// `small`: few jobs, so that all of them can be predicted.
Instance random_instance(const std::vector<Model>& models, const std::vector<Stack>& stacks,
                         std::uint64_t seed, bool small);

Candidate random_candidate(const Job& base, const Space& space, Draw& draw);
Job job_of(const Job& base, const Choices& choices, Bound& bound, const Candidate& candidate);

// Every job of the space's lists, one loop an axis, that violations() and the limits allow.
void for_each_job(const Job& base, const Space& space,
                  const std::function<void(const Candidate&, const Job&)>& visit);

}  // namespace orrery::planner::jobs
