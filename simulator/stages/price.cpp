// Prices of tasks: products, attention, passes, collectives. See price.h.
#include "simulator/stages/price.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/check.h"

namespace orrery::simulator {
namespace {

using outline::Axis;
using outline::CollectiveKind;
using outline::Task;
using outline::TaskKind;

// FLOPs for each byte that a tile writes at its end: what beginning and end of a tile cost, in the
// device's own FLOPs a byte. 160 columns of a sum on an A100, twice as many on an H100.
constexpr double kTileEnds = 1.05;
constexpr double kPassHalf = 2 << 20;       // bytes of a pass at which it has half the bandwidth
constexpr double kMessageHalf = 256 << 10;  // bytes of a rank's part at which a link has half
// The same of rings inside a node, and the share of the bandwidth that the protocols for small
// messages reach instead: both from a table of nccl-tests on eight devices, which it does not name;
// its bandwidths are those of NVLink 4 (github.com/kvcache-ai/Mooncake, pull request 3484: 18 us
// for the smallest, 28 us for 1 MiB, 121 us for 16 MiB, 195 us for 32 MiB all-reduced).
constexpr double kRingHalf = 1.7e6;
constexpr double kSmallShare = 0.35;
// FlashAttention 2 on Hopper against kernels that use its asynchronous units: 370 of 648 TFLOP/s
// forward (Shah et al. 2024, arXiv 2407.08608, figure 5, heads of 128 columns).
constexpr double kSynchronous = 370.0 / 648.0;
constexpr double kUnknownProcessors = 108;

// The part of the processors that work, over all waves of tiles; the best of the tiles that
// libraries have.
double filled(double m, double n, double groups, double processors) {
  constexpr std::array<std::array<double, 2>, 5> kTiles = {
      {{256, 128}, {128, 256}, {128, 128}, {128, 64}, {64, 64}}};
  // Smaller tiles read each operand more often.
  constexpr std::array<double, 5> kSpeed = {1, 1, 0.95, 0.8, 0.65};
  double best = 0;
  for (std::size_t i = 0; i < kTiles.size(); ++i) {
    const double tiles =
        groups * std::ceil(m / groups / kTiles[i][0]) * std::ceil(n / kTiles[i][1]);
    const double waves = std::ceil(tiles / processors);
    const double padded = waves * processors * kTiles[i][0] * kTiles[i][1];
    best = std::max(best, kSpeed[i] * m * n / padded);
  }
  return best;
}

// Tensor cores read operands in pieces of 16 bytes, and best in those of 128 (NVIDIA, Matrix
// Multiplication Background, "multiples of 64 fp16 elements on A100"). Operands that lie otherwise
// take the plain cores, with a quarter of the peak (A100: 78 of 312 TFLOP/s fp16).
double aligned(std::int64_t common) {
  if (common >= 128) return 1;
  if (common >= 64) return 0.95;
  if (common >= 32) return 0.9;
  return common >= 16 ? 0.8 : 0.25;
}

const LinkTier* outer_tier(const Cluster& cluster) {
  return cluster.tiers.size() > 1 ? &cluster.tiers.back() : nullptr;
}

}  // namespace

Price::Price(const Job& job) : job_(job) {
  const Cluster& c = job.cluster;
  CHECK(!c.tiers.empty(), "a cluster without links");
  const LinkTier& inner = c.tiers.front();
  const LinkTier* outer = outer_tier(c);
  inner_ = inner.bandwidth.value() * inner.attainable;
  inner_latency_ = inner.latency.value();
  outer_ = outer != nullptr ? outer->bandwidth.value() * outer->attainable : inner_;
  outer_latency_ = outer != nullptr ? outer->latency.value() : inner_latency_;
  domain_ = static_cast<double>(outer != nullptr ? inner.domain : c.devices);
}

// Ranks are numbered tensor first, then context (and sequence), data, stages; experts take the
// ranks of tensor, context and data from the innermost.
Span Price::span(Axis axis) const {
  const Layout& l = job_.layout;
  const auto tp = static_cast<double>(l.tp), cp = static_cast<double>(l.cp * l.sp);
  const auto dp = static_cast<double>(l.dp), ep = static_cast<double>(l.ep);
  const auto etp = static_cast<double>(l.etp);
  double ranks = 1, stride = 1;
  switch (axis) {
    case Axis::kTensor:
      ranks = tp;
      break;
    case Axis::kContext:
      ranks = static_cast<double>(l.cp);
      stride = tp * static_cast<double>(l.sp);
      break;
    case Axis::kSequence:
      ranks = static_cast<double>(l.sp);
      stride = tp;
      break;
    case Axis::kData:
      ranks = dp * cp;
      stride = tp;
      break;
    case Axis::kExpertTensor:
      ranks = etp;
      break;
    case Axis::kExpert:
      ranks = ep;
      stride = etp;
      break;
    case Axis::kExpertData:
      stride = etp * ep;
      ranks = std::max(1.0, tp * cp * dp / stride);
      break;
    case Axis::kStage:
      ranks = static_cast<double>(l.pp);
      stride = tp * cp * dp;
      break;
  }
  return {ranks, std::clamp(std::floor(domain_ / stride), 1.0, ranks)};
}

double Price::pass(double bytes) const {
  const DeviceProfile& d = job_.cluster.device;
  const double reached = d.memory_bandwidth.value() * d.attainable.memory;
  return (bytes + kPassHalf) / reached;
}

double Price::product(const Task& t) const {
  const DeviceProfile& d = job_.cluster.device;
  const double processors =
      d.processors > 0 ? static_cast<double>(d.processors) : kUnknownProcessors;
  double nominal = d.peak_bf16.value(), reached = d.attainable.product;
  if (t.low_precision && d.peak_fp8.value() > 0) {
    nominal = d.peak_fp8.value();
    reached = d.attainable.low_product;
  } else if (job_.precision == Precision::kFp32) {
    nominal = d.peak_fp32.value();
  }
  const double ends = kTileEnds * nominal / d.memory_bandwidth.value();
  const double share =
      filled(t.m, t.n, t.groups, processors) * t.k / (t.k + ends) * aligned(t.aligned);
  const double bytes = t.bytes / (d.memory_bandwidth.value() * d.attainable.memory);
  const double product = t.flops / (nominal * reached * share) * job_.stack.product_factor;
  return job_.trains_adapters ? product + bytes : std::max(product, bytes);
}

double Price::attention(const Task& t) const {
  const DeviceProfile& d = job_.cluster.device;
  const double reached = t.backward ? d.attainable.attention_backward : d.attainable.attention;
  // Blocks of 128 queries and a head are spread over the processors (Dao 2023, arXiv 2307.08691,
  // section 3.2): none is done before its part of all keys, nor before the block with most (Graham
  // 1969). What a block begins with, few keys hide: where sequences are short, or parts of a ring.
  const double processors =
      d.processors > 0 ? static_cast<double>(d.processors) : kUnknownProcessors;
  const double begins = 128 * t.parts;
  const double keys = t.flops / (4 * t.m * t.n * t.k) * (t.backward ? 0.4 : 1);
  const double all = t.m * t.n / 128 * (keys + begins) / processors;
  const double most = keys * t.longest + begins;
  const double filled_keys = keys / (keys + begins) * std::min(1.0, all / most);
  const bool behind = d.family == "hopper" && job_.stack.attention == AttentionKernel::kFlash;
  const double kernel = behind ? kSynchronous : 1;
  return t.flops / (d.peak_bf16.value() * reached * kernel * filled_keys) *
         job_.stack.attention_factor;
}

double Price::exchange(const Span& s, double bytes, bool once_a_node) const {
  if (s.ranks <= 1 || bytes <= 0) return 0;
  const double within = bytes * (s.in_node - 1) / s.ranks;
  double beyond = bytes * (s.ranks - s.in_node) / s.ranks;
  if (once_a_node && s.nodes() > 1) {
    // Of k rows of a token, one goes to each node that it has experts on.
    const auto k = static_cast<double>(job_.model.top_k);
    const double nodes = s.nodes();
    const double distinct = nodes * (1 - std::pow(1 - 1 / nodes, k));
    beyond *= std::min(1.0, distinct / k);
  }
  const double latency = (s.in_node - 1) * inner_latency_ / 4 + (s.nodes() - 1) * outer_latency_;
  const double part = bytes / s.ranks;
  const double full = part / (part + kMessageHalf / 8);
  return latency + std::max(within / inner_, beyond / outer_) / full;
}

double Price::collective(CollectiveKind kind, const Span& s, double bytes) const {
  if (s.ranks <= 1 || bytes <= 0) return 0;
  if (kind == CollectiveKind::kAllToAll) return exchange(s, bytes, false);
  const bool several = s.nodes() > 1;
  // One ring a rank of a node: all links of the nodes carry their part of the bytes.
  const double rate = several ? std::min(inner_, s.in_node * outer_) : inner_;
  const double part = bytes / s.ranks;
  const double steps = s.ranks - 1;
  const double hop =
      several ? (steps - (s.nodes() - 1)) * inner_latency_ / 2 + (s.nodes() - 1) * outer_latency_
              : steps * inner_latency_ / 2;
  const double moved = several ? steps * (part + kMessageHalf)
                               : steps * std::min(part / kSmallShare, part + kRingHalf);
  const double once = hop + moved / rate;
  if (kind != CollectiveKind::kAllReduce) return once;
  // A tree has fewer steps where there is little to send.
  const double tree =
      2 * (std::log2(s.nodes() + 1) * outer_latency_ + std::log2(s.in_node + 1) * inner_latency_) +
      2 * (bytes + kMessageHalf) / rate;
  const double sum = several ? std::min(2 * once, tree) : 2 * once;
  const double switched = reduced_in_network(s, bytes);
  return switched > 0 ? std::min(sum, switched) : sum;
}

// An all-reduce in which switches sum (Graham 2016, SHARP; NVLS in the nodes): a rank sends and
// takes each byte once, where a ring sends and takes 2 (n - 1) / n of them. Each rank's part of the
// sum goes on between nodes: once if those switches sum too, else around a ring of nodes. 0: none
// of the group's links can.
double Price::reduced_in_network(const Span& s, double bytes) const {
  if (!job_.stack.in_network_reduction) return 0;
  const std::vector<LinkTier>& tiers = job_.cluster.tiers;
  const bool outer = s.nodes() > 1 && tiers.back().in_network_reduction;
  const bool inner = s.in_node > 1 && tiers.front().in_network_reduction;
  if (!outer && !inner) return 0;
  const auto times = [](bool switched, double ranks) {
    return ranks <= 1 ? 0 : (switched ? 1 : 2 * (ranks - 1) / ranks);
  };
  const auto hops = [](bool switched, double ranks) {
    return ranks <= 1 ? 0 : (switched ? 2 : 2 * std::log2(ranks));
  };
  const double part = bytes / s.ranks;
  const double full = s.nodes() > 1 ? part / (part + kMessageHalf)
                                    : std::max(kSmallShare, part / (part + kRingHalf));
  const double within = times(inner, s.in_node) * bytes / inner_;
  const double beyond = times(outer, s.nodes()) * bytes / (s.in_node * outer_);
  return hops(inner, s.in_node) * inner_latency_ + hops(outer, s.nodes()) * outer_latency_ +
         std::max(within, beyond) / full;
}

double Price::send(double bytes) const {
  const bool beyond = span(Axis::kStage).in_node <= 1;
  const double rate = beyond ? outer_ : inner_;
  return (beyond ? outer_latency_ : inner_latency_) + (bytes + kMessageHalf / 4) / rate;
}

double Price::seconds(const Task& t) const {
  switch (t.kind) {
    case TaskKind::kProduct:
    case TaskKind::kGrouped:
      return product(t);
    case TaskKind::kAttention:
      return attention(t);
    case TaskKind::kPass:
      return pass(t.bytes * job_.stack.pass_factor);
    case TaskKind::kCollective:
      if (t.axis == Axis::kExpert && t.collective == CollectiveKind::kAllToAll) {
        return exchange(span(t.axis), t.bytes, job_.dispatcher == Dispatcher::kDeduplicated);
      }
      return collective(t.collective, span(t.axis), t.bytes);
  }
  CHECK(false, "a task of no kind");
}

}  // namespace orrery::simulator
