// See job_fixture.h.
#include "tests/ui-export/job_fixture.h"

#include "core/configs.h"
#include "core/job_json.h"
#include "tests/outline/jobs.h"

namespace orrery::testing {
namespace {

Json predicted_json(double step_s) {
  return Json::object()
      .set("step_s", step_s)
      .set("p10_s", 0.75 * step_s)
      .set("p90_s", 1.25 * step_s)
      .set("tokens_per_s", 131072 / step_s)
      .set("mfu", 0.8 / step_s)
      .set("parts", Json::object()
                        .set("compute", 0.75 * step_s)
                        .set("tensor", 0.0)
                        .set("bubble", 0.25 * step_s))
      .set("peak_bytes", std::int64_t{3'500'000'000})
      .set("usable_bytes", std::int64_t{8'000'000'000})
      .set("probability_fits", 0.995)
      .set("memory", Json::object()
                         .set("weights", std::int64_t{2'500'000'000})
                         .set("activations kept", std::int64_t{1'000'000'000}));
}

Json row(const Job& job, double step_s) {
  return Json::object().set("job", axes_json(job)).set("predicted", predicted_json(step_s));
}

}  // namespace

Job winning_job() {
  Job job = dense_job(8);
  job.model = load_model("qwen3-8b").value();
  job.stack = load_stack("megatron-bridge-2026").value();
  job.layout.tp = job.layout.pp = job.layout.dp = job.layout.fsdp_d = 2;
  return job;
}

Job rival_job() {
  Job job = winning_job();
  job.layout.pp = 1;
  job.layout.dp = job.layout.fsdp_d = 4;
  return job;
}

std::string job_plan_text() {
  Json json = to_json(winning_job());
  Json families = Json::array();
  families.push(Json::object()
                    .set("family", "no <b>recompute</b>")
                    .set("lost_by", "nothing of it fits")
                    .set("proved", true));
  families.push(row(rival_job(), 3.0)
                    .set("family", "no pipeline")
                    .set("lost_by", "compute +0.75 s")
                    .set("proved", false));
  Json frontier = Json::array();
  frontier.push(row(winning_job(), 2.0)
                    .set("memory_bytes", std::int64_t{4'400'000'000})
                    .set("searched_bytes", std::int64_t{8'000'000'000}));
  frontier.push(row(rival_job(), 3.5)
                    .set("memory_bytes", std::int64_t{3'000'000'000})
                    .set("searched_bytes", std::int64_t{3'100'000'000}));
  Json rules = Json::array();
  rules.push(Json::object().set("rule", "world").set("count", 300));
  rules.push(Json::object().set("rule", "batch").set("count", 400));
  return json.set("schema_version", 1)
      .set("predicted", predicted_json(2.0))
      .set("runners_up", std::move(families))
      .set("frontier", std::move(frontier))
      .set("rejected", std::move(rules))
      .set("proof", Json::object()
                        .set("legal", 1234567)
                        .set("layouts", 890)
                        .set("bounded", 4321)
                        .set("replayed", 17)
                        .set("best_s", 2.0)
                        .set("bound_remaining_s", 2.0)
                        .set("seconds", 0.5))
      .dump();
}

html::PipelinePicture pipeline_picture(std::int32_t stages, std::int32_t micro_batches) {
  html::PipelinePicture picture;
  picture.name = "gpipe";
  picture.stages = stages;
  picture.micro_batches = micro_batches;
  for (std::int32_t s = 0; s < stages; ++s) {
    for (std::int32_t m = 0; m < micro_batches; ++m) {
      const double at = s + m;
      picture.cells.push_back({s, html::PictureKind::kForward, 0, m, at, at + 1});
    }
    for (std::int32_t m = 0; m < micro_batches; ++m) {
      const double at = micro_batches + stages - 1 + (stages - 1 - s) + m;
      picture.cells.push_back({s, html::PictureKind::kBackward, 0, m, at, at + 1});
    }
  }
  return picture;
}

}  // namespace orrery::testing
