// What a collective is about to move, told to its members before it moves.
#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {

// To and from each member of the expert group, in bytes.
ExecutorImpl::MemberBytes ExecutorImpl::exchanged_bytes(const Op& op) const {
  const auto row_bytes = buffer(op.out[0]).cols * size_of(buffer(op.out[0]).dtype);
  MemberBytes bytes;
  for (std::int32_t p = 0; p < role_.route.ep; ++p) {
    const auto rows_of = [&](std::int32_t var) {
      return binding_.values[static_cast<std::size_t>(op.vars.route + var)] * row_bytes;
    };
    bytes.to.push_back(rows_of(role_.route.sent(p)));
    bytes.from.push_back(rows_of(role_.route.received(p)));
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
    case OpKind::kReduceScatter:
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
