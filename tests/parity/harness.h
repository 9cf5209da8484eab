// Runs a plan in-process, one thread a rank, and puts what came out together again: whole
// parameters, gradients and routing, whatever the layout was.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/plan.h"
#include "core/program/program.h"
#include "core/result.h"
#include "core/trace_events.h"
#include "engine/torch/executor.h"
#include "tests/parity/reference.h"

namespace orrery::parity {

struct RunOptions {
  std::int32_t steps = 1;
  std::uint64_t seed = 1;
  double init_std = 0.3;
  std::int32_t skip_op = -1;
  AdamW optimizer = {.lr = 1e-2};
  // What the first step starts from; empty: the engine's own initial weights, and biases of zero.
  // Biases need a program that updates them.
  reference::Parameters parameters{}, biases{};
  // Puts something between the executor and each rank's communicator; may be empty.
  std::function<std::unique_ptr<engine::Communicator>(engine::Communicator&)> wrap = nullptr;
  // Where a rank runs: fills device and collectives; what it returns lives as long as the executor.
  std::function<std::shared_ptr<void>(std::int32_t rank, engine::Communicator& communicator,
                                      engine::ExecutorOptions& options)>
      place = nullptr;
};

struct Run {
  std::vector<engine::StepResult> steps;           // of rank 0
  reference::Parameters initial, updated;          // before the first step, after the last
  reference::Parameters gradients;                 // of the last step
  std::vector<std::vector<double>> biases;         // of routers, after the last step
  std::vector<std::vector<std::int64_t>> routing;  // of the last step: a MoE layer, [rows * k]
  std::vector<double> logits;                      // of the last step: [rows * V]
  std::vector<TraceEvents> events;                 // by rank
  std::vector<std::int64_t> live_after;            // bytes by rank, after the last step
};

// Every step trains on `batch`, whose rows are dealt to ranks as global_row() says. The first error
// of any rank, if one fails.
Result<Run> run_in_process(const Plan& plan, const Program& program, const reference::Batch& batch,
                           const RunOptions& options);

// What one rank trains on.
std::vector<engine::MicroBatch> rank_batch(const Plan& plan, const reference::Batch& batch,
                                           std::int32_t rank);

// replicate_e follows from the world; make_plan adds dp and accumulation.
Layout layout_of(std::int64_t replicate_d, std::int64_t fsdp_d, std::int64_t ep,
                 std::int64_t fsdp_e, std::int64_t micro_batch = 1,
                 const std::string& inner = "fsdp");

// Plans of the parity models, sealed: `layout` and the rest as given, the world from the layout.
Plan make_plan(const Model& model, const Layout& layout, const Chunks& chunks,
               const MemoryPolicy& policy, DType dtype, std::int64_t sequence_tokens,
               std::int64_t global_sequences, BalanceScope scope = BalanceScope::kSequence);

// The same training within the design's tolerances (section 10): fp64 1e-9 with equal routing and
// router biases; fp32 losses 1e-5, updates of the weights 1e-3. Adds test failures of its own.
void expect_equal_runs(const Run& run, const Run& reference_run, DType dtype);

// The largest |a - b| over all parameters, relative to the largest |b| of the same parameter.
double worst_difference(const reference::Parameters& a, const reference::Parameters& b);
// ||a - b|| / ||b|| over all parameters together.
double relative_norm(const reference::Parameters& a, const reference::Parameters& b);

}  // namespace orrery::parity
