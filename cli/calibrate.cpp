// orrery calibrate: the speeds of a machine, measured by probes and by the runs it has made.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/inputs.h"
#include "cli/observations.h"
#include "cli/table.h"
#include "core/cluster.h"
#include "core/quantity.h"
#include "simulator/calibration/fit.h"
#include "simulator/calibration/profile.h"

namespace orrery::cli {
namespace {

using simulator::EntryReport;
using simulator::Fit;
using simulator::StepReport;

double error_of(double predicted, double measured) {
  return measured > 0 ? predicted / measured - 1 : std::nan("");
}

// Half of the p10-p90 interval: what the fitted steps are off, but never below the floor that
// repetition of one run shows, and half as much again for plans that were not fitted.
double uncertainty_of(const Fit& fit) {
  constexpr double kFloor = 0.03;
  double squares = 0;
  for (const StepReport& step : fit.steps) {
    const double error = error_of(step.after_s, step.measured_s);
    squares += error * error;
  }
  const double spread = std::sqrt(squares / static_cast<double>(fit.steps.size()));
  return std::clamp(1.28 * 1.5 * spread, kFloor, 1.0);
}

Json entries_json(const Fit& fit) {
  Json rows = Json::array();
  for (const EntryReport& after : fit.after) {
    const auto before =
        std::find_if(fit.before.begin(), fit.before.end(),
                     [&](const EntryReport& row) { return row.entry == after.entry; });
    const bool seen = before != fit.before.end();
    rows.push(
        Json::object()
            .set("entry", simulator::name_of(after.entry))
            .set("samples", after.ops)
            .set("measured_s", after.measured_s)
            .set("error_before",
                 seen ? number_or_null(error_of(before->predicted_s, before->measured_s)) : Json())
            .set("error_after", number_or_null(error_of(after.predicted_s, after.measured_s)))
            .set("valid_from_s", after.least)
            .set("valid_to_s", after.most));
  }
  return rows;
}

Json runs_json(const Fit& fit) {
  Json rows = Json::array();
  for (const StepReport& step : fit.steps) {
    rows.push(Json::object()
                  .set("run", step.name)
                  .set("measured_s", step.measured_s)
                  .set("error_before", number_or_null(error_of(step.before_s, step.measured_s)))
                  .set("error_after", number_or_null(error_of(step.after_s, step.measured_s))));
  }
  return rows;
}

void print_fit(const Fit& fit, std::size_t top, Output& out) {
  out.heading("steps that were fitted");
  TextTable steps({{"run"},
                   {"measured", Align::kRight},
                   {"error before", Align::kRight},
                   {"after", Align::kRight}});
  for (const StepReport& step : fit.steps) {
    steps.row({step.name, format_seconds(Seconds(step.measured_s)),
               signed_percent(error_of(step.before_s, step.measured_s)),
               signed_percent(error_of(step.after_s, step.measured_s))});
  }
  out.line(steps.text());
  const std::size_t shown = std::min(top, fit.before.size());
  out.heading(fmt::format("entries that moved most ({} of {})", shown, fit.before.size()));
  TextTable entries({{"entry"},
                     {"ops", Align::kRight},
                     {"measured", Align::kRight},
                     {"error before", Align::kRight},
                     {"after", Align::kRight}});
  for (std::size_t i = 0; i < shown; ++i) {
    const EntryReport& row = fit.before[i];
    const auto after = std::find_if(fit.after.begin(), fit.after.end(),
                                    [&](const EntryReport& r) { return r.entry == row.entry; });
    const double left =
        after == fit.after.end() ? std::nan("") : error_of(after->predicted_s, after->measured_s);
    entries.row({simulator::name_of(row.entry), fmt::format("{}", row.ops),
                 format_seconds(Seconds(row.measured_s)),
                 signed_percent(error_of(row.predicted_s, row.measured_s)), signed_percent(left)});
  }
  out.line(entries.text());
}

// The cluster whose speeds are fitted: --cluster, else that of the first run.
Result<Cluster> prior_of(const Arguments& arguments, const std::vector<MeasuredRun>& runs) {
  if (arguments.has("cluster")) return load_cluster(arguments.text("cluster"));
  return runs.front().plan->cluster;
}

Result<int> run(const Arguments& arguments, Output& out) {
  const std::vector<std::string> paths = arguments.all("RUN");
  const std::string path = arguments.text("out");
  TRY(const std::int64_t top, arguments.integer("top", 0, 100000));
  TRY_OK(check_output(path, paths));
  std::vector<MeasuredRun> runs;
  for (const std::string& file : paths) {
    TRY(MeasuredRun one, read_run(file));
    runs.push_back(std::move(one));
  }
  TRY(const Cluster prior, prior_of(arguments, runs));
  TRY(Fit fit, simulator::fit_profile(prior, observations_of(runs)));
  fit.profile.uncertainty = uncertainty_of(fit);
  Json file = to_json(fit.profile);
  file.set("calibration", Json::object()
                              .set("entries", entries_json(fit))
                              .set("runs", runs_json(fit))
                              .set("prior_sha256", prior.sha256));
  TRY_OK(write_whole(path, file.dump() + "\n"));
  print_fit(fit, static_cast<std::size_t>(top), out);
  out.document(versioned()
                   .set("file", path)
                   .set("runs", runs_json(fit))
                   .set("entries", entries_json(fit))
                   .set("uncertainty", fit.profile.uncertainty));
  out.note("wrote " + path);
  out.next(
      {"orrery", "plan", "--model", "qwen3-moe-10m", "--cluster", path, "--workload", "demo-local"},
      "plan with it");
  return 0;
}

}  // namespace

const Command& calibrate_command() {
  static const Command command = {
      "calibrate",
      "the speeds of a machine, from the runs it has made",
      "Fits the device and links of a cluster to measured runs: each op's time is a sum of what\n"
      "the profile says, entry by entry, and entries move until the sums agree. Writes a cluster\n"
      "file with what was fitted, its residuals and where it holds.",
      "orrery calibrate run.db -o calibration.json\n"
      "orrery calibrate a.db b.db --cluster local.json -o calibration.json",
      {{"RUN", "measured runs (orrery train)", true, true}},
      {{"--cluster", "NAME", "the speeds to begin with; else those of the first run's plan", ""},
       {"--top", "N", "entries to print", "12"},
       {"-o,--out", "FILE", "where the cluster file goes", "calibration.json"}},
      run};
  return command;
}

}  // namespace orrery::cli
