// Collectives: outputs are allocated by the walk, data is moved by the lane's thread.
#include <ATen/ops/empty.h>

#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {

void ExecutorImpl::allocate_outputs(const Op& op) {
  for (const BufferId b : op.out) put(b, allocate(b));
  // What is summed in place was taken by whoever wrote it first.
}

LaneWorker::Job ExecutorImpl::collective(OpId id) {
  const std::int64_t enqueued = now_ns();
  const std::int32_t step = step_;
  return [this, id, enqueued, step]() -> Status {
    const MeterScope scope(meter_);
    const at::NoGradGuard no_grad;
    Status status = run_collective(id, step, enqueued);
    // The walk may be waiting for another lane, and that lane for ranks that wait for this one.
    if (!status.ok()) communicator_.abort(status.error());
    return status;
  };
}

Status ExecutorImpl::run_collective(OpId id, std::int32_t step, std::int64_t enqueued) {
  const Op& op = role_.ops[static_cast<std::size_t>(id)];
  for (const OpId dep : op.deps) TRY_OK(wait_for(dep));
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
    case OpKind::kReduceScatter: {
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

// Each rank tells each peer how many rows come for each of the peer's experts. `channel` is null in
// a group of one.
Result<Traffic> ExecutorImpl::exchange_counts(const Op& op, Channel* channel) {
  const at::Tensor& own = value(op.in[0]);
  const at::Tensor& received = value(op.out[0]);
  const auto* sent = own.data_ptr<std::int64_t>();
  auto* got = received.data_ptr<std::int64_t>();
  const std::int32_t ep = role_.route.ep, local = role_.route.local_experts;
  Traffic traffic;
  if (channel == nullptr) {
    std::copy(sent, sent + local, got);
  } else {
    const std::vector<std::int64_t> bytes(static_cast<std::size_t>(ep), local * 8);
    TRY(traffic, channel->all_to_all_v(sent, bytes, got, bytes));
  }
  std::int64_t* record = binding_.values.data() + op.vars.route;
  std::fill(record, record + role_.route.size(), 0);
  for (std::int32_t p = 0; p < ep; ++p) {
    for (std::int32_t e = 0; e < local; ++e) {
      const std::int64_t in = got[p * local + e];
      record[RouteVars::rows()] += in;
      record[role_.route.received(p)] += in;
      record[role_.route.expert_rows(e)] += in;
      record[role_.route.sent(p)] += sent[p * local + e];
    }
  }
  return traffic;
}

Result<Traffic> ExecutorImpl::all_to_all_v(const Op& op, Channel& channel) {
  const at::Tensor& rows = value(op.in[0]);
  const at::Tensor& out = value(op.out[0]);
  value(op.in[1]);  // the counts must have been exchanged
  const auto [sent, received] = exchanged_bytes(op);
  return channel.all_to_all_v(rows.data_ptr(), sent, out.data_ptr(), received);
}

}  // namespace orrery::engine
