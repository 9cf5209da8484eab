// See plan_jobs.h.
#include "cli/plan_jobs.h"

#include <algorithm>
#include <charconv>

#include "cli/files.h"
#include "cli/handover.h"
#include "cli/job_report.h"
#include "cli/plan_asked.h"
#include "cli/plan_request.h"
#include "core/configs.h"

namespace orrery::cli {
namespace {

Status job_pins(const Arguments& arguments, planner::jobs::Request& request) {
  std::vector<Problem> problems;
  for (const std::string& word : arguments.all("pin")) {
    if (const auto pin = split_pin(word, "--pin", problems)) request.pins.push_back(*pin);
  }
  const Result<planner::jobs::Pins> pins = planner::jobs::Pins::parse(request.pins);
  if (!pins.ok()) {
    const std::vector<Problem>& found = pins.error().problems;
    problems.insert(problems.end(), found.begin(), found.end());
  }
  if (problems.empty()) return Ok{};
  return Error{ErrorCode::kUsage, std::move(problems)};
}

}  // namespace

Result<planner::jobs::Request> job_request(const Arguments& arguments, const std::string& cluster) {
  planner::jobs::Request request;
  TRY_OK(job_pins(arguments, request));
  TRY(request.probability_fits, read_probability(arguments.text("fit-probability")));
  TRY(const planner::DecisionRule rule, read_rule(arguments));
  request.risk = rule.risk;
  request.simplest = rule.simplest;
  TRY(request.stop, read_budget(arguments));
  request.frontier = arguments.has("frontier");
  TRY(const std::int64_t threads, arguments.integer("threads", 0, 1024));
  request.threads = static_cast<int>(threads);
  std::vector<Problem> problems;
  ErrorCode code = ErrorCode::kInvalid;
  take(load_model(arguments.text("model")), request.model, problems, code);
  take(load_cluster(cluster), request.cluster, problems, code);
  take(load_workload(arguments.text("workload")), request.workload, problems, code);
  take(load_stack(arguments.text("stack")), request.stack, problems, code);
  take(parameters_or_default(arguments.text("parameters")), request.parameters, problems, code);
  if (!problems.empty()) return Error{code, std::move(problems)};
  return request;
}

Result<simulator::ParameterSet> parameters_or_default(const std::string& name) {
  const std::string fallback = "published";
  if (!name.empty()) return simulator::load_parameters(name);
  const std::vector<std::string> known = list_configs("parameters");
  if (std::find(known.begin(), known.end(), fallback) == known.end()) {
    return simulator::ParameterSet{};
  }
  return simulator::load_parameters(fallback);
}

Result<double> read_probability(const std::string& text) {
  constexpr double kPredicted = 0.5;
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, value);
  if (failed != std::errc() || rest != end || !(value >= 0 && value < 1)) {
    return Error::of(ErrorCode::kUsage, "--fit-probability",
                     "'" + text + "' is not a probability below 1", "for example 0.99");
  }
  return value > 0 ? value : kPredicted;
}

Result<int> plan_jobs(const Arguments& arguments, Output& out) {
  TRY(planner::jobs::Request request, job_request(arguments, arguments.text("cluster")));
  TRY_OK(import_pins(arguments, request, out));
  const std::string path = arguments.text("out");
  const bool writes = arguments.has("out") || !out.json();
  if (writes) TRY_OK(check_output(path, files_read(arguments)));
  TRY(const Beside beside, read_beside(arguments));
  const Asked asked = asked_of(request);
  TRY(const planner::jobs::JobPlan plan, planner::jobs::plan(request));
  out.heading(title_of(asked.setting, true));
  print_job_plan(plan, out);
  Json json = to_json(plan);
  // For orrery explain, which asks again under other circumstances.
  if (!request.pins.empty()) {
    Json pins = Json::object();
    for (const auto& [name, value] : request.pins) pins.set(name, value);
    json.set("pins", std::move(pins));
  }
  if (!plan.best) {
    out.document(json);
    if (plan.stopped) {
      out.error(Error::of(ErrorCode::kInfeasible, "--budget",
                          "no job that fits was found in " + arguments.text("budget") +
                              ", which says nothing of those that were not looked at",
                          "a longer one"));
      return static_cast<int>(ErrorCode::kInfeasible);
    }
    out.error(Error::of(ErrorCode::kInfeasible, "orrery plan",
                        "no job of " + request.model.name + " on " + request.cluster.name + " fits",
                        plan.change.empty() ? "more devices, or shorter sequences"
                                            : "it fits with " + plan.change));
    return static_cast<int>(ErrorCode::kInfeasible);
  }
  TRY(const Json answers,
      answer_beside(beside, asked, planner::answer_of(*plan.best, true), json, out));
  out.document(answers);
  if (writes) {
    TRY_OK(write_whole(path, json.dump() + "\n"));
    out.note("wrote " + path);
    out.next({"orrery", "explain", path}, "what binds it, and what would change the answer");
    if (request.frontier) {
      out.next({"orrery", "export", path, "--format", "html", "-o", "plan.html"}, "a page of it");
    }
  }
  return 0;
}

}  // namespace orrery::cli
