// Scans over sizes of clusters and of rows.
#include "planner/questions/size.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace orrery::planner {
namespace {

constexpr std::int64_t kLongest = std::int64_t{1} << 26;

}  // namespace

RunFacts facts_of(const Searcher& searcher, const Setting& setting, const Answer& answer) {
  return {answer.step,
          answer.p10,
          answer.p90,
          setting.workload.global_tokens(),
          setting.cluster.devices,
          static_cast<double>(parameter_count(setting.model)) *
              searcher.checkpoint_bytes_a_parameter(setting)};
}

Sized size_for(const Searcher& searcher, const Setting& original, const ClusterOf& cluster_of,
               std::int64_t tokens, Seconds limit, const Reliability& reliability) {
  Setting setting = original;
  Sized sized;
  const double least = std::ceil(static_cast<double>(tokens) *
                                 searcher.least_device_seconds_a_token(setting) / limit.value());
  sized.least = least > kMostDevices ? kMostDevices + 1 : static_cast<std::int64_t>(least);
  for (std::int64_t n = std::max<std::int64_t>(1, sized.least);
       n <= kMostDevices && sized.tried.size() < kMostSizes; ++n) {
    setting.cluster.devices = n;
    if (!searcher.suits(setting)) continue;
    const Result<Cluster> cluster = cluster_of(n);
    if (!cluster.ok()) continue;
    setting.cluster = cluster.value();
    const RunFacts facts = facts_of(searcher, setting, {});
    const Seconds wanted = longest_step(facts, tokens, reliability, limit);
    SizeTried size{n, searcher.quick(setting, wanted), {}};
    if (!size.answer.legal) continue;
    if (size.answer) {
      size.run = run_of(facts_of(searcher, setting, size.answer), tokens, reliability);
    }
    sized.tried.push_back(std::move(size));
    if (!sized.tried.back().answer || sized.tried.back().run.wall > limit) continue;
    sized.met = true;
    break;
  }
  return sized;
}

Workload with_sequence(const Workload& workload, std::int64_t tokens) {
  Workload w = workload;
  w.sequence_tokens = tokens;
  w.global_sequences = std::max<std::int64_t>(1, workload.global_tokens() / tokens);
  if (w.document_lengths) {  // what no row holds is cut
    DocumentLengths& lengths = *w.document_lengths;
    lengths.max_tokens = std::min(lengths.max_tokens, tokens);
    lengths.median_tokens =
        std::min(lengths.median_tokens, static_cast<double>(lengths.max_tokens));
    return w;
  }
  w.document_tokens.clear();
  // One document a row stays one; several are repeated.
  if (workload.document_tokens.size() == 1) {
    w.document_tokens = {tokens};
    return w;
  }
  for (std::int64_t left = tokens, i = 0; left > 0; ++i) {
    const auto at = static_cast<std::size_t>(i) % workload.document_tokens.size();
    w.document_tokens.push_back(std::min(left, workload.document_tokens[at]));
    left -= w.document_tokens.back();
  }
  return w;
}

std::vector<SequenceTried> longest_sequence(const Searcher& searcher, const Setting& setting) {
  std::vector<SequenceTried> tried;
  const auto fits = [&](std::int64_t tokens) {
    Setting s = setting;
    s.workload = with_sequence(setting.workload, tokens);
    tried.push_back({tokens, searcher.quick(s, Seconds(std::numeric_limits<double>::infinity()))});
    return tried.back().answer.fits;
  };
  std::int64_t good = setting.workload.sequence_tokens;
  if (fits(good)) {
    while (good * 2 <= kLongest && fits(good * 2)) good *= 2;
    if (good * 2 > kLongest) return tried;
  } else {
    do {
      if (good % 2 != 0) return tried;
      good /= 2;
    } while (!fits(good));
  }
  std::int64_t low = 8, high = 16;  // eighths of `good`
  while (good % 8 == 0 && high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (fits(good / 8 * middle) ? low : high) = middle;
  }
  return tried;
}

}  // namespace orrery::planner
