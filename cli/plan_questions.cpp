// Sizes, sequences and clusters; the sweep is in plan_sweep.cpp.
#include "cli/plan_questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/files.h"
#include "cli/plan_asked.h"
#include "cli/table.h"
#include "core/configs.h"
#include "core/quantity.h"
#include "planner/questions/job_searcher.h"
#include "planner/questions/size.h"

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

Json infinite_or(double value) {
  return number_or_null(value);
}

// Plans the setting, and writes it where -o asks for it.
Result<int> write_asked(const Arguments& arguments, const std::string& cluster,
                        const planner::Setting& setting, Output& out) {
  if (!arguments.has("out")) return 0;
  const std::string path = arguments.text("out");
  TRY_OK(check_output(path, files_read(arguments)));
  TRY(const Json json, file_json(arguments, cluster, setting));
  TRY_OK(write_whole(path, json.dump() + "\n"));
  out.note("wrote " + path);
  return 0;
}

struct SizeQuestion {
  Asked asked;
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
  TRY(q.asked, read_asked(arguments, q.name + "x1"));
  return q;
}

// Sizes that take longer than this many times the limit are not shown one by one.
constexpr double kFar = 1.5;

// In how far the sizes from `i` on have nothing to show: why, and how many; 0: it is shown.
std::pair<std::string, std::size_t> passed_over(const SizeQuestion& q, const planner::Sized& sized,
                                                std::size_t i) {
  const auto why = [&](const planner::SizeTried& t) -> std::string {
    if (!t.answer) return t.answer.reason;
    return t.run.wall.value() > kFar * q.limit_s ? "too slow by far" : "";
  };
  const std::string first = why(sized.tried[i]);
  std::size_t count = 0;
  while (!first.empty() && i + count < sized.tried.size() && why(sized.tried[i + count]) == first) {
    ++count;
  }
  // The last one is the nearest where none does it.
  const bool all = i + count == sized.tried.size() && sized.tried.back().answer;
  if (all && count > 0) --count;
  return {first, count};
}

void print_sizes(const SizeQuestion& q, const planner::Sized& sized, Output& out) {
  out.heading(fmt::format("devices of {} for {} tokens in {}{}", q.name,
                          format_count(static_cast<double>(q.tokens)),
                          wall_text(Seconds(q.limit_s)),
                          q.asked.simulates ? ", with " + q.asked.setting.stack.name : ""));
  TextTable table({{"devices", Align::kRight},
                   {"step", Align::kRight},
                   {"MFU", Align::kRight},
                   {"goodput", Align::kRight},
                   {"wall time", Align::kRight},
                   {"plan"}});
  const std::vector<planner::SizeTried>& tried = sized.tried;
  for (std::size_t i = 0; i < tried.size();) {
    const auto [why, count] = passed_over(q, sized, i);
    const planner::SizeTried& t = tried[i];
    if (count == 0) {
      table.row({fmt::format("{}", t.devices), format_seconds(t.answer.step), percent(t.answer.mfu),
                 percent(t.run.goodput), wall_text(t.run.wall), words_of(t.answer)});
      ++i;
      continue;
    }
    const planner::SizeTried& last = tried[i + count - 1];
    std::string devices = fmt::format("{}", t.devices), wall = "-";
    if (count > 1) devices += fmt::format(" to {}", last.devices);
    if (t.answer) {
      Seconds least = t.run.wall;
      for (std::size_t k = 1; k < count; ++k) least = std::min(least, tried[i + k].run.wall);
      wall = (count > 1 ? "from " : "") + wall_text(least);
    }
    table.row({devices, "-", "-", "-", wall, why});
    i += count;
  }
  if (!table.empty()) out.line(table.text());
  out.line(
      fmt::format("  fewer than {} would need more than the peak of every device", sized.least));
  if (!sized.met) return;
  const planner::SizeTried& last = tried.back();
  out.line(fmt::format("  {} devices are the fewest that do it{}", last.devices,
                       q.asked.simulates && last.devices > planner::kAllSizes
                           ? ", of sizes an eighth of a power of two apart"
                           : ""));
  print_long_run(last.run, out);
}

Json sizes_json(const SizeQuestion& q, const planner::Sized& sized) {
  Json rows = Json::array();
  for (const planner::SizeTried& t : sized.tried) {
    Json row = Json::object();
    row.set("devices", t.devices).set("feasible", t.answer.fits);
    if (t.answer) {
      row.set("plan", row_json(t.answer)).set("run", long_run_json(t.run));
    } else {
      row.set("reason", t.answer.reason);
    }
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
    if (t.answer && (fastest == nullptr || t.run.wall < fastest->run.wall)) fastest = &t;
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
  const planner::Sized sized = planner::size_for(*q.asked.searcher, q.asked.setting, cluster_of,
                                                 q.tokens, Seconds(q.limit_s), q.reliability);
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
  const std::string size = q.name + "x" + std::to_string(sized.tried.back().devices);
  TRY(q.asked.setting.cluster, load_cluster(size));
  TRY_OK(write_asked(arguments, size, q.asked.setting, out));
  out.next(call_of(arguments, size), "its plan");
  return 0;
}

Result<int> answer_longest(const Arguments& arguments, Output& out) {
  TRY(Asked asked, read_asked(arguments, arguments.text("cluster")));
  planner::Setting& setting = asked.setting;
  std::vector<planner::SequenceTried> tried = planner::longest_sequence(*asked.searcher, setting);
  std::stable_sort(tried.begin(), tried.end(),
                   [](const auto& a, const auto& b) { return a.tokens < b.tokens; });
  const planner::SequenceTried* longest = nullptr;
  std::int64_t first = 0;  // of those that do not fit for one reason
  out.heading(fmt::format("the longest rows of {} on {}, {} tokens a step{}", setting.model.name,
                          setting.cluster.name,
                          format_count(static_cast<double>(setting.workload.global_tokens())),
                          asked.simulates ? ", with " + setting.stack.name : ""));
  TextTable table({{"tokens", Align::kRight},
                   {"step", Align::kRight},
                   {"tokens/s", Align::kRight},
                   {"memory", Align::kRight},
                   {"plan"}});
  Json rows = Json::array();
  for (std::size_t i = 0; i < tried.size(); ++i) {
    const planner::SequenceTried& t = tried[i];
    Json row = Json::object().set("sequence_tokens", t.tokens).set("feasible", t.answer.fits);
    if (t.answer) {
      longest = &t;
      table.row({fmt::format("{}", t.tokens), format_seconds(t.answer.step),
                 format_count(t.answer.tokens_per_s), format_bytes(t.answer.peak),
                 words_of(t.answer)});
      row.set("plan", row_json(t.answer));
    } else {
      row.set("reason", t.answer.reason);
      if (i == 0 || tried[i - 1].answer.reason != t.answer.reason) first = t.tokens;
      // Those of one reason stand in one row.
      if (i + 1 == tried.size() || tried[i + 1].answer.reason != t.answer.reason) {
        table.row({first == t.tokens ? fmt::format("{}", first)
                                     : fmt::format("{} to {}", first, t.tokens),
                   "-", "-", "-", t.answer.reason});
      }
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
                  "rows of no length of " + setting.model.name + " fit on " + setting.cluster.name,
                  "`orrery plan` without --max-seq says what would fit"));
    return static_cast<int>(ErrorCode::kInfeasible);
  }
  out.line(fmt::format("  {} tokens are the longest that fit", longest->tokens));
  setting.workload = planner::with_sequence(setting.workload, longest->tokens);
  TRY_OK(write_asked(arguments, arguments.text("cluster"), setting, out));
  if (!arguments.has("out")) {
    std::vector<std::string> again = call_of(arguments, arguments.text("cluster"));
    again.insert(again.end(), {"--max-seq", "-o", "plan.json"});
    out.next(again, "keep the plan of the longest");
  }
  return 0;
}

namespace {

std::vector<TextTable::Column> cluster_columns(bool runs) {
  std::vector<TextTable::Column> columns = {{"cluster"},
                                            {"step", Align::kRight},
                                            {"tokens/s", Align::kRight},
                                            {"a device", Align::kRight},
                                            {"MFU", Align::kRight},
                                            {"memory", Align::kRight}};
  if (runs) columns.push_back({"wall time", Align::kRight});
  columns.push_back({"plan"});
  return columns;
}

struct ClusterRow {
  std::vector<std::string> cells;
  Json json;
  bool fits = false;
};

Result<ClusterRow> cluster_row(const Asked& asked, const Beside& beside) {
  const planner::Setting& setting = asked.setting;
  const Cluster& cluster = setting.cluster;
  ClusterRow row{{cluster.name}, Json::object().set("cluster", cluster.name), false};
  const Result<planner::Answer> found = asked.searcher->decided(setting);
  if (!found.ok() && found.error().code != ErrorCode::kInfeasible) return found.error();
  row.fits = found.ok() && found.value().fits;
  row.json.set("feasible", row.fits);
  if (!row.fits) {
    std::string why;
    if (found.ok()) {
      why = found.value().reason;
      const std::optional<planner::Nearest> nearest = asked.searcher->advice(setting);
      if (nearest) why += "; it fits with " + nearest->change;
    } else {
      why = planner::reason_of(*asked.searcher, setting, found.error());
    }
    row.cells.resize(cluster_columns(beside.tokens > 0).size() - 1, "-");
    row.cells.push_back(why);
    row.json.set("reason", why);
    return row;
  }
  const planner::Answer& best = found.value();
  for (const std::string& cell :
       {format_seconds(best.step), format_count(best.tokens_per_s),
        format_count(best.tokens_per_s / static_cast<double>(cluster.devices)), percent(best.mfu),
        format_bytes(best.peak)}) {
    row.cells.push_back(cell);
  }
  row.json.set("devices", cluster.devices).set("plan", row_json(best));
  if (beside.tokens > 0) {
    const planner::LongRun run = planner::run_of(planner::facts_of(*asked.searcher, setting, best),
                                                 beside.tokens, beside.reliability);
    row.cells.push_back(wall_text(run.wall));
    row.json.set("run", long_run_json(run));
  }
  row.cells.push_back(words_of(best));
  return row;
}

}  // namespace

Result<int> answer_clusters(const Arguments& arguments, Output& out) {
  TRY(const Beside beside, read_beside(arguments));
  std::vector<Asked> all;
  for (const std::string& cluster : arguments.all("cluster")) {
    TRY(Asked asked, read_asked(arguments, cluster));
    all.push_back(std::move(asked));
  }
  const planner::Setting& first = all.front().setting;
  out.heading(first.model.name + ", " + first.workload.name +
              (all.front().simulates ? ", with " + first.stack.name : "") + ", side by side");
  TextTable table(cluster_columns(beside.tokens > 0));
  Json rows = Json::array();
  bool any = false;
  for (const Asked& asked : all) {
    TRY(ClusterRow row, cluster_row(asked, beside));
    any = any || row.fits;
    table.row(std::move(row.cells));
    rows.push(std::move(row.json));
  }
  out.line(table.text());
  out.document(versioned().set("clusters", std::move(rows)));
  if (any) return 0;
  out.error(Error::of(ErrorCode::kInfeasible, "orrery plan", "the job fits on none of the clusters",
                      "ask for each of them alone: it says what would fit"));
  return static_cast<int>(ErrorCode::kInfeasible);
}

}  // namespace orrery::cli
