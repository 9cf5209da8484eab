// Requests that several tests make, and the replay of a candidate.
#pragma once

#include <memory>

#include "core/program/lower.h"
#include "planner/plans/footprint.h"
#include "planner/plans/planner.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::planner {

// A small job on which memory binds: layouts, chunks and recompute all matter.
inline Request tight_request(int runners_up = Request().runners_up) {
  Request r;
  r.model = small_moe_model(4, 8);
  r.cluster = small_cluster(8);
  r.workload = small_workload(32, DType::kBFloat16);
  r.workload.sequence_tokens = 2048;
  r.workload.document_tokens = {2048};
  r.cluster.device.memory = r.cluster.device.reserved + Bytes(45'000'000);  // one in eight fits
  r.runners_up = runners_up;
  r.probes = std::make_shared<ProbeStore>();
  return r;
}

inline Plan plan_at(const Request& r, const Layout& layout, const Chunks& chunks,
                    const MemoryPolicy& policy) {
  Plan plan;
  plan.model = r.model;
  plan.cluster = r.cluster;
  plan.workload = r.workload;
  plan.layout = layout;
  plan.chunks = chunks;
  plan.policy = policy;
  plan.sha256 = plan_sha256(plan);
  return plan;
}

inline simulator::Simulation replay_of(const Plan& plan) {
  simulator::Options options;
  options.events = options.document_cost = false;
  return simulator::simulate(plan, lower(plan), options).value();
}

inline void set_usable(Request& r, std::int64_t bytes) {
  r.cluster.device.memory = r.cluster.device.reserved + Bytes(bytes);
}

}  // namespace orrery::planner
