// The context axis and Ulysses' one inside it: ranks hold parts of each sequence. Their queries see
// all keys: in a ring (Liu 2023), by a gather, or after an exchange of rows for heads (Jacobs
// 2023).
#include "core/outline/builder.h"

namespace orrery::outline {
namespace {

bool heads_move(const Job& job) {
  return job.layout.cp > 1 && job.context == ContextExchange::kAllToAll;
}

// `elements` a rank of a sequence group has of its own heads.
void exchange(const Job& job, Builder& b, const char* name, double elements) {
  const auto kind = CollectiveKind::kAllToAll;
  const auto sp = static_cast<double>(job.layout.sp);
  if (job.layout.sp > 1) b.collective(name, kind, Axis::kSequence, elements * sp);
  if (heads_move(job)) b.collective(name, kind, Axis::kContext, elements * sp);
}

}  // namespace

double rows_of(const Job& job) {
  return static_cast<double>(job.layout.micro_batch * job.sequence_tokens) /
         static_cast<double>(job.layout.cp * job.layout.sp);
}

void share_keys(const Job& job, Builder& b, const Heads& h) {
  const Layout& l = job.layout;
  const double rows = rows_of(job);
  const double kv = rows * h.kv * (h.qk_cols + h.v_cols);
  exchange(job, b, "heads_in", rows * (h.q * h.qk_cols) + kv);
  if (l.cp == 1 || heads_move(job)) return;
  const bool ring = job.context == ContextExchange::kRing;
  const auto cp = static_cast<double>(l.cp), sp = static_cast<double>(l.sp);
  b.collective("keys", ring ? CollectiveKind::kRing : CollectiveKind::kAllGather, Axis::kContext,
               kv * sp * cp, ring);
}

void return_heads(const Job& job, Builder& b, const Heads& h) {
  exchange(job, b, "heads_out", rows_of(job) * h.q * h.v_cols);
}

}  // namespace orrery::outline
