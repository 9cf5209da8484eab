// The walk over a rank's program.
#include "engine/torch/executor.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/device_memory.h"
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
      host_meter_(std::make_shared<MemoryMeter>()),
      slots_(role_.buffers.size()),
      device_(options.device),
      points_(role_.ops.size()),
      host_producer_(role_.buffers.size(), -1),
      all_local_experts_(role_.route.local_experts) {
  if (options.memory_limit > 0) meter_->set_limit(options.memory_limit);
  std::vector<Lane> lanes;
  for (auto& counts : sequence_) counts.assign(program.groups.size(), 0);
  for (std::size_t i = 0; i < role_.ops.size(); ++i) {
    const Op& op = role_.ops[i];
    lanes.push_back(op.lane);
    if (op.kind == OpKind::kExchangeCounts) {
      all_local_experts_ = static_cast<std::int32_t>(buffer(op.out[0]).cols);
    }
    if (!op.host_sync) continue;
    for (const BufferId b : op.out) {
      host_producer_[static_cast<std::size_t>(b)] = static_cast<OpId>(i);
    }
    if (op.kind == OpKind::kReduceMetrics) {
      host_producer_[static_cast<std::size_t>(op.metrics)] = static_cast<OpId>(i);
    }
  }
  if (device_ == nullptr) device_ = make_cpu_device(lanes);
  CHECK(!device_->launches() || options_.collectives != nullptr, "a device needs its collectives");
}

ExecutorImpl::~ExecutorImpl() {
  device_->shutdown();
  const DeviceMeterScope reports;
  slots_.clear();
}

Status ExecutorImpl::initialize() {
  const MeterScope scope(meter_);
  const DeviceMeterScope reports;
  const auto filled = device_->post(Lane::kCompute, {}, [&] { return fill_state(); });
  if (!filled.ok()) return filled.error();
  return device_->drain();
}

Status ExecutorImpl::fill_state() {
  return guarded("initial weights", [&]() -> Status {
    for (std::size_t b = 0; b < role_.buffers.size(); ++b) {
      if (role_.buffers[b].taken_by < 0) accumulator(static_cast<BufferId>(b));
    }
    for (const Unit& u : role_.units) {
      at::Tensor& shard = slots_[static_cast<std::size_t>(u.shard)].tensor;
      at::Tensor host = shard.device().is_cpu() ? shard : at::empty(shard.sizes(), shard.dtype());
      initialize_shard(program_, u, rank_, options_.seed, options_.init_std, host);
      if (!shard.is_same(host)) shard.copy_(host);
    }
    return Ok{};
  });
}

Result<StepResult> ExecutorImpl::run_step(std::int32_t step, const std::vector<MicroBatch>& batch) {
  const MeterScope scope(meter_);
  std::optional<DeviceMeterScope> reports;
  if (device_->launches()) reports.emplace();
  const at::NoGradGuard no_grad;
  StepResult result;
  step_ = step;
  updated_ = true;
  counted_ = false;
  result_sums_ = {};
  labels_ = 0;
  binding_ = {rank_, step, std::vector<std::int64_t>(static_cast<std::size_t>(role_.num_vars), 0)};
  meter_->reset_peaks();
  host_meter_->reset_peaks();
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
  TRY_OK(device_->drain());
  if (device_->launches()) {
    TRY_OK(options_.collectives->health());
    trace_launched();
  }
  return nothing_left();
}

// A buffer that outlives its step would be missing from every byte count after it.
Status ExecutorImpl::nothing_left() const {
  for (std::size_t b = 0; b < slots_.size(); ++b) {
    const Buffer& shape = role_.buffers[b];
    const bool held = slots_[b].tensor.defined() || slots_[b].tape != nullptr;
    if (!held || shape.taken_by < 0 || shape.freed_by < 0) continue;
    const Op& op = role_.ops[static_cast<std::size_t>(shape.freed_by)];
    return at_op(op, Error::of(ErrorCode::kRun, "", "the step has not freed " + shape.name));
  }
  return Ok{};
}

Status ExecutorImpl::wait_for(OpId id) {
  return device_->wait(points_[static_cast<std::size_t>(id)]);
}

std::vector<LanePoint> ExecutorImpl::moments(const std::vector<OpId>& ops) const {
  std::vector<LanePoint> points;
  for (const OpId id : ops) points.push_back(points_[static_cast<std::size_t>(id)]);
  return points;
}

// Sizes that a host synchronisation brings must be here before an op that depends on them is sized.
Status ExecutorImpl::wait_for_host(const Op& op) {
  for (const BufferId b : op.in) {
    const OpId producer = b < 0 ? -1 : host_producer_[static_cast<std::size_t>(b)];
    if (producer < 0) continue;
    TRY_OK(wait_for(producer));
    // On the CPU the lane's thread has done so.
    if (device_->launches()) learn_counts(role_.ops[static_cast<std::size_t>(producer)]);
  }
  if (op.kind == OpKind::kOptimizerStep || op.kind == OpKind::kUpdateBias) {
    TRY_OK(wait_for(host_producer_[static_cast<std::size_t>(op.metrics)]));
  }
  return Ok{};
}

Status ExecutorImpl::run_compute(OpId id, const std::vector<MicroBatch>& batch) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  const std::int64_t enqueued = now_ns();
  if (device_->launches()) TRY_OK(wait_for_host(op));
  std::int64_t started = enqueued;
  TRY(points_[static_cast<std::size_t>(id)],
      device_->post(Lane::kCompute, moments(op.deps), [&]() -> Status {
        started = now_ns();
        const std::int64_t live = meter_->live();
        op_taken_ = 0;
        meter_->begin_window();
        TRY_OK(guarded("", [&] { return compute(op, batch); }));
        workspace_peak_ = std::max(workspace_peak_, meter_->window_peak() - live - op_taken_);
        return Ok{};
      }));
  if (device_->launches()) {
    launched_.push_back({id, enqueued, {}});
  } else {
    trace_.record(Lane::kCompute, SpanEvent{rank_, step_, id, enqueued, started, now_ns()});
  }
  free_buffers(id);
  return Ok{};
}

Status ExecutorImpl::compute(const Op& op, const std::vector<MicroBatch>& batch) {
  expect_complete(op);
  switch (op.kind) {
    case OpKind::kLoadBatch:
      load_batch(op, batch);
      return Ok{};
    case OpKind::kForward:
    case OpKind::kForwardTape:
      forward(op);
      return Ok{};
    case OpKind::kBackward:
      backward(op);
      return Ok{};
    case OpKind::kForwardBackward:
      forward_backward(op);
      return Ok{};
    case OpKind::kUnshard:
      unshard(op);
      return Ok{};
    case OpKind::kAccumulate:
      accumulate(op);
      return Ok{};
    case OpKind::kAddLoads:
      add_loads(op);
      return Ok{};
    case OpKind::kGradNorm:
      grad_norm(op);
      return Ok{};
    case OpKind::kUpdateBias:
      update_bias(op);
      return Ok{};
    case OpKind::kOptimizerStep:
      optimizer_step(op);
      return Ok{};
    case OpKind::kJoin:
      return Ok{};  // its deps have ended: what it frees may go
    case OpKind::kExchangeCounts: {
      allocate_outputs(op);
      TRY_OK(exchange_counts(op, nullptr));
      return Ok{};
    }
    default:
      CHECK(false, std::string("not a compute op: ") + name_of(op.kind));
  }
}

Status ExecutorImpl::post(OpId id) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  TRY_OK(wait_for_host(op));
  TRY_OK(guarded("", [&]() -> Status {
    expect_complete(op);
    allocate_outputs(op);
    return Ok{};
  }));
  TRY(points_[static_cast<std::size_t>(id)],
      device_->post(op.lane, moments(op.deps), lane_job(id)));
  return Ok{};
}

// What an exchange writes in parts is read only when every part has been posted.
void ExecutorImpl::expect_complete(const Op& op) const {
  for (const BufferId b : op.in) {
    if (b >= 0 && slots_[static_cast<std::size_t>(b)].parts_due > 0) {
      throw std::runtime_error("a part of " + buffer(b).name + " was not written");
    }
  }
}

// After a failure: what the step took is given back, once no lane uses it any more.
void ExecutorImpl::drop_step() {
  if (options_.collectives != nullptr) options_.collectives->abort();
  device_->shutdown();
  launched_.clear();
  due_.clear();
  for (std::size_t b = 0; b < slots_.size(); ++b) {
    if (role_.buffers[b].taken_by >= 0) slots_[b] = {};
  }
}

void ExecutorImpl::free_buffers(OpId id) {
  for (const BufferId b : role_.ops[static_cast<std::size_t>(id)].frees) {
    Slot& slot = slots_[static_cast<std::size_t>(b)];
    record_alloc(b, -slot.bytes);
    // This op may only have been launched: until it has ended the lane may not give the block out.
    const Lane pool = pool_of(b);
    if (pool != Lane::kCompute && !on_host(b)) {
      device_->order(pool, points_[static_cast<std::size_t>(id)]);
    }
    slot = {};
  }
}

void ExecutorImpl::record_alloc(BufferId b, std::int64_t delta) {
  if (delta == 0) return;
  const Buffer& shape = buffer(b);
  const std::int32_t cls =
      shape.space == MemorySpace::kHost ? kHostClass : static_cast<std::int32_t>(shape.cls);
  trace_.record(Lane::kCompute, AllocEvent{rank_, step_, current_, cls, now_ns(), delta});
}

void ExecutorImpl::end_step(StepResult& result) {
  result.end_ns = now_ns();
  result.loss = result_sums_[kLoss];
  result.balance_loss = result_sums_[kBalance];
  result.z_loss = result_sums_[kZ];
  result.grad_norm = std::sqrt(result_sums_[kSquaredNorm]);
  result.lr = learning_rate(options_.optimizer, step_);
  result.tokens = static_cast<std::int64_t>(labels_);
  result.peak_bytes = meter_->peak();
  result.host_peak_bytes = host_meter_->peak();
  result.updated = updated_;
  trace_.record(Lane::kCompute, PeakEvent{rank_, step_, -1, meter_->peak()});
  for (std::int32_t c = 0; c < kNumBufferClasses; ++c) {
    // An allocation is workspace until its op ends and says what it became; so the meter's own peak
    // of that class holds outputs too, and the need beyond them is what the walk measured.
    const auto cls = static_cast<BufferClass>(c);
    const std::int64_t peak = cls == BufferClass::kWorkspace ? workspace_peak_ : meter_->peak(cls);
    trace_.record(Lane::kCompute, PeakEvent{rank_, step_, c, peak});
  }
  if (host_meter_->peak() > 0) {
    trace_.record(Lane::kCompute, PeakEvent{rank_, step_, kHostClass, host_meter_->peak()});
  }
  trace_.binding(binding_);
  trace_.step({rank_, step_, result.start_ns, result.end_ns, result.loss, result.balance_loss,
               result.z_loss, result.grad_norm, result.lr, result.tokens});
}

const at::Tensor& ExecutorImpl::value(BufferId b) const {
  CHECK(b >= 0, "an absent operand");
  const at::Tensor& tensor = slots_[static_cast<std::size_t>(b)].tensor;
  if (!tensor.defined()) throw std::runtime_error("nothing wrote " + buffer(b).name);
  return tensor;
}

at::Tensor ExecutorImpl::allocate(BufferId b) const {
  const Buffer& shape = buffer(b);
  const MeterScope pool(shape.space == MemorySpace::kHost ? host_meter_ : meter_);
  const std::int64_t rows = shape.rows.eval(binding_.values, shape.vars);
  const std::int64_t sizes[] = {rows, shape.cols};
  if (on_host(b)) return device_->host_empty(sizes, scalar_type(shape.dtype));
  return device_->empty(pool_of(b), sizes, scalar_type(shape.dtype));
}

void ExecutorImpl::put(BufferId b, at::Tensor tensor) {
  Slot& slot = slots_[static_cast<std::size_t>(b)];
  slot.bytes = classify(tensor, buffer(b).cls);
  slot.tensor = std::move(tensor);
  record_alloc(b, slot.bytes);
  if (buffer(b).space == MemorySpace::kDevice) op_taken_ += slot.bytes;
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

std::vector<at::Tensor> ExecutorImpl::router_biases() const {
  std::vector<at::Tensor> biases;
  for (const Op& op : role_.ops) {
    if (op.kind != OpKind::kUpdateBias) continue;
    for (const BufferId b : op.updates) biases.push_back(value(b));
  }
  return biases;
}

}  // namespace orrery::engine
