// orrery simulate: what a plan's step costs, and where it goes.
#include <fmt/format.h>

#include <limits>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/inputs.h"
#include "cli/job_explain.h"
#include "cli/job_report.h"
#include "cli/plan_jobs.h"
#include "cli/plan_report.h"
#include "cli/simulation.h"
#include "cli/table.h"
#include "core/job_json.h"
#include "core/quantity.h"

namespace orrery::cli {
namespace {

constexpr std::size_t kRanksShown = 16;

void print_breakdown(const std::vector<simulator::Breakdown>& ranks, Output& out) {
  out.heading("where the step goes, by rank");
  TextTable table({{"rank", Align::kRight},
                   {"compute", Align::kRight},
                   {"exposed", Align::kRight},
                   {"idle", Align::kRight},
                   {"step", Align::kRight},
                   {"busy", Align::kRight},
                   {"hidden", Align::kRight}});
  for (std::size_t i = 0; i < std::min(ranks.size(), kRanksShown); ++i) {
    const simulator::Breakdown& rank = ranks[i];
    table.row({fmt::format("{}", rank.rank), format_seconds(rank.compute),
               format_seconds(rank.exposed), format_seconds(rank.idle), format_seconds(rank.step),
               percent(rank.compute.value() / rank.step.value()), format_seconds(rank.hidden)});
  }
  out.line(table.text());
  if (ranks.size() > kRanksShown) {
    out.line(fmt::format("  ... and {} more ranks", ranks.size() - kRanksShown));
  }
  out.line("  exposed, hidden: communication without and beside compute");
}

Json breakdown_json(const std::vector<simulator::Breakdown>& ranks) {
  Json rows = Json::array();
  for (const simulator::Breakdown& rank : ranks) {
    rows.push(Json::object()
                  .set("rank", static_cast<int>(rank.rank))
                  .set("step_s", rank.step.value())
                  .set("compute_s", rank.compute.value())
                  .set("exposed_s", rank.exposed.value())
                  .set("idle_s", rank.idle.value())
                  .set("hidden_s", rank.hidden.value()));
  }
  return rows;
}

Json report_json(const Simulated& simulated, const std::string& bound_to) {
  const simulator::Simulation& result = simulated.result;
  Json json = versioned();
  json.set("plan", simulated.plan.sha256)
      .set("program", fmt::format("{:016x}", simulated.program.hash()))
      .set("bound_to", bound_to.empty() ? Json() : Json(bound_to))
      .set("predicted", to_json(result.prediction))
      .set("breakdown", breakdown_json(result.ranks))
      .set("memory", Json::object()
                         .set("peak_bytes", result.peak.value())
                         .set("peak_rank", static_cast<int>(result.peak_rank))
                         .set("usable_bytes", usable_memory(simulated.plan.cluster).value())
                         .set("at_peak", memory_json(result.at_peak))
                         .set("class_peaks", memory_json(result.class_peaks)));
  return json;
}

void print(const Simulated& simulated, const std::string& bound_to, Output& out) {
  const Plan& plan = simulated.plan;
  out.heading("simulated: " + job_of(plan));
  TextTable facts({{""}, {""}});
  facts.row({"layout", layout_text(plan.model, plan.layout, plan.chunks, plan.policy)});
  facts.row({"program",
             fmt::format("{}, {}, {} ops a rank, hash {:016x}",
                         plural(static_cast<std::size_t>(simulated.program.world), "rank"),
                         plural(simulated.program.roles.size(), "role"),
                         simulated.program.roles.front().ops.size(), simulated.program.hash())});
  facts.row({"expert loads", bound_to.empty() ? fmt::format("drawn, coefficient of variation {}",
                                                            plan.workload.expert_load_cv)
                                              : "as recorded in " + bound_to});
  out.line(facts.text());
  print_prediction(simulated.result.prediction, plan.cluster, out);
  print_breakdown(simulated.result.ranks, out);
  print_memory(fmt::format("memory at the peak (rank {})", simulated.result.peak_rank),
               simulated.result.at_peak, out);
}

Result<int> simulate_job(const Arguments& arguments, Output& out) {
  const std::string path = arguments.text("PLAN");
  for (const char* option : {"out", "bind", "step"}) {
    if (!arguments.has(option)) continue;
    return Error::of(ErrorCode::kUsage, std::string("--") + option,
                     "is for plans of the engine; " + path + " is a job over all axes", "");
  }
  TRY(const Job job, load_job(path));
  TRY(const simulator::ParameterSet parameters,
      parameters_or_default(arguments.text("parameters")));
  const simulator::JobPrediction predicted = simulator::predict_with(parameters, job);
  out.heading(job.model.name + " on " + job.cluster.name + ", with " + job.stack.name);
  print_job(job, predicted, out);
  out.document(
      versioned().set("job", axes_json(job)).set("predicted", prediction_json(job, predicted)));
  if (!predicted.fits) out.warn("this job does not fit the memory of a device");
  return 0;
}

Result<int> run(const Arguments& arguments, Output& out) {
  if (is_job(arguments.text("PLAN"))) return simulate_job(arguments, out);
  TRY(Plan plan, open_plan(arguments.text("PLAN")));
  const bool writes = arguments.has("out");
  if (writes) {
    TRY_OK(check_output(arguments.text("out"), {arguments.text("PLAN"), arguments.text("bind")}));
  }
  if (arguments.has("step") && !arguments.has("bind")) {
    return Error::of(ErrorCode::kUsage, "--step", "names a step of the run that --bind reads",
                     "add --bind run.db");
  }
  std::vector<Binding> bindings;
  const std::string bound_to = arguments.text("bind");
  if (!bound_to.empty()) {
    std::int64_t step = -1;
    if (arguments.has("step")) {
      TRY(step, arguments.integer("step", 0, std::numeric_limits<std::int32_t>::max()));
    }
    TRY(bindings, read_bindings(bound_to, lower_verified(plan), step));
  }
  TRY(const Simulated simulated, simulate_plan(std::move(plan), std::move(bindings), writes));
  if (writes) TRY_OK(write_simulation(simulated, arguments.text("out")));
  print(simulated, bound_to, out);
  out.document(report_json(simulated, bound_to));
  if (usable_memory(simulated.plan.cluster) < simulated.result.peak) {
    out.warn("this plan does not fit the memory of a device");
  }
  if (writes) {
    out.note("wrote " + arguments.text("out"));
    out.next({"orrery", "analyze", arguments.text("out"), "slowest"}, "the ops that cost most");
  } else {
    out.next({"orrery", "simulate", arguments.text("PLAN"), "-o", "sim.db"}, "keep it as a trace");
  }
  return 0;
}

}  // namespace

const Command& simulate_command() {
  static const Command command = {
      "simulate",
      "predict a plan's step, its memory and where the time goes",
      "Replays the plan's program on a virtual clock. With --bind, the expert loads are those "
      "that\n"
      "a run recorded, instead of drawn ones.",
      "orrery simulate plan.json -o sim.db\n"
      "orrery simulate plan.json --bind run.db",
      {{"PLAN", "a plan.json, or a job of orrery plan --for simulate"}},
      {{"-o,--out", "FILE", "write the simulated step as a trace", ""},
       {"--bind", "TRACE", "take the loads from a run of the same plan", ""},
       {"--parameters", "P", "of a job: fitted values; default: published, if there is one", ""},
       {"--step", "K", "which step of it (default: the last complete one)", ""}},
      run};
  return command;
}

}  // namespace orrery::cli
