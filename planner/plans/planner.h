// The planner: the best layout, chunk sizes and memory policy for a model, cluster and workload.
// Memory is checked first; what may fit is ordered by a bound that no replay can beat; the best
// are replayed until the bound of all others is no better. Where compute and links slow each other,
// part of the bound holds by a property test, not by proof (bound.h).
//
// The best is the best of what is listed: all layouts, all depths of recompute with and without
// swap, the moments here or on the host, prefetch 0 to 2, and chunks of a power of two: from 512
// rows (64 where a sequence has no more than 512 tokens) up to the whole. A pin takes any value:
// one between the listed sizes may still be faster. Other mechanisms are then tried around the best
// plans (refine.h): that is not proved.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/plan.h"
#include "core/result.h"

namespace orrery::planner {

class ProbeStore;

struct Request {
  Model model;
  Cluster cluster;
  Workload workload;
  // Axes and chunks held fixed, by the names of plan.json: {"ep", "8"}, {"recompute_layers", "4"}.
  std::vector<std::pair<std::string, std::string>> pins;
  int runners_up = 5;
  // Asked again and again; once it says true, the best so far is the answer, and the proof has a
  // gap (bound_remaining_s < best_s). Where nothing that fits was found yet, the search goes on to
  // the first that does. Empty: the search ends by its proof alone, and the plan is always the
  // same.
  std::function<bool()> stop;
  std::function<void(std::int64_t done, std::int64_t all)> progress;  // may be empty
  // Memory measured for other requests (footprint.h), so that it need not be again; may be empty.
  std::shared_ptr<ProbeStore> probes;
};

struct Shortage {
  Bytes needed, usable;          // of one device
  std::vector<MemoryRow> parts;  // at the peak
  std::string advice;            // what would make it fit
};

// The fastest plan that fits once the request is changed.
struct NearestFeasible {
  std::string change;  // "without --pin ep=1", "rows of 2048 tokens", "64 devices"
  Plan plan;           // without runners-up, rejections and proof
};

struct Outcome {
  std::optional<Plan> best;
  // Where nothing fits: the legal plan that needs the least memory, and what it lacks.
  std::optional<Plan> nearest;
  std::optional<Shortage> shortage;
  // The first change of the advice, if any was found.
  std::optional<NearestFeasible> nearest_feasible;
};

// kUsage: a pin with an unknown name or value. kInfeasible: pins that no rule allows (the error
// names the rules). An Outcome without `best` is for the caller to report as kInfeasible.
Result<Outcome> plan(const Request& request);

// By how much a plan that was not replayed may be faster, as a share of the best: 0 where the
// search ended by its proof. "At most 12 % better exists" is 0.12.
double unproved_gap(const Proof& proof);

// The names that can be pinned.
std::vector<std::string> pinnable();

}  // namespace orrery::planner
