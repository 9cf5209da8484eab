// The step: cells through the pipeline, what happens once, what no op explains. See step.h.
#include "simulator/stages/step.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "core/check.h"
#include "simulator/stages/memory.h"
#include "simulator/stages/once.h"
#include "simulator/stages/pipeline.h"
#include "simulator/stages/stage.h"

namespace orrery::simulator {
namespace {

using outline::Axis;

constexpr std::size_t index_of(Axis axis) {
  return static_cast<std::size_t>(axis);
}

// One stage: its chunks, and what it does once a step.
struct Stage {
  Spent spent;       // of one micro-batch through all its chunks
  OncePerStep once;  // not hidden
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
  const OncePerStep all = once_per_step(job, price, dense, expert);
  out.once = not_hidden(job, all, forward, backward);
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
  times.send = send_seconds(job, price);
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
  p.data =
      exposed(Axis::kData) + exposed(Axis::kExpertData) + stage.once.reduce + stage.once.gather;
  p.optimizer = stage.once.update;
  p.bubble = bubble;
  return p;
}

}  // namespace

double send_seconds(const Job& job, const Price& price) {
  if (job.layout.pp == 1) return 0;
  const double rows = outline::rows_of(job) * static_cast<double>(job.model.hidden);
  const double width = job.precision == Precision::kFp32 ? 4 : 2;
  // Tensor ranks hold the same rows: each sends a part, or has only a part.
  return price.send(rows * width / static_cast<double>(job.layout.tp));
}

double straggle_of(const Job& job) {
  const double ranks =
      static_cast<double>(job.layout.dp * job.layout.cp * job.layout.sp * job.layout.pp);
  return job.stack.straggle * std::log2(std::max(1.0, ranks));
}

CellTimes cell_times(const Job& job) {
  const Price price(job);
  return cell_times(job, price, make_chunks(job, price));
}

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
    const double end = replay.end[r] + stage.once.total();
    if (end <= slowest) continue;
    slowest = end;
    out.parts = parts_of(stage, replay.end[r] - replay.busy[r], micro_batches);
    out.parts.expert -= replay.hidden[r];
  }
  out.parts.fixed = job.stack.step_s;
  out.parts.straggle = slowest * straggle_of(job);
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
