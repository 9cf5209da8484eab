// See plan_asked.h.
#include "cli/plan_asked.h"

#include "cli/job_report.h"
#include "cli/plan_jobs.h"
#include "cli/plan_questions.h"
#include "cli/plan_report.h"
#include "cli/plan_versus.h"
#include "core/job_json.h"
#include "planner/plans/decide.h"
#include "planner/questions/engine_searcher.h"
#include "planner/questions/job_searcher.h"
#include "planner/questions/size.h"

namespace orrery::cli {

Asked asked_of(const planner::Request& request, const planner::DecisionRule& rule) {
  Asked asked;
  asked.setting = {request.model, request.cluster, request.workload, {}, request.pins};
  asked.searcher = std::make_shared<planner::EngineSearcher>(request, rule);
  return asked;
}

Asked asked_of(const planner::jobs::Request& request) {
  Asked asked;
  asked.setting = {request.model, request.cluster, request.workload, request.stack, request.pins};
  asked.searcher = std::make_shared<planner::JobSearcher>(request);
  asked.simulates = true;
  return asked;
}

bool asks_for_jobs(const Arguments& arguments) {
  return arguments.text("for") == "simulate";
}

Result<Asked> read_asked(const Arguments& arguments, const std::string& cluster) {
  if (asks_for_jobs(arguments)) {
    TRY(const planner::jobs::Request request, job_request(arguments, cluster));
    return asked_of(request);
  }
  TRY(const planner::DecisionRule rule, read_rule(arguments));
  TRY(planner::Request request, read_request(arguments, cluster));
  if (!arguments.has("runners-up")) request.runners_up = 0;
  return asked_of(request, rule);
}

std::string title_of(const planner::Setting& setting, bool simulates) {
  return setting.model.name + " on " + setting.cluster.name + ", " + setting.workload.name +
         (simulates ? ", with " + setting.stack.name : "");
}

std::string words_of(const planner::Answer& answer) {
  if (const Plan* plan = std::get_if<Plan>(&answer.best)) {
    return layout_text(plan->model, plan->layout, plan->chunks, plan->policy);
  }
  return orrery::words_of(planner::job_of(answer).job);
}

Json layout_json(const planner::Answer& answer) {
  if (const Plan* plan = std::get_if<Plan>(&answer.best)) {
    return Json::object()
        .set("layout", to_json(plan->layout))
        .set("chunks", to_json(plan->chunks))
        .set("memory_policy", to_json(plan->policy));
  }
  return Json::object().set("job", axes_json(planner::job_of(answer).job));
}

Json row_json(const planner::Answer& answer) {
  Json json = layout_json(answer);
  if (const Plan* plan = std::get_if<Plan>(&answer.best)) {
    return json.set("predicted", to_json(plan->predicted));
  }
  const planner::jobs::PlannedJob& job = planner::job_of(answer);
  return json.set("predicted", prediction_json(job.job, job.predicted));
}

Result<Json> file_json(const Arguments& arguments, const std::string& cluster,
                       const planner::Setting& setting) {
  const Error none = Error::of(ErrorCode::kInfeasible, "--fit-probability",
                               "no plan fits surely enough", "ask for a lower one");
  if (asks_for_jobs(arguments)) {
    TRY(const planner::jobs::Request base, job_request(arguments, cluster));
    planner::jobs::Request request = planner::JobSearcher(base).request_of(setting);
    request.explains = true;
    TRY(const planner::jobs::JobPlan plan, planner::jobs::plan(request));
    if (!plan.best) return none;
    return to_json(plan);
  }
  TRY(const planner::DecisionRule rule, read_rule(arguments));
  TRY(const planner::Request base, read_request(arguments, cluster));
  TRY(const planner::Outcome found,
      planner::decide(planner::EngineSearcher(base, rule).request_of(setting), rule));
  if (!found.best) return none;
  return to_json(*found.best);
}

std::vector<std::string> call_of(const Arguments& arguments, const std::string& cluster) {
  std::vector<std::string> words = {"orrery", "plan"};
  const auto add = [&](const char* name, const std::string& value) {
    words.push_back(std::string("--") + name);
    words.push_back(value);
  };
  if (arguments.has("for")) add("for", arguments.text("for"));
  add("model", arguments.text("model"));
  add("cluster", cluster);
  for (const char* name : {"workload", "stack", "parameters", "fit-probability"}) {
    if (arguments.has(name)) add(name, arguments.text(name));
  }
  for (const std::string& pin : arguments.all("pin")) add("pin", pin);
  return words;
}

Result<planner::Reliability> read_reliability(const Arguments& arguments) {
  planner::Reliability r;
  const auto take = [&](const char* name, Seconds& out) -> Status {
    if (!arguments.has(name)) return Ok{};
    TRY(const double seconds, quantity_option(arguments, name, "s"));
    out = Seconds(seconds);
    return Ok{};
  };
  TRY_OK(take("device-mtbf", r.device_mtbf));
  TRY_OK(take("save-time", r.save));
  TRY_OK(take("restart-time", r.restart));
  return r;
}

Result<Beside> read_beside(const Arguments& arguments) {
  Beside beside;
  TRY(beside.reliability, read_reliability(arguments));
  if (arguments.has("tokens")) {
    TRY(beside.tokens, parse_count(arguments.text("tokens"), "--tokens"));
  }
  if (arguments.has("versus")) {
    TRY(beside.own, read_versus(arguments.text("versus"), asks_for_jobs(arguments)));
  }
  return beside;
}

Result<Json> answer_beside(const Beside& beside, const Asked& asked, const planner::Answer& best,
                           const Json& plan, Output& out) {
  if (!beside.any()) return plan;
  Json answers = versioned();
  answers.set("plan", plan);
  if (beside.own) {
    TRY(const planner::Comparison c,
        planner::versus(*asked.searcher, asked.setting, best, *beside.own));
    print_versus(c, out);
    answers.set("versus", versus_json(c));
  }
  if (beside.tokens > 0) {
    const planner::LongRun run = planner::run_of(
        planner::facts_of(*asked.searcher, asked.setting, best), beside.tokens, beside.reliability);
    print_long_run(run, out);
    answers.set("run", long_run_json(run));
  }
  return answers;
}

}  // namespace orrery::cli
