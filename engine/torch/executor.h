// The executor: walks a rank's program in issue order and runs every op of it. The walking thread
// is the compute lane; each other lane of the program is a FIFO worker thread (a stream). On the
// CPU, device and host memory are two pools of the same memory, counted apart. On a device every
// lane is a stream: the walk launches in issue order, events stand for dependencies, and the host
// waits at the program's host synchronisations. The executor
// adds no op, no order and no byte of its own: buffers are taken and freed where the program says.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/program/program.h"
#include "core/result.h"
#include "core/workload.h"
#include "engine/comm/communicator.h"
#include "engine/trace_sink.h"

namespace at {
class Tensor;
}

namespace orrery::engine {

class Device;
class StreamCommunicator;

// One micro-batch of a rank: [sequences * StepConstants::valid_tokens] tokens and labels (-100: no
// label), and the lengths of the documents of each sequence. Ranks that share sequences are given
// the same whole sequences; each pads them and takes its part.
struct MicroBatch {
  std::vector<std::int64_t> ids, labels;
  std::vector<std::vector<std::int64_t>> documents;
};

struct StepResult {
  double loss = 0, balance_loss = 0, z_loss = 0, grad_norm = 0;
  double lr = 0;            // of this step (learning_rate)
  std::int64_t tokens = 0;  // labels of the world
  std::int64_t start_ns = 0, end_ns = 0;
  std::int64_t peak_bytes = 0, host_peak_bytes = 0;
  bool updated = true;  // false: the gradient norm was not finite, and weights were left alone
};

struct ExecutorOptions {
  AdamW optimizer;
  std::uint64_t seed = 1;     // of the initial weights
  std::int32_t skip_op = -1;  // fault injection: this op of the program is not run
  double init_std = 0.02;
  std::int64_t memory_limit = 0;  // bytes a rank may have live; 0: as much as there is
  // Where to run; null: the CPU. With a device that launches, `collectives` are those of its
  // streams and outlive the executor; `communicator` then only ends a failed run on the other
  // ranks.
  std::shared_ptr<Device> device;
  StreamCommunicator* collectives = nullptr;
  // Sees each tensor as it enters its buffer (results of blocks are complete; collectives' outputs,
  // sums and chunked gradients are not yet written), and the step's gradient shards before they are
  // used. Called from the walking thread. For tests; may be empty.
  std::function<void(const Op& op, BufferId buffer, const at::Tensor& tensor)> observe;
};

// The row of the step's batch that sequence `j` of micro-batch `m` is, on the ranks of data index
// `index` of `dp` (of sp ranks that share sequences all have one: rank / sp, with dp = world / sp).
constexpr std::int64_t global_row(std::int64_t dp, std::int64_t micro_batch, std::int64_t index,
                                  std::int64_t m, std::int64_t j) {
  return (m * dp + index) * micro_batch + j;
}

class Executor {
 public:
  // The program must have passed verify(). `communicator` and `trace` outlive the executor.
  // Initial weights come from a counter-based generator keyed by (seed, parameter name, global
  // element index): they do not depend on the layout. All other persistent state begins at zero.
  static Result<std::unique_ptr<Executor>> create(const Program& program, std::int32_t rank,
                                                  Communicator& communicator, TraceSink& trace,
                                                  const ExecutorOptions& options);
  virtual ~Executor() = default;

  // One step; `batch` has one entry a micro-batch. An error (kRun) names rank and op; the run is
  // over then, on every rank.
  virtual Result<StepResult> run_step(std::int32_t step, const std::vector<MicroBatch>& batch) = 0;

  // This rank's shard of a unit (master dtype, flat, padded), for tests and checkpoints.
  virtual at::Tensor shard(std::int32_t unit) const = 0;
  // The router biases [1,E] of the MoE layers that have one, in layer order: zero before the first
  // step.
  virtual std::vector<at::Tensor> router_biases() const = 0;
  // Live bytes now, of both memory spaces, persistent state included.
  virtual std::int64_t live_bytes() const = 0;
};

// Nanoseconds of the steady clock: the timeline of a measured trace.
std::int64_t now_ns();

}  // namespace orrery::engine
