// See plan_jobs.h.
#include "cli/plan_jobs.h"

#include <algorithm>
#include <charconv>

#include "cli/files.h"
#include "cli/job_report.h"
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

// 0: a prediction that fits is enough, and that is as likely to fit as not.
Result<double> probability(const std::string& text) {
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

Result<planner::jobs::Request> job_request(const Arguments& arguments) {
  planner::jobs::Request request;
  TRY_OK(job_pins(arguments, request));
  TRY(request.probability_fits, probability(arguments.text("fit-probability")));
  TRY(const std::int64_t threads, arguments.integer("threads", 0, 1024));
  request.threads = static_cast<int>(threads);
  std::vector<Problem> problems;
  ErrorCode code = ErrorCode::kInvalid;
  take(load_model(arguments.text("model")), request.model, problems, code);
  take(load_cluster(arguments.text("cluster")), request.cluster, problems, code);
  take(load_workload(arguments.text("workload")), request.workload, problems, code);
  take(load_stack(arguments.text("stack")), request.stack, problems, code);
  take(parameters_or_default(arguments.text("parameters")), request.parameters, problems, code);
  if (!problems.empty()) return Error{code, std::move(problems)};
  return request;
}

}  // namespace

Result<simulator::ParameterSet> parameters_or_default(const std::string& name) {
  const std::string fallback = "published";
  if (!name.empty()) return simulator::load_parameters(name);
  const std::vector<std::string> known = list_configs("parameters");
  if (std::find(known.begin(), known.end(), fallback) == known.end()) {
    return simulator::ParameterSet{};
  }
  return simulator::load_parameters(fallback);
}

Result<int> plan_jobs(const Arguments& arguments, Output& out) {
  TRY(const planner::jobs::Request request, job_request(arguments));
  const std::string path = arguments.text("out");
  const bool writes = arguments.has("out") || !out.json();
  if (writes) {
    TRY_OK(check_output(path, {arguments.text("model"), arguments.text("cluster"),
                               arguments.text("workload"), arguments.text("stack")}));
  }
  TRY(const planner::jobs::JobPlan plan, planner::jobs::plan(request));
  out.heading(request.model.name + " on " + request.cluster.name + ", " + request.workload.name +
              ", with " + request.stack.name);
  print_job_plan(plan, out);
  const Json json = to_json(plan);
  out.document(json);
  if (!plan.best) {
    out.error(Error::of(ErrorCode::kInfeasible, "orrery plan",
                        "no job of " + request.model.name + " on " + request.cluster.name + " fits",
                        plan.change.empty() ? "more devices, or shorter sequences"
                                            : "it fits with " + plan.change));
    return static_cast<int>(ErrorCode::kInfeasible);
  }
  if (writes) {
    TRY_OK(write_whole(path, json.dump() + "\n"));
    out.note("wrote " + path);
    out.next({"orrery", "simulate", path}, "the same job again");
  }
  return 0;
}

}  // namespace orrery::cli
