// orrery plan: search, print the best plan and why, write plan.json.
#include "cli/commands.h"
#include "cli/files.h"
#include "cli/plan_report.h"
#include "cli/plan_request.h"
#include "cli/plan_versus.h"
#include "cli/progress.h"
#include "planner/planner.h"

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

Result<int> run(const Arguments& arguments, Output& out) {
  TRY(planner::Request request, read_request(arguments, arguments.text("cluster")));
  const std::string job =
      request.model.name + " on " + request.cluster.name + " with " + request.workload.name;
  // In --json the document is the result: a file only where one is asked for.
  const std::string path = arguments.text("out");
  const bool writes = arguments.has("out") || !out.json();
  if (writes) TRY_OK(check_output(path, files_read(arguments)));
  TRY(const planner::DecisionRule rule, read_rule(arguments));
  PinList own;
  if (arguments.has("versus")) {
    TRY(own, read_versus(arguments.text("versus")));
    if (!arguments.has("runners-up")) request.runners_up = 0;
  }
  TRY(const planner::Outcome found, search(request, rule, out));
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
  if (arguments.has("versus")) {
    TRY(const planner::Comparison beside, planner::versus(request, *found.best, own));
    print_versus(beside, out);
    out.document(versioned().set("plan", json).set("versus", versus_json(beside)));
  } else {
    out.document(json);
  }
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
      "prints the best plan, the runners-up and why they lost. Exit code 4 where nothing fits.",
      "orrery plan --model qwen3-235b-a22b --cluster h800x256 -o plan.json\n"
      "orrery plan --model qwen3-235b-a22b --cluster h800x256 --pin ep=8 -o plan-ep8.json\n"
      "orrery plan --model qwen3-30b-a3b --cluster h800x64 --versus ep=8,micro_batch=1",
      {},
      {{"--model", "M", "a name (orrery list models), a config.json or its directory", "", true},
       {"--cluster", "C", "TEMPLATExDEVICES (orrery list clusters) or a file", "", true},
       {"--workload", "W", "a name (orrery list workloads) or a file", "pretrain-4k"},
       {"--pin", "NAME=VALUE", "hold an axis, a chunk or a policy; repeatable", "", false, true},
       {"--versus", "LAYOUT", "NAME=VALUE,... or a plan.json: set it beside the best", ""},
       {"--budget", "TIME", "stop after it ('2s') with the best so far and what is not proved", ""},
       {"--risk", "R", "rank plans by their 'expected' step or by its 'p90'", "expected"},
       {"--ties", "T", "of plans that cannot be told apart, the 'simplest' or 'fastest'",
        "simplest"},
       {"--fit-probability", "P", "at least, over draws of the experts' loads", "0.99"},
       {"--runners-up", "N", "N nearest, and one of each other family", "5"},
       {"-o,--out", "FILE", "where the plan goes (with --json only where given)", "plan.json"}},
      run};
  return command;
}

}  // namespace orrery::cli
