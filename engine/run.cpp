// Training on one rank, and rank 0's step line.
#include "engine/run.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "core/plan.h"
#include "core/program/lower.h"
#include "core/program/verify.h"
#include "core/quantity.h"
#include "engine/comm/communicator.h"
#include "engine/data.h"
#include "engine/torch/executor.h"
#include "tracer/recorder.h"

namespace orrery::engine {
namespace {

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

Result<Plan> plan_for_world(const std::string& path, std::int32_t size) {
  TRY(Plan plan, load_plan(path));
  if (plan.layout.world() != size) {
    return Error::of(
        ErrorCode::kInvalid, path,
        "the plan is for " + std::to_string(plan.layout.world()) + " ranks, and " +
            std::to_string(size) + " were started",
        "start it with `orrery train`, or with mpirun -np " + std::to_string(plan.layout.world()));
  }
  if (plan.model.vocab < 256) {
    return Error::of(ErrorCode::kInvalid, path,
                     "byte-level tokens need a vocabulary of 256, the model has " +
                         std::to_string(plan.model.vocab));
  }
  return plan;
}

std::vector<MicroBatch> batch_of(const Plan& plan, const TextSource& source, std::int32_t rank,
                                 std::int32_t step) {
  std::vector<MicroBatch> batch;
  const std::int64_t first = static_cast<std::int64_t>(step) * plan.workload.global_sequences;
  for (std::int64_t m = 0; m < plan.layout.accumulation; ++m) {
    MicroBatch micro;
    for (std::int64_t j = 0; j < plan.layout.micro_batch; ++j) {
      source.append_row(
          first + global_row(plan.layout.world(), plan.layout.micro_batch, rank, m, j), micro.ids,
          micro.labels);
      micro.documents.push_back(plan.workload.document_tokens);
    }
    batch.push_back(std::move(micro));
  }
  return batch;
}

// step 12/30 | loss 3.2071 | 412.3 ms (sim 398.0 ms, +3.6 %) | 31.2 % MFU | 158k tok/s | mem ...
void print_step(const Plan& plan, const RunArguments& arguments, std::int32_t step,
                const StepResult& result) {
  const double seconds = static_cast<double>(result.end_ns - result.start_ns) * 1e-9;
  const double predicted = static_cast<double>(arguments.predicted_ns) * 1e-9;
  const auto tokens = static_cast<double>(plan.workload.global_tokens());
  const double attended = static_cast<double>(plan.workload.pairs_per_sequence()) /
                          static_cast<double>(plan.workload.sequence_tokens);
  const double mfu = tokens / seconds * training_flops_per_token(plan.model, attended) /
                     (static_cast<double>(plan.cluster.devices) *
                      plan.cluster.device.peak(plan.workload.compute).value());
  char sim[64] = "";
  if (arguments.predicted_ns > 0) {
    std::snprintf(sim, sizeof(sim), " (sim %s, %+.1f %%)",
                  format_seconds(Seconds(predicted)).c_str(), 100 * (seconds / predicted - 1));
  }
  std::printf("step %d/%d | loss %.4f | %s%s | %.1f %% MFU | %s tok/s | mem %s of %s%s\n", step + 1,
              arguments.steps, result.loss, format_seconds(Seconds(seconds)).c_str(), sim,
              100 * mfu, format_count(tokens / seconds).c_str(),
              format_bytes(Bytes(result.peak_bytes)).c_str(),
              format_bytes(plan.cluster.device.memory).c_str(),
              result.updated ? "" : " | gradient norm not finite: weights left alone");
  std::fflush(stdout);
}

struct Rank {
  const Plan& plan;
  const Program& program;
  const RunArguments& arguments;
  std::int32_t rank;
  Communicator& communicator;
  Recorder* recorder;  // null: no trace
};

Status train(const Rank& r) {
  TRY(const TextSource source, TextSource::open(r.arguments.data, r.plan.workload.sequence_tokens));
  std::unique_ptr<TraceSink> sink = std::make_unique<NoTrace>();
  if (r.recorder != nullptr) sink = std::make_unique<RecorderTrace>(*r.recorder);
  ExecutorOptions options;
  options.optimizer = r.plan.workload.optimizer;
  options.seed = r.arguments.seed;
  TRY(const std::unique_ptr<Executor> executor,
      Executor::create(r.program, r.rank, r.communicator, *sink, options));
  for (std::int32_t step = 0; step < r.arguments.steps; ++step) {
    TRY(const StepResult result, executor->run_step(step, batch_of(r.plan, source, r.rank, step)));
    if (r.rank == 0) print_step(r.plan, r.arguments, step, result);
  }
  return Ok{};
}

Result<std::unique_ptr<Recorder>> open_recorder(const Rank& r) {
  TRY(const ClockOffset clock, r.communicator.clock_offset());
  RankInfo info;
  info.rank = r.rank;
  info.node = host_name();
  info.device = "cpu";
  info.clock_offset_ns = clock.offset_ns;
  info.clock_error_ns = clock.error_ns;
  RunInfo run;
  run.kind = RunKind::kMeasured;
  run.program_hash = r.program.hash();
  run.stack = "orrery";
  run.plan_json = to_json(r.plan).dump(-1);
  return Recorder::open(r.arguments.out, info, run, r.program);
}

Status run_with(Rank& r) {
  std::unique_ptr<Recorder> recorder;
  if (r.arguments.trace) {
    auto opened = open_recorder(r);
    if (!opened.ok()) {
      r.communicator.abort(opened.error());
      return opened.error();
    }
    recorder = std::move(opened).value();
    r.recorder = recorder.get();
  }
  const Status trained = train(r);
  Status closed = Ok{};
  if (recorder != nullptr) {
    closed = recorder->close(trained.ok() ? RunStatus::kOk : RunStatus::kFailed,
                             trained.ok() ? "" : trained.error().text());
  }
  const Status& status = trained.ok() ? closed : trained;
  // Ends the other ranks too: they wait for this one in a collective.
  if (!status.ok()) r.communicator.abort(status.error());
  return status;
}

}  // namespace

Status run_rank(const RunArguments& arguments) {
  TRY(const MpiWorld world, mpi_world());
  const auto run = [&]() -> Status {
    TRY(const Plan plan, plan_for_world(arguments.plan, world.size));
    const Program program = lower(plan);
    const std::vector<Finding> findings = verify(program);
    CHECK(findings.empty(), findings.empty() ? "" : findings[0].rule + ": " + findings[0].message);
    TRY(const std::unique_ptr<Communicator> communicator, make_mpi(program.groups, world.size));
    Rank rank{plan, program, arguments, world.rank, *communicator, nullptr};
    return run_with(rank);
  };
  const Status status = run();
  mpi_finish();
  return status;
}

}  // namespace orrery::engine
