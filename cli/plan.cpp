// orrery plan: search, print the best plan and why, write plan.json.
#include <algorithm>
#include <filesystem>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/plan_jobs.h"
#include "cli/plan_report.h"
#include "cli/progress.h"
#include "core/quantity.h"
#include "planner/planner.h"

namespace orrery::cli {
namespace {

// One of the three nouns, or its problems among the others'.
template <class T>
void take(Result<T> result, T& noun, std::vector<Problem>& problems, ErrorCode& code) {
  if (result.ok()) {
    noun = std::move(result).value();
    return;
  }
  code = result.error().code;
  const auto& found = result.error().problems;
  problems.insert(problems.end(), found.begin(), found.end());
}

Status read_pins(const Arguments& arguments, planner::Request& request) {
  std::vector<Problem> problems;
  const std::vector<std::string> known = planner::pinnable();
  for (const std::string& pin : arguments.all("pin")) {
    const std::size_t equals = pin.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == pin.size()) {
      problems.push_back({"--pin", "'" + pin + "' is not NAME=VALUE", "for example --pin ep=8"});
      continue;
    }
    const std::string name = pin.substr(0, equals);
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string hint;
      if (const std::string near = nearest(name, known); !near.empty()) {
        hint = "did you mean '" + near + "'?";
      } else {
        for (const std::string& word : known) hint += (hint.empty() ? "known: " : ", ") + word;
      }
      problems.push_back({"--pin", "'" + name + "' cannot be pinned", hint});
    }
    request.pins.emplace_back(name, pin.substr(equals + 1));
  }
  if (problems.empty()) return Ok{};
  return Error{ErrorCode::kUsage, std::move(problems)};
}

Result<planner::Request> read_request(const Arguments& arguments) {
  planner::Request request;
  TRY_OK(read_pins(arguments, request));
  TRY(const std::int64_t runners, arguments.integer("runners-up", 0, 1000));
  request.runners_up = static_cast<int>(runners);
  std::vector<Problem> problems;
  ErrorCode code = ErrorCode::kInvalid;
  take(load_model(arguments.text("model")), request.model, problems, code);
  take(load_cluster(arguments.text("cluster")), request.cluster, problems, code);
  take(load_workload(arguments.text("workload")), request.workload, problems, code);
  if (!problems.empty()) return Error{code, std::move(problems)};
  return request;
}

// Those of the three nouns that are files: a folder may have the name of a cluster, or be a model's
// and have the plan in it.
std::vector<std::string> files_read(const Arguments& arguments) {
  std::vector<std::string> files;
  const std::string model = arguments.text("model");
  for (const std::string& path :
       {model, model + "/config.json", arguments.text("cluster"), arguments.text("workload")}) {
    std::error_code ec;
    if (std::filesystem::is_regular_file(path, ec)) files.push_back(path);
  }
  return files;
}

void say_next(const Plan& plan, const std::string& path, Output& out) {
  out.next({"orrery", "simulate", path}, "where the step goes");
  if (plan.cluster.cores_per_node == 0) return;
  if (plan.layout.world() > plan.cluster.devices_per_node) {
    out.next({"orrery", "train", path, "--data", "DIR", "--hosts", "FILE"}, "run it on its nodes");
  } else {
    out.next({"orrery", "train", path, "--data", "DIR"}, "run it here");
  }
}

Result<planner::Outcome> search(planner::Request request, Output& out) {
  Progress progress("plans searched", out.terminal_err());
  request.progress = [&](std::int64_t done, std::int64_t all) { progress.update(done, all); };
  return planner::plan(request);
}

// What --for says, and whether the other options belong to it.
Result<bool> for_simulation(const Arguments& arguments) {
  const std::string what = arguments.text("for");
  if (what != "train" && what != "simulate") {
    return Error::of(ErrorCode::kUsage, "--for", "'" + what + "' is no purpose of a plan",
                     "train or simulate");
  }
  if (what == "simulate") return true;
  for (const char* option : kJobOptions) {
    if (!arguments.has(option)) continue;
    return Error::of(ErrorCode::kUsage, std::string("--") + option,
                     "says something about jobs that are simulated", "add --for simulate");
  }
  return false;
}

Result<int> run(const Arguments& arguments, Output& out) {
  TRY(const bool simulates, for_simulation(arguments));
  if (simulates) return plan_jobs(arguments, out);
  TRY(planner::Request request, read_request(arguments));
  const std::string job =
      request.model.name + " on " + request.cluster.name + " with " + request.workload.name;
  // In --json the document is the result: a file only where one is asked for.
  const std::string path = arguments.text("out");
  const bool writes = arguments.has("out") || !out.json();
  if (writes) TRY_OK(check_output(path, files_read(arguments)));
  TRY(const planner::Outcome found, search(std::move(request), out));
  if (!found.best) {
    print_infeasible(found, out);
    out.document(infeasible_json(found));
    out.error(Error::of(ErrorCode::kInfeasible, "orrery plan", "no plan of " + job + " fits",
                        out.json() && found.shortage ? found.shortage->advice : ""));
    return static_cast<int>(ErrorCode::kInfeasible);
  }
  const Json json = to_json(*found.best);
  if (writes) TRY_OK(write_whole(path, json.dump() + "\n"));
  print_plan(*found.best, out);
  out.document(json);
  if (writes) {
    out.note("wrote " + path);
    say_next(*found.best, path, out);
  }
  return 0;
}

}  // namespace

const Command& plan_command() {
  static const Command command = {
      "plan",
      "search for the fastest plan that fits, and say why it won",
      "Searches layouts, chunk sizes and memory policies for the fastest step that fits, and\n"
      "prints the best plan, the runners-up and why they lost. Exit code 4 where nothing fits.\n"
      "With --for simulate: jobs over all axes, also of models that the engine does not execute.",
      "orrery plan --model qwen3-235b-a22b --cluster h800x256 -o plan.json\n"
      "orrery plan --model qwen3-235b-a22b --cluster h800x256 --pin ep=8 -o plan-ep8.json\n"
      "orrery plan --for simulate --model deepseek-v3 --cluster h800x2048",
      {},
      {{"--model", "M", "a name (orrery list models), a config.json or its directory", "", true},
       {"--cluster", "C", "TEMPLATExDEVICES (orrery list clusters) or a file", "", true},
       {"--workload", "W", "a name (orrery list workloads) or a file", "pretrain-4k"},
       {"--for", "PURPOSE", "train (what the engine runs) or simulate (all axes)", "train"},
       {"--stack", "S", "the framework (orrery list stacks), with --for simulate",
        "megatron-bridge-2026"},
       {"--parameters", "P", "fitted values of it; default: published, if there is such a set", ""},
       {"--fits", "P", "least probability to fit, with --for simulate", "0.99"},
       {"--threads", "N", "0: one a core, with --for simulate", "0"},
       {"--pin", "NAME=VALUE", "hold an axis, a chunk or a policy; repeatable", "", false, true},
       {"--runners-up", "N", "N nearest, and one of each other family", "5"},
       {"-o,--out", "FILE", "where the plan goes (with --json only where given)", "plan.json"}},
      run};
  return command;
}

}  // namespace orrery::cli
