// The context axis and Ulysses' one inside it: ranks hold parts of each sequence. Their queries see
// all keys: in a ring (Liu 2023), by a gather, or after an exchange of rows for heads (Jacobs
// 2023).
#include <algorithm>
#include <cmath>

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

double window_of(const Job& job, std::int64_t layer) {
  const std::vector<std::int64_t>& windows = job.model.window;
  const auto i = static_cast<std::size_t>(layer);
  return i < windows.size() ? static_cast<double>(windows[i]) : 0;
}

double pairs_before(const Job& job, std::int64_t layer, double tokens) {
  const double window = window_of(job, layer);
  double pairs = 0, begin = 0;
  const auto add = [&](double document) {
    const double own = std::clamp(tokens - begin, 0.0, document);
    const double rising = window > 0 ? std::min(window, own) : own;  // queries that see all before
    pairs += rising * (rising + 1) / 2 + (own - rising) * rising;
    begin += document;
  };
  for (const std::int64_t document : job.documents) add(static_cast<double>(document));
  if (job.documents.empty()) add(static_cast<double>(job.sequence_tokens));
  return pairs;
}

// A ring splits each document over its ranks, heads and tails together (Transformer Engine's packed
// layout); a gather splits the sequence, whatever documents it has (Llama 3, arXiv 2407.21783,
// section 3.3.2), and heads and tails are alike only where all of it is seen; ranks that exchange
// heads have all tokens.
double fullest_share(const Job& job, std::int64_t layer) {
  const std::int64_t cp = job.layout.cp;
  const auto s = static_cast<double>(job.sequence_tokens);
  const double window = window_of(job, layer);
  const bool causal = job.documents.size() < 2 && (window <= 0 || window >= s);
  if (cp == 1 || causal || job.context != ContextExchange::kAllGather) return 1;
  const auto part = [&](std::int64_t i) {  // pairs of one of 2 cp parts
    const double width = s / static_cast<double>(2 * cp);
    const double from = std::round(width * static_cast<double>(i));
    const double to = std::round(width * static_cast<double>(i + 1));
    return pairs_before(job, layer, to) - pairs_before(job, layer, from);
  };
  double fullest = 0;
  for (std::int64_t r = 0; r < cp; ++r) {
    fullest = std::max(fullest, part(r) + part(2 * cp - 1 - r));
  }
  return fullest * static_cast<double>(cp) / pairs_before(job, layer, s);
}

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
