// Scans over sizes of clusters and of rows.
#include "planner/size.h"

#include <algorithm>
#include <cmath>

#include "core/model.h"
#include "planner/explain.h"
#include "planner/space.h"

namespace orrery::planner {
namespace {

constexpr std::int64_t kLongest = std::int64_t{1} << 26;
// A plan so near to the limit may meet it by mechanisms beyond the listed space.
constexpr double kNear = 1.15;

// Whether the batch can be divided over so many ranks: whole sequences, or shares of one by heads.
bool divides(const Request& request, std::int64_t devices) {
  for (const std::int64_t sp : divisors(devices)) {
    if (request.model.heads % sp == 0 && request.workload.global_sequences % (devices / sp) == 0) {
      return true;
    }
  }
  return false;
}

// All FLOPs of the tokens at the peak, without a failure.
double least_devices(const Request& request, std::int64_t tokens, Seconds limit) {
  const Workload& w = request.workload;
  const double attended =
      static_cast<double>(w.pairs_per_sequence()) / static_cast<double>(w.sequence_tokens);
  return static_cast<double>(tokens) * training_flops_per_token(request.model, attended) /
         (request.cluster.device.peak(w.compute).value() * limit.value());
}

SizeTried tried_at(const Request& request, std::int64_t tokens, Seconds limit,
                   const Reliability& reliability) {
  SizeTried size{request.cluster.devices, fastest_that_fits(request), {}};
  if (!size.plan) return size;
  size.run = run_of(*size.plan, tokens, reliability);
  if (size.run.wall <= limit || size.run.wall > limit * kNear) return size;
  const Result<Outcome> refined = plan(request);
  if (refined.ok() && refined.value().best) {
    size.plan = refined.value().best;
    size.run = run_of(*size.plan, tokens, reliability);
  }
  return size;
}

}  // namespace

Sized size_for(const Request& original, const ClusterOf& cluster_of, std::int64_t tokens,
               Seconds limit, const Reliability& reliability) {
  Request request = original;
  request.runners_up = 0;
  request.progress = nullptr;
  Sized sized;
  const double least = std::ceil(least_devices(request, tokens, limit));
  sized.least = least > kMostDevices ? kMostDevices + 1 : static_cast<std::int64_t>(least);
  for (std::int64_t n = std::max<std::int64_t>(1, sized.least);
       n <= kMostDevices && sized.tried.size() < kMostSizes; ++n) {
    if (!divides(request, n)) continue;
    const Result<Cluster> cluster = cluster_of(n);
    if (!cluster.ok()) continue;
    request.cluster = cluster.value();
    sized.tried.push_back(tried_at(request, tokens, limit, reliability));
    const SizeTried& last = sized.tried.back();
    if (!last.plan || last.run.wall > limit) continue;
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

std::vector<SequenceTried> longest_sequence(const Request& request) {
  std::vector<SequenceTried> tried;
  const auto fits = [&](std::int64_t tokens) {
    Request r = request;
    r.progress = nullptr;
    r.workload = with_sequence(request.workload, tokens);
    tried.push_back({tokens, fastest_that_fits(r)});
    return tried.back().plan.has_value();
  };
  std::int64_t good = request.workload.sequence_tokens;
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
