// Training on one rank, and rank 0's step line.
#include "engine/run.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "core/plan.h"
#include "core/program/lower.h"
#include "core/program/verify.h"
#include "core/quantity.h"
#include "engine/comm/communicator.h"
#include "engine/cores.h"
#include "engine/data.h"
#include "engine/documents.h"
#include "engine/rank_end.h"
#include "engine/torch/device.h"
#include "engine/torch/executor.h"
#include "tracer/recorder.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

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

// Rows of running text, or of documents where the workload packs them.
struct Data {
  std::optional<TextSource> text;
  std::optional<DocumentSource> documents;
};

Result<Data> open_data(const std::string& path, const Plan& plan) {
  const Workload& workload = plan.workload;
  if (workload.packing == Packing::kNone) {
    TRY(TextSource text, TextSource::open(path, workload.sequence_tokens));
    return Data{std::move(text), std::nullopt};
  }
  DocumentSource::Options options;
  options.row_tokens = workload.sequence_tokens;
  options.packing = workload.packing;
  options.deal.ranks = plan.layout.dp;
  options.deal.micro_batch = plan.layout.micro_batch;
  options.deal.micro_batches =
      workload.global_sequences / (plan.layout.dp * plan.layout.micro_batch);
  TRY(DocumentSource documents, DocumentSource::open(path, options));
  return Data{std::nullopt, std::move(documents)};
}

std::vector<MicroBatch> batch_of(const Plan& plan, const Data& data, std::int32_t rank,
                                 std::int32_t step) {
  std::vector<MicroBatch> batch;
  const Layout& layout = plan.layout;
  const std::int64_t first = static_cast<std::int64_t>(step) * plan.workload.global_sequences;
  for (std::int64_t m = 0; m < layout.accumulation * plan.chunks.domino; ++m) {
    MicroBatch micro;
    for (std::int64_t j = 0; j < layout.micro_batch; ++j) {
      const std::int64_t row =
          global_row(layout.world() / layout.sp, layout.micro_batch, rank / layout.sp, m, j);
      std::vector<std::int64_t>& documents = micro.documents.emplace_back();
      if (data.documents) {
        data.documents->append_row(step, row, micro.ids, micro.labels, documents);
      } else {
        data.text->append_row(first + row, micro.ids, micro.labels);
        documents = plan.workload.typical_documents(first + row);
      }
    }
    batch.push_back(std::move(micro));
  }
  return batch;
}

void print_data(const Data& data) {
  if (!data.documents || data.documents->left_out() == 0) return;
  std::printf("%lld documents; %lld left out: of one byte, or longer than a row\n",
              static_cast<long long>(data.documents->documents()),
              static_cast<long long>(data.documents->left_out()));
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
  Data data;
};

Result<Job> prepare(const RunArguments& arguments, std::int32_t size) {
  TRY(Plan plan, plan_for_world(arguments.plan, size));
  Program program = lower(plan);
  const std::vector<Finding> findings = verify(program);
  CHECK(findings.empty(), findings.empty() ? "" : findings[0].rule + ": " + findings[0].message);
  TRY(Data data, open_data(arguments.data, plan));
  return Job{std::move(plan), std::move(program), std::move(data)};
}

struct Rank {
  const Job& job;
  const RunArguments& arguments;
  std::int32_t rank;
  Communicator& communicator;
  RankEnd& end;
};

// Says in the trace that the update of a step was skipped. An error, the same on every rank, when
// that was so for too many steps in a row.
Status judge_update(const Rank& r, std::int32_t step, const StepResult& result,
                    std::int32_t& skipped) {
  skipped = result.updated ? 0 : skipped + 1;
  if (result.updated) return Ok{};
  const std::string what = "the gradient norm is not finite: weights were left alone (" +
                           std::to_string(skipped) + " in a row)";
  if (r.rank == 0 && r.end.recorder() != nullptr) {
    r.end.recorder()->record(NoteEvent{-1, result.end_ns, "update_skipped",
                                       "step " + std::to_string(step) + ": " + what});
  }
  if (skipped < r.arguments.skip_limit) return Ok{};
  Error error =
      Error::of(ErrorCode::kRun, "step " + std::to_string(step), what,
                "lower the learning rate, look at the data of these steps, or raise --skip-limit");
  (void)r.end.close(RunStatus::kFailed, reason_of(error));
  if (r.rank != 0) error.problems.clear();
  return error;
}

// Of the devices of its node a rank has the one of its local rank.
struct Placed {
  std::shared_ptr<Device> device;  // null: the CPU
  std::unique_ptr<StreamCommunicator> collectives;
};

// All ranks call it together.
Result<Placed> place(const Rank& r) {
  Placed placed;
  if (r.arguments.device == "cpu") return placed;
  const bool cuda = r.arguments.device == "cuda";
  TRY(placed.device,
      make_stream_device(cuda ? DeviceKind::kCuda : DeviceKind::kNpu, local_rank().rank));
  const auto pairs = channels_of(r.job.program);
  TRY(placed.collectives,
      cuda ? make_nccl(pairs, r.communicator) : make_hccl(pairs, r.communicator));
  return placed;
}

// Every error but that of judge_update has ended the run on every rank.
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
  options.memory_limit = r.arguments.memory_limit;
  std::optional<Injector> injector;
  std::unique_ptr<Communicator> emulated, injected;
  Communicator* communicator = &r.communicator;
  if (r.arguments.link) {
    emulated = make_emulated(*communicator, r.job.program.groups, *r.arguments.link);
    communicator = emulated.get();
  }
  if (r.arguments.fault) {
    injector.emplace(*r.arguments.fault, r.job.program, r.rank);
    injected = make_injected(*communicator, *injector);
    communicator = injected.get();
    options.observe = injector->observer();
  }
  auto executor = Executor::create(r.job.program, r.rank, *communicator, sink, options);
  if (!executor.ok()) {
    communicator->abort(executor.error());
    return executor.error();
  }
  if (r.arguments.device == "cpu") give_way();
  if (r.rank == 0) print_data(r.job.data);
  std::int32_t skipped = 0;
  for (std::int32_t step = 0; step < r.arguments.steps; ++step) {
    if (injector) injector->begin_step(step);
    TRY(const StepResult result,
        executor.value()->run_step(step, batch_of(r.job.plan, r.job.data, r.rank, step)));
    if (r.rank == 0) print_step(r.job.plan, r.arguments, step, result);
    TRY_OK(judge_update(r, step, result, skipped));
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

// One trace is made of the parts of all ranks, where rank 0 runs. Better known now than after the
// last step. Every rank has opened its part.
Status share_parts(const Rank& r, Recorder& mine) {
  std::error_code ec;
  const std::string first = part_path(r.arguments.out, 0);
  const bool seen = std::filesystem::exists(first, ec);
  const Status everywhere = mpi_agree(
      seen ? Status(Ok{})
           : Error::of(ErrorCode::kIo, first, "rank 0 has made it, but it is not seen here",
                       "name a file after -o in a folder that all hosts share"));
  if (everywhere.ok()) return everywhere;
  (void)mine.close(RunStatus::kFailed, "the hosts do not share the folder of the trace");
  if (!seen) {  // nobody would look for it there
    std::filesystem::remove(part_path(r.arguments.out, r.rank), ec);
    std::filesystem::remove(parts_directory(r.arguments.out), ec);
  }
  return everywhere;
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
  TRY_OK(share_parts(r, *opened.value()));
  r.end.attach(std::move(opened).value());
  Recorder& recorder = *r.end.recorder();
  // Nobody shall take such a run for a plain one.
  if (r.arguments.link) recorder.record(Attr{"run", "emulated_link", to_text(*r.arguments.link)});
  if (r.arguments.fault) recorder.record(Attr{"run", "injected_fault", r.arguments.fault->text});
  RecorderTrace sink(recorder);
  TRY_OK(train(r, sink));
  // A rank that cannot write its last rows must not end the others before they wrote theirs.
  return mpi_agree(r.end.close(RunStatus::kOk));
}

// What an op of this rank is called; keys of another program have no name.
std::function<std::string(std::uint64_t)> names_of(const Program& program, std::int32_t rank) {
  std::map<std::uint64_t, std::string> names;
  for (const Op& op : program.role_of(rank).ops) {
    names[op.key] = op.path + " (" + name_of(op.phase) + ", micro-batch " +
                    std::to_string(op.micro_batch) + ")";
  }
  return [names = std::move(names)](std::uint64_t key) {
    const auto found = names.find(key);
    return found == names.end() ? "of another program, key " + std::to_string(key) : found->second;
  };
}

Status check_arguments(const RunArguments& arguments, const Program& program) {
  if (arguments.link) TRY_OK(check_link(*arguments.link, program.groups, "--emulate-link"));
  if (arguments.fault) TRY_OK(check_fault(*arguments.fault, program, "--inject"));
  return Ok{};
}

}  // namespace

// Every error that comes back is known to all ranks, or has ended them: none waits for another.
Status run_rank(const RunArguments& arguments) {
  RankEnd end;
  TRY(const MpiWorld world, mpi_world());
  const Result<Job> job = prepare(arguments, world.size);
  TRY_OK(job.ok() ? mpi_agree(check_arguments(arguments, job.value().program),
                              job.value().program.hash())
                  : mpi_agree(job.error()));
  CommTuning tuning;
  tuning.stall_limit = arguments.stall_limit;
  tuning.name_of_op = names_of(job.value().program, world.rank);
  tuning.on_stall = [&end](const Error& error) { end.abort(error); };
  auto communicator =
      make_mpi(job.value().program.groups, channels_of(job.value().program), world.size, tuning);
  if (!communicator.ok()) {
    mpi_abort(communicator.error());
    return communicator.error();
  }
  RecordedCommunicator recorded(*communicator.value(), end);
  const Rank rank{job.value(), arguments, world.rank, recorded, end};
  if (arguments.trace) return train_recorded(rank);
  NoTrace no_trace;
  return train(rank, no_trace);
}

}  // namespace orrery::engine
