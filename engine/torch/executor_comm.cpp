// Collectives and copies: outputs are allocated by the walk, data is moved by the lane's thread.
#include <ATen/ops/empty.h>

#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {

// What is summed in place was taken by whoever wrote it first. Of an exchange that writes a buffer
// in parts the first takes it whole.
void ExecutorImpl::allocate_outputs(const Op& op) {
  const bool in_parts =
      op.kind == OpKind::kAllToAllV && op.direction == Direction::kCombine && op.parts > 1;
  for (const BufferId b : op.out) {
    std::int32_t& due = slots_[static_cast<std::size_t>(b)].parts_due;
    if (!in_parts || op.chunk == 0) {
      put(b, allocate(b));
      due = in_parts ? op.parts - 1 : 0;
    } else if (value(b).defined()) {
      --due;
    }
  }
}

Device::Job ExecutorImpl::lane_job(OpId id) {
  const std::int64_t enqueued = now_ns();
  const std::int32_t step = step_;
  return [this, id, enqueued, step]() -> Status {
    const MeterScope scope(meter_);
    const at::NoGradGuard no_grad;
    const bool copies = !is_collective(role_.ops[static_cast<std::size_t>(id)].kind);
    Status status = copies                ? run_copy(id, step, enqueued)
                    : device_->launches() ? launch_collective(id, enqueued)
                                          : run_collective(id, step, enqueued);
    // The walk may be waiting for another lane, and that lane for ranks that wait for this one.
    if (!status.ok()) communicator_.abort(status.error());
    return status;
  };
}

// Between memory spaces, both of them memory of the host on the CPU.
Status ExecutorImpl::run_copy(OpId id, std::int32_t step, std::int64_t enqueued) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  CHECK(op.kind == OpKind::kCopyToHost || op.kind == OpKind::kCopyToDevice,
        std::string("not an op of a lane: ") + name_of(op.kind));
  const std::int64_t started = now_ns();
  const Status copied = guarded("", [&]() -> Status {
    const at::Tensor& target = value(op.out.empty() ? op.updates.at(0) : op.out[0]);
    device_->copy(target, value(op.in[0]));
    return Ok{};
  });
  if (!copied.ok()) return at_op(op, copied.error());
  if (device_->launches()) {
    launched_.push_back({id, enqueued, {}});
    return Ok{};
  }
  trace_.record(op.lane, SpanEvent{rank_, step, id, enqueued, started, now_ns()});
  return Ok{};
}

Status ExecutorImpl::run_collective(OpId id, std::int32_t step, std::int64_t enqueued) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  Channel& channel = communicator_.channel(op.lane, op.group);
  const std::int64_t posted = now_ns();
  const Status met =
      guarded("", [&]() -> Status { return channel.rendezvous(intent_of(op, channel)); });
  if (!met.ok()) return at_op(op, met.error());
  const std::int64_t ready = now_ns();
  const Result<Traffic> traffic =
      guarded("", [&]() -> Result<Traffic> { return communicate(op, channel); });
  if (!traffic.ok()) return at_op(op, traffic.error());
  const std::int64_t ended = now_ns();
  std::int64_t& number =
      sequence_[static_cast<std::size_t>(op.lane)][static_cast<std::size_t>(op.group)];
  trace_.record(op.lane, SpanEvent{rank_, step, id, enqueued, ready, ended});
  trace_.record(op.lane,
                CollectiveEvent{rank_, step, id, op.group, number++, posted, ready, ended,
                                traffic.value().bytes_sent, traffic.value().bytes_received});
  return Ok{};
}

Result<Traffic> ExecutorImpl::communicate(const Op& op, Channel& channel) {
  switch (op.kind) {
    case OpKind::kAllGather: {
      const at::Tensor& out = value(op.out[0]);
      const std::int64_t count = out.numel() / channel.size();
      at::Tensor mine = out.view(-1).narrow(0, channel.index() * count, count);
      mine.copy_(value(op.in[0]).view(-1));  // and casts to the compute dtype
      return channel.all_gather(mine.data_ptr(), out.data_ptr(),
                                count * static_cast<std::int64_t>(out.element_size()));
    }
    case OpKind::kAllGatherRows: {
      const at::Tensor& rows = value(op.in[0]);
      return channel.all_gather(rows.data_ptr(), value(op.out[0]).data_ptr(),
                                rows.numel() * static_cast<std::int64_t>(rows.element_size()));
    }
    case OpKind::kReduceScatter:
    case OpKind::kReduceScatterRows: {
      const at::Tensor& out = value(op.out[0]);
      return channel.reduce_scatter(value(op.in[0]).data_ptr(), out.data_ptr(), out.numel(),
                                    buffer(op.out[0]).dtype);
    }
    case OpKind::kAllReduce: {
      const at::Tensor& data = value(op.updates[0]);
      return channel.all_reduce(data.data_ptr(), data.numel(), buffer(op.updates[0]).dtype);
    }
    case OpKind::kReduceMetrics: {
      const at::Tensor& data = value(op.metrics);
      return channel.all_reduce(data.data_ptr(), data.numel(), DType::kFloat64);
    }
    case OpKind::kCountTokens:
      return count_tokens(op, channel);
    case OpKind::kExchangeCounts:
      return exchange_counts(op, &channel);
    case OpKind::kAllToAll:
      return all_to_all(op, channel);
    case OpKind::kAllToAllV:
      return all_to_all_v(op, channel);
    default:
      CHECK(false, std::string("not a collective: ") + name_of(op.kind));
  }
}

Result<Traffic> ExecutorImpl::count_tokens(const Op& op, Channel& channel) {
  std::int64_t labels = 0;
  for (const BufferId b : op.in) {
    const at::Tensor& t = value(b);
    const auto* p = t.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < t.numel(); ++i) labels += p[i] != -100 ? 1 : 0;
  }
  auto* count = value(op.out[0]).data_ptr<double>();
  count[0] = static_cast<double>(labels);
  return channel.all_reduce(count, 1, DType::kFloat64);
}

// Each rank tells each peer how many rows come for each of the peer's experts. The exchange of rows
// may go in parts, each of as many of every rank's experts: their records follow each other.
// `channel` is null in a group of one.
Result<Traffic> ExecutorImpl::exchange_counts(const Op& op, Channel* channel) {
  const at::Tensor& own = value(op.in[0]);
  const at::Tensor& received = value(op.out[0]);
  const auto* sent = own.data_ptr<std::int64_t>();
  auto* got = received.data_ptr<std::int64_t>();
  const auto local = static_cast<std::int32_t>(buffer(op.out[0]).cols);
  Traffic traffic;
  if (channel == nullptr) {
    std::copy(sent, sent + local, got);
  } else {
    const std::vector<std::int64_t> bytes(static_cast<std::size_t>(role_.route.ep), local * 8);
    TRY(traffic, channel->all_to_all_v(sent, bytes, got, bytes));
  }
  record_counts(op, sent, got);
  return traffic;
}

void ExecutorImpl::record_counts(const Op& op, const std::int64_t* sent, const std::int64_t* got) {
  const RouteVars& route = role_.route;
  const auto local = static_cast<std::int32_t>(buffer(op.out[0]).cols);
  std::int64_t* const first = binding_.values.data() + op.vars.route;
  std::fill(first, first + local / route.local_experts * route.size(), 0);
  for (std::int32_t p = 0; p < route.ep; ++p) {
    for (std::int32_t e = 0; e < local; ++e) {
      std::int64_t* const record = first + e / route.local_experts * route.size();
      const std::int64_t in = got[p * local + e];
      record[RouteVars::rows()] += in;
      record[route.received(p)] += in;
      record[route.expert_rows(e % route.local_experts)] += in;
      record[route.sent(p)] += sent[p * local + e];
    }
  }
}

Result<Traffic> ExecutorImpl::all_to_all(const Op& op, Channel& channel) {
  const at::Tensor& rows = value(op.in[0]);
  const std::int64_t all = rows.numel() * static_cast<std::int64_t>(rows.element_size());
  const std::vector<std::int64_t> bytes(static_cast<std::size_t>(channel.size()),
                                        all / channel.size());
  return channel.all_to_all_v(rows.data_ptr(), bytes, value(op.out[0]).data_ptr(), bytes);
}

Result<Traffic> ExecutorImpl::all_to_all_v(const Op& op, Channel& channel) {
  const at::Tensor& rows = value(op.in[0]);
  const at::Tensor& out = value(op.out[0]);
  value(op.in[1]);  // the counts must have been exchanged
  const auto [sent, received] = exchanged_bytes(op);
  // Bytes of the parts before this one, on the side of the tokens.
  std::int64_t earlier = 0;
  for (std::int32_t part = 0; op.parts > 1 && part < op.chunk; ++part) {
    for (std::int32_t p = 0; p < role_.route.ep; ++p) {
      earlier += part_bytes(op, part, role_.route.sent(p));
    }
  }
  const auto* from = static_cast<const std::byte*>(rows.data_ptr());
  auto* to = static_cast<std::byte*>(out.data_ptr());
  if (op.direction == Direction::kCombine) {
    to += earlier;
  } else {
    from += earlier;
  }
  return channel.all_to_all_v(from, sent, to, received);
}

}  // namespace orrery::engine
