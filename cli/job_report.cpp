// See job_report.h.
#include "cli/job_report.h"

#include <fmt/format.h>

#include "cli/table.h"
#include "core/job_json.h"
#include "core/quantity.h"

namespace orrery::cli {
namespace {

using planner::jobs::JobPlan;
using planner::jobs::JobProof;
using planner::jobs::PlannedJob;
using planner::jobs::Rival;
using planner::jobs::Term;
using planner::jobs::terms_of;
using simulator::JobPrediction;

double tokens_of(const Job& job) {
  return static_cast<double>(job.sequence_tokens) * static_cast<double>(job.global_sequences);
}

// Keys that a token attends to in the mean, itself among them.
double mean_attended(const Job& job) {
  const auto tokens = static_cast<double>(job.sequence_tokens);
  if (job.documents.empty()) return (tokens + 1) / 2;
  double pairs = 0;
  for (const std::int64_t d : job.documents) pairs += static_cast<double>(d * (d + 1)) / 2;
  return pairs / tokens;
}

// Of the peak of the precision that products run in.
double mfu(const Job& job, double step_s) {
  const DeviceProfile& d = job.cluster.device;
  double peak = d.peak_bf16.value();
  if (job.precision == Precision::kFp8) peak = d.peak_fp8.value();
  if (job.precision == Precision::kFp32) peak = d.peak_fp32.value();
  const double flops = training_flops_per_token(job.model, mean_attended(job)) * tokens_of(job);
  return flops / (step_s * peak * static_cast<double>(job.cluster.devices));
}

Bytes whole(double bytes) {
  return Bytes(static_cast<std::int64_t>(bytes));
}

void print_rivals(const JobPlan& plan, Output& out) {
  if (plan.rivals.empty()) return;
  out.heading("the best of each other family, and what it loses by");
  TextTable table(
      {{"step", Align::kRight}, {"slower", Align::kRight}, {"family"}, {"lost by"}, {"layout"}});
  for (const Rival& rival : plan.rivals) {
    if (!rival.best) {
      table.row({"-", "-", rival.family, rival.lost_by, ""});
      continue;
    }
    const Seconds step = rival.best->predicted.step;
    table.row({format_seconds(step),
               signed_percent(step.value() / plan.best->predicted.step.value() - 1), rival.family,
               rival.lost_by, words_of(rival.best->job)});
  }
  out.line(table.text());
}

void print_removed(const JobPlan& plan, Output& out) {
  if (plan.removed.empty()) return;
  out.heading("what the rules removed");
  TextTable table({{"layouts", Align::kRight}, {"rule"}});
  for (const auto& [rule, count] : plan.removed) table.row({fmt::format("{}", count), rule});
  out.line(table.text());
}

void print_proof(const JobPlan& plan, Output& out) {
  const JobProof& p = plan.proof;
  out.heading("search");
  out.line(fmt::format("  {} legal jobs of {} layouts, {} bounded, {} predicted, in {}", p.legal,
                       p.layouts, p.bounded, p.replayed, format_seconds(Seconds(p.seconds))));
  if (!plan.best) return;
  out.line(fmt::format("  closed: no other job takes less than {}; the best takes {}",
                       format_seconds(Seconds(p.bound_remaining_s)),
                       format_seconds(Seconds(p.best_s))));
}

Json planned_json(const PlannedJob& planned) {
  return Json::object()
      .set("job", axes_json(planned.job))
      .set("predicted", prediction_json(planned.job, planned.predicted));
}

Json rivals_json(const JobPlan& plan) {
  Json rows = Json::array();
  for (const Rival& rival : plan.rivals) {
    Json row = rival.best ? planned_json(*rival.best) : Json::object();
    rows.push(
        row.set("family", rival.family).set("lost_by", rival.lost_by).set("proved", rival.proved));
  }
  return rows;
}

Json proof_json(const JobProof& p) {
  return Json::object()
      .set("legal", p.legal)
      .set("layouts", p.layouts)
      .set("bounded", p.bounded)
      .set("replayed", p.replayed)
      .set("best_s", p.best_s)
      .set("bound_remaining_s", p.bound_remaining_s)
      .set("seconds", p.seconds);
}

}  // namespace

void print_job(const Job& job, const JobPrediction& p, Output& out) {
  TextTable facts({{""}, {""}});
  facts.row({"layout", words_of(job)});
  facts.row({"step", fmt::format("{}  ({} to {})", format_seconds(p.step), format_seconds(p.p10),
                                 format_seconds(p.p90))});
  facts.row(
      {"speed", fmt::format("{} tokens/s, {} MFU", format_count(tokens_of(job) / p.step.value()),
                            percent(mfu(job, p.step.value())))});
  facts.row(
      {"memory", fmt::format("{} of {} a device; fits with a probability of {}",
                             format_bytes(whole(p.peak_bytes)), format_bytes(whole(p.usable_bytes)),
                             percent(p.probability_fits))});
  out.line(facts.text());
  out.heading("where the step of the slowest stage goes");
  TextTable table({{"part"}, {"time", Align::kRight}, {"share", Align::kRight}});
  for (const Term& term : terms_of(p.parts)) {
    if (term.seconds <= 0) continue;
    table.row(
        {term.name, format_seconds(Seconds(term.seconds)), percent(term.seconds / p.step.value())});
  }
  out.line(table.text());
}

Json prediction_json(const Job& job, const JobPrediction& p) {
  Json parts = Json::object();
  for (const Term& term : terms_of(p.parts)) parts.set(term.name, term.seconds);
  return Json::object()
      .set("step_s", p.step.value())
      .set("p10_s", p.p10.value())
      .set("p90_s", p.p90.value())
      .set("tokens_per_s", tokens_of(job) / p.step.value())
      .set("mfu", mfu(job, p.step.value()))
      .set("parts", std::move(parts))
      .set("allocated_bytes", whole(p.allocated_bytes).value())
      .set("peak_bytes", whole(p.peak_bytes).value())
      .set("usable_bytes", whole(p.usable_bytes).value())
      .set("probability_fits", p.probability_fits);
}

void print_job_plan(const JobPlan& plan, Output& out) {
  if (plan.best) {
    print_job(plan.best->job, plan.best->predicted, out);
    print_rivals(plan, out);
  } else if (plan.nearest) {
    out.heading("nothing fits; the job that needs least memory");
    print_job(plan.nearest->job, plan.nearest->predicted, out);
  }
  if (plan.changed) {
    out.heading("what fits with " + plan.change);
    print_job(plan.changed->job, plan.changed->predicted, out);
  }
  print_removed(plan, out);
  print_proof(plan, out);
}

Json to_json(const JobPlan& plan) {
  Json json = versioned();
  if (plan.best) {
    json.set("job", axes_json(plan.best->job))
        .set("predicted", prediction_json(plan.best->job, plan.best->predicted))
        .set("runners_up", rivals_json(plan));
  }
  if (plan.nearest) json.set("nearest", planned_json(*plan.nearest));
  if (plan.changed) {
    json.set("change",
             Json::object().set("words", plan.change).set("best", planned_json(*plan.changed)));
  }
  Json removed = Json::array();
  for (const auto& [rule, count] : plan.removed) {
    removed.push(Json::object().set("rule", rule).set("count", count));
  }
  json.set("rejected", std::move(removed)).set("proof", proof_json(plan.proof));
  if (plan.best) {
    json.set("model", orrery::to_json(plan.best->job.model))
        .set("cluster", orrery::to_json(plan.best->job.cluster))
        .set("stack", orrery::to_json(plan.best->job.stack));
  }
  return json;
}

}  // namespace orrery::cli
