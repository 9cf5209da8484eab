// orrery calibrate: the speeds of a machine, measured by probes and by the runs it has made.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "cli/calibrate_probe.h"
#include "cli/commands.h"
#include "cli/files.h"
#include "cli/inputs.h"
#include "cli/measurements.h"
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

// The cluster whose speeds are fitted: --cluster, else what was probed, else that of the first run.
Result<Cluster> prior_of(const Arguments& arguments, const std::string& probed,
                         const std::vector<MeasuredRun>& runs) {
  if (!probed.empty()) return load_cluster(probed);
  if (arguments.has("cluster")) return load_cluster(arguments.text("cluster"));
  return runs.front().plan->cluster;
}

// The words of a call: which files are runs. After --from, and among several, content tells.
struct Inputs {
  std::vector<std::string> runs, files;
};

Result<Inputs> inputs_of(const Arguments& arguments) {
  Inputs inputs;
  inputs.runs = arguments.all("RUN");
  if (arguments.has("from")) {
    std::vector<std::string> words = arguments.all("from");
    words.insert(words.end(), inputs.runs.begin(), inputs.runs.end());
    inputs.runs.clear();
    for (const std::string& word : words) {
      TRY(const bool trace, is_trace(word));
      (trace ? inputs.runs : inputs.files).push_back(word);
    }
  }
  if (inputs.runs.empty() && !inputs.files.empty() && !arguments.has("cluster")) {
    return Error::of(ErrorCode::kUsage, "orrery calibrate", "--from has no cluster to begin with",
                     "--cluster NAME says which devices and links were measured");
  }
  return inputs;
}

// What a calibration rests on and gives, in the order in which it is done.
struct Outcome {
  Cluster profile;
  std::vector<simulator::Measurements> files;
  std::optional<simulator::SampleFit> samples;
  std::optional<Fit> runs;
};

Json entries_of(const Outcome& done) {
  Json rows = done.samples ? sample_entries_json(*done.samples) : Json::array();
  if (!done.runs) return rows;
  const Json fitted = entries_json(*done.runs);
  for (const Json& row : fitted.items()) rows.push(row);
  return rows;
}

Json record_of(const Outcome& done) {
  Json record = Json::object()
                    .set("entries", entries_of(done))
                    .set("runs", done.runs ? runs_json(*done.runs) : Json::array());
  if (done.samples) {
    record.set("files", measurements_json(done.files)).set("notes", notes_json(*done.samples));
  }
  return record;
}

// Samples first: they move single entries; then runs, which begin from these.
Result<Outcome> calibrate(const Cluster& prior, const std::vector<std::string>& files,
                          const std::vector<MeasuredRun>& runs) {
  Outcome done;
  done.profile = prior;
  if (!files.empty()) {
    TRY(done.files, read_measurements(files));
    TRY(done.samples, simulator::fit_samples(prior, done.files));
    done.profile = done.samples->profile;
  }
  if (!runs.empty()) {
    TRY(done.runs, simulator::fit_profile(done.profile, observations_of(runs)));
    done.runs->profile.uncertainty = uncertainty_of(*done.runs);
    done.profile = done.runs->profile;
  }
  return done;
}

// Where nothing is given, this machine says it itself.
Result<Probed> probe_for(const Arguments& arguments, Inputs& inputs, Output& out) {
  if (!inputs.runs.empty() || !inputs.files.empty()) return Probed{};
  ProbeJob job;
  job.out = arguments.text("out");
  job.cluster = arguments.text("cluster");
  TRY(job.ranks, arguments.integer("ranks", 1, 1024));
  TRY(Probed probed, probe_by_running(job, out));
  inputs.runs = probed.runs;
  return probed;
}

Result<int> run(const Arguments& arguments, Output& out) {
  TRY(Inputs inputs, inputs_of(arguments));
  std::vector<std::string> all = inputs.files;
  all.insert(all.end(), inputs.runs.begin(), inputs.runs.end());
  const std::string path = arguments.text("out");
  TRY(const std::int64_t top, arguments.integer("top", 0, 100000));
  TRY_OK(check_output(path, all));
  TRY(const Probed probed, probe_for(arguments, inputs, out));
  std::vector<MeasuredRun> runs;
  for (const std::string& file : inputs.runs) {
    TRY(MeasuredRun one, read_run(file));
    runs.push_back(std::move(one));
  }
  TRY(const Cluster prior, prior_of(arguments, probed.cluster, runs));
  TRY(const Outcome done, calibrate(prior, inputs.files, runs));
  const Json record = record_of(done);
  Json stored = record, file = to_json(done.profile);
  stored.set("prior_sha256", prior.sha256);
  TRY_OK(write_whole(path, file.set("calibration", std::move(stored)).dump() + "\n"));
  if (!probed.runs.empty()) remove_parts_of(path);
  const auto shown = static_cast<std::size_t>(top);
  if (done.samples) print_samples(done.files, *done.samples, shown, out);
  if (done.runs) print_fit(*done.runs, shown, out);
  Json document = versioned().set("file", path);
  for (const auto& [key, value] : record.members()) document.set(key, value);
  out.document(document.set("uncertainty", done.profile.uncertainty));
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
      "the speeds of a machine, from a probe, its runs and measuring tools",
      "Fits the device and links of a cluster to measured runs: each op's time is a sum of what\n"
      "the profile says, entry by entry, and entries move until the sums agree. Writes a cluster\n"
      "file with what was fitted, its residuals and where it holds. With --from, single ops that\n"
      "other tools measured set their entries first: tables of nccl-tests, nvbandwidth's text or\n"
      "JSON, `nvidia-smi topo -m`, the JSON of tools/gpu_probe.py; each is known by its content.\n"
      "With nothing given it probes this machine and makes a few short runs of its own; broken\n"
      "off, the same command goes on where it stopped.",
      "orrery calibrate -o calibration.json\n"
      "orrery calibrate run.db -o calibration.json\n"
      "orrery calibrate --from nccl.txt probe.json --cluster h100x16 -o calibration.json\n"
      "orrery calibrate a.db b.db --cluster local.json -o calibration.json",
      {{"RUN", "measured runs (orrery train)", false, true}},
      {{"--from", "FILE...", "outputs of measuring tools", "", false, true},
       {"--cluster", "NAME", "the speeds to begin with; else those of the first run's plan", ""},
       {"--ranks", "N", "of the probe, where nothing is given", "4"},
       {"--top", "N", "entries to print", "12"},
       {"-o,--out", "FILE", "where the cluster file goes", "calibration.json"}},
      run};
  return command;
}

}  // namespace orrery::cli
