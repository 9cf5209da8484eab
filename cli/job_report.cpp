// See job_report.h.
#include "cli/job_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/table.h"
#include "core/job_json.h"
#include "core/quantity.h"
#include "planner/jobs/decide.h"
#include "simulator/stages/speed.h"

namespace orrery::cli {
namespace {

using planner::jobs::FrontierJob;
using planner::jobs::JobPlan;
using planner::jobs::JobProof;
using planner::jobs::PlannedJob;
using planner::jobs::Rival;
using planner::jobs::Term;
using planner::jobs::terms_of;
using simulator::JobPrediction;

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
               (rival.tie ? "tie: " : "") + rival.lost_by, words_of(rival.best->job)});
  }
  out.line(table.text());
}

void print_frontier(const JobPlan& plan, Output& out) {
  if (plan.frontier.empty()) return;
  out.heading("the fastest on devices with less memory");
  TextTable table(
      {{"from", Align::kRight}, {"step", Align::kRight}, {"slower", Align::kRight}, {"layout"}});
  for (const FrontierJob& step : plan.frontier) {
    const Seconds time = step.job.predicted.step;
    table.row({format_bytes(whole(step.memory_bytes)), format_seconds(time),
               signed_percent(time.value() / plan.best->predicted.step.value() - 1),
               words_of(step.job.job)});
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
  const bool p90 = plan.decision.risk == planner::Risk::kP90;
  const std::string best = format_seconds(Seconds(p.best_s));
  const char* of = p90 ? " at its 90th percentile" : "";
  if (p.closed()) {
    out.line(fmt::format("  closed: no other job takes less than {}{}; the fastest takes {}",
                         format_seconds(Seconds(std::min(p.best_s, p.bound_remaining_s))), of,
                         best));
    return;
  }
  const double better = 1 - p.bound_remaining_s / p.best_s;
  out.line(better < 1 ? fmt::format("  not proved: at most {} better than the {}{} exists",
                                    percent(better), best, of)
                      : fmt::format("  not proved: {}{} is the best so far", best, of));
  if (plan.stopped) out.line("  the search was ended by --budget");
}

// Which of the jobs that cannot be told apart was taken.
void print_decision(const JobPlan& plan, Output& out) {
  const planner::jobs::JobDecision& d = plan.decision;
  const bool p90 = d.risk == planner::Risk::kP90;
  if (d.ties == 0 && d.complete && !p90) return;
  out.heading("decision");
  const std::string others = d.ties == 1 ? "1 other job" : fmt::format("{} other jobs", d.ties);
  if (d.ties == 0 && !d.complete) {
    out.line("  whether others tie with the fastest was not looked for to the end");
  } else {
    out.line(fmt::format("  {}{} cannot be told apart from the fastest{}",
                         d.complete ? "" : "at least ", others,
                         p90 ? ", by their 90th percentiles" : ""));
  }
  if (!d.fastest) {
    out.line("  taken: the fastest");
    return;
  }
  const double own = planner::jobs::score_of(plan.best->predicted, d.risk);
  const double fastest = planner::jobs::score_of(d.fastest->predicted, d.risk);
  out.line("  taken: the simplest of them; with --ties fastest:");
  TextTable facts({{""}, {""}});
  facts.row(
      {fmt::format("{} ({})", format_seconds(Seconds(fastest)), signed_percent(fastest / own - 1)),
       words_of(d.fastest->job)});
  out.line(facts.text());
}

Json predicted_json(const PlannedJob& planned) {
  Json memory = Json::object();
  for (const MemoryRow& row : planned.memory) memory.set(row.cls, row.bytes.value());
  return prediction_json(planned.job, planned.predicted).set("memory", std::move(memory));
}

Json planned_json(const PlannedJob& planned) {
  return Json::object()
      .set("job", axes_json(planned.job))
      .set("predicted", predicted_json(planned));
}

Json frontier_json(const JobPlan& plan) {
  Json rows = Json::array();
  for (const FrontierJob& step : plan.frontier) {
    rows.push(planned_json(step.job)
                  .set("memory_bytes", whole(step.memory_bytes).value())
                  .set("searched_bytes", whole(step.searched_bytes).value()));
  }
  return rows;
}

// Seconds of each cell, by [stage * virtual stages + chunk].
Json cells_json(const simulator::CellTimes& cells) {
  const auto list = [](const std::vector<double>& times) {
    Json row = Json::array();
    for (const double seconds : times) row.push(seconds);
    return row;
  };
  return Json::object()
      .set("forward", list(cells.forward))
      .set("backward", list(cells.backward))
      .set("weight", list(cells.weight))
      .set("forward_hides", list(cells.forward_hides))
      .set("backward_hides", list(cells.backward_hides))
      .set("send_s", cells.send)
      .set("computes_while_sending", cells.beside);
}

Json rivals_json(const JobPlan& plan) {
  Json rows = Json::array();
  for (const Rival& rival : plan.rivals) {
    Json row = rival.best ? planned_json(*rival.best) : Json::object();
    rows.push(row.set("family", rival.family)
                  .set("lost_by", rival.lost_by)
                  .set("proved", rival.proved)
                  .set("tie", rival.tie));
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

Json decision_json(const planner::jobs::JobDecision& d) {
  Json json = Json::object();
  json.set("risk", d.risk == planner::Risk::kP90 ? "p90" : "expected")
      .set("asked_fit", d.probability_fits)
      .set("ties", d.ties)
      .set("all_ties_found", d.complete);
  if (d.fastest) json.set("fastest", planned_json(*d.fastest));
  return json;
}

}  // namespace

void print_job_facts(const Job& job, const JobPrediction& p, Output& out) {
  TextTable facts({{""}, {""}});
  facts.row({"layout", words_of(job)});
  facts.row({"step", fmt::format("{}  ({} to {})", format_seconds(p.step), format_seconds(p.p10),
                                 format_seconds(p.p90))});
  facts.row({"speed", fmt::format("{} tokens/s, {} MFU",
                                  format_count(simulator::tokens_a_step(job) / p.step.value()),
                                  percent(simulator::mfu(job, p.step)))});
  facts.row(
      {"memory", fmt::format("{} of {} a device; fits with a probability of {}",
                             format_bytes(whole(p.peak_bytes)), format_bytes(whole(p.usable_bytes)),
                             percent(p.probability_fits))});
  out.line(facts.text());
}

void print_job_parts(const JobPrediction& p, Output& out) {
  out.heading("where the step of the slowest stage goes");
  TextTable table({{"part"}, {"time", Align::kRight}, {"share", Align::kRight}});
  for (const Term& term : terms_of(p.parts)) {
    if (term.seconds <= 0) continue;
    table.row(
        {term.name, format_seconds(Seconds(term.seconds)), percent(term.seconds / p.step.value())});
  }
  out.line(table.text());
}

void print_job(const Job& job, const JobPrediction& p, Output& out) {
  print_job_facts(job, p, out);
  print_job_parts(p, out);
}

Json prediction_json(const Job& job, const JobPrediction& p) {
  Json parts = Json::object();
  for (const Term& term : terms_of(p.parts)) parts.set(term.name, term.seconds);
  return Json::object()
      .set("step_s", p.step.value())
      .set("p10_s", p.p10.value())
      .set("p90_s", p.p90.value())
      .set("tokens_per_s", simulator::tokens_a_step(job) / p.step.value())
      .set("mfu", simulator::mfu(job, p.step))
      .set("parts", std::move(parts))
      .set("allocated_bytes", whole(p.allocated_bytes).value())
      .set("peak_bytes", whole(p.peak_bytes).value())
      .set("usable_bytes", whole(p.usable_bytes).value())
      .set("probability_fits", p.probability_fits);
}

void print_job_plan(const JobPlan& plan, Output& out) {
  if (plan.best) {
    print_job(plan.best->job, plan.best->predicted, out);
    print_decision(plan, out);
    print_rivals(plan, out);
    print_frontier(plan, out);
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
        .set("predicted", predicted_json(*plan.best))
        .set("decision", decision_json(plan.decision))
        .set("runners_up", rivals_json(plan));
    if (!plan.frontier.empty()) json.set("frontier", frontier_json(plan));
    if (!plan.cells.forward.empty()) json.set("cells", cells_json(plan.cells));
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
