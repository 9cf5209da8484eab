// See engine_jobs.h.
#include "tests/handover/engine_jobs.h"

#include <algorithm>

#include "core/check.h"
#include "tests/support/plans.h"
#include "tests/support/random_jobs.h"

namespace orrery {
namespace {

void shape_stages(Draw& draw, Job& job) {
  job.schedule = PipelineSchedule::kOneForwardOneBackward;
  if (job.virtual_stages > 1) {
    const bool overlaps = job.layout.ep > 1 && draw.coin();
    job.schedule = overlaps ? PipelineSchedule::kOverlapped : PipelineSchedule::kInterleaved;
    job.global_sequences *= job.layout.pp;  // whole groups of micro-batches
  }
  // Layers of some stage more, of another fewer.
  if (job.layout.pp == 1 || draw.coin()) return;
  job.stage_layers = even_layers(job.model.layers, job.stages());
  const auto last = static_cast<std::int64_t>(job.stage_layers.size()) - 1;
  const auto from = static_cast<std::size_t>(draw.between(0, last));
  const auto to = static_cast<std::size_t>(draw.between(0, last));
  if (job.stage_layers[from] < 2) return;
  --job.stage_layers[from];
  ++job.stage_layers[to];
}

void shape_recompute(Draw& draw, Job& job) {
  const std::int64_t kind = draw.between(0, 3);
  if (kind == 0) return;
  job.recompute = {};
  job.recompute.full = kind == 1;
  if (kind == 1) job.recompute.full_layers = draw.between(0, 2);
  job.recompute.ops = kind == 2;
}

// Tensor parallelism of Megatron and torchtitan, whose norms are split too.
void shape_titan(Draw& draw, Job& job) {
  Layout& l = job.layout;
  l.sp = 1;
  if (job.context == ContextExchange::kAllToAll) job.context = ContextExchange::kRing;
  job.sequence_parallel = true;
  job.sharding = Sharding::kParameters;
  l.dp *= 2;
  l.replicate_d = draw.divisor_of(l.dp);
  l.fsdp_d = l.dp * l.cp / l.replicate_d;
  if (!job.model.is_moe()) return;
  l.etp = draw.coin() ? 1 : l.tp;
  const std::int64_t whole = l.etp == 1 ? l.cp * l.tp : l.cp;
  l.ep = draw.coin() ? 1 : whole * draw.between(1, 2);
  if (job.dispatcher == Dispatcher::kAllGather) job.dispatcher = Dispatcher::kDeduplicated;
}

void shape_megatron(Draw& draw, Job& job) {
  Layout& l = job.layout;
  if (l.cp > 1 && l.sp > 1) job.context = ContextExchange::kRing;
  job.sequence_parallel = job.sequence_parallel || job.model.is_moe();
  const std::int64_t data = l.dp * l.cp * l.sp;
  l.replicate_d = draw.coin() ? 1 : draw.divisor_of(l.dp);
  l.fsdp_d = data / l.replicate_d;
}

void shape_xtuner(Draw& draw, Job& job) {
  Layout& l = job.layout;
  l.tp = l.pp = 1;
  l.dp *= 2;
  job.context = ContextExchange::kAllToAll;
  job.sharding = Sharding::kParameters;
  l.ep = job.model.is_moe() && draw.coin() ? 2 : 1;
  l.etp = 1;
  l.replicate_d = l.ep > 1 ? l.ep : draw.divisor_of(l.dp);
  l.fsdp_d = l.dp * l.cp * l.sp / l.replicate_d;
  if (job.dispatcher == Dispatcher::kAllGather) job.dispatcher = Dispatcher::kAllToAll;
}

void shape_deepspeed(Draw& draw, Job& job) {
  Layout& l = job.layout;
  l.pp = l.etp = 1;
  job.context = ContextExchange::kAllToAll;
  job.sequence_parallel = false;
  job.dispatcher = Dispatcher::kAllToAll;
  if (job.sharding == Sharding::kParameters) {
    l.tp = l.ep = 1;
    l.replicate_d = draw.divisor_of(l.dp);
  } else {
    l.replicate_d = 1;
  }
  l.fsdp_d = l.dp * l.cp * l.sp / l.replicate_d;
}

void shape(Draw& draw, const std::string& engine, Job& job) {
  if (engine == "megatron") shape_megatron(draw, job);
  if (engine == "torchtitan") shape_titan(draw, job);
  if (engine == "xtuner") shape_xtuner(draw, job);
  if (engine == "deepspeed") shape_deepspeed(draw, job);
  Layout& l = job.layout;
  if (l.pp == 1) job.virtual_stages = 1;
  shape_stages(draw, job);
  shape_recompute(draw, job);
  job.trains_adapters = false;
  if (job.precision == Precision::kTf32) job.precision = Precision::kBf16;
  const bool odd = engine != "megatron" && job.precision == Precision::kFp16;
  if (odd || (engine == "deepspeed" && job.precision == Precision::kFp8)) {
    job.precision = Precision::kBf16;
  }
  job.cluster = small_cluster(l.world());
  job.global_sequences = l.dp * l.micro_batch * l.pp * draw.between(1, 3);
}

}  // namespace

Job random_engine_job(const std::vector<Model>& models, const std::string& engine,
                      std::uint64_t seed) {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    Job job = random_job(models, seed * 1000 + i);
    Draw draw(seed * 31 + i);
    shape(draw, engine, job);
    if (violations(job).empty()) return job;
  }
  CHECK(false, "no legal job of the engine in a thousand");
}

}  // namespace orrery
