// orrery compare: two runs side by side, op by op. Plans are simulated first.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <filesystem>
#include <optional>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/observations.h"
#include "cli/simulation.h"
#include "cli/table.h"
#include "core/quantity.h"
#include "tracer/compare.h"

namespace orrery::cli {
namespace {

// A trace as it is; a plan as the trace of its simulation.
Result<TraceReader> open_side(const std::string& path) {
  TRY(const bool trace, is_trace(path));
  if (trace) return TraceReader::open(path);
  TRY(Plan plan, load_plan(path));
  TRY(const Simulated simulated, simulate_plan(std::move(plan), {}, true));
  return open_simulated(simulated);
}

// "10%" or "10 %" or "0.1" -> 0.1
Result<double> parse_tolerance(const std::string& word) {
  std::string number = word;
  const bool percents = number.ends_with('%');
  if (percents) number.pop_back();
  number.erase(number.find_last_not_of(' ') + 1);
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (error == std::errc() && end == number.data() + number.size() && std::isfinite(value) &&
      value >= 0 && !number.empty()) {
    return percents ? value / 100 : value;
  }
  return Error::of(ErrorCode::kUsage, "--tolerance", "'" + word + "' is not a share",
                   "for example --tolerance 10%");
}

Json compared_json(const Compared& pair) {
  return Json::object()
      .set("predicted", number_or_null(pair.predicted))
      .set("measured", number_or_null(pair.measured))
      .set("error", number_or_null(pair.error()));
}

Json report_json(const CompareReport& report) {
  Json memory = Json::array();
  for (const auto& row : report.memory) {
    memory.push(compared_json(row.bytes).set("class", row.cls));
  }
  Json classes = Json::array();
  for (const auto& row : report.classes) {
    classes.push(compared_json(row.seconds)
                     .set("kind", row.kind)
                     .set("phase", row.phase)
                     .set("lane", row.lane));
  }
  Json ops = Json::array();
  for (const auto& row : report.ops) {
    ops.push(compared_json(row.seconds)
                 .set("path", row.path)
                 .set("phase", row.phase)
                 .set("micro_batch", static_cast<int>(row.micro_batch))
                 .set("chunk", static_cast<int>(row.chunk))
                 .set("kind", row.kind)
                 .set("lane", row.lane));
  }
  return versioned()
      .set("join", Json::object()
                       .set("same_program", report.same_program)
                       .set("ops", report.joined_ops)
                       .set("only_a", report.only_a)
                       .set("only_b", report.only_b))
      .set("step_s", compared_json(report.step_s))
      .set("peak_bytes", compared_json(report.peak_bytes))
      .set("memory", std::move(memory))
      .set("classes", std::move(classes))
      .set("ops", std::move(ops));
}

// What the two sides are called: a simulation predicts, a run measures.
struct Names {
  std::string a = "a", b = "b";
};

Names names_of(const TraceReader& a, const TraceReader& b) {
  if (a.run().kind == RunKind::kSim && b.run().kind != RunKind::kSim) {
    return {"predicted", "measured"};
  }
  return {};
}

std::string time_of(double seconds) {
  return format_seconds(Seconds(seconds));
}
std::string bytes_of(double bytes) {
  return format_bytes(Bytes(static_cast<std::int64_t>(bytes)));
}

// A difference that may be negative.
std::string signed_time(double seconds) {
  if (seconds == 0) return "0 s";
  return (seconds < 0 ? "-" : "+") + time_of(std::abs(seconds));
}

std::vector<TextTable::Column> with_figures(std::vector<TextTable::Column> columns,
                                            const Names& names) {
  for (const std::string& title : {names.a, names.b, std::string("error")}) {
    columns.push_back({title, Align::kRight});
  }
  return columns;
}

void print_totals(const CompareReport& report, const Names& names, Output& out) {
  TextTable table(with_figures({{""}}, names));
  table.row({"step", time_of(report.step_s.predicted), time_of(report.step_s.measured),
             signed_percent(report.step_s.error())});
  table.row({"peak memory", bytes_of(report.peak_bytes.predicted),
             bytes_of(report.peak_bytes.measured), signed_percent(report.peak_bytes.error())});
  out.line(table.text());
}

void print_classes(const CompareReport& report, const Names& names, Output& out) {
  out.heading("time by class of op, a rank and step");
  auto columns = with_figures({{"kind"}, {"phase"}, {"lane"}}, names);
  columns.push_back({"difference", Align::kRight});
  TextTable table(columns);
  for (const auto& row : report.classes) {
    table.row({row.kind, row.phase, row.lane, time_of(row.seconds.predicted),
               time_of(row.seconds.measured), signed_percent(row.seconds.error()),
               signed_time(row.difference_s())});
  }
  out.line(table.text());
}

void print_ops(const CompareReport& report, const Names& names, std::size_t top, Output& out) {
  if (report.ops.empty() || top == 0) return;
  const std::size_t shown = std::min(top, report.ops.size());
  out.heading(fmt::format("ops that differ most ({} of {})", shown, report.ops.size()));
  auto columns = with_figures({{"op"}, {"phase"}, {"mb", Align::kRight}}, names);
  columns.push_back({"difference", Align::kRight});
  TextTable table(columns);
  for (std::size_t i = 0; i < shown; ++i) {
    const auto& row = report.ops[i];
    table.row({row.path, row.phase, fmt::format("{}", row.micro_batch),
               time_of(row.seconds.predicted), time_of(row.seconds.measured),
               signed_percent(row.seconds.error()), signed_time(row.difference_s())});
  }
  out.line(table.text());
}

void print_memory_classes(const CompareReport& report, const Names& names, Output& out) {
  if (report.memory.empty()) return;
  out.heading("peak memory by class, the highest of any rank and step");
  TextTable table(with_figures({{"class"}}, names));
  for (const auto& row : report.memory) {
    table.row({row.cls, bytes_of(row.bytes.predicted), bytes_of(row.bytes.measured),
               signed_percent(row.bytes.error())});
  }
  out.line(table.text());
}

// The entries of the run's own profile, by what they explain badly.
struct Blame {
  std::vector<simulator::EntryReport> rows;  // empty where it cannot be said
  double rank_steps = 1;                     // that they sum over
};

Blame blame_of(const std::string& path) {
  Blame blame;
  const Result<MeasuredRun> run = read_run(path);
  if (!run.ok()) return blame;
  auto rows = simulator::blame(run.value().plan->cluster, run.value().observations);
  if (!rows.ok()) return blame;
  blame.rows = std::move(rows).value();
  blame.rank_steps = 0;
  for (const auto& o : run.value().observations) {
    blame.rank_steps += static_cast<double>(o.bindings.size());
  }
  return blame;
}

// Seconds of a rank and step.
Compared share_of(const simulator::EntryReport& row, const Blame& blame) {
  return {row.predicted_s / blame.rank_steps, row.measured_s / blame.rank_steps};
}

Json blame_json(const Blame& blame) {
  Json out = Json::array();
  for (const auto& row : blame.rows) {
    out.push(compared_json(share_of(row, blame))
                 .set("entry", simulator::name_of(row.entry))
                 .set("ops", row.ops));
  }
  return out;
}

void print_blame(const Blame& blame, std::size_t top, Output& out) {
  if (blame.rows.empty() || top == 0) return;
  const std::size_t shown = std::min(top, blame.rows.size());
  out.heading(fmt::format("profile entries to blame ({} of {}), a rank and step", shown,
                          blame.rows.size()));
  auto columns = with_figures({{"entry"}}, {"predicted", "measured"});
  columns.push_back({"difference", Align::kRight});
  TextTable table(columns);
  for (std::size_t i = 0; i < shown; ++i) {
    const Compared pair = share_of(blame.rows[i], blame);
    table.row({simulator::name_of(blame.rows[i].entry), time_of(pair.predicted),
               time_of(pair.measured), signed_percent(pair.error()),
               signed_time(pair.predicted - pair.measured)});
  }
  out.line(table.text());
}

// A slow link that was emulated, a fault on purpose: no plain run.
Status warn_of_attrs(TraceReader& side, Output& out) {
  TRY(const std::vector<Attr> attrs, side.attrs());
  for (const Attr& attr : attrs) {
    if (attr.subject != "run") continue;
    out.warn(fmt::format("{} ran with {} {}", side.path(), attr.name, attr.value));
  }
  return Ok{};
}

// True within the tolerance; says so otherwise. A figure that cannot be compared is not within.
bool within(const Compared& pair, double tolerance) {
  return std::isfinite(pair.error()) && std::abs(pair.error()) <= tolerance;
}

// The communication that nothing hides in the first side that is a trace.
void say_next(const Arguments& arguments, Output& out) {
  for (const char* side : {"B", "A"}) {
    const Result<bool> trace = is_trace(arguments.text(side));
    if (!trace.ok() || !trace.value()) continue;
    return out.next({"orrery", "analyze", arguments.text(side), "exposed"},
                    "communication that nothing hides");
  }
  out.next({"orrery", "explain", arguments.text("B")}, "why this plan won");
}

Result<int> run(const Arguments& arguments, Output& out) {
  std::optional<double> tolerance;
  if (arguments.has("tolerance")) {
    TRY(tolerance, parse_tolerance(arguments.text("tolerance")));
  }
  TRY(const std::int64_t top, arguments.integer("top", 0, 100000));
  TRY(TraceReader a, open_side(arguments.text("A")));
  TRY(TraceReader b, open_side(arguments.text("B")));
  TRY(const CompareReport report, compare_runs(a, b));
  for (TraceReader* side : {&a, &b}) TRY_OK(warn_of_attrs(*side, out));
  const Names names = names_of(a, b);
  const Blame blame = names.b == "measured" ? blame_of(arguments.text("B")) : Blame{};
  const bool good =
      !tolerance || (within(report.step_s, *tolerance) && within(report.peak_bytes, *tolerance));

  out.heading(fmt::format("{} against {}", arguments.text("A"), arguments.text("B")));
  print_totals(report, names, out);
  print_classes(report, names, out);
  print_ops(report, names, static_cast<std::size_t>(top), out);
  print_blame(blame, static_cast<std::size_t>(top), out);
  print_memory_classes(report, names, out);
  out.line(fmt::format("\n  {} ops compared{}; only in a: {}, only in b: {}", report.joined_ops,
                       report.same_program ? "" : " (by path: the programs differ)", report.only_a,
                       report.only_b));
  Json json = report_json(report);
  if (!blame.rows.empty()) json.set("blame", blame_json(blame));
  if (tolerance) json.set("tolerance", *tolerance).set("within", good);
  out.document(json);
  if (!good) {
    out.note(fmt::format("beyond the tolerance of {}: step {}, peak memory {}", percent(*tolerance),
                         signed_percent(report.step_s.error()),
                         signed_percent(report.peak_bytes.error())));
    return 1;
  }
  if (!blame.rows.empty()) {
    out.next({"orrery", "calibrate", arguments.text("B")}, "a profile that explains this run");
    return 0;
  }
  say_next(arguments, out);
  return 0;
}

}  // namespace

const Command& compare_command() {
  static const Command command = {
      "compare",
      "predicted against measured, plan against plan, run against run",
      "Compares two traces, op by op. A plan stands for its simulation. Errors are a / b - 1.\n"
      "Exit code 1 where the step or the peak memory is beyond --tolerance.",
      "orrery compare sim.db run.db\n"
      "orrery compare plan.json run.db --tolerance 10%",
      {{"A", "a trace or a plan: the prediction"}, {"B", "a trace or a plan: what was measured"}},
      {{"--tolerance", "SHARE", "for example 10%", ""}, {"--top", "N", "ops to print", "12"}},
      run};
  return command;
}

}  // namespace orrery::cli
