// See export_html.h.
#include "cli/export_html.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "cli/files.h"
#include "cli/inputs.h"
#include "cli/job_explain.h"
#include "cli/plan_page.h"
#include "cli/simulation.h"
#include "ui-export/html/report.h"

namespace orrery::cli {
namespace {

// What the page shows, with the traces that it is read from.
struct Subject {
  std::optional<TraceReader> predicted, measured;
  std::optional<Prediction> prediction;
  std::string predicted_by;
  std::vector<std::string> remarks;
  Json answer;  // of a plan
};

Status simulate_into(Plan plan, std::vector<Binding> bindings, Subject& subject) {
  TRY(const Simulated simulated, simulate_plan(std::move(plan), std::move(bindings), true));
  TRY(subject.predicted, open_simulated(simulated));
  subject.prediction = simulated.result.prediction;
  return Ok{};
}

// The run's own plan, with the loads of its median step where they can be had.
Status predict_run(const std::string& path, Subject& subject) {
  const std::string& text = subject.measured->run().plan_json;
  if (text.empty()) {
    subject.remarks.emplace_back("This run holds no plan, so there is no prediction beside it.");
    return Ok{};
  }
  Result<Plan> plan = parse_plan(text, path + ":run.plan_json");
  if (!plan.ok()) {
    subject.remarks.push_back(
        "The plan in this run cannot be read, so there is no prediction "
        "beside it: " +
        plan.error().problems.front().message);
    return Ok{};
  }
  const Program program = lower_verified(plan.value());
  TRY(const std::int32_t step, report_step(*subject.measured));
  Result<std::vector<Binding>> loads = read_bindings(path, program, step);
  std::string drawn;
  if (!loads.ok()) drawn = loads.error().problems.front().message;
  Status bound = simulate_into(
      plan.value(), loads.ok() ? std::move(loads).value() : std::vector<Binding>{}, subject);
  if (!bound.ok() && drawn.empty()) {
    drawn = bound.error().problems.front().message;
    bound = simulate_into(plan.value(), {}, subject);
  }
  TRY_OK(bound);
  subject.predicted_by =
      drawn.empty() ? fmt::format(
                          "simulated from the run's plan, with the expert loads and "
                          "document lengths that step {} recorded",
                          step)
                    : "simulated from the run's plan, with drawn expert loads: the run " + drawn;
  return Ok{};
}

// --against: a trace, or a plan to simulate.
Status predict_by(const std::string& against, Subject& subject) {
  TRY(const bool trace, is_trace(against));
  subject.predicted_by = "as given: " + against;
  if (trace) {
    TRY(subject.predicted, TraceReader::open(against));
    if (subject.predicted->run().kind == RunKind::kSim) return Ok{};
    return Error::of(ErrorCode::kInvalid, against, "was measured, and --against wants a prediction",
                     "`" + shell_line({"orrery", "compare", against, "RUN"}) +
                         "` holds two runs against each other");
  }
  TRY(Plan plan, load_plan(against));
  return simulate_into(std::move(plan), {}, subject);
}

Result<Subject> open_subject(const Arguments& arguments) {
  const std::string path = arguments.text("TRACE"), against = arguments.text("against");
  Subject subject;
  TRY(const bool trace, is_trace(path));
  if (trace) {
    TRY(TraceReader reader, TraceReader::open(path));
    auto& side = reader.run().kind == RunKind::kSim ? subject.predicted : subject.measured;
    side = std::move(reader);
  }
  if (!subject.measured && !against.empty()) {
    return Error::of(ErrorCode::kUsage, "--against", path + " is itself a prediction",
                     "give the run first: orrery export run.db --against " + path);
  }
  if (!against.empty()) {
    TRY_OK(predict_by(against, subject));
  } else if (subject.measured) {
    TRY_OK(predict_run(path, subject));
  } else if (!trace) {
    TRY(Plan plan, load_plan(path));
    subject.answer = plan_answer(plan);
    TRY_OK(simulate_into(std::move(plan), {}, subject));
    subject.predicted_by = "simulated from the plan, with drawn expert loads";
  }
  return subject;
}

// A job over all axes has no trace: its page is of what its planner answered.
Status export_job(const Arguments& arguments) {
  if (arguments.has("against")) {
    return Error::of(ErrorCode::kUsage, "--against", arguments.text("TRACE") + " is a job",
                     "give the run first: orrery export run.db --against SIM");
  }
  TRY(const JobPageInput input, read_job_page(arguments.text("TRACE")));
  return write_whole(arguments.text("out"), job_page(input));
}

}  // namespace

Status export_html(const Arguments& arguments, Output& out) {
  if (is_job(arguments.text("TRACE"))) return export_job(arguments);
  TRY(Subject subject, open_subject(arguments));
  HtmlInput input;
  if (subject.predicted) input.predicted = &*subject.predicted;
  if (subject.measured) input.measured = &*subject.measured;
  input.prediction = subject.prediction;
  input.predicted_by = subject.predicted_by;
  input.remarks = subject.remarks;
  input.answer = subject.answer;
  TRY(const std::string page, html_report(input));
  for (const std::string& remark : subject.remarks) out.warn(remark);
  return write_whole(arguments.text("out"), page);
}

}  // namespace orrery::cli
