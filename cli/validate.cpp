// orrery validate: published rows of training runs, predicted and judged.
#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "validation/held_out.h"
#include "validation/report.h"

namespace orrery::cli {
namespace {

constexpr std::size_t kRefusalsShown = 12, kCausesShown = 8;

using validation::Held;

Result<std::optional<Held>> parse_leave_out(const std::string& word) {
  if (word.empty()) return std::optional<Held>();
  if (word == "source") return std::optional<Held>(Held::kSource);
  if (word == "device") return std::optional<Held>(Held::kDevice);
  return Error::of(ErrorCode::kUsage, "--leave-out", "'" + word + "' cannot be left out",
                   "--leave-out source, or --leave-out device");
}

// All that is wrong in all files at once.
Result<std::vector<validation::PublishedRow>> read_all(const std::vector<std::string>& paths) {
  std::vector<validation::PublishedRow> rows;
  Error all;
  for (const std::string& path : paths) {
    const auto more = validation::load_rows(path);
    if (more.ok()) {
      rows.insert(rows.end(), more.value().begin(), more.value().end());
      continue;
    }
    if (all.problems.empty() || more.error().code == ErrorCode::kInvalid) {
      all.code = more.error().code;
    }
    for (const Problem& p : more.error().problems) all.problems.push_back(p);
  }
  if (!all.problems.empty()) return all;
  return rows;
}

std::string tau_text(double tau) {
  return std::isfinite(tau) ? fmt::format("{:.2f}", tau) : "-";
}

void print_sources(const validation::Summary& summary, Output& out) {
  out.heading("by source: errors are ln(predicted / measured)");
  TextTable table({{"source"},
                   {"rows", Align::kRight},
                   {"refused", Align::kRight},
                   {"error", Align::kRight},
                   {"bias", Align::kRight},
                   {"p90", Align::kRight},
                   {"inside", Align::kRight},
                   {"memory", Align::kRight}});
  const auto line = [&](const validation::SourceSummary& s) {
    table.row({s.source, fmt::format("{}", s.rows), fmt::format("{}", s.refused),
               percent(s.step.median_error), signed_percent(s.step.bias), percent(s.step.p90_error),
               percent(s.step.coverage), percent(s.memory_error)});
  };
  for (const auto& source : summary.sources) line(source);
  line(summary.all);
  out.line(table.text());
  out.line("  error, memory: medians; inside: measurements from p10 to p90");
}

void print_refused(const validation::Summary& summary, Output& out) {
  if (summary.refused.empty()) return;
  std::vector<std::pair<std::string, std::size_t>> rows(summary.refused.begin(),
                                                        summary.refused.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  const std::size_t shown = std::min(rows.size(), kRefusalsShown);
  out.heading(fmt::format("why rows are refused ({} of {})", shown, rows.size()));
  TextTable table({{"rows", Align::kRight}, {""}});
  for (std::size_t i = 0; i < shown; ++i) {
    table.row({fmt::format("{}", rows[i].second), rows[i].first});
  }
  out.line(table.text());
}

void print_causes(const std::vector<validation::Outcome>& outcomes, Output& out) {
  const auto causes = validation::causes(outcomes);
  if (causes.empty()) return;
  const std::size_t shown = std::min(causes.size(), kCausesShown);
  out.heading(fmt::format("where the error is ({} of {})", shown, causes.size()));
  TextTable table({{"rows with"},
                   {"rows", Align::kRight},
                   {"share", Align::kRight},
                   {"error", Align::kRight},
                   {"bias", Align::kRight}});
  for (std::size_t i = 0; i < shown; ++i) {
    const validation::Cause& c = causes[i];
    table.row({c.name, fmt::format("{}", c.step.rows), percent(c.share),
               percent(c.step.median_error), signed_percent(c.step.bias)});
  }
  out.line(table.text());
}

void print_distances(const std::vector<validation::Outcome>& outcomes, Output& out) {
  const auto classes = validation::by_distance(outcomes);
  if (classes.empty()) return;
  out.heading("interval by distance from the nearest measured shape");
  TextTable table({{"doublings"},
                   {"rows", Align::kRight},
                   {"inside", Align::kRight},
                   {"width", Align::kRight},
                   {"error", Align::kRight}});
  for (const validation::Cause& c : classes) {
    table.row({c.name, fmt::format("{}", c.step.rows), percent(c.step.coverage),
               percent(c.step.width), percent(c.step.median_error)});
  }
  out.line(table.text());
}

void print_summary(const validation::Summary& s, const std::string& parameters, Output& out) {
  out.heading(fmt::format("{} of {}: {} predicted, {} judged, {} refused", plural(s.rows, "row"),
                          plural(s.sources.size(), "source"), s.predicted, s.judged,
                          s.rows - s.predicted));
  TextTable facts({{""}, {""}});
  facts.row({"step", fmt::format("median error {}, bias {}, 90th percentile {}",
                                 percent(s.all.step.median_error), signed_percent(s.all.step.bias),
                                 percent(s.all.step.p90_error))});
  facts.row({"mean of sources", fmt::format("median error {}, bias {}", percent(s.mean_of_sources),
                                            signed_percent(s.mean_bias_of_sources))});
  facts.row({"interval",
             fmt::format("{} inside, {} wide, pinball loss {:.4f}", percent(s.all.step.coverage),
                         percent(s.all.step.width), s.all.step.pinball_mean)});
  facts.row({"memory", fmt::format("median error {} of {}; {} of {} that ran should not fit",
                                   percent(s.all.memory_error), plural(s.all.memory_rows, "row"),
                                   s.false_misfits, s.ran)});
  facts.row({"out of memory", s.out_of_memory == 0
                                  ? "no row says so"
                                  : fmt::format("{} of {} were predicted to fit", s.false_fits,
                                                plural(s.out_of_memory, "row"))});
  facts.row({"decisions",
             fmt::format("{}: mean regret {}, worst {}, tau {}, best in our best quarter {}",
                         plural(s.groups.size(), "group"), percent(s.mean_regret),
                         percent(s.worst_regret), tau_text(s.mean_tau), percent(s.top_quarter))});
  facts.row({"parameters", parameters});
  out.line(facts.text());
}

// Fits that have not seen a source, a family of devices, a fifth of the rows.
std::vector<validation::HeldFit> held_fits(const std::vector<validation::FitRow>& rows,
                                           Output& out) {
  Progress progress("fitting without each source, family of devices and fifth of the rows",
                    out.terminal_err());
  return validation::fit_held_out(rows, {}, [&](std::size_t done, std::size_t all) {
    progress.update(static_cast<std::int64_t>(done), static_cast<std::int64_t>(all));
  });
}

// Fits to all rows, the interval to residuals of rows that a fit has not seen, and says how well
// such fits do.
simulator::ParameterSet fit_all(const std::vector<validation::PublishedRow>& rows,
                                const std::vector<Stack>& stacks, Output& out) {
  const std::vector<validation::FitRow> fitted = validation::fit_rows(rows, stacks);
  const std::vector<validation::HeldFit> fits = held_fits(fitted, out);
  simulator::ParameterSet set;
  set.values = validation::fit(fitted, simulator::predict).values;
  set.spread = validation::spread_of(fits, fitted);
  const auto figures = [&](Held held) {
    return validation::figures(validation::validate_held_out(rows, stacks, held, fits));
  };
  set.without_source = figures(Held::kSource);
  set.without_device = figures(Held::kDevice);
  return set;
}

Result<simulator::ParameterSet> parameters_of(const Arguments& arguments) {
  const std::string name = arguments.text("parameters");
  if (name == "none") return simulator::ParameterSet{};
  return simulator::load_parameters(name.empty() ? "published" : name);
}

Result<int> run(const Arguments& arguments, Output& out) {
  const std::vector<std::string> paths = arguments.all("ROWS");
  TRY(const std::optional<Held> held, parse_leave_out(arguments.text("leave-out")));
  for (const char* file : {"out", "fit"}) {
    if (arguments.has(file)) TRY_OK(check_output(arguments.text(file), paths));
  }
  TRY(const std::vector<validation::PublishedRow> rows, read_all(paths));
  TRY(const std::vector<Stack> stacks, load_stacks());
  simulator::ParameterSet set;
  std::string words;
  std::vector<validation::Outcome> outcomes;
  if (arguments.has("fit")) {
    set = fit_all(rows, stacks, out);
    TRY_OK(write_whole(arguments.text("fit"), simulator::to_json(set).dump() + "\n"));
    out.note("wrote " + arguments.text("fit"));
  } else if (!held) {
    TRY(set, parameters_of(arguments));
  }
  if (held) {
    outcomes = validation::validate_held_out(rows, stacks, *held,
                                             held_fits(validation::fit_rows(rows, stacks), out));
    words = "of fits that have not seen the row's " + arguments.text("leave-out");
  } else {
    outcomes = validation::validate_rows(rows, stacks, validation::with(set));
    words = set.values.empty() ? "priors, nothing is fitted"
                               : fmt::format("{} fitted values", set.values.size());
  }
  const validation::Summary summary = validation::summarise(outcomes);
  const validation::Fitting fitting = validation::fitting_of(set, summary);
  print_summary(summary, words, out);
  print_sources(summary, out);
  print_distances(outcomes, out);
  print_causes(outcomes, out);
  print_refused(summary, out);
  out.document(versioned()
                   .set("summary", validation::summary_json(summary, fitting))
                   .set("intervals", validation::distances_json(outcomes))
                   .set("rows", validation::rows_json(outcomes)));
  if (arguments.has("out")) {
    TRY_OK(
        write_whole(arguments.text("out"), validation::accuracy_page(summary, outcomes, fitting)));
    out.note("wrote " + arguments.text("out"));
  }
  out.next({"orrery", "list", "parameters"}, "what is free to fit");
  return 0;
}

}  // namespace

const Command& validate_command() {
  static const Command command = {
      "validate",
      "predict published rows of training runs; error, bias, regret",
      "Predicts each row of files of published results and holds it against what was measured. A\n"
      "row that lacks a field is completed by a default, which --json lists, or refused.",
      "orrery validate rows.json\n"
      "orrery validate rows.json more.json --json -o accuracy.md",
      {{"ROWS", "files of published rows", true, true}},
      {{"--leave-out", "WHAT", "source or device: judge by fits that have not seen a row's", ""},
       {"--parameters", "NAME", "fitted values: a name, a file, or none", "published"},
       {"--fit", "FILE", "fit parameters and intervals to these rows first, and write them", ""},
       {"-o,--out", "FILE", "write the report as a page", ""}},
      run};
  return command;
}

}  // namespace orrery::cli
