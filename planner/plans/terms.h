// A plan's step in terms that sum to it: the phases of compute, what each lane exposes, and
// waiting.
#pragma once

#include <string>
#include <vector>

#include "core/plan.h"
#include "core/program/program.h"
#include "core/trace_events.h"

namespace orrery::planner {

// One term of a step.
struct Term {
  std::string name;
  Seconds time;
};

// Means over the replayed ranks, in a fixed order; the times sum to `step`. Compute counts by the
// phase of its op; while none runs, the lanes whose ops run share the time evenly; the rest is
// waiting: for other ranks, or for the host.
struct Terms {
  Seconds step;
  std::vector<Term> parts;
  Prediction predicted;
  Seconds of(const std::string& name) const;  // CHECKs that there is such a term
  Seconds compute() const;                    // all phases
  Seconds exposed() const;                    // all lanes but compute
  Seconds waiting() const;
};

// Names of all terms, in their order.
const std::vector<std::string>& term_names();

// Lowers and replays a legal plan.
Terms terms_of(const Plan& plan);

// Of the spans of a step that ends at `end`: ops of `role` on one rank.
std::vector<Seconds> term_times(const Role& role, const std::vector<SpanEvent>& spans,
                                Nanoseconds end);

}  // namespace orrery::planner
