// The step: cells through the pipeline, what happens once, what no op explains. See step.h.
#include "simulator/stages/step.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

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
    } else if (gathers_once(job)) {
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

// One stage: its chunks, and what it does once a step.
struct Stage {
  Spent spent;                                // of one micro-batch through all its chunks
  double reduce = 0, gather = 0, update = 0;  // not hidden
  double once() const { return reduce + gather + update; }
};

Stage stage_of(const Job& job, const Price& price, const std::vector<Chunk>& chunks,
               std::int64_t stage) {
  Stage out;
  double dense = 0, expert = 0, forward = 0, backward = 0;
  for (std::int64_t c = 0; c < job.virtual_stages; ++c) {
    const Chunk& chunk = chunks[static_cast<std::size_t>(stage * job.virtual_stages + c)];
    dense += chunk.dense;
    expert += chunk.expert;
    forward += chunk.forward.total();
    backward += chunk.backward.total();
    out.spent += chunk.forward;
    out.spent += chunk.backward;
  }
  const OncePerStep o = once(job, price, dense, expert);
  const double share = job.stack.exposed_share;
  // Beside the last backward, and the first forward, of all chunks.
  constexpr double kBeside = 0.9;
  const auto exposed = [&](bool beside, double seconds, double behind) {
    if (!beside) return seconds;
    return share * seconds + std::max(0.0, (1 - share) * seconds - kBeside * behind);
  };
  out.reduce = exposed(job.stack.overlaps_gradients, o.reduce, backward);
  out.gather = exposed(job.stack.overlaps_parameters, o.gather, forward);
  out.update = o.update;
  return out;
}

// Made once a shape and thread: fits and searches ask for the same again and again.
const Pipeline& pipeline_of(PipelineSchedule schedule, std::int32_t stages,
                            std::int32_t virtual_stages, std::int32_t micro_batches) {
  constexpr std::size_t kKept = 512;
  using Shape = std::tuple<PipelineSchedule, std::int32_t, std::int32_t, std::int32_t>;
  thread_local std::map<Shape, Pipeline> kept;
  const Shape shape{schedule, stages, virtual_stages, micro_batches};
  if (const auto found = kept.find(shape); found != kept.end()) return found->second;
  if (kept.size() >= kKept) kept.clear();
  return kept.try_emplace(shape, schedule, stages, virtual_stages, micro_batches).first->second;
}

CellTimes cell_times(const Job& job, const Price& price, const std::vector<Chunk>& chunks) {
  CellTimes times;
  for (const Chunk& c : chunks) {
    times.forward.push_back(c.forward.total());
    times.backward.push_back(c.backward.total());
    times.weight.push_back(c.weight);
    // What the stack overlaps well enough to leave only its share in sight.
    const double hides = 1 - job.stack.exposed_share;
    times.forward_hides.push_back(hides * c.forward.exposed[index_of(Axis::kExpert)]);
    times.backward_hides.push_back(hides * c.backward.exposed[index_of(Axis::kExpert)]);
  }
  const double rows = outline::rows_of(job) * static_cast<double>(job.model.hidden);
  const double width = job.precision == Precision::kFp32 ? 4 : 2;
  // Tensor ranks hold the same rows: each sends a part, or has only a part.
  const double bytes = rows * width / static_cast<double>(job.layout.tp);
  times.send = job.layout.pp > 1 ? price.send(bytes) : 0;
  times.beside = job.stack.overlaps_stages;
  return times;
}

StepParts parts_of(const Stage& stage, double bubble, double micro_batches) {
  const auto exposed = [&](Axis axis) {
    return micro_batches * stage.spent.exposed[index_of(axis)];
  };
  StepParts p;
  p.compute = micro_batches * stage.spent.compute;
  p.host = micro_batches * stage.spent.host;
  p.tensor = exposed(Axis::kTensor);
  p.context = exposed(Axis::kContext) + exposed(Axis::kSequence);
  p.expert = exposed(Axis::kExpert) + exposed(Axis::kExpertTensor);
  p.data = exposed(Axis::kData) + exposed(Axis::kExpertData) + stage.reduce + stage.gather;
  p.optimizer = stage.update;
  p.bubble = bubble;
  return p;
}

}  // namespace

JobPrediction predict(const Job& job) {
  const Price price(job);
  const auto stages = static_cast<std::int32_t>(job.layout.pp);
  const auto virtual_stages = static_cast<std::int32_t>(job.virtual_stages);
  const auto micro_batches =
      static_cast<std::int32_t>(std::max<std::int64_t>(1, job.micro_batches()));
  const std::vector<Chunk> chunks = make_chunks(job, price);
  const PipelineReplay replay = pipeline_of(job.schedule, stages, virtual_stages, micro_batches)
                                    .replay(cell_times(job, price, chunks));
  JobPrediction out;
  double slowest = -1;
  for (std::int32_t s = 0; s < stages; ++s) {
    const auto r = static_cast<std::size_t>(s);
    const Stage stage = stage_of(job, price, chunks, s);
    const double end = replay.end[r] + stage.once();
    if (end <= slowest) continue;
    slowest = end;
    out.parts = parts_of(stage, replay.end[r] - replay.busy[r], micro_batches);
    out.parts.expert -= replay.hidden[r];
  }
  out.parts.fixed = job.stack.step_s;
  const double ranks = static_cast<double>(job.layout.dp * job.layout.cp * job.layout.pp);
  out.parts.straggle = slowest * job.stack.straggle * std::log2(std::max(1.0, ranks));
  const double step = slowest + out.parts.fixed + out.parts.straggle;
  CHECK(std::isfinite(step) && step > 0, "a step of no length");
  out.step = Seconds(step);
  // The deviation of the prior of the host's kernel, on which a small job may rest alone.
  constexpr double kPriorsAlone = 0.7;
  out.p10 = Seconds(step * std::exp(-kPriorsAlone));
  out.p90 = Seconds(step * std::exp(kPriorsAlone));
  predict_memory(job, chunks, out);
  return out;
}

}  // namespace orrery::simulator
