// Reductions, gathers and updates of a step. See once.h.
#include "simulator/stages/once.h"

#include <algorithm>

#include "simulator/stages/stage.h"

namespace orrery::simulator {
namespace {

using outline::Axis;
using outline::CollectiveKind;

Span part_of(Span span, double ranks) {
  span.ranks = std::min(span.ranks, ranks);
  span.in_node = std::min(span.in_node, span.ranks);
  return span;
}

}  // namespace

OncePerStep once_per_step(const Job& job, const Price& price, double dense, double expert) {
  OncePerStep out;
  if (job.trains_adapters) return out;
  const Span data = price.span(Axis::kData), expert_data = price.span(Axis::kExpertData);
  const auto shards = static_cast<double>(job.layout.fsdp_d);
  const auto replicas = static_cast<double>(job.layout.replicate_d);
  const double gradient = job.stack.fp32_gradients ? 4 : 2;
  const Span shard = part_of(data, shards);
  // Replicas of the same shard: at the distance of a whole shard group.
  const Span replica{replicas, std::max(1.0, data.in_node / shard.in_node)};
  const auto over = [&](CollectiveKind kind, double bytes) {
    return price.collective(kind, shard, dense * bytes) +
           price.collective(kind, expert_data, expert * bytes);
  };
  double share = 1;  // of the states that a rank updates
  if (job.sharding == Sharding::kNone) {
    out.reduce = price.collective(CollectiveKind::kAllReduce, data, dense * gradient) +
                 price.collective(CollectiveKind::kAllReduce, expert_data, expert * gradient);
  } else {
    if (job.sharding != Sharding::kParameters) {
      out.reduce = over(CollectiveKind::kReduceScatter, gradient);
      out.gather = over(CollectiveKind::kAllGather, 2);
    } else if (gathers_once(job)) {
      out.gather = over(CollectiveKind::kAllGather, 2);
    }
    out.reduce += price.collective(CollectiveKind::kAllReduce, replica, dense * gradient / shards);
    share = 1 / shards;
  }
  const double states = dense * share + expert / std::max(1.0, expert_data.ranks);
  // Gradient twice (norm and update), master weights and both moments read and written, weights.
  out.update = price.pass(states * (2 * 4 + 2 * 12 + 2));
  return out;
}

OncePerStep not_hidden(const Job& job, const OncePerStep& once, double forward, double backward) {
  const double share = job.stack.exposed_share;
  constexpr double kBeside = 0.9;
  const auto exposed = [&](bool beside, double seconds, double behind) {
    if (!beside) return seconds;
    return share * seconds + std::max(0.0, (1 - share) * seconds - kBeside * behind);
  };
  return {exposed(job.stack.overlaps_gradients, once.reduce, backward),
          exposed(job.stack.overlaps_parameters, once.gather, forward), once.update};
}

}  // namespace orrery::simulator
