// What the executor does otherwise on a device: nothing here reads device memory on the host. What
// the host must know (rows of an exchange, labels, the gradient norm) is copied to host memory on
// the lane of the op that brings it, and read when that op's moment has come.
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {
namespace {

// A stream's channel as one that the code for lanes calls: calls only enqueue.
class Enqueueing final : public Channel {
 public:
  Enqueueing(StreamChannel& channel, StreamHandle stream) : channel_(channel), stream_(stream) {}

  std::int32_t size() const override { return channel_.size(); }
  std::int32_t index() const override { return channel_.index(); }
  Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes) override {
    return channel_.all_gather(send, recv, bytes, stream_);
  }
  Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count,
                                 DType dtype) override {
    return channel_.reduce_scatter(send, recv, count, dtype, stream_);
  }
  Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype) override {
    return channel_.all_reduce(data, count, dtype, stream_);
  }
  Result<Traffic> all_to_all_v(const void* send, const std::vector<std::int64_t>& send_bytes,
                               void* recv, const std::vector<std::int64_t>& recv_bytes) override {
    return channel_.all_to_all_v(send, send_bytes, recv, recv_bytes, stream_);
  }
  // The library meets on the device, and does not say who is late.
  Status rendezvous(const Intent&) override { return Ok{}; }

 private:
  StreamChannel& channel_;
  StreamHandle stream_;
};

// Elements updated at a time: what is needed beside the shard is 16 MiB of fp32.
constexpr std::int64_t kUpdateSlice = 4 << 20;

}  // namespace

// Buffers that the host reads stay with the host: counts and labels.
bool ExecutorImpl::on_host(BufferId b) const {
  if (buffer(b).space == MemorySpace::kHost) return true;
  const OpId producer = host_producer_[static_cast<std::size_t>(b)];
  if (producer < 0) return false;
  const OpKind kind = role_.ops[static_cast<std::size_t>(producer)].kind;
  return kind == OpKind::kExchangeCounts || kind == OpKind::kCountTokens;
}

Lane ExecutorImpl::pool_of(BufferId b) const {
  const OpId taker = buffer(b).taken_by;
  return taker < 0 ? Lane::kCompute : role_.ops[static_cast<std::size_t>(taker)].lane;
}

Status ExecutorImpl::launch_collective(OpId id, std::int64_t enqueued) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  Enqueueing channel(options_.collectives->channel(op.lane, op.group), device_->stream(op.lane));
  const Result<Traffic> traffic = guarded("", [&]() -> Result<Traffic> {
    switch (op.kind) {
      case OpKind::kExchangeCounts:
        return launch_counts(op, channel);
      case OpKind::kCountTokens:
        return launch_labels(op, channel);
      case OpKind::kReduceMetrics:
        return launch_metrics(op, channel);
      default:
        return communicate(op, channel);
    }
  });
  if (!traffic.ok()) return at_op(op, traffic.error());
  launched_.push_back({id, enqueued, traffic.value()});
  return Ok{};
}

// Counts go to the device and come back: the library moves device memory only.
Result<Traffic> ExecutorImpl::launch_counts(const Op& op, Channel& channel) {
  const at::Tensor& own = value(op.in[0]);
  const at::Tensor& received = value(op.out[0]);
  const at::Tensor send = device_->empty(op.lane, own.sizes(), at::kLong);
  const at::Tensor recv = device_->empty(op.lane, received.sizes(), at::kLong);
  device_->copy(send, own);
  const std::vector<std::int64_t> bytes(static_cast<std::size_t>(role_.route.ep),
                                        buffer(op.out[0]).cols * 8);
  TRY(const Traffic traffic, channel.all_to_all_v(send.data_ptr(), bytes, recv.data_ptr(), bytes));
  device_->copy(received, recv);
  due_.push_back({&op, own, received});
  return traffic;
}

// Called once the host has waited for the op.
void ExecutorImpl::learn_counts(const Op& op) {
  const auto found =
      std::find_if(due_.begin(), due_.end(), [&](const DueCounts& due) { return due.op == &op; });
  if (found == due_.end()) return;
  record_counts(op, found->sent.data_ptr<std::int64_t>(), found->received.data_ptr<std::int64_t>());
  due_.erase(found);
}

Result<Traffic> ExecutorImpl::launch_labels(const Op& op, Channel& channel) {
  const at::Tensor count = device_->empty(op.lane, {1}, at::kDouble);
  count.zero_();
  for (const BufferId b : op.in) count.add_(value(b).ne(-100).sum());
  TRY(const Traffic traffic, channel.all_reduce(count.data_ptr(), 1, DType::kFloat64));
  device_->copy(value(op.out[0]).view(-1), count);
  return traffic;
}

Result<Traffic> ExecutorImpl::launch_metrics(const Op& op, Channel& channel) {
  const at::Tensor& metrics = value(op.metrics);
  TRY(const Traffic traffic,
      channel.all_reduce(metrics.data_ptr(), metrics.numel(), DType::kFloat64));
  if (!host_metrics_.defined()) {
    const MeterScope unmetered(nullptr);
    host_metrics_ = device_->host_empty(metrics.sizes(), at::kDouble);
  }
  device_->copy(host_metrics_, metrics);
  return traffic;
}

void ExecutorImpl::launch_norm(const Op& op) {
  const at::Tensor sums = accumulator(op.metrics).view(-1);
  for (std::size_t u = 0; u < op.in.size(); ++u) {
    if (group(role_.units[u].replicate_group).index_of(rank_) != 0) continue;
    const at::Tensor norm =
        at::linalg_vector_norm(value(op.in[u]), 2, at::OptionalIntArrayRef(), false, at::kDouble);
    sums.narrow(0, kSquaredNorm, 1).add_(norm.mul_(norm));
  }
  sums.narrow(0, kWorldCheck, 1).fill_(1.0 / static_cast<double>(program_.world));
}

// bias += speed * sign(mean load - load): whole numbers, so that equal is equal.
void ExecutorImpl::launch_bias(const Op& op) {
  const at::Tensor loads = value(op.in[0]).to(at::kDouble);
  const auto experts = static_cast<double>(loads.size(1));
  for (std::size_t i = 0; i < op.updates.size(); ++i) {
    const at::Tensor row = loads.narrow(0, static_cast<std::int64_t>(i), 1);
    const at::Tensor sign = row.sum().sub(row.mul(experts)).sign_();
    value(op.updates[i]).add_(sign.view(value(op.updates[i]).sizes()), program_.step.bias_speed);
  }
}

void launch_adamw(const AdamStep& s, double decay, const at::Tensor& g, const at::Tensor& w,
                  const at::Tensor& m, const at::Tensor& v) {
  const std::int64_t step = std::min(kUpdateSlice, g.numel());
  const at::Tensor scratch = at::empty({step}, w.options());
  for (std::int64_t at = 0; at < g.numel(); at += step) {
    const std::int64_t n = std::min(step, g.numel() - at);
    const at::Tensor gs = g.narrow(0, at, n), ws = w.narrow(0, at, n), ms = m.narrow(0, at, n),
                     vs = v.narrow(0, at, n);
    const at::Tensor root = scratch.narrow(0, 0, n);
    ms.mul_(s.beta1).add_(gs, (1 - s.beta1) * s.clip);
    vs.mul_(s.beta2).addcmul_(gs, gs, (1 - s.beta2) * s.clip * s.clip);
    root.copy_(vs);
    root.mul_(1 / s.correction2).sqrt_().add_(s.eps);
    ws.mul_(1 - s.lr * decay).addcdiv_(ms, root, -s.lr / s.correction1);
  }
}

// After the step: what ran when, by the device's clock.
void ExecutorImpl::trace_launched() {
  for (const DueCounts& due : std::exchange(due_, {})) {
    record_counts(*due.op, due.sent.data_ptr<std::int64_t>(),
                  due.received.data_ptr<std::int64_t>());
  }
  for (const Launched& launched : std::exchange(launched_, {})) {
    const Op& op = role_.ops[static_cast<std::size_t>(launched.op)];
    const LaneTimes times = device_->times(points_[static_cast<std::size_t>(launched.op)]);
    trace_.record(op.lane, SpanEvent{rank_, step_, launched.op, launched.enqueued, times.start_ns,
                                     times.end_ns});
    if (op.lane == Lane::kCompute || !is_collective(op.kind)) continue;
    std::int64_t& number =
        sequence_[static_cast<std::size_t>(op.lane)][static_cast<std::size_t>(op.group)];
    trace_.record(op.lane,
                  CollectiveEvent{rank_, step_, launched.op, op.group, number++, times.start_ns,
                                  times.start_ns, times.end_ns, launched.traffic.bytes_sent,
                                  launched.traffic.bytes_received});
  }
}

}  // namespace orrery::engine
