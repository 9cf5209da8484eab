// The page docs/accuracy.md.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "validation/report.h"

namespace orrery::validation {
namespace {

constexpr std::size_t kCausesShown = 16, kWorstShown = 12, kDefaultsShown = 40, kGroupsShown = 20;

std::string seconds_text(double s) {
  return fmt::format("{:.4g} s", s);
}

std::string signed_percent_text(double fraction) {
  return std::isfinite(fraction) ? fmt::format("{:+.1f} %", 100 * fraction) : "-";
}

std::string tau_text(double tau) {
  return std::isfinite(tau) ? fmt::format("{:.2f}", tau) : "-";
}

// Fields that the sources wrote must not end a cell.
std::string cell(std::string text) {
  std::replace(text.begin(), text.end(), '|', '/');
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string head(const Summary& s, const Fitting& fitting) {
  return fmt::format(
      "# Accuracy\n\n"
      "Written by `orrery validate ROWS.json... -o docs/accuracy.md` from published rows of "
      "training "
      "runs that nobody\nhere made. Errors are ln(predicted / measured) as percent: too fast by "
      "half "
      "and too slow by twice weigh the same.\n\n"
      "{} rows of {} sources: {} predicted, {} of them judged on a step time, {} refused with the "
      "field named.\nKinds of free parameters in the registry: {}; {}.\n\n",
      s.rows, s.sources.size(), s.predicted, s.judged, s.rows - s.predicted, s.free_parameters,
      fitting.parameters == 0 ? "fitted to rows: none, every one is its prior"
                              : fmt::format("fitted: {} values, of devices, links, families of "
                                            "stacks and stacks (configs/parameters)",
                                            fitting.parameters));
}

std::string headline(const Summary& s, const Fitting& fitting) {
  const auto held = [&](const std::vector<double>& values, std::size_t i) {
    return i < values.size() ? percent_text(values[i]) : std::string("not asked for");
  };
  std::string text =
      "| | without its source | without its device | in sample | aim |\n|---|---|---|---|---|\n";
  const std::vector<Aim> all = aims(s);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Aim& aim = all[i];
    const std::string verdict = !aim.known() ? "no rows" : aim.met() ? "met" : "**missed**";
    text += fmt::format("| {} | {} | {} | {} | {} {}: {} |\n", aim.what,
                        held(fitting.without_source, i), held(fitting.without_device, i),
                        percent_text(aim.value), aim.at_least ? "at least" : "at most",
                        percent_text(aim.limit), verdict);
  }
  return text +
         fmt::format(
             "\nOver all rows the median error is {}, the bias {}; the interval from p10 to p90 is "
             "{} wide in the median,\nthe mean pinball loss of 0.1, 0.5 and 0.9 is {:.4f}. Of {} "
             "rows that ran, {} were predicted not to fit.\n\n",
             percent_text(s.all.step.median_error), signed_percent_text(s.all.step.bias),
             percent_text(s.all.step.width), s.all.step.pinball_mean, s.ran, s.false_misfits);
}

std::string source_table(const Summary& s) {
  std::string text =
      "## By source\n\n| source | rows | refused | median error | bias | p90 | inside | width | "
      "memory rows | memory error | memory bias |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
  const auto line = [&](const SourceSummary& row) {
    text +=
        fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", cell(row.source),
                    row.rows, row.refused, percent_text(row.step.median_error),
                    signed_percent_text(row.step.bias), percent_text(row.step.p90_error),
                    percent_text(row.step.coverage), percent_text(row.step.width), row.memory_rows,
                    percent_text(row.memory_error), signed_percent_text(row.memory_bias));
  };
  for (const SourceSummary& row : s.sources) line(row);
  line(s.all);
  return text + "\n";
}

// In sample, and what a fit's file says of rows that it had not seen.
std::string interval_table(const std::vector<Outcome>& outcomes, const Fitting& fitting) {
  std::string text =
      "## Intervals\n\nBy distance from the nearest shape that the fit has seen, in doublings "
      "(simulator/stages/spread.h). Honest is 80 % inside.\n\n"
      "| doublings | fits | rows | inside | width |\n|---|---|---|---|---|\n";
  const auto line = [&](const std::string& doublings, const char* fits, double rows, double inside,
                        double width) {
    text += fmt::format("| {} | {} | {} | {} | {} |\n", doublings, fits, rows, percent_text(inside),
                        percent_text(width));
  };
  for (const Cause& c : by_distance(outcomes)) {
    line(c.name, "in sample", static_cast<double>(c.step.rows), c.step.coverage, c.step.width);
  }
  for (const auto& [fits, figures] : {std::pair{"without its source", &fitting.source_figures},
                                      {"without its device", &fitting.device_figures}}) {
    for (const auto& [words, rows] : *figures) {
      const std::string key = "rows, ";
      if (words.compare(0, key.size(), key) != 0) continue;
      const std::string name = words.substr(key.size());
      const auto of = [&](const std::string& what) {
        const auto found = figures->find(what + ", " + name);
        return found == figures->end() ? std::nan("") : found->second;
      };
      line(name, fits, rows, of("inside"), of("width"));
    }
  }
  return text + "\n";
}

std::string decision_table(const Summary& s) {
  std::string text = fmt::format(
      "## Decisions\n\n{} groups of rows of one model, cluster, batch, precision and release with "
      "at "
      "least {} layouts: mean regret {},\nworst {}, mean tau {} over pairs more than 2 % apart; "
      "the "
      "best layout is in our best quarter in {} of them.\n",
      s.groups.size(), kSmallestGroup, percent_text(s.mean_regret), percent_text(s.worst_regret),
      tau_text(s.mean_tau), percent_text(s.top_quarter));
  if (s.groups.empty()) return text + "\n";
  text +=
      "\n| source | job | layouts | best | regret | tau | in best quarter |\n"
      "|---|---|---|---|---|---|---|\n";
  std::vector<const GroupSummary*> order;
  for (const GroupSummary& g : s.groups) order.push_back(&g);
  std::stable_sort(order.begin(), order.end(), [](const GroupSummary* a, const GroupSummary* b) {
    return a->regret > b->regret;
  });
  for (std::size_t i = 0; i < std::min(kGroupsShown, order.size()); ++i) {
    const GroupSummary& g = *order[i];
    text += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", cell(g.source), cell(g.job),
                        g.layouts, seconds_text(g.best_s), percent_text(g.regret), tau_text(g.tau),
                        g.best_in_top_quarter ? "yes" : "no");
  }
  if (order.size() > kGroupsShown) {
    text += fmt::format("\nThe {} of most regret are shown.\n", kGroupsShown);
  }
  return text + "\n";
}

std::string cause_table(const std::vector<Outcome>& outcomes) {
  std::string text =
      "## Where the error is\n\nRows by a property; a row has several. Share: of the sum of all "
      "errors.\n\n| rows with | rows | share | median error | bias |\n|---|---|---|---|---|\n";
  const std::vector<Cause> all = causes(outcomes);
  for (std::size_t i = 0; i < std::min(kCausesShown, all.size()); ++i) {
    text += fmt::format("| {} | {} | {} | {} | {} |\n", cell(all[i].name), all[i].step.rows,
                        percent_text(all[i].share), percent_text(all[i].step.median_error),
                        signed_percent_text(all[i].step.bias));
  }
  std::vector<const Outcome*> worst;
  for (const Outcome& o : outcomes) {
    if (o.step) worst.push_back(&o);
  }
  std::stable_sort(worst.begin(), worst.end(), [](const Outcome* a, const Outcome* b) {
    const double x = std::abs(log_error(*a->step)), y = std::abs(log_error(*b->step));
    return x != y ? x > y : a->row.id < b->row.id;
  });
  text +=
      "\nThe rows that are furthest off:\n\n| row | stack | layout | predicted | measured | "
      "error |\n|---|---|---|---|---|---|\n";
  for (std::size_t i = 0; i < std::min(kWorstShown, worst.size()); ++i) {
    const Outcome& o = *worst[i];
    text += fmt::format("| {} | {} | {} | {} | {} | {} |\n", cell(o.row.id), o.stack, o.layout,
                        seconds_text(o.step->predicted), seconds_text(o.step->measured),
                        signed_percent_text(log_error(*o.step)));
  }
  return text + "\n";
}

std::string refused_table(const Summary& s) {
  std::string text =
      "## What is refused\n\nA row may lack several things.\n\n| rows | why |\n|---|---|\n";
  std::vector<std::pair<std::string, std::size_t>> rows(s.refused.begin(), s.refused.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [reason, n] : rows) text += fmt::format("| {} | {} |\n", n, cell(reason));
  return text + "\n";
}

std::string defaults_table(const std::vector<Outcome>& outcomes) {
  std::string text =
      "## What is completed\n\nWhat predicted rows do not say, and what was taken for it.\n\n"
      "| rows | default |\n|---|---|\n";
  const auto rows = defaults_used(outcomes);
  for (std::size_t i = 0; i < std::min(kDefaultsShown, rows.size()); ++i) {
    text += fmt::format("| {} | {} |\n", rows[i].second, cell(rows[i].first));
  }
  if (rows.size() > kDefaultsShown) {
    text += fmt::format("\nand {} more kinds.\n", rows.size() - kDefaultsShown);
  }
  return text;
}

}  // namespace

std::string accuracy_page(const Summary& summary, const std::vector<Outcome>& outcomes,
                          const Fitting& fitting) {
  return head(summary, fitting) + headline(summary, fitting) + source_table(summary) +
         interval_table(outcomes, fitting) + decision_table(summary) + cause_table(outcomes) +
         refused_table(summary) + defaults_table(outcomes);
}

}  // namespace orrery::validation
