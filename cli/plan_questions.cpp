// Sizes, sequences and clusters; the sweep is in plan_sweep.cpp.
#include "cli/plan_questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/files.h"
#include "cli/plan_report.h"
#include "cli/table.h"
#include "core/configs.h"
#include "core/quantity.h"
#include "planner/size.h"

namespace orrery::cli {
namespace {

// "h100" of "h100x64".
Result<std::string> template_of(const std::string& word) {
  if (looks_like_path(word)) {
    return Error::of(ErrorCode::kUsage, "--cluster", word + " is a file: its size is fixed",
                     "name a template, as in --cluster h100x8 (orrery list clusters)");
  }
  const std::size_t x = word.rfind('x');
  const bool sized = x != std::string::npos && x > 0 && x + 1 < word.size() &&
                     word.find_first_not_of("0123456789", x + 1) == std::string::npos;
  return sized ? word.substr(0, x) : word;
}

std::string plan_text(const Plan& plan) {
  return layout_text(plan.model, plan.layout, plan.chunks, plan.policy);
}

Json plan_row(const Plan& plan) {
  return Json::object()
      .set("layout", to_json(plan.layout))
      .set("chunks", to_json(plan.chunks))
      .set("memory_policy", to_json(plan.policy))
      .set("predicted", to_json(plan.predicted));
}

Json infinite_or(double value) {
  return number_or_null(value);
}

// Decides the plan, and writes it where -o asks for it.
Result<int> write_asked(const Arguments& arguments, const planner::Request& request, Output& out) {
  if (!arguments.has("out")) return 0;
  const std::string path = arguments.text("out");
  TRY_OK(check_output(path, files_read(arguments)));
  TRY(const planner::DecisionRule rule, read_rule(arguments));
  TRY(const planner::Outcome found, planner::decide(request, rule));
  if (!found.best) {
    return Error::of(ErrorCode::kInfeasible, "--fit-probability", "no plan fits surely enough",
                     "ask for a lower one");
  }
  TRY_OK(write_whole(path, to_json(*found.best).dump() + "\n"));
  out.note("wrote " + path);
  return 0;
}

struct SizeQuestion {
  planner::Request request;
  std::string name;  // of the cluster's template
  std::int64_t tokens = 0;
  double limit_s = 0;
  planner::Reliability reliability;
};

Result<SizeQuestion> read_size(const Arguments& arguments) {
  SizeQuestion q;
  TRY(q.limit_s, quantity_option(arguments, "size-for", "s"));
  if (!arguments.has("tokens")) {
    return Error::of(ErrorCode::kUsage, "--size-for", "needs the tokens of the run",
                     "for example --tokens 15T");
  }
  TRY(q.tokens, parse_count(arguments.text("tokens"), "--tokens"));
  TRY(q.reliability, read_reliability(arguments));
  TRY(q.name, template_of(arguments.text("cluster")));
  TRY(q.request, read_request(arguments, q.name + "x1"));
  return q;
}

void print_sizes(const SizeQuestion& q, const planner::Sized& sized, Output& out) {
  out.heading(fmt::format("devices of {} for {} tokens in {}", q.name,
                          format_count(static_cast<double>(q.tokens)),
                          wall_text(Seconds(q.limit_s))));
  TextTable table({{"devices", Align::kRight},
                   {"step", Align::kRight},
                   {"MFU", Align::kRight},
                   {"goodput", Align::kRight},
                   {"wall time", Align::kRight},
                   {"plan"}});
  for (const planner::SizeTried& t : sized.tried) {
    if (!t.plan) {
      table.row({fmt::format("{}", t.devices), "-", "-", "-", "-", "does not fit"});
      continue;
    }
    table.row({fmt::format("{}", t.devices), format_seconds(t.plan->predicted.step),
               percent(t.plan->predicted.mfu), percent(t.run.goodput), wall_text(t.run.wall),
               plan_text(*t.plan)});
  }
  if (!table.empty()) out.line(table.text());
  out.line(
      fmt::format("  fewer than {} would need more than the peak of every device", sized.least));
  if (!sized.met) return;
  const planner::SizeTried& last = sized.tried.back();
  out.line(fmt::format("  {} devices are the fewest that do it", last.devices));
  print_long_run(last.run, out);
}

Json sizes_json(const SizeQuestion& q, const planner::Sized& sized) {
  Json rows = Json::array();
  for (const planner::SizeTried& t : sized.tried) {
    Json row = Json::object();
    row.set("devices", t.devices).set("feasible", t.plan.has_value());
    if (t.plan) row.set("plan", plan_row(*t.plan)).set("run", long_run_json(t.run));
    rows.push(std::move(row));
  }
  Json json = versioned();
  json.set("cluster", q.name)
      .set("tokens", q.tokens)
      .set("limit_s", q.limit_s)
      .set("least_devices", sized.least)
      .set("devices", sized.met ? Json(sized.tried.back().devices) : Json())
      .set("tried", std::move(rows));
  return json;
}

// Why no size does it.
std::string size_hint(const planner::Sized& sized) {
  const planner::SizeTried* fastest = nullptr;
  for (const planner::SizeTried& t : sized.tried) {
    if (t.plan && (fastest == nullptr || t.run.wall < fastest->run.wall)) fastest = &t;
  }
  if (fastest != nullptr) {
    return fmt::format("the nearest: {} on {} devices; more time, or a larger batch",
                       wall_text(fastest->run.wall), fastest->devices);
  }
  if (sized.least > planner::kMostDevices) {
    return fmt::format("at the peak it takes more than {} devices: more time, or fewer tokens",
                       planner::kMostDevices);
  }
  return "the batch divides over no size that fits: change global_sequences or the pins";
}

}  // namespace

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

std::string wall_text(Seconds seconds) {
  const double s = seconds.value();
  if (!std::isfinite(s)) return "never";
  if (s >= 2 * 86400) return fmt::format("{:.1f} days", s / 86400);
  if (s >= 2 * 3600) return fmt::format("{:.1f} h", s / 3600);
  return format_seconds(seconds);
}

void print_long_run(const planner::LongRun& run, Output& out) {
  out.heading(fmt::format("a run of {} tokens", format_count(static_cast<double>(run.tokens))));
  TextTable facts({{""}, {""}});
  facts.row({"wall time", fmt::format("{}  ({} to {})", wall_text(run.wall),
                                      wall_text(run.wall_p10), wall_text(run.wall_p90))});
  facts.row({"steps",
             fmt::format("{}, {} without a failure or a save", run.steps, wall_text(run.solve))});
  facts.row({"goodput", percent(run.goodput)});
  facts.row({"failures", fmt::format("one every {}, {:.1f} expected", wall_text(run.mtbf),
                                     std::min(run.failures, 1e12))});
  facts.row({"checkpoints", fmt::format("every {}, each stops training for {}",
                                        wall_text(run.interval), format_seconds(run.save))});
  out.line(facts.text());
}

Json long_run_json(const planner::LongRun& run) {
  return Json::object()
      .set("tokens", run.tokens)
      .set("steps", run.steps)
      .set("solve_s", run.solve.value())
      .set("wall_s", infinite_or(run.wall.value()))
      .set("wall_p10_s", infinite_or(run.wall_p10.value()))
      .set("wall_p90_s", infinite_or(run.wall_p90.value()))
      .set("goodput", run.goodput)
      .set("failures", infinite_or(run.failures))
      .set("mtbf_s", run.mtbf.value())
      .set("checkpoint_interval_s", run.interval.value())
      .set("save_s", run.save.value());
}

Result<int> answer_size(const Arguments& arguments, Output& out) {
  TRY(SizeQuestion q, read_size(arguments));
  const auto cluster_of = [&](std::int64_t n) {
    return load_cluster(q.name + "x" + std::to_string(n));
  };
  const planner::Sized sized =
      planner::size_for(q.request, cluster_of, q.tokens, Seconds(q.limit_s), q.reliability);
  print_sizes(q, sized, out);
  out.document(sizes_json(q, sized));
  if (!sized.met) {
    out.error(Error::of(
        ErrorCode::kInfeasible, "orrery plan",
        fmt::format("no number of {} trains {} tokens in {}", q.name,
                    format_count(static_cast<double>(q.tokens)), wall_text(Seconds(q.limit_s))),
        size_hint(sized)));
    return static_cast<int>(ErrorCode::kInfeasible);
  }
  q.request.cluster = sized.tried.back().plan->cluster;
  TRY_OK(write_asked(arguments, q.request, out));
  const std::string size = q.name + "x" + std::to_string(sized.tried.back().devices);
  out.next({"orrery", "plan", "--model", arguments.text("model"), "--cluster", size}, "its plan");
  return 0;
}

Result<int> answer_longest(const Arguments& arguments, Output& out) {
  TRY(planner::Request request, read_request(arguments, arguments.text("cluster")));
  std::vector<planner::SequenceTried> tried = planner::longest_sequence(request);
  std::stable_sort(tried.begin(), tried.end(),
                   [](const auto& a, const auto& b) { return a.tokens < b.tokens; });
  const planner::SequenceTried* longest = nullptr;
  out.heading(fmt::format("the longest rows of {} on {}, {} tokens a step", request.model.name,
                          request.cluster.name,
                          format_count(static_cast<double>(request.workload.global_tokens()))));
  TextTable table({{"tokens", Align::kRight},
                   {"step", Align::kRight},
                   {"tokens/s", Align::kRight},
                   {"memory", Align::kRight},
                   {"plan"}});
  Json rows = Json::array();
  for (const planner::SequenceTried& t : tried) {
    const std::string tokens = fmt::format("{}", t.tokens);
    Json row = Json::object().set("sequence_tokens", t.tokens).set("feasible", t.plan.has_value());
    if (t.plan) {
      longest = &t;
      const Prediction& p = t.plan->predicted;
      table.row({tokens, format_seconds(p.step), format_count(p.tokens_per_s), format_bytes(p.peak),
                 plan_text(*t.plan)});
      row.set("plan", plan_row(*t.plan));
    } else {
      table.row({tokens, "-", "-", "-", "does not fit"});
    }
    rows.push(std::move(row));
  }
  out.line(table.text());
  out.document(versioned()
                   .set("longest_tokens", longest != nullptr ? Json(longest->tokens) : Json())
                   .set("tried", std::move(rows)));
  if (longest == nullptr) {
    out.error(
        Error::of(ErrorCode::kInfeasible, "orrery plan",
                  "rows of no length of " + request.model.name + " fit on " + request.cluster.name,
                  "`orrery plan` without --max-seq says what would fit"));
    return static_cast<int>(ErrorCode::kInfeasible);
  }
  out.line(fmt::format("  {} tokens are the longest that fit", longest->tokens));
  request.workload = longest->plan->workload;
  TRY_OK(write_asked(arguments, request, out));
  if (!arguments.has("out")) {
    out.next({"orrery", "plan", "--model", arguments.text("model"), "--cluster",
              arguments.text("cluster"), "--max-seq", "-o", "plan.json"},
             "keep the plan of the longest");
  }
  return 0;
}

Result<int> answer_clusters(const Arguments& arguments, Output& out) {
  TRY(const planner::DecisionRule rule, read_rule(arguments));
  TRY(const planner::Reliability reliability, read_reliability(arguments));
  std::int64_t tokens = 0;
  if (arguments.has("tokens")) {
    TRY(tokens, parse_count(arguments.text("tokens"), "--tokens"));
  }
  std::vector<planner::Request> requests;
  for (const std::string& cluster : arguments.all("cluster")) {
    TRY(planner::Request request, read_request(arguments, cluster));
    if (!arguments.has("runners-up")) request.runners_up = 0;
    requests.push_back(std::move(request));
  }
  out.heading(requests.front().model.name + ", " + requests.front().workload.name +
              ", side by side");
  std::vector<TextTable::Column> columns = {{"cluster"},
                                            {"step", Align::kRight},
                                            {"tokens/s", Align::kRight},
                                            {"a device", Align::kRight},
                                            {"MFU", Align::kRight},
                                            {"memory", Align::kRight}};
  if (tokens > 0) columns.push_back({"wall time", Align::kRight});
  columns.push_back({"plan"});
  TextTable table(columns);
  Json rows = Json::array();
  bool any = false;
  for (const planner::Request& request : requests) {
    const Result<planner::Outcome> found = planner::decide(request, rule);
    if (!found.ok() && found.error().code != ErrorCode::kInfeasible) return found.error();
    const bool fits = found.ok() && found.value().best;
    std::vector<std::string> cells = {request.cluster.name};
    Json row = Json::object().set("cluster", request.cluster.name).set("feasible", fits);
    if (!fits) {
      cells.resize(columns.size() - 1, "-");
      const std::string why = found.ok() ? "does not fit: " + found.value().shortage->advice
                                         : found.error().problems.front().where + ": " +
                                               found.error().problems.front().message;
      cells.push_back(why);
      row.set("reason", why);
    } else {
      any = true;
      const Plan& plan = *found.value().best;
      const Prediction& p = plan.predicted;
      for (const std::string& cell :
           {format_seconds(p.step), format_count(p.tokens_per_s),
            format_count(p.tokens_per_s / static_cast<double>(plan.cluster.devices)),
            percent(p.mfu), format_bytes(p.peak)}) {
        cells.push_back(cell);
      }
      row.set("devices", plan.cluster.devices).set("plan", plan_row(plan));
      if (tokens > 0) {
        const planner::LongRun run = planner::run_of(plan, tokens, reliability);
        cells.push_back(wall_text(run.wall));
        row.set("run", long_run_json(run));
      }
      cells.push_back(plan_text(plan));
    }
    table.row(std::move(cells));
    rows.push(std::move(row));
  }
  out.line(table.text());
  out.document(versioned().set("clusters", std::move(rows)));
  if (any) return 0;
  out.error(Error::of(ErrorCode::kInfeasible, "orrery plan", "the job fits on none of the clusters",
                      "ask for each of them alone: it says what would fit"));
  return static_cast<int>(ErrorCode::kInfeasible);
}

}  // namespace orrery::cli
