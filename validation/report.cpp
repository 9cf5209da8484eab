// Figures as JSON, aims and causes; the page is in report_page.cpp.
#include "validation/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace orrery::validation {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

Json count(std::size_t n) {
  return Json(static_cast<std::int64_t>(n));
}

template <class T>
Json optional_number(const std::optional<T>& value) {
  return value ? number(*value) : Json();
}

Json accuracy_json(const Accuracy& a) {
  return Json::object()
      .set("rows", count(a.rows))
      .set("median_error", number(a.median_error))
      .set("bias", number(a.bias))
      .set("p90_error", number(a.p90_error))
      .set("coverage", number(a.coverage))
      .set("width", number(a.width))
      .set("pinball", Json::object()
                          .set("p10", number(a.pinball[0]))
                          .set("p50", number(a.pinball[1]))
                          .set("p90", number(a.pinball[2]))
                          .set("mean", number(a.pinball_mean)));
}

Json source_json(const SourceSummary& s) {
  return Json::object()
      .set("source", s.source)
      .set("rows", count(s.rows))
      .set("refused", count(s.refused))
      .set("step", accuracy_json(s.step))
      .set("memory", Json::object()
                         .set("rows", count(s.memory_rows))
                         .set("median_error", number(s.memory_error))
                         .set("bias", number(s.memory_bias)));
}

Json groups_json(const Summary& summary) {
  Json rows = Json::array();
  for (const GroupSummary& g : summary.groups) {
    rows.push(Json::object()
                  .set("source", g.source)
                  .set("job", g.job)
                  .set("key", g.key)
                  .set("layouts", count(g.layouts))
                  .set("best_s", g.best_s)
                  .set("regret", number(g.regret))
                  .set("tau", number(g.tau))
                  .set("best_in_top_quarter", g.best_in_top_quarter));
  }
  return Json::object()
      .set("count", count(summary.groups.size()))
      .set("mean_regret", number(summary.mean_regret))
      .set("worst_regret", number(summary.worst_regret))
      .set("mean_tau", number(summary.mean_tau))
      .set("best_in_top_quarter", number(summary.top_quarter))
      .set("groups", std::move(rows));
}

// What a row is, in words of which each may be a cause.
std::vector<std::string> properties(const Outcome& o) {
  const PublishedRow& row = o.row;
  const auto above_one = [](const Count& n) { return n.value_or(1) > 1; };
  std::vector<std::string> out = {"stack " + o.stack, "device " + row.cluster.gpu,
                                  row.model.experts.value_or(0) > 0 ? "experts" : "no experts"};
  if (above_one(row.plan.tp)) out.emplace_back("tensor axis");
  if (above_one(row.plan.pp)) out.emplace_back("pipeline axis");
  if (above_one(row.plan.cp)) out.emplace_back("context axis");
  if (row.plan.zero_stage.value_or(0) >= 2) out.emplace_back("parameters sharded");
  if (row.cluster.gpus.value_or(1) > row.cluster.gpus_per_node.value_or(1)) {
    out.emplace_back("several nodes");
  }
  if (row.plan.precision != "bf16" && row.plan.precision != "fp16") {
    out.push_back("precision " + row.plan.precision);
  }
  if (row.plan.recompute.empty()) out.emplace_back("recompute not stated");
  return out;
}

// By aim.
Json held_json(const std::vector<Aim>& aims, const std::vector<double>& values) {
  if (values.size() != aims.size()) return Json();
  Json out = Json::object();
  for (std::size_t i = 0; i < aims.size(); ++i) out.set(aims[i].what, number(values[i]));
  return out;
}

}  // namespace

std::string percent_text(double fraction) {
  return std::isfinite(fraction) ? fmt::format("{:.1f} %", 100 * fraction) : "-";
}

bool Aim::known() const {
  return std::isfinite(value);
}

// The limits are of this house: a median error twice the noise between releases of one layout, an
// interval that holds what it promises, and layouts chosen with little regret.
std::vector<Aim> aims(const Summary& s) {
  const double false_fits = s.out_of_memory == 0 ? std::nan("")
                                                 : static_cast<double>(s.false_fits) /
                                                       static_cast<double>(s.out_of_memory);
  return {
      {"median error of the step, mean over sources", s.mean_of_sources, 0.09},
      {"bias of the step, mean over sources, either way", std::abs(s.mean_bias_of_sources), 0.03},
      {"90th percentile of the error", s.all.step.p90_error, 0.20},
      {"measurements inside the interval", s.all.step.coverage, 0.70, true},
      {"width of the interval, median", s.all.step.width, 0.35},
      {"median error of the memory", s.all.memory_error, 0.08},
      {"\"fits\" where the source ran out of memory", false_fits, 0},
      {"mean regret of the layout predicted best", s.mean_regret, 0.03},
      {"worst regret", s.worst_regret, 0.12},
      {"mean tau of layouts", s.mean_tau, 0.70, true},
      {"best layout among our best quarter", s.top_quarter, 0.80, true}};
}

std::vector<Cause> causes(const std::vector<Outcome>& outcomes) {
  std::map<std::string, std::vector<Pair>> pairs;
  std::vector<double> all;
  for (const Outcome& o : outcomes) {
    if (!o.step) continue;
    all.push_back(std::abs(log_error(*o.step)));
    for (const std::string& name : properties(o)) pairs[name].push_back(*o.step);
  }
  const double total = mean(all) * static_cast<double>(all.size());
  std::vector<Cause> out;
  for (const auto& [name, rows] : pairs) {
    std::vector<double> own;
    for (const Pair& p : rows) own.push_back(std::abs(log_error(p)));
    const double sum = mean(own) * static_cast<double>(own.size());
    out.push_back({name, accuracy(rows), total > 0 ? sum / total : 0});
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Cause& a, const Cause& b) { return a.share > b.share; });
  return out;
}

std::vector<std::pair<std::string, std::size_t>> defaults_used(
    const std::vector<Outcome>& outcomes) {
  std::map<std::string, std::size_t> counts;
  for (const Outcome& o : outcomes) {
    if (!o.prediction) continue;
    for (const std::string& text : o.completed) ++counts[text];
  }
  std::vector<std::pair<std::string, std::size_t>> out(counts.begin(), counts.end());
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return out;
}

std::vector<Cause> by_distance(const std::vector<Outcome>& outcomes) {
  struct Class {
    const char* name;
    double below;
  };
  constexpr Class kClasses[] = {
      {"0 to 1", 1.0 + 1e-9}, {"1 to 2", 2}, {"2 to 3", 3}, {"3 and more", HUGE_VAL}};
  std::vector<Cause> out;
  double from = -1;
  for (const Class& c : kClasses) {
    std::vector<Pair> pairs;
    for (const Outcome& o : outcomes) {
      if (!o.step || o.prediction->distance < from || o.prediction->distance >= c.below) continue;
      pairs.push_back(*o.step);
    }
    from = c.below;
    if (!pairs.empty()) out.push_back({c.name, accuracy(pairs), 0});
  }
  return out;
}

std::map<std::string, double> figures(const std::vector<Outcome>& outcomes) {
  std::map<std::string, double> out;
  for (const Aim& aim : aims(summarise(outcomes))) {
    if (aim.known()) out[aim.what] = aim.value;
  }
  for (const Cause& c : by_distance(outcomes)) {
    out["rows, " + c.name] = static_cast<double>(c.step.rows);
    out["inside, " + c.name] = c.step.coverage;
    out["width, " + c.name] = c.step.width;
  }
  return out;
}

Fitting fitting_of(const simulator::ParameterSet& set, const Summary& summary) {
  Fitting out;
  out.parameters = set.values.size();
  const auto in_order = [&](const std::map<std::string, double>& figures) {
    std::vector<double> values;
    if (figures.empty()) return values;
    for (const Aim& aim : aims(summary)) {
      const auto found = figures.find(aim.what);
      values.push_back(found == figures.end() ? std::nan("") : found->second);
    }
    return values;
  };
  out.without_source = in_order(set.without_source);
  out.without_device = in_order(set.without_device);
  out.source_figures = set.without_source;
  out.device_figures = set.without_device;
  return out;
}

Json summary_json(const Summary& s, const Fitting& fitting) {
  Json refused = Json::array();
  for (const auto& [reason, rows] : s.refused) {
    refused.push(Json::object().set("reason", reason).set("rows", count(rows)));
  }
  Json sources = Json::array();
  for (const SourceSummary& source : s.sources) sources.push(source_json(source));
  Json aim_rows = Json::array();
  for (const Aim& aim : aims(s)) {
    aim_rows.push(Json::object()
                      .set("aim", aim.what)
                      .set("value", number(aim.value))
                      .set("limit", aim.limit)
                      .set("at_least", aim.at_least)
                      .set("met", aim.known() ? Json(aim.met()) : Json()));
  }
  return Json::object()
      .set("rows", count(s.rows))
      .set("predicted", count(s.predicted))
      .set("judged", count(s.judged))
      .set("refused_rows", count(s.rows - s.predicted))
      .set("refused", std::move(refused))
      .set("step", accuracy_json(s.all.step))
      .set("mean_over_sources", Json::object()
                                    .set("median_error", number(s.mean_of_sources))
                                    .set("bias", number(s.mean_bias_of_sources)))
      .set("leave_one_source_out", held_json(aims(s), fitting.without_source))
      .set("leave_one_device_out", held_json(aims(s), fitting.without_device))
      .set("memory", Json::object()
                         .set("rows", count(s.all.memory_rows))
                         .set("median_error", number(s.all.memory_error))
                         .set("bias", number(s.all.memory_bias))
                         .set("ran", count(s.ran))
                         .set("ran_but_predicted_not_to_fit", count(s.false_misfits))
                         .set("out_of_memory", count(s.out_of_memory))
                         .set("false_fits", count(s.false_fits)))
      .set("decisions", groups_json(s))
      .set("aims", std::move(aim_rows))
      .set("free_parameters", count(s.free_parameters))
      .set("fitted_parameters", count(fitting.parameters))
      .set("sources", std::move(sources));
}

Json distances_json(const std::vector<Outcome>& outcomes) {
  Json out = Json::array();
  for (const Cause& c : by_distance(outcomes)) {
    out.push(Json::object().set("doublings", c.name).set("step", accuracy_json(c.step)));
  }
  return out;
}

Json rows_json(const std::vector<Outcome>& outcomes) {
  Json rows = Json::array();
  for (const Outcome& o : outcomes) {
    const bool predicted = o.prediction.has_value();
    const simulator::JobPrediction p = o.prediction.value_or(simulator::JobPrediction{});
    const auto if_predicted = [&](double value) { return predicted ? number(value) : Json(); };
    Json refused = Json::array();
    for (const Refusal& r : o.refused) {
      refused.push(Json::object().set("field", r.field).set("reason", r.reason));
    }
    Json completed = Json::array();
    for (const std::string& text : o.completed) completed.push(text);
    rows.push(Json::object()
                  .set("id", o.row.id)
                  .set("source", o.row.source)
                  .set("stack", predicted ? Json(o.stack) : Json())
                  .set("layout", predicted ? Json(o.layout) : Json())
                  .set("predicted_step_s", if_predicted(p.step.value()))
                  .set("p10_s", if_predicted(p.p10.value()))
                  .set("p90_s", if_predicted(p.p90.value()))
                  .set("distance", if_predicted(p.distance))
                  .set("measured_step_s", optional_number(o.row.step_s()))
                  .set("predicted_mem_gib", if_predicted(o.memory_bytes() / kGib))
                  .set("measured_mem_gb", optional_number(o.row.measured.memory))
                  .set("usable_mem_gib", if_predicted(p.usable_bytes / kGib))
                  .set("fits", predicted ? Json(p.fits) : Json())
                  .set("p_fits", if_predicted(p.probability_fits))
                  .set("refused", predicted ? Json() : std::move(refused))
                  .set("completed", std::move(completed)));
  }
  return rows;
}

}  // namespace orrery::validation
