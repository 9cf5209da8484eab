// Training on one rank, and rank 0's step line.
#include "engine/run.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "core/plan.h"
#include "core/program/lower.h"
#include "core/program/verify.h"
#include "core/quantity.h"
#include "engine/comm/communicator.h"
#include "engine/data.h"
#include "engine/torch/device.h"
#include "engine/torch/executor.h"
#include "tracer/recorder.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

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
  const Layout& layout = plan.layout;
  const std::int64_t first = static_cast<std::int64_t>(step) * plan.workload.global_sequences;
  for (std::int64_t m = 0; m < layout.accumulation * plan.chunks.domino; ++m) {
    MicroBatch micro;
    for (std::int64_t j = 0; j < layout.micro_batch; ++j) {
      source.append_row(first + global_row(layout.world() / layout.sp, layout.micro_batch,
                                           rank / layout.sp, m, j),
                        micro.ids, micro.labels);
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

// What a rank makes on its own, before it meets the others.
struct Job {
  Plan plan;
  Program program;
  TextSource source;
};

Result<Job> prepare(const RunArguments& arguments, std::int32_t size) {
  TRY(Plan plan, plan_for_world(arguments.plan, size));
  Program program = lower(plan);
  const std::vector<Finding> findings = verify(program);
  CHECK(findings.empty(), findings.empty() ? "" : findings[0].rule + ": " + findings[0].message);
  TRY(TextSource source, TextSource::open(arguments.data, plan.workload.sequence_tokens));
  return Job{std::move(plan), std::move(program), std::move(source)};
}

// Ends this rank's part of the trace before it ends the run: MPI ends the process in abort().
class RecordedCommunicator final : public Communicator {
 public:
  RecordedCommunicator(Communicator& inner, Recorder* recorder)
      : inner_(inner), recorder_(recorder) {}
  std::int32_t rank() const override { return inner_.rank(); }
  std::int32_t world() const override { return inner_.world(); }
  Channel& channel(Lane lane, std::int32_t group) override { return inner_.channel(lane, group); }
  Result<ClockOffset> clock_offset() override { return inner_.clock_offset(); }
  // From the walking thread or from a lane's; the first one ends it all.
  void abort(const Error& error) override {
    const std::lock_guard lock(mutex_);
    Recorder* const recorder = std::exchange(recorder_, nullptr);
    if (recorder != nullptr) (void)recorder->close(RunStatus::kFailed, error.text());
    inner_.abort(error);
  }

 private:
  Communicator& inner_;
  std::mutex mutex_;
  Recorder* recorder_;  // null: no trace, or closed
};

struct Rank {
  const Job& job;
  const RunArguments& arguments;
  std::int32_t rank;
  Communicator& communicator;
};

// The device of a rank: of those of its node the one of its local rank, as the launcher says.
std::int32_t local_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "LOCAL_RANK"}) {
    const char* text = std::getenv(name);
    if (text != nullptr) return static_cast<std::int32_t>(std::strtol(text, nullptr, 10));
  }
  return 0;
}

struct Placed {
  std::shared_ptr<Device> device;  // null: the CPU
  std::unique_ptr<StreamCommunicator> collectives;
};

// All ranks call it together.
Result<Placed> place(const Rank& r) {
  Placed placed;
  if (r.arguments.device == "cpu") return placed;
  const bool cuda = r.arguments.device == "cuda";
  TRY(placed.device, make_stream_device(cuda ? DeviceKind::kCuda : DeviceKind::kNpu, local_rank()));
  const auto pairs = channels_of(r.job.program);
  TRY(placed.collectives,
      cuda ? make_nccl(pairs, r.communicator) : make_hccl(pairs, r.communicator));
  return placed;
}

// An error has ended the run on every rank.
Status train(const Rank& r, TraceSink& sink) {
  ExecutorOptions options;
  auto placed = place(r);
  if (!placed.ok()) {
    r.communicator.abort(placed.error());
    return placed.error();
  }
  options.device = placed.value().device;
  options.collectives = placed.value().collectives.get();
  options.optimizer = r.job.plan.workload.optimizer;
  options.seed = r.arguments.seed;
  auto executor = Executor::create(r.job.program, r.rank, r.communicator, sink, options);
  if (!executor.ok()) {
    r.communicator.abort(executor.error());
    return executor.error();
  }
  for (std::int32_t step = 0; step < r.arguments.steps; ++step) {
    TRY(const StepResult result,
        executor.value()->run_step(step, batch_of(r.job.plan, r.job.source, r.rank, step)));
    if (r.rank == 0) print_step(r.job.plan, r.arguments, step, result);
  }
  return Ok{};
}

Result<std::unique_ptr<Recorder>> open_recorder(const Rank& r, const ClockOffset& clock) {
  RankInfo info;
  info.rank = r.rank;
  info.node = host_name();
  info.device = "cpu";
  info.clock_offset_ns = clock.offset_ns;
  info.clock_error_ns = clock.error_ns;
  RunInfo run;
  run.kind = RunKind::kMeasured;
  run.program_hash = r.job.program.hash();
  run.stack = "orrery";
  run.plan_json = to_json(r.job.plan).dump(-1);
  return Recorder::open(r.arguments.out, info, run, r.job.program);
}

Status train_recorded(const Rank& r) {
  const auto clock = r.communicator.clock_offset();
  if (!clock.ok()) {
    r.communicator.abort(clock.error());
    return clock.error();
  }
  auto opened = open_recorder(r, clock.value());
  const Status everywhere = mpi_agree(opened.ok() ? Status(Ok{}) : Status(opened.error()));
  if (!everywhere.ok()) {
    if (opened.ok()) (void)opened.value()->close(RunStatus::kFailed, "another rank has no trace");
    return everywhere.error();
  }
  Recorder& recorder = *opened.value();
  RecordedCommunicator communicator(r.communicator, &recorder);
  RecorderTrace sink(recorder);
  TRY_OK(train(Rank{r.job, r.arguments, r.rank, communicator}, sink));
  // A rank that cannot write its last rows must not end the others before they wrote theirs.
  return mpi_agree(recorder.close(RunStatus::kOk));
}

}  // namespace

// Every error that comes back is known to all ranks, or has ended them: none waits for another.
Status run_rank(const RunArguments& arguments) {
  TRY(const MpiWorld world, mpi_world());
  const Result<Job> job = prepare(arguments, world.size);
  TRY_OK(job.ok() ? mpi_agree(Ok{}, job.value().program.hash()) : mpi_agree(job.error()));
  auto communicator =
      make_mpi(job.value().program.groups, channels_of(job.value().program), world.size);
  if (!communicator.ok()) {
    mpi_abort(communicator.error());
    return communicator.error();
  }
  const Rank rank{job.value(), arguments, world.rank, *communicator.value()};
  if (arguments.trace) return train_recorded(rank);
  NoTrace no_trace;
  return train(rank, no_trace);
}

}  // namespace orrery::engine
