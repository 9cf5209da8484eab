// The walk over a rank's program.
#include "engine/torch/executor.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <stdexcept>
#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Result<std::unique_ptr<Executor>> Executor::create(const Program& program, std::int32_t rank,
                                                   Communicator& communicator, TraceSink& trace,
                                                   const ExecutorOptions& options) {
  install_metered_allocator();
  at::set_num_threads(1);  // a rank computes on one core; more would spin against other ranks
  auto executor = std::make_unique<ExecutorImpl>(program, rank, communicator, trace, options);
  TRY_OK(executor->initialize());
  return std::unique_ptr<Executor>(std::move(executor));
}

ExecutorImpl::ExecutorImpl(const Program& program, std::int32_t rank, Communicator& communicator,
                           TraceSink& trace, const ExecutorOptions& options)
    : program_(program),
      role_(program.role_of(rank)),
      rank_(rank),
      communicator_(communicator),
      trace_(trace),
      options_(options),
      meter_(std::make_shared<MemoryMeter>()),
      slots_(role_.buffers.size()),
      tickets_(role_.ops.size(), 0),
      host_producer_(role_.buffers.size(), -1) {
  if (options.memory_limit > 0) meter_->set_limit(options.memory_limit);
  for (std::size_t lane = 1; lane < kNumLanes; ++lane) {
    workers_[lane] = std::make_unique<LaneWorker>(name_of(static_cast<Lane>(lane)));
  }
  for (auto& counts : sequence_) counts.assign(program.groups.size(), 0);
  for (std::size_t i = 0; i < role_.ops.size(); ++i) {
    if (!role_.ops[i].host_sync) continue;
    for (const BufferId b : role_.ops[i].out) {
      host_producer_[static_cast<std::size_t>(b)] = static_cast<OpId>(i);
    }
  }
}

ExecutorImpl::~ExecutorImpl() {
  for (auto& worker : workers_) {
    if (worker != nullptr) worker->shutdown();
  }
}

Status ExecutorImpl::initialize() {
  const MeterScope scope(meter_);
  return guarded("initial weights", [&]() -> Status {
    for (const Unit& u : role_.units) {
      for (const BufferId b : {u.shard, u.moment1, u.moment2}) accumulator(b);
      initialize_shard(program_, u, rank_, options_.seed, options_.init_std,
                       slots_[static_cast<std::size_t>(u.shard)].tensor);
    }
    return Ok{};
  });
}

Result<StepResult> ExecutorImpl::run_step(std::int32_t step, const std::vector<MicroBatch>& batch) {
  const MeterScope scope(meter_);
  const at::NoGradGuard no_grad;
  StepResult result;
  step_ = step;
  updated_ = true;
  binding_ = {rank_, step, std::vector<std::int64_t>(static_cast<std::size_t>(role_.num_vars), 0)};
  meter_->reset_peaks();
  workspace_peak_ = 0;
  result.start_ns = now_ns();
  const Status status = walk(batch);
  if (!status.ok()) {
    communicator_.abort(status.error());
    drop_step();
    return status.error();
  }
  end_step(result);
  return result;
}

Error ExecutorImpl::at_op(const Op& op, const Error& error) const {
  Error located = error;
  const std::string place = "rank " + std::to_string(rank_) + " op " + op.path + " (" +
                            name_of(op.phase) + ", micro-batch " + std::to_string(op.micro_batch) +
                            ", step " + std::to_string(step_) + ")";
  for (Problem& problem : located.problems) {
    // An error that another rank sent already says where it began.
    if (problem.where.rfind("rank ", 0) != 0) {
      problem.where = problem.where.empty() ? place : place + ": " + problem.where;
    }
  }
  return located;
}

Status ExecutorImpl::walk(const std::vector<MicroBatch>& batch) {
  if (batch.size() != static_cast<std::size_t>(program_.step.micro_batches)) {
    return Error::of(ErrorCode::kRun, "", "the program takes another number of micro-batches");
  }
  for (std::size_t i = 0; i < role_.ops.size(); ++i) {
    const auto id = static_cast<OpId>(i);
    if (id == options_.skip_op) continue;
    const Op& op = role_.ops[i];
    current_ = id;
    const Status status = op.lane == Lane::kCompute ? run_compute(id, batch) : post(id);
    if (!status.ok()) return at_op(op, status.error());
  }
  for (auto& worker : workers_) {
    if (worker != nullptr) TRY_OK(worker->drain());
  }
  return Ok{};
}

Status ExecutorImpl::wait_for(OpId id) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  if (op.lane == Lane::kCompute || id == options_.skip_op) return Ok{};
  return workers_[static_cast<std::size_t>(op.lane)]->wait(tickets_[static_cast<std::size_t>(id)]);
}

// Sizes that a host synchronisation brings must be here before an op that depends on them is sized.
Status ExecutorImpl::wait_for_host(const Op& op) {
  for (const BufferId b : op.in) {
    const OpId producer = b < 0 ? -1 : host_producer_[static_cast<std::size_t>(b)];
    if (producer >= 0) TRY_OK(wait_for(producer));
  }
  return Ok{};
}

Status ExecutorImpl::run_compute(OpId id, const std::vector<MicroBatch>& batch) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  const std::int64_t enqueued = now_ns();
  for (const OpId dep : op.deps) TRY_OK(wait_for(dep));
  const std::int64_t started = now_ns();
  const std::int64_t live = meter_->live();
  op_taken_ = 0;
  meter_->begin_window();
  const Status ran = guarded("", [&]() -> Status {
    switch (op.kind) {
      case OpKind::kLoadBatch:
        load_batch(op, batch);
        break;
      case OpKind::kForward:
      case OpKind::kForwardTape:
        forward(op);
        break;
      case OpKind::kBackward:
        backward(op);
        break;
      case OpKind::kForwardBackward:
        forward_backward(op);
        break;
      case OpKind::kUnshard:
        unshard(op);
        break;
      case OpKind::kAccumulate:
        accumulate(op);
        break;
      case OpKind::kGradNorm:
        grad_norm(op);
        break;
      case OpKind::kOptimizerStep:
        optimizer_step(op);
        break;
      case OpKind::kExchangeCounts: {
        allocate_outputs(op);
        TRY_OK(exchange_counts(op, nullptr));
        break;
      }
      default:
        CHECK(false, std::string("not a compute op: ") + name_of(op.kind));
    }
    return Ok{};
  });
  if (!ran.ok()) return ran.error();
  workspace_peak_ = std::max(workspace_peak_, meter_->window_peak() - live - op_taken_);
  trace_.record(Lane::kCompute, SpanEvent{rank_, step_, id, enqueued, started, now_ns()});
  free_buffers(id);
  return Ok{};
}

Status ExecutorImpl::post(OpId id) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  TRY_OK(wait_for_host(op));
  TRY_OK(guarded("", [&]() -> Status {
    allocate_outputs(op);
    return Ok{};
  }));
  tickets_[static_cast<std::size_t>(id)] =
      workers_[static_cast<std::size_t>(op.lane)]->post(collective(id));
  return Ok{};
}

// After a failure: what the step took is given back, once no lane uses it any more.
void ExecutorImpl::drop_step() {
  for (auto& worker : workers_) {
    if (worker != nullptr) worker->shutdown();
  }
  for (std::size_t b = 0; b < slots_.size(); ++b) {
    if (role_.buffers[b].taken_by >= 0) slots_[b] = {};
  }
}

void ExecutorImpl::free_buffers(OpId id) {
  for (const BufferId b : role_.ops[static_cast<std::size_t>(id)].frees) {
    Slot& slot = slots_[static_cast<std::size_t>(b)];
    record_alloc(b, -slot.bytes);
    slot = {};
  }
}

void ExecutorImpl::record_alloc(BufferId b, std::int64_t delta) {
  if (delta == 0) return;
  trace_.record(Lane::kCompute,
                AllocEvent{rank_, step_, current_, static_cast<std::int32_t>(buffer(b).cls),
                           now_ns(), delta});
}

void ExecutorImpl::end_step(StepResult& result) {
  result.end_ns = now_ns();
  const double* sums = result_sums_.data();
  result.loss = sums[0];
  result.balance_loss = sums[1];
  result.grad_norm = sums[2];
  result.tokens = static_cast<std::int64_t>(sums[3]);
  result.peak_bytes = meter_->peak();
  result.updated = updated_;
  trace_.record(Lane::kCompute, PeakEvent{rank_, step_, -1, meter_->peak()});
  for (std::int32_t c = 0; c < kNumBufferClasses; ++c) {
    // An allocation is workspace until its op ends and says what it became; so the meter's own peak
    // of that class holds outputs too, and the need beyond them is what the walk measured.
    const auto cls = static_cast<BufferClass>(c);
    const std::int64_t peak = cls == BufferClass::kWorkspace ? workspace_peak_ : meter_->peak(cls);
    trace_.record(Lane::kCompute, PeakEvent{rank_, step_, c, peak});
  }
  trace_.binding(binding_);
  trace_.step({rank_, step_, result.start_ns, result.end_ns, result.loss, result.balance_loss,
               result.grad_norm, result.tokens});
}

const at::Tensor& ExecutorImpl::value(BufferId b) const {
  CHECK(b >= 0, "an absent operand");
  const at::Tensor& tensor = slots_[static_cast<std::size_t>(b)].tensor;
  if (!tensor.defined()) throw std::runtime_error("nothing wrote " + buffer(b).name);
  return tensor;
}

at::Tensor ExecutorImpl::allocate(BufferId b) {
  const Buffer& shape = buffer(b);
  const std::int64_t rows = shape.rows.eval(binding_.values, shape.vars);
  return at::empty({rows, shape.cols}, scalar_type(shape.dtype));
}

void ExecutorImpl::put(BufferId b, at::Tensor tensor) {
  Slot& slot = slots_[static_cast<std::size_t>(b)];
  slot.bytes = classify(tensor, buffer(b).cls);
  slot.tensor = std::move(tensor);
  record_alloc(b, slot.bytes);
  op_taken_ += slot.bytes;
  if (options_.observe && current_ >= 0) {
    const MeterScope unmetered(nullptr);
    options_.observe(role_.ops[static_cast<std::size_t>(current_)], b, slot.tensor);
  }
}

at::Tensor& ExecutorImpl::accumulator(BufferId b) {
  Slot& slot = slots_[static_cast<std::size_t>(b)];
  if (!slot.tensor.defined()) {
    at::Tensor zeros = allocate(b);
    zeros.zero_();
    put(b, std::move(zeros));
  }
  return slot.tensor;
}

at::Tensor ExecutorImpl::shard(std::int32_t u) const {
  return value(unit(u).shard);
}

}  // namespace orrery::engine
