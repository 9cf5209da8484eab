// Requests that several tests make.
#pragma once

#include <memory>

#include "planner/footprint.h"
#include "planner/planner.h"
#include "tests/support/plans.h"

namespace orrery::planner {

// A small job on which memory binds, so that a search has work to do.
inline Request tight_request(int runners_up) {
  Request r;
  r.model = small_moe_model(4, 8);
  r.cluster = small_cluster(8);
  r.workload = small_workload(32, DType::kBFloat16);
  r.workload.sequence_tokens = 2048;
  r.workload.document_tokens = {2048};
  r.cluster.device.memory = r.cluster.device.reserved + Bytes(45'000'000);
  r.runners_up = runners_up;
  r.probes = std::make_shared<ProbeStore>();
  return r;
}

}  // namespace orrery::planner
