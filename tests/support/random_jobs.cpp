// See random_jobs.h.
#include "tests/support/random_jobs.h"

#include <algorithm>
#include <string>

#include "core/check.h"
#include "core/configs.h"
#include "tests/support/plans.h"

namespace orrery {
namespace {

template <class Enum>
Enum one_of(Draw& draw, int kinds) {
  return static_cast<Enum>(draw.between(0, kinds - 1));
}

std::int64_t power(Draw& draw, int most) {
  return std::int64_t{1} << draw.between(0, most);
}

void draw_axes(Draw& draw, Job& job) {
  Layout& l = job.layout;
  l = {};
  l.tp = power(draw, 3);
  l.cp = draw.coin() ? power(draw, 2) : 1;
  l.sp = draw.coin() ? power(draw, 1) : 1;
  l.dp = power(draw, 2);
  l.pp = power(draw, 2);
  l.micro_batch = draw.between(1, 3);
  job.virtual_stages = draw.coin() && l.pp > 1 ? draw.between(1, 3) : 1;
  const std::int64_t data = l.dp * l.cp * l.sp, stage = data * l.tp;
  if (job.model.is_moe()) {
    l.ep = std::min(power(draw, 5), stage);
    l.etp = draw.divisor_of(stage / l.ep);
  }
  l.fsdp_d = draw.divisor_of(data);
  l.replicate_d = data / l.fsdp_d;
  job.cluster = small_cluster(l.world());
}

void draw_switches(Draw& draw, Job& job) {
  job.schedule = one_of<PipelineSchedule>(draw, kNumSchedules);
  if (job.virtual_stages > 1) {
    job.schedule = draw.coin() ? PipelineSchedule::kInterleaved : PipelineSchedule::kOverlapped;
  }
  job.sequence_parallel = draw.coin();
  job.sharding = one_of<Sharding>(draw, 4);
  job.keeps_gathered = draw.coin();
  job.context = one_of<ContextExchange>(draw, 3);
  job.dispatcher = one_of<Dispatcher>(draw, 3);
  job.precision = one_of<Precision>(draw, 5);
  job.trains_adapters = draw.between(0, 4) == 0;
  job.expert_load_cv = draw.coin() ? 0.1 * static_cast<double>(draw.between(1, 10)) : 0;
  Stack& s = job.stack;
  s.attention = one_of<AttentionKernel>(draw, 4);
  s.fuses_sinks = draw.coin();
  s.fused_passes = draw.coin();
  s.overlaps_tensor = draw.coin();
  s.overlaps_experts = draw.coin();
  s.fp32_gradients = draw.coin();
  s.fp32_loss = draw.coin();
  s.loss = one_of<LossKernel>(draw, 4);
  s.graphs = draw.coin();
  job.recompute.full = draw.between(0, 3) == 0;
  if (job.recompute.full) job.recompute.full_layers = draw.between(0, 2);
  if (job.recompute.full || draw.coin()) return;
  job.recompute.ops = draw.coin();
  if (job.recompute.ops) return;
  for (int m = 0; m < kNumModules; ++m) {
    job.recompute.modules[static_cast<std::size_t>(m)] = draw.coin();
  }
}

}  // namespace

std::vector<Model> published_models() {
  std::vector<Model> models;
  for (const std::string& name : list_configs("models")) {
    Result<Model> model = load_model(name);
    CHECK(model.ok(), model.error().text());
    models.push_back(std::move(model).value());
  }
  return models;
}

Job random_job(const std::vector<Model>& models, std::uint64_t seed) {
  Draw draw(seed);
  for (int i = 0; i < 1000; ++i) {
    Job job;
    job.model = models[static_cast<std::size_t>(
        draw.between(0, static_cast<std::int64_t>(models.size()) - 1))];
    if (draw.between(0, 3) == 0) job.model.mtp_layers = draw.between(0, 2);
    draw_axes(draw, job);
    draw_switches(draw, job);
    job.sequence_tokens = 1024 * power(draw, 5);
    job.global_sequences =
        job.layout.dp * job.layout.micro_batch * job.layout.pp * draw.between(1, 3);
    if (draw.coin()) {
      for (std::int64_t left = job.sequence_tokens; left > 0; left -= job.documents.back()) {
        job.documents.push_back(std::min(left, draw.between(1, job.sequence_tokens)));
      }
    }
    if (violations(job).empty()) return job;
  }
  CHECK(false, "no legal job in a thousand");
}

std::string describe(const Job& job) {
  const Layout& l = job.layout;
  std::string text = job.model.name;
  const std::pair<const char*, std::int64_t> axes[] = {
      {"dp", l.dp},   {"cp", l.cp},          {"sp", l.sp},
      {"tp", l.tp},   {"pp", l.pp},          {"ep", l.ep},
      {"etp", l.etp}, {"mb", l.micro_batch}, {"vpp", job.virtual_stages}};
  for (const auto& [name, value] : axes) {
    text += " " + std::string(name) + " " + std::to_string(value);
  }
  for (const char* word :
       {name_of(job.schedule), name_of(job.sharding), name_of(job.context), name_of(job.dispatcher),
        name_of(job.precision), name_of(job.stack.attention)}) {
    text += std::string(" ") + word;
  }
  if (job.sequence_parallel) text += " sequence-parallel";
  if (job.trains_adapters) text += " adapters";
  if (job.recompute.full) text += " full";
  if (!job.documents.empty()) text += " documents " + std::to_string(job.documents.size());
  return text;
}

}  // namespace orrery
