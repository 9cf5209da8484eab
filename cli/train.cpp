// orrery train: predict the step, start the engine's ranks, bring their parts together.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <limits>
#include <thread>

#include "cli/commands.h"
#include "cli/engine_launch.h"
#include "cli/files.h"
#include "cli/hosts.h"
#include "cli/inputs.h"
#include "cli/plan_report.h"
#include "cli/simulation.h"
#include "core/quantity.h"
#include "tracer/merge.h"
#include "tracer/recorder.h"

namespace orrery::cli {
namespace {

namespace fs = std::filesystem;

struct Job {
  std::string plan_path, data, out;
  std::int64_t steps = 0, seed = 0;
  std::vector<std::string> passed_on;  // words for the engine alone
  Placement placement;
};

// What came of it: the report of both the text and --json.
struct Outcome {
  int code = 0;
  RunStatus status = RunStatus::kOk;
  std::string reason;
  bool written = false;  // job.out holds this run
  MergeReport merge;
  std::vector<StepEvent> steps;  // of rank 0
  double predicted_s = 0, measured_s = 0;
};

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::string text(32, '\0');
  text.resize(std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts));
  return text;
}

// The engine runs on the cores of its hosts: a plan for other devices is for another cluster.
Status check_cluster(const std::string& path, const Plan& plan) {
  const Cluster& cluster = plan.cluster;
  if (cluster.cores_per_node > 0) return Ok{};
  return Error::of(ErrorCode::kInvalid, path + ":/cluster",
                   fmt::format("the plan is for {} ({} x {}), but the engine has this machine's "
                               "cores",
                               cluster.name, cluster.devices, cluster.device.name),
                   "plan for this machine: `orrery doctor --probe -o local.json`, then "
                   "`orrery plan --cluster local.json`; or `orrery simulate` this one");
}

// Of other hosts nothing is known here, and nodes of a lab share the cores of one machine.
void compare_cores(const Cluster& cluster, const Placement& placement, Output& out) {
  const std::int64_t cores = std::max(1U, std::thread::hardware_concurrency());
  if (placement.spread() || cores == cluster.cores_per_node) return;
  out.warn(
      fmt::format("{} describes a machine with {} cores, this one has {}: the prediction "
                  "will be off (orrery doctor --probe)",
                  cluster.name, cluster.cores_per_node, cores));
}

// The engine reads these itself; what it would refuse is refused here, before ranks are started.
Status read_limits(const Arguments& arguments, Job& job) {
  const auto quantity = [&](const char* name, const char* dimension) -> Status {
    if (!arguments.has(name)) return Ok{};
    const auto value = parse_quantity(arguments.text(name), dimension, std::string("--") + name);
    return value.ok() ? Status(Ok{}) : Error{ErrorCode::kUsage, value.error().problems};
  };
  TRY_OK(quantity("stall-limit", "s"));
  TRY_OK(quantity("memory-limit", "bytes"));
  if (arguments.has("skip-limit")) {
    TRY_OK(arguments.integer("skip-limit", 1, std::numeric_limits<std::int32_t>::max()));
  }
  for (const char* name : {"stall-limit", "memory-limit", "skip-limit", "emulate-link"}) {
    if (!arguments.has(name)) continue;
    job.passed_on.push_back(std::string("--") + name);
    job.passed_on.push_back(arguments.text(name));
  }
  return Ok{};
}

Result<Job> read_job(const Arguments& arguments) {
  Job job;
  job.plan_path = arguments.text("PLAN");
  job.data = arguments.text("data");
  job.out = arguments.text("out");
  TRY(job.steps, arguments.integer("steps", 1, std::numeric_limits<std::int32_t>::max()));
  TRY(job.seed, arguments.integer("seed", 0, std::numeric_limits<std::int64_t>::max()));
  TRY_OK(read_limits(arguments, job));
  std::error_code ec;
  if (!fs::exists(job.data, ec)) {
    return Error::of(ErrorCode::kIo, job.data, "no such file or folder",
                     "--data is a text file, or a folder of them");
  }
  TRY_OK(check_output(job.out, {job.plan_path, job.data}));
  return job;
}

std::vector<std::string> engine_words(const Job& job, const Simulated& simulated) {
  std::vector<std::string> words = {"run",
                                    job.plan_path,
                                    "--data",
                                    job.data,
                                    "--out",
                                    job.out,
                                    "--steps",
                                    std::to_string(job.steps),
                                    "--seed",
                                    std::to_string(job.seed),
                                    "--predicted-ns",
                                    std::to_string(simulated.result.step.value())};
  words.insert(words.end(), job.passed_on.begin(), job.passed_on.end());
  return words;
}

bool has_parts(const std::string& out) {
  std::error_code ec;
  return fs::is_directory(parts_directory(out), ec) && !fs::is_empty(parts_directory(out), ec);
}

// The op that the rank finished last, as its part says; empty where it says nothing.
std::string last_op(const std::string& out, std::int64_t rank) {
  Result<TraceReader> opened = TraceReader::open(part_path(out, static_cast<std::int32_t>(rank)));
  if (!opened.ok()) return "";
  TraceReader part = std::move(opened).value();
  const Result<std::vector<SpanEvent>> spans = part.spans();
  const Result<std::vector<OpRow>> ops = part.ops();
  if (!spans.ok() || !ops.ok() || spans.value().empty()) return "";
  const auto last =
      std::max_element(spans.value().begin(), spans.value().end(),
                       [](const SpanEvent& a, const SpanEvent& b) { return a.end_ns < b.end_ns; });
  for (const OpRow& op : ops.value()) {
    if (op.op != last->op) continue;
    return fmt::format("last op in its trace: {} of {} (step {}, micro-batch {})", op.phase,
                       op.path, last->step, op.micro_batch);
  }
  return "";
}

// Why the engine ended as it did; empty where all is well, and where the ranks said it themselves:
// then their parts say it.
std::string reason_of(const EngineEnd& end, const std::string& out) {
  if (end.child.interrupted) return "interrupted";
  if (end.child.code == 0) return "";
  if (!end.missing.empty()) return end.missing + ": every host needs it at this path";
  if (end.engine_spoke && has_parts(out) && (!end.dead || end.dead->signal == 0)) return "";
  if (!end.dead) {
    return end.child.stuck ? "a rank ended and the launcher did not"
                           : fmt::format("the launcher ended with code {}", end.child.code);
  }
  const DeadRank& dead = *end.dead;
  const char* name = dead.signal > 0 ? ::sigdescr_np(dead.signal) : nullptr;
  std::string reason =
      dead.signal > 0 ? fmt::format("rank {}{} died of signal {}{}", dead.rank,
                                    dead.host.empty() ? "" : " on " + dead.host, dead.signal,
                                    name != nullptr ? fmt::format(" ({})", name) : std::string())
                      : fmt::format("rank {} ended with code {}", dead.rank, dead.code);
  if (const std::string op = last_op(out, dead.rank); !op.empty()) reason += "; " + op;
  return reason;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Steps of rank 0 and their median time; three or more leave out the first, as compare does.
Status read_steps(const std::string& path, Outcome& outcome) {
  TRY(TraceReader trace, TraceReader::open(path));
  TRY(const std::vector<StepEvent> all, trace.steps());
  std::vector<double> seconds;
  for (const StepEvent& step : all) {
    if (step.rank != 0) continue;
    outcome.steps.push_back(step);
    seconds.push_back(static_cast<double>(step.end_ns - step.start_ns) * 1e-9);
  }
  if (seconds.size() >= 3) seconds.erase(seconds.begin());
  outcome.measured_s = median(std::move(seconds));
  return Ok{};
}

// Where the trace cannot be made, what the ranks wrote is still there.
Error with_parts(Error error, const std::string& out) {
  error.problems.push_back({parts_directory(out), "holds what the ranks recorded",
                            "make room and train again; a new run to the same -o removes it"});
  return error;
}

// Makes one trace of what the ranks left, also after a failure.
Result<Outcome> bring_together(const Job& job, const Simulated& simulated, const EngineEnd& end) {
  Outcome outcome;
  outcome.code = exit_code_of(end.child);
  if (!end.missing.empty()) outcome.code = static_cast<int>(ErrorCode::kIo);
  outcome.reason = reason_of(end, job.out);
  outcome.status = outcome.code == 0 ? RunStatus::kOk : RunStatus::kFailed;
  outcome.predicted_s = to_seconds(simulated.result.step).value();
  if (!has_parts(job.out)) {
    TRY_OK(remove_parts(job.out));
    if (outcome.code == 0) {
      outcome.code = static_cast<int>(ErrorCode::kRun);
      outcome.status = RunStatus::kFailed;
      outcome.reason = "the ranks left no trace";
    }
    return outcome;
  }
  MergeOptions options;
  options.out = job.out;
  options.world = simulated.program.world;
  options.run = run_info(RunKind::kMeasured, simulated.plan, simulated.program);
  options.run.created = now_text();
  options.run.status = outcome.status;
  options.run.reason = outcome.reason;
  const SignalShelter shelter;
  Result<MergeReport> merged = merge_parts(options);
  if (!merged.ok()) return with_parts(merged.error(), job.out);
  outcome.merge = std::move(merged).value();
  outcome.written = true;
  outcome.status = outcome.merge.status;
  // The launcher's word says more than the silence of the ranks that it ended.
  if (outcome.reason.empty()) outcome.reason = outcome.merge.reason;
  if (outcome.reason.empty() && outcome.code != 0) {
    outcome.reason = fmt::format("the launcher ended with code {}", end.child.code);
  }
  if (outcome.status == RunStatus::kFailed && outcome.code == 0) {
    outcome.code = static_cast<int>(ErrorCode::kRun);
  }
  TRY_OK(read_steps(job.out, outcome));
  return outcome;
}

Json report_json(const Job& job, const Outcome& outcome) {
  Json missing = Json::array();
  for (const std::int32_t rank : outcome.merge.missing) missing.push(static_cast<int>(rank));
  const bool any = !outcome.steps.empty();
  return versioned()
      .set("status", name_of(outcome.status))
      .set("reason", outcome.reason)
      .set("file", outcome.written ? Json(job.out) : Json())
      .set("steps", static_cast<std::int64_t>(outcome.steps.size()))
      .set("first_loss", any ? number_or_null(outcome.steps.front().loss) : Json())
      .set("last_loss", any ? number_or_null(outcome.steps.back().loss) : Json())
      .set("step_s", Json::object()
                         .set("predicted", outcome.predicted_s)
                         .set("measured", any ? Json(outcome.measured_s) : Json()))
      .set("dropped", outcome.merge.dropped)
      .set("missing_ranks", std::move(missing));
}

void print(const Job& job, const Outcome& outcome, Output& out) {
  if (!outcome.steps.empty()) {
    // The same words and the same sign as in a step line.
    const double error = outcome.measured_s / outcome.predicted_s - 1;
    out.line(fmt::format("\n{}: loss {:.4f} -> {:.4f} | {} a step (sim {}, {})",
                         plural(outcome.steps.size(), "step"), outcome.steps.front().loss,
                         outcome.steps.back().loss, format_seconds(Seconds(outcome.measured_s)),
                         format_seconds(Seconds(outcome.predicted_s)), signed_percent(error)));
  }
  if (outcome.merge.dropped > 0) {
    out.warn(fmt::format("{} trace records were dropped", outcome.merge.dropped));
  }
  if (outcome.written) out.note("wrote " + job.out);
}

Result<int> train(const Job& job, const Simulated& simulated, const std::vector<std::string>& line,
                  Output& out) {
  TRY_OK(remove_parts(job.out));
  TRY(const EngineEnd end, run_engine(line, out, job.placement.spread()));
  TRY(const Outcome outcome, bring_together(job, simulated, end));
  print(job, outcome, out);
  out.document(report_json(job, outcome));
  if (outcome.code != 0) {
    out.error(Error::of(ErrorCode::kRun, job.out,
                        end.child.interrupted ? "interrupted" : "the run failed: " + outcome.reason,
                        outcome.written ? "`orrery analyze " + shell_line({job.out}) +
                                              " steps` shows how far it came"
                                        : ""));
    return outcome.code;
  }
  out.next({"orrery", "compare", job.plan_path, job.out}, "predicted against measured");
  return 0;
}

Result<int> run(const Arguments& arguments, Output& out) {
  TRY(Plan plan, open_plan(arguments.text("PLAN")));
  TRY_OK(check_cluster(arguments.text("PLAN"), plan));
  TRY(Job job, read_job(arguments));
  TRY(job.placement, place_ranks({arguments.text("hosts"), arguments.text("remote-shell"),
                                  arguments.text("interface")},
                                 plan.cluster, plan.layout.world(), job.plan_path));
  compare_cores(plan.cluster, job.placement, out);
  const bool dry = arguments.flag("dry-run");
  const Result<std::string> engine = find_engine();
  const Result<std::string> launcher = find_launcher();
  if (!dry && !engine.ok()) return engine.error();
  if (!dry && !launcher.ok()) return launcher.error();
  TRY(const Simulated simulated, simulate_plan(std::move(plan), {}, false));
  const std::vector<std::string> line = launch_line(
      launcher.ok() ? launcher.value() : "mpirun", engine.ok() ? engine.value() : "orrery-engine",
      simulated.program.world, engine_words(job, simulated), job.placement);
  if (!dry) return train(job, simulated, line, out);
  std::string text;
  for (const auto& [name, value] : launch_environment()) text += name + "=" + value + " ";
  out.line(text + shell_line(line));
  Json words = Json::array();
  for (const std::string& word : line) words.push(word);
  out.document(versioned().set("command", std::move(words)));
  return 0;
}

}  // namespace

const Command& train_command() {
  static const Command command = {
      "train",
      "run a plan on this machine or on hosts, traced, beside its prediction",
      "Starts the engine's ranks under mpirun and leaves one trace of the run, also after a\n"
      "failure. Each step line carries the prediction. Ranks run here, on --hosts, or on the "
      "nodes\n"
      "of the Slurm job that it runs in. Every host sees the engine, the plan, the data and the\n"
      "folder of -o at the same paths. ORRERY_HOSTS, ORRERY_REMOTE_SHELL and ORRERY_INTERFACE\n"
      "stand for the options where those are not given.",
      "orrery train plan.json --data DIR --steps 30 -o run.db",
      {{"PLAN", "a plan.json for this machine or these hosts"}},
      {{"--data", "PATH", "a text file, or a folder of them", "", true},
       {"--steps", "N", "how many", "20"},
       {"--seed", "S", "of the initial weights and the order of the data", "0"},
       {"-o,--out", "FILE", "the trace", "run.db"},
       {"--stall-limit", "TIME", "how long a rank may keep the others waiting", "10 min"},
       {"--memory-limit", "BYTES", "what a rank may hold; without it, all there is", ""},
       {"--skip-limit", "N", "steps in a row without a finite gradient that end the run", "8"},
       {"--emulate-link", "LINK", "make collectives as slow as over \"100 Mbit/s,1 ms\"", ""},
       {"--hosts", "FILE", "where the ranks run: a line `name slots=N` for each host", ""},
       {"--remote-shell", "CMD", "starts a command on another host, as ssh does", ""},
       {"--interface", "NAME", "of the network between the hosts", ""},
       {"--dry-run", "", "print the command line and start nothing", ""}},
      run};
  return command;
}

}  // namespace orrery::cli
