#include "simulator/stages/step.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "simulator/stages/memory.h"
#include "simulator/stages/pipeline.h"
#include "simulator/stages/stage.h"

namespace orrery::simulator {
namespace {

using outline::Axis;
using outline::CollectiveKind;

constexpr std::size_t index_of(Axis axis) {
  return static_cast<std::size_t>(axis);
}

// What a rank of a stage does once a step.
struct OncePerStep {
  double reduce = 0;  // gradients over the ranks that hold other sequences
  double gather = 0;  // updated parameters back
  double update = 0;
};

Span part_of(Span span, double ranks) {
  span.ranks = std::min(span.ranks, ranks);
  span.in_node = std::min(span.in_node, span.ranks);
  return span;
}

OncePerStep once(const Job& job, const Price& price, double dense, double expert) {
  OncePerStep out;
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
    }
    out.reduce += price.collective(CollectiveKind::kAllReduce, replica, dense * gradient / shards);
    share = 1 / shards;
  }
  const double states = dense * share + expert / std::max(1.0, expert_data.ranks);
  // Gradient twice (norm and update), master weights and both moments read and written, weights.
  out.update = price.pass(states * (2 * 4 + 2 * 12 + 2));
  if (job.trains_adapters) out = {};
  return out;
}

}  // namespace

JobPrediction predict(const Job& job) {
  const Price price(job);
  const auto stages = static_cast<std::int32_t>(job.layout.pp);
  const auto chunks = static_cast<std::int32_t>(job.virtual_stages);
  const std::vector<Chunk> parts = make_chunks(job, price);
  CellTimes times;
  for (const Chunk& c : parts) {
    times.forward.push_back(c.forward.total());
    times.backward.push_back(c.backward.total());
  }
  const double rows = outline::rows_of(job) * static_cast<double>(job.model.hidden);
  const double width = job.precision == Precision::kFp32 ? 4 : 2;
  // Tensor ranks hold the same rows: each sends a part, or has only a part.
  times.send = stages > 1 ? price.send(rows * width / static_cast<double>(job.layout.tp)) : 0;
  times.beside = job.stack.overlaps_stages;
  const auto micro_batches =
      static_cast<std::int32_t>(std::max<std::int64_t>(1, job.micro_batches()));
  const PipelineReplay replay = replay_pipeline(job.schedule, stages, chunks, micro_batches, times);

  JobPrediction out;
  double slowest = -1;
  for (std::int32_t s = 0; s < stages; ++s) {
    const auto r = static_cast<std::size_t>(s);
    double dense = 0, expert = 0;
    for (std::int32_t c = 0; c < chunks; ++c) {
      const Chunk& chunk = parts[static_cast<std::size_t>(s * chunks + c)];
      dense += chunk.dense;
      expert += chunk.expert;
    }
    const OncePerStep o = once(job, price, dense, expert);
    // Beside the last backward of each chunk, and the first forward.
    double window = 0, first = 0;
    for (std::int32_t c = 0; c < chunks; ++c) {
      window += times.backward[static_cast<std::size_t>(s * chunks + c)];
      first += times.forward[static_cast<std::size_t>(s * chunks + c)];
    }
    const double share = job.stack.exposed_share;
    const auto hidden = [&](bool beside, double seconds, double behind) {
      if (!beside) return seconds;
      return share * seconds + std::max(0.0, (1 - share) * seconds - behind);
    };
    const double reduce = hidden(job.stack.overlaps_gradients, o.reduce, 0.9 * window);
    const double gather = hidden(job.stack.overlaps_parameters, o.gather, 0.9 * first);
    const double end = replay.end[r] + reduce + gather + o.update;
    if (end <= slowest) continue;
    slowest = end;
    StepParts& p = out.parts;
    p = {};
    Spent spent;
    for (std::int32_t c = 0; c < chunks; ++c) {
      spent += parts[static_cast<std::size_t>(s * chunks + c)].forward;
      spent += parts[static_cast<std::size_t>(s * chunks + c)].backward;
    }
    const auto times_m = [&](double seconds) { return seconds * micro_batches; };
    p.compute = times_m(spent.compute);
    p.host = times_m(spent.host);
    p.tensor = times_m(spent.exposed[index_of(Axis::kTensor)]);
    p.context = times_m(spent.exposed[index_of(Axis::kContext)]);
    p.expert = times_m(spent.exposed[index_of(Axis::kExpert)] +
                       spent.exposed[index_of(Axis::kExpertTensor)]);
    p.data = times_m(spent.exposed[index_of(Axis::kData)]) + reduce + gather;
    p.bubble = replay.end[r] - replay.busy[r];
    p.optimizer = o.update;
  }
  out.parts.fixed = job.stack.step_s;
  const double ranks = static_cast<double>(job.layout.dp * job.layout.cp * job.layout.pp);
  out.parts.straggle = slowest * job.stack.straggle * std::log2(std::max(1.0, ranks));
  const double step = slowest + out.parts.fixed + out.parts.straggle;
  CHECK(std::isfinite(step) && step > 0, "a step of no length");
  out.step = Seconds(step);
  constexpr double kSpread = 0.18;  // relative half-width, until residuals give it
  out.p10 = Seconds(step * (1 - kSpread));
  out.p90 = Seconds(step * (1 + kSpread));
  predict_memory(job, parts, out);
  return out;
}

}  // namespace orrery::simulator
