// orrery plan: search, print the best plan and why, write plan.json; the questions go elsewhere.
#include <algorithm>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/handover.h"
#include "cli/plan_asked.h"
#include "cli/plan_jobs.h"
#include "cli/plan_questions.h"
#include "cli/plan_report.h"
#include "cli/plan_request.h"
#include "cli/progress.h"
#include "core/quantity.h"
#include "planner/plans/explain.h"
#include "planner/plans/frontier.h"
#include "planner/plans/planner.h"

namespace orrery::cli {
namespace {

void say_next(const Plan& plan, const std::string& path, Output& out) {
  out.next({"orrery", "simulate", path}, "where the step goes");
  if (plan.cluster.cores_per_node == 0) return;
  if (plan.layout.world() > plan.cluster.devices_per_node) {
    out.next({"orrery", "train", path, "--data", "DIR", "--hosts", "FILE"}, "run it on its nodes");
  } else {
    out.next({"orrery", "train", path, "--data", "DIR"}, "run it here");
  }
}

Result<planner::Outcome> search(planner::Request request, const planner::DecisionRule& rule,
                                Output& out) {
  Progress progress("plans searched", out.terminal_err());
  request.progress = [&](std::int64_t done, std::int64_t all) { progress.update(done, all); };
  return planner::decide(request, rule);
}

// What --for says, and whether the other options belong to it.
Result<bool> for_simulation(const Arguments& arguments) {
  const std::string what = arguments.text("for");
  if (what != "train" && what != "simulate") {
    return Error::of(ErrorCode::kUsage, "--for", "'" + what + "' is no purpose of a plan",
                     "train or simulate");
  }
  const bool simulates = what == "simulate";
  const auto given = [&](const auto& options) {
    for (const char* option : options) {
      if (arguments.has(option)) return std::string("--") + option;
    }
    return std::string();
  };
  const std::string other = simulates ? given(kEngineOptions) : given(kJobOptions);
  if (other.empty()) return simulates;
  return Error::of(
      ErrorCode::kUsage, other,
      simulates ? "is for plans of the engine" : "says something about jobs that are simulated",
      simulates ? "leave it out, or --for simulate" : "add --for simulate");
}

// Where no layout is legal, the nearest plan stands beside the rules.
Error with_nearest(Error error, const planner::Request& request) {
  if (error.code != ErrorCode::kInfeasible) return error;
  const bool of_family = std::any_of(error.problems.begin(), error.problems.end(),
                                     [](const Problem& p) { return p.where == "engine_family"; });
  if (of_family) return error;
  const auto near = planner::nearest_legal(request);
  if (!near) return error;
  const Plan& plan = near->plan;
  error.problems.push_back({"the nearest that fits",
                            near->change + " (" + format_bytes(plan.predicted.peak) + ", " +
                                format_seconds(plan.predicted.step) + " a step)",
                            layout_text(plan.model, plan.layout, plan.chunks, plan.policy)});
  return error;
}

// One plan of one cluster.
Result<int> run_one(const Arguments& arguments, Output& out) {
  TRY(planner::Request request, read_request(arguments, arguments.text("cluster")));
  TRY_OK(import_pins(arguments, request, out));
  const std::string job =
      request.model.name + " on " + request.cluster.name + " with " + request.workload.name;
  // In --json the document is the result: a file only where one is asked for.
  const std::string path = arguments.text("out");
  const bool writes = arguments.has("out") || !out.json();
  if (writes) TRY_OK(check_output(path, files_read(arguments)));
  TRY(const planner::DecisionRule rule, read_rule(arguments));
  TRY(const Beside beside, read_beside(arguments));
  if (beside.own && !arguments.has("runners-up")) request.runners_up = 0;
  const Result<planner::Outcome> searched = search(request, rule, out);
  if (!searched.ok()) return with_nearest(searched.error(), request);
  const planner::Outcome& found = searched.value();
  if (!found.best) {
    print_infeasible(found, out);
    out.document(infeasible_json(found));
    out.error(Error::of(ErrorCode::kInfeasible, "orrery plan", "no plan of " + job + " fits",
                        out.json() && found.shortage ? found.shortage->advice : ""));
    return static_cast<int>(ErrorCode::kInfeasible);
  }
  Plan best = *found.best;
  if (arguments.has("frontier")) best.frontier = planner::frontier_of(request, best);
  const Json json = to_json(best);
  if (writes) TRY_OK(write_whole(path, json.dump() + "\n"));
  print_plan(best, out);
  // Alone, the document is the plan; beside an answer, one of its parts.
  TRY(const Json answers,
      answer_beside(beside, asked_of(request, rule), planner::answer_of(best, true), json, out));
  out.document(answers);
  if (writes) {
    out.note("wrote " + path);
    say_next(best, path, out);
    if (!best.frontier.empty()) {
      out.next({"orrery", "export", path, "--format", "html", "-o", "plan.html"}, "a page of it");
    }
  }
  return 0;
}

Result<int> run(const Arguments& arguments, Output& out) {
  TRY(const bool simulates, for_simulation(arguments));
  // One question a call: what they print is not the same.
  std::vector<std::string> asked;
  for (const char* name : {"versus", "size-for", "max-seq", "sweep"}) {
    if (arguments.has(name)) asked.push_back(std::string("--") + name);
  }
  const bool several = arguments.all("cluster").size() > 1;
  if (several) asked.push_back("several --cluster");
  if (asked.size() > 1) {
    return Error::of(ErrorCode::kUsage, "orrery plan",
                     asked[0] + " and " + asked[1] + " are two questions", "ask one at a time");
  }
  if (arguments.has("csv") && !arguments.has("sweep")) {
    return Error::of(ErrorCode::kUsage, "--csv", "is for --sweep", "add --sweep KEY=A,B");
  }
  if (arguments.has("frontier")) {
    if (arguments.has("budget")) asked.emplace_back("--budget");
    if (arguments.text("risk") == "p90") asked.emplace_back("--risk p90");
    if (!asked.empty()) {
      return Error::of(ErrorCode::kUsage, "--frontier", "does not go with " + asked[0],
                       "it is of expected steps, beside one plan, each size of memory to the end");
    }
  }
  const bool alone = asked.empty() || asked[0] == "--versus";
  if (arguments.has("import") && !alone) {
    return Error::of(ErrorCode::kUsage, "--import", "does not go with " + asked[0],
                     "its pins are those of one cluster and workload: --pin what is to be held");
  }
  if (arguments.has("size-for")) return answer_size(arguments, out);
  if (arguments.has("max-seq")) return answer_longest(arguments, out);
  if (arguments.has("sweep")) return answer_sweep(arguments, out);
  if (several) return answer_clusters(arguments, out);
  return simulates ? plan_jobs(arguments, out) : run_one(arguments, out);
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
      "orrery plan --for simulate --model deepseek-v3 --cluster h800x2048\n"
      "orrery plan --model qwen3-30b-a3b --cluster h800x64 --versus ep=8,micro_batch=1\n"
      "orrery plan --for simulate --model llama-3-70b --cluster h100x64 --versus tp=8,pp=2\n"
      "orrery plan --model qwen3-30b-a3b --cluster h100x8 --size-for '10 days' --tokens 1T\n"
      "orrery plan --model qwen3-8b --cluster h100x8 --sweep workload.global_batch_tokens=1M,2M\n"
      "orrery plan --model qwen3-8b --cluster h800x64 --import run.sh -o theirs.json",
      {},
      {{"--model", "M", "a name (orrery list models), a config.json or its directory", "", true},
       {"--cluster", "C",
        "TEMPLATExDEVICES (orrery list clusters) or a file; several: side by side", "", true, true},
       {"--workload", "W", "a name (orrery list workloads) or a file", "pretrain-4k"},
       {"--for", "PURPOSE", "train (what the engine runs) or simulate (all axes)", "train"},
       {"--stack", "S", "the framework (orrery list stacks), with --for simulate",
        "megatron-bridge-2026"},
       {"--parameters", "P", "fitted values of it; default: published, if there is such a set", ""},
       {"--threads", "N", "0: one a core, with --for simulate", "0"},
       {"--pin", "NAME=VALUE", "hold an axis, a chunk or a policy; repeatable", "", false, true},
       {"--versus", "LAYOUT", "NAME=VALUE,... or a plan's file: set it beside the best", ""},
       {"--size-for", "TIME", "the fewest devices of the template that train --tokens in it", ""},
       {"--max-seq", "", "the longest rows that fit", ""},
       {"--sweep", "KEY=A,B",
        "a plan of each; workload.*, cluster.*, model.*, stack, stack.* or a pin", "", false, true},
       {"--csv", "FILE", "the sweep as CSV", ""},
       {"--tokens", "N", "of a whole run ('15T'): its wall time, failures included", ""},
       {"--device-mtbf", "TIME", "between failures of one device (default: 50677 h)", ""},
       {"--save-time", "TIME", "that a checkpoint stops training (default: by its bytes)", ""},
       {"--restart-time", "TIME", "after a failure (default: 10 min)", ""},
       {"--budget", "TIME", "stop after it ('2s') with the best so far and what is not proved", ""},
       {"--risk", "R", "rank plans by their 'expected' step or by its 'p90'", "expected"},
       {"--ties", "T", "of plans that cannot be told apart, the 'simplest' or 'fastest'",
        "simplest"},
       {"--fit-probability", "P", "at least, over draws of the experts' loads", "0.99"},
       {"--import", "FILE", "pins from another engine's file (export --format)", ""},
       {"--runners-up", "N", "N nearest, and one of each other family", "5"},
       {"--frontier", "",
        "also the fastest plan for devices with less memory (export --format html)", ""},
       {"-o,--out", "FILE", "where the plan goes (with --json only where given)", "plan.json"}},
      run};
  return command;
}

}  // namespace orrery::cli
