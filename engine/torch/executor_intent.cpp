// What a collective is about to move, told to its members before it moves.
#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {

// Of part `part` of the exchange that `op` is a part of: what `var` of its record counts.
std::int64_t ExecutorImpl::part_bytes(const Op& op, std::int32_t part, std::int32_t var) const {
  const Buffer& rows = buffer(op.out[0]);
  const std::int32_t record = op.vars.route + (part - op.chunk) * role_.route.size();
  return binding_.values[static_cast<std::size_t>(record + var)] * rows.cols * size_of(rows.dtype);
}

// To and from each member of the expert group.
ExecutorImpl::MemberBytes ExecutorImpl::exchanged_bytes(const Op& op) const {
  MemberBytes bytes;
  for (std::int32_t p = 0; p < role_.route.ep; ++p) {
    bytes.to.push_back(part_bytes(op, op.chunk, role_.route.sent(p)));
    bytes.from.push_back(part_bytes(op, op.chunk, role_.route.received(p)));
  }
  if (op.direction == Direction::kCombine) std::swap(bytes.to, bytes.from);
  return bytes;
}

Intent ExecutorImpl::intent_of(const Op& op, const Channel& channel) const {
  Intent intent;
  intent.op_key = op.key;
  const auto bytes_of = [&](BufferId b) { return static_cast<std::int64_t>(value(b).nbytes()); };
  switch (op.kind) {
    case OpKind::kAllGather:
      intent.bytes = bytes_of(op.out[0]) / channel.size();
      break;
    case OpKind::kAllGatherRows:
      intent.bytes = bytes_of(op.in[0]);
      break;
    case OpKind::kAllToAll:
      intent.bytes = bytes_of(op.in[0]) / channel.size();
      break;
    case OpKind::kReduceScatter:
    case OpKind::kReduceScatterRows:
      intent.bytes = bytes_of(op.out[0]);
      break;
    case OpKind::kAllReduce:
      intent.bytes = bytes_of(op.updates[0]);
      break;
    case OpKind::kReduceMetrics:
      intent.bytes = bytes_of(op.metrics);
      break;
    case OpKind::kAllToAllV: {
      MemberBytes bytes = exchanged_bytes(op);
      intent.to = std::move(bytes.to);
      intent.from = std::move(bytes.from);
      break;
    }
    default:  // counts: the same number of integers to everyone, as the program says
      break;
  }
  return intent;
}

}  // namespace orrery::engine
