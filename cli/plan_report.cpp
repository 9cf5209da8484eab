// See plan_report.h.
#include "cli/plan_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/table.h"
#include "core/quantity.h"

namespace orrery::cli {
namespace {

// In plan.json among what was rejected: legal plans that do not fit.
constexpr const char* kMemoryRow = "memory";

std::string gap_text(Bytes needed, Bytes usable) {
  return usable < needed ? format_bytes(needed - usable) + " too much"
                         : format_bytes(usable - needed) + " free";
}

void print_facts(const Plan& plan, Output& out) {
  TextTable facts({{""}, {""}});
  facts.row({"layout", layout_text(plan.model, plan.layout, plan.chunks, plan.policy)});
  facts.row({"model",
             fmt::format("{} parameters, {} active",
                         format_count(static_cast<double>(parameter_count(plan.model))),
                         format_count(static_cast<double>(active_parameter_count(plan.model))))});
  out.line(facts.text());
}

void print_runners_up(const Plan& plan, Output& out) {
  if (plan.runners_up.empty()) return;
  out.heading("runners-up, and why each lost");
  TextTable table({{"step", Align::kRight},
                   {"slower", Align::kRight},
                   {"peak", Align::kRight},
                   {"plan"},
                   {"lost by"}});
  for (const RunnerUp& runner : plan.runners_up) {
    const double slower = runner.predicted.step.value() / plan.predicted.step.value() - 1;
    table.row({format_seconds(runner.predicted.step), signed_percent(slower),
               format_bytes(runner.predicted.peak),
               layout_text(plan.model, runner.layout, runner.chunks, runner.policy),
               (runner.tie ? "tie: " : "") + runner.lost_by});
  }
  out.line(table.text());
}

void print_frontier(const Plan& plan, Output& out) {
  if (plan.frontier.empty()) return;
  out.heading("the fastest on devices with less memory");
  TextTable table(
      {{"from", Align::kRight}, {"step", Align::kRight}, {"slower", Align::kRight}, {"plan"}});
  for (const FrontierPoint& point : plan.frontier) {
    const double slower = point.predicted.step.value() / plan.predicted.step.value() - 1;
    table.row({format_bytes(point.memory), format_seconds(point.predicted.step),
               signed_percent(slower),
               layout_text(plan.model, point.layout, point.chunks, point.policy)});
  }
  out.line(table.text());
}

void print_rejected(const std::vector<Rejection>& rejected, Output& out) {
  const auto is_rule = [](const Rejection& row) { return row.rule != kMemoryRow; };
  if (std::none_of(rejected.begin(), rejected.end(), is_rule)) return;
  out.heading("what the rules removed");
  TextTable table({{"plans", Align::kRight}, {"rule"}});
  for (const Rejection& row : rejected) {
    if (is_rule(row)) table.row({fmt::format("{}", row.count), row.rule});
  }
  out.line(table.text());
}

// Legal plans that do not fit are no rule's victims.
void print_unfit(const Plan& plan, Output& out) {
  std::int64_t elsewhere = 0;  // legal ones that ask too much of the host, in the table above
  for (const Rejection& row : plan.rejected) {
    if (row.rule == "host_memory") elsewhere = row.count;
  }
  for (const Rejection& row : plan.rejected) {
    if (row.rule != kMemoryRow) continue;
    const bool all = row.count + elsewhere == plan.proof.legal;
    out.line(fmt::format("  {} {} do not fit in memory", all ? "all" : "at least", row.count));
  }
}

// Which of the plans that tie was taken, and how surely it fits.
void print_decision(const Plan& plan, Output& out) {
  const Decision& decision = plan.decision;
  if (decision.risk.empty()) return;
  out.heading("decision");
  const auto ties = std::count_if(plan.runners_up.begin(), plan.runners_up.end(),
                                  [](const RunnerUp& r) { return r.tie; });
  if (ties > 0) {
    out.line(fmt::format("  one of {} plans that the model cannot tell apart; the fastest takes {}",
                         ties + 1, format_seconds(Seconds(decision.fastest_s))));
  }
  out.line(fmt::format("  ranked by {}; fits with a probability of {}{}",
                       decision.risk == "p90" ? "the 90th percentile" : "the expected step",
                       decision.fit > 0.9999 ? "more than 99.99 %" : percent(decision.fit),
                       decision.held_back.value() > 0
                           ? ", for which " + format_bytes(decision.held_back) + " are held back"
                           : ""));
}

void print_search(const Plan& plan, Output& out) {
  const Proof& proof = plan.proof;
  out.heading("search");
  out.line(fmt::format("  {} legal plans, {} bounded, {} replayed, in {}", proof.legal,
                       proof.bounded, proof.replayed, format_seconds(Seconds(proof.seconds))));
  print_unfit(plan, out);
  if (proof.bound_remaining_s <= 0) return;
  const bool closed = proof.bound_remaining_s >= proof.best_s;
  out.line(
      fmt::format("  {}: the bound of every plan that was not replayed is at least {}; the "
                  "best takes {}",
                  closed ? "closed" : "open", format_seconds(Seconds(proof.bound_remaining_s)),
                  format_seconds(Seconds(proof.best_s))));
  if (!closed) {
    out.line(fmt::format("  not proved: at most {} better exists; the search was stopped by its",
                         percent(planner::unproved_gap(proof))));
    out.line("  budget of time: how far it came depends on the machine");
  }
  out.line(
      "  the best of all layouts, recompute depths with and without swap, places of the moments,");
  out.line(
      "  prefetch 0 to 2 and chunks of a power of two of rows; other chunk sizes can be pinned");
  if (proof.refined == 0) return;
  // What was taken of those that tie may be slower.
  const Seconds best =
      plan.decision.risk.empty() ? plan.predicted.step : Seconds(plan.decision.fastest_s);
  const bool better = best.value() < proof.best_s;
  out.line(fmt::format(
      "  then {} replays around the best plans: interleaving, exchange parts, dispatcher, buckets,",
      proof.refined));
  out.line(fmt::format(
      "  kept layers, partial recompute: tried, not proved; {}",
      better ? fmt::format("{} became {} ({})", format_seconds(Seconds(proof.best_s)),
                           format_seconds(best), signed_percent(best.value() / proof.best_s - 1))
             : std::string("none was faster")));
}

void print_fit(const Plan& plan, Output& out) {
  if (plan.fits_because.empty()) return;
  out.heading("why it fits");
  const Bytes usable = usable_memory(plan.cluster);
  TextTable table({{""}, {""}});
  for (const FitReason& reason : plan.fits_because) {
    const std::string peak = format_bytes(reason.without_peak);
    table.row({"without " + reason.mechanism,
               reason.fits_without ? "another plan fits, with " + peak
                                   : fmt::format("nothing fits, the least needs {} of {}", peak,
                                                 format_bytes(usable))});
  }
  out.line(table.text());
}

}  // namespace

std::string job_of(const Plan& plan) {
  return fmt::format("{} on {}, {} ({} tokens a step)", plan.model.name, plan.cluster.name,
                     plan.workload.name,
                     format_count(static_cast<double>(plan.workload.global_tokens())));
}

std::string layout_text(const Model& model, Layout layout, const Chunks& chunks,
                        const MemoryPolicy& policy) {
  if (!model.is_moe()) {
    layout.fsdp_e = layout.fsdp_d;
    layout.replicate_e = layout.replicate_d;
  }
  return describe(layout, chunks, policy);
}

Bytes usable_memory(const Cluster& cluster) {
  return cluster.device.memory - cluster.device.reserved;
}

void print_prediction(const Prediction& predicted, const Cluster& cluster, Output& out) {
  const Bytes usable = usable_memory(cluster);
  TextTable facts({{""}, {""}});
  facts.row({"step", fmt::format("{}  ({} to {})", format_seconds(predicted.step),
                                 format_seconds(predicted.p10), format_seconds(predicted.p90))});
  facts.row({"speed", fmt::format("{} tokens/s, {} MFU", format_count(predicted.tokens_per_s),
                                  percent(predicted.mfu))});
  facts.row({"memory", fmt::format("{} of {} a device ({})", format_bytes(predicted.peak),
                                   format_bytes(usable), gap_text(predicted.peak, usable))});
  if (const DocumentCost& cost = predicted.document_cost; cost != DocumentCost{}) {
    facts.row({"cost", fmt::format("{} per 1000 tokens, {} per million query-key pairs",
                                   format_seconds(Seconds(cost.linear_s * 1e3)),
                                   format_seconds(Seconds(cost.quadratic_s * 1e6)))});
  }
  out.line(facts.text());
}

void print_memory(const std::string& title, const std::vector<MemoryRow>& rows, Output& out) {
  out.heading(title);
  Bytes sum;
  for (const MemoryRow& row : rows) sum += row.bytes;
  TextTable table({{"class"}, {"bytes", Align::kRight}, {"share", Align::kRight}});
  for (const MemoryRow& row : rows) {
    if (row.bytes.value() == 0) continue;
    table.row({row.cls, format_bytes(row.bytes),
               percent(static_cast<double>(row.bytes.value()) / static_cast<double>(sum.value()))});
  }
  out.line(table.text());
}

void print_plan(const Plan& plan, Output& out) {
  out.heading(job_of(plan));
  print_facts(plan, out);
  print_prediction(plan.predicted, plan.cluster, out);
  print_memory("memory at the peak of the fullest device", plan.predicted.memory, out);
  print_fit(plan, out);
  print_runners_up(plan, out);
  print_frontier(plan, out);
  print_decision(plan, out);
  print_rejected(plan.rejected, out);
  print_search(plan, out);
}

void print_infeasible(const planner::Outcome& outcome, Output& out) {
  CHECK(!outcome.best, "a plan was found");
  if (!outcome.nearest || !outcome.shortage) return;
  const planner::Shortage& lack = *outcome.shortage;
  const Plan& nearest_plan = *outcome.nearest;
  out.heading("does not fit: " + job_of(nearest_plan));
  TextTable facts({{""}, {""}});
  facts.row({"needed", format_bytes(lack.needed) + " a device, by the plan that needs least"});
  facts.row({"usable", format_bytes(lack.usable)});
  if (lack.usable < lack.needed) facts.row({"short of", format_bytes(lack.needed - lack.usable)});
  facts.row({"that plan", layout_text(nearest_plan.model, nearest_plan.layout, nearest_plan.chunks,
                                      nearest_plan.policy)});
  out.line(facts.text());
  print_memory("its memory at the peak", lack.parts, out);
  if (!lack.advice.empty()) {
    out.heading("what would make it fit");
    for (const std::string& text : wrap(lack.advice, kTerminalColumns - 2)) out.line("  " + text);
  }
  print_rejected(nearest_plan.rejected, out);
  print_search(nearest_plan, out);
}

Json memory_json(const std::vector<MemoryRow>& rows) {
  Json json = Json::object();
  for (const MemoryRow& row : rows) json.set(row.cls, row.bytes.value());
  return json;
}

Json nearest_json(const planner::NearestFeasible& nearest) {
  const Plan& plan = nearest.plan;
  return Json::object()
      .set("change", nearest.change)
      .set("layout", to_json(plan.layout))
      .set("chunks", to_json(plan.chunks))
      .set("memory_policy", to_json(plan.policy))
      .set("peak_bytes", plan.predicted.peak.value())
      .set("step_s", plan.predicted.step.value());
}

Json infeasible_json(const planner::Outcome& outcome) {
  CHECK(!outcome.best, "a plan was found");
  Json json = versioned();
  json.set("feasible", false);
  if (outcome.shortage) {
    Json shortage = Json::object();
    shortage.set("needed_bytes", outcome.shortage->needed.value())
        .set("usable_bytes", outcome.shortage->usable.value())
        .set("memory", memory_json(outcome.shortage->parts))
        .set("advice", outcome.shortage->advice);
    json.set("shortage", std::move(shortage));
  }
  if (outcome.nearest) json.set("nearest", to_json(*outcome.nearest));
  if (outcome.nearest_feasible) {
    json.set("nearest_feasible", nearest_json(*outcome.nearest_feasible));
  }
  return json;
}

}  // namespace orrery::cli
