// See job_explain.h.
#include "cli/job_explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/files.h"
#include "cli/job_report.h"
#include "cli/plan_jobs.h"
#include "cli/table.h"
#include "core/job_json.h"
#include "core/quantity.h"
#include "planner/jobs/explain.h"

namespace orrery::cli {
namespace {

using planner::jobs::Diagnosis;
using planner::jobs::PlannedJob;
using planner::jobs::Question;
using planner::jobs::Rival;
using planner::jobs::Term;
using planner::jobs::terms_of;
using planner::jobs::Trial;
using planner::jobs::WhatIf;
using simulator::JobPrediction;
using simulator::MemoryClass;

// Prints within the terminal's columns.
void print_lines(const std::string& text, Output& out) {
  bool first = true;
  for (const std::string& line : wrap(text, kTerminalColumns - 4)) {
    out.line((first ? "  " : "    ") + line);
    first = false;
  }
}

// "does not fit", "may not fit", "may fit", "fits"
std::string verdict(const JobPrediction& p) {
  constexpr double kSure = 0.99, kEven = 0.5, kNever = 0.01;
  if (p.probability_fits >= kSure) return "fits";
  if (p.probability_fits >= kEven) return "may fit";
  return p.probability_fits >= kNever ? "may not fit" : "does not fit";
}

std::string bytes_text(double bytes) {
  return format_bytes(Bytes(static_cast<std::int64_t>(bytes)));
}

void print_memory(const Diagnosis& d, Output& out) {
  const simulator::MemoryParts& m = d.memory;
  std::string moment = m.in_update ? "while the optimizer updates" : "in a backward";
  if (m.stage_bytes.size() > 1) moment += fmt::format(", stage {}", m.stage);
  out.heading("memory at the fullest moment (" + moment + ")");
  TextTable table({{"class"}, {"bytes", Align::kRight}, {"share", Align::kRight}});
  for (std::size_t i = 0; i < m.bytes.size(); ++i) {
    if (m.bytes[i] <= 0) continue;
    table.row({name_of(static_cast<MemoryClass>(i)), bytes_text(m.bytes[i]),
               percent(m.bytes[i] / m.total())});
  }
  const double peak = d.own.predicted.peak_bytes, usable = d.own.predicted.usable_bytes;
  if (peak > 1.001 * m.total()) {
    table.row({"held unused by the allocator", bytes_text(peak - m.total()),
               percent((peak - m.total()) / m.total())});
  }
  const double left = usable - std::max(peak, m.total());
  table.row({left < 0 ? "short of" : "free", bytes_text(std::abs(left)), ""});
  out.line(table.text());
  if (m.stage_bytes.size() < 2) return;
  std::string stages = "by stage:";
  for (const double bytes : m.stage_bytes) stages += " " + fmt::format("{:.1f}", bytes / 0x1p30);
  print_lines(stages + " GiB", out);
}

void print_trials(const std::string& title, const std::vector<Trial>& trials, bool faster,
                  Output& out) {
  if (trials.empty()) return;
  out.heading(title);
  std::vector<TextTable::Column> columns = {{"change"},
                                            {"step", Align::kRight},
                                            {"speed", Align::kRight},
                                            {"memory", Align::kRight},
                                            {""}};
  if (faster) columns.push_back({"mostly"});
  TextTable table(columns);
  for (const Trial& t : trials) {
    std::vector<std::string> cells = {
        t.words(), format_seconds(t.after.predicted.step), signed_percent(t.speed - 1),
        bytes_text(t.after.predicted.peak_bytes), verdict(t.after.predicted)};
    if (faster) cells.push_back(t.saves);
    table.row(std::move(cells));
  }
  out.line(table.text());
}

struct Named {
  std::string name;
  const PlannedJob* job;
};

// Terms of several jobs side by side, all in seconds or all in milliseconds.
void print_terms(const std::vector<Named>& jobs, Output& out) {
  constexpr double kShown = 0.005;
  const bool millis = jobs.front().job->predicted.step.value() < 1;
  const auto text = [&](double seconds) {
    return fmt::format("{:.2f}", seconds * (millis ? 1e3 : 1));
  };
  const std::vector<Term> names = terms_of(jobs.front().job->predicted.parts);
  std::vector<bool> shown(names.size(), false);
  for (const Named& n : jobs) {
    const std::vector<Term> terms = terms_of(n.job->predicted.parts);
    const double least = kShown * n.job->predicted.step.value();
    for (std::size_t i = 0; i < terms.size(); ++i) {
      shown[i] = shown[i] || (terms[i].seconds > least && names[i].name != "fixed");
    }
  }
  std::vector<TextTable::Column> columns = {{millis ? "milliseconds" : "seconds"},
                                            {"step", Align::kRight}};
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (shown[i]) columns.push_back({names[i].name, Align::kRight});
  }
  columns.push_back({"other", Align::kRight});
  TextTable table(columns);
  for (const Named& n : jobs) {
    std::vector<std::string> cells = {n.name, text(n.job->predicted.step.value())};
    double other = 0;
    const std::vector<Term> terms = terms_of(n.job->predicted.parts);
    for (std::size_t i = 0; i < terms.size(); ++i) {
      if (shown[i]) {
        cells.push_back(text(terms[i].seconds));
      } else {
        other += terms[i].seconds;
      }
    }
    cells.push_back(text(other));
    table.row(std::move(cells));
  }
  out.line(table.text());
}

void print_best(const Diagnosis& d, const std::vector<Rival>& rivals, Output& out) {
  if (d.best) {
    const double gain = d.own.predicted.step.value() / d.best->predicted.step.value() - 1;
    out.heading("the best of all layouts for this work, and what it would take");
    if (d.best_words.empty()) {
      out.line("  it is this one");
    } else {
      print_lines(d.best_words, out);
      print_lines(fmt::format("{} a step, {} speed, {}: {}", format_seconds(d.best->predicted.step),
                              signed_percent(gain), bytes_text(d.best->predicted.peak_bytes),
                              verdict(d.best->predicted)),
                  out);
    }
  } else if (d.changed) {
    out.heading("no layout fits; what fits with " + d.change);
    print_lines(words_of(d.changed->job), out);
    print_lines(fmt::format("{} a step, {}", format_seconds(d.changed->predicted.step),
                            bytes_text(d.changed->predicted.peak_bytes)),
                out);
  }
  std::vector<Named> jobs = {{"this job", &d.own}};
  if (d.best && !d.best_words.empty()) jobs.push_back({"the best", &*d.best});
  for (const Rival& rival : rivals) {
    if (rival.best) jobs.push_back({rival.family, &*rival.best});
  }
  if (jobs.size() < 2) return;
  out.heading("term by term");
  print_terms(jobs, out);
}

// Of its own layout under the circumstance: the step, or that it cannot be.
std::string own_text(const Diagnosis& d, const WhatIf& w) {
  if (w.own.predicted.step.value() <= 0) return "does not divide";
  const JobPrediction& p = w.own.predicted;
  const double tokens = static_cast<double>(w.own.job.global_sequences) /
                        static_cast<double>(d.own.job.global_sequences);
  const double speed = tokens * d.own.predicted.step.value() / p.step.value() - 1;
  const std::string fit = verdict(p) == verdict(d.own.predicted) ? "" : ", " + verdict(p);
  return (std::abs(speed) < 5e-4 ? std::string("same speed") : signed_percent(speed)) + fit;
}

void print_what_ifs(const Diagnosis& d, Output& out) {
  if (d.what_ifs.empty()) return;
  out.heading("what would change the answer");
  const bool searched = d.what_ifs.front().searched;
  std::vector<TextTable::Column> columns = {{"with"}, {"speed of this job"}};
  if (searched) {
    columns.push_back({"best step", Align::kRight});
    columns.push_back({"the best is then"});
  }
  TextTable table(columns);
  for (const WhatIf& w : d.what_ifs) {
    std::vector<std::string> cells = {w.words, own_text(d, w)};
    if (searched) {
      cells.push_back(w.best ? format_seconds(w.best->predicted.step) : "-");
      cells.push_back(!w.best               ? "none: nothing fits"
                      : w.otherwise.empty() ? "the same"
                                            : w.otherwise);
    }
    table.row(std::move(cells));
  }
  out.line(table.text());
  if (searched) {
    out.line(fmt::format("  each searched again over all axes; what is not {} faster is the same",
                         percent(planner::jobs::kTie)));
  } else {
    out.line(d.best ? "  of this job alone: the space is too large to be searched once for each"
                    : "  of this job alone");
  }
}

void print_binding(const Diagnosis& d, Output& out) {
  out.heading("what binds it");
  print_lines(d.binding, out);
  for (const std::string& note : d.notes) print_lines(note, out);
}

void print_changes(const Diagnosis& d, double wanted, Output& out) {
  const std::string sure = fmt::format("it fits with a probability of {:.4g} %", 100 * wanted);
  const bool pairs = !d.fixes.empty() && d.fixes.front().changes.size() > 1;
  print_trials(fmt::format("{} after which {}, smallest first",
                           pairs ? "no single change does; two" : "single changes", sure),
               d.fixes, false, out);
  print_trials("no one or two changes make it fit for sure; those that free most", d.helps, false,
               out);
  print_trials("single changes that make it faster", d.faster, true, out);
  print_trials("two changes of the layout that gain clearly more than any one", d.faster_pairs,
               true, out);
  if (d.sure && d.faster.empty()) {
    out.heading("single changes that make it faster");
    out.line("  none by 1 % or more");
  }
}

void print(const Diagnosis& d, const std::vector<Rival>& rivals, double wanted, Output& out) {
  const Job& job = d.own.job;
  out.heading(job.model.name + " on " + job.cluster.name + ", with " + job.stack.name);
  print_job_facts(job, d.own.predicted, out);
  print_binding(d, out);
  print_memory(d, out);
  print_job_parts(d.own.predicted, out);
  print_changes(d, wanted, out);
  print_best(d, rivals, out);
  print_what_ifs(d, out);
}

Json trial_json(const Trial& t) {
  Json changes = Json::array();
  for (const planner::jobs::Change& c : t.changes) {
    changes.push(Json::object()
                     .set("axis", c.axis)
                     .set("words", c.words)
                     .set("kind", planner::jobs::name_of(c.kind)));
  }
  const JobPrediction& p = t.after.predicted;
  return Json::object()
      .set("changes", std::move(changes))
      .set("job", axes_json(t.after.job))
      .set("step_s", p.step.value())
      .set("speed", t.speed)
      .set("peak_bytes", static_cast<std::int64_t>(t.after.predicted.peak_bytes))
      .set("probability_fits", p.probability_fits)
      .set("saves", t.saves);
}

Json trials_json(const std::vector<Trial>& trials) {
  Json rows = Json::array();
  for (const Trial& t : trials) rows.push(trial_json(t));
  return rows;
}

Json memory_json(const simulator::MemoryParts& m) {
  Json classes = Json::object(), stages = Json::array();
  for (std::size_t i = 0; i < m.bytes.size(); ++i) {
    classes.set(name_of(static_cast<MemoryClass>(i)), static_cast<std::int64_t>(m.bytes[i]));
  }
  for (const double bytes : m.stage_bytes) stages.push(static_cast<std::int64_t>(bytes));
  return Json::object()
      .set("stage", m.stage)
      .set("moment", m.in_update ? "update" : "backward")
      .set("micro_batches_kept", m.cells)
      .set("needed_bytes", static_cast<std::int64_t>(m.total()))
      .set("classes", std::move(classes))
      .set("stages", std::move(stages));
}

Json planned_json(const PlannedJob& p) {
  return Json::object()
      .set("job", axes_json(p.job))
      .set("predicted", prediction_json(p.job, p.predicted));
}

Json what_if_json(const WhatIf& w) {
  Json row = Json::object().set("with", w.words).set("searched", w.searched);
  if (w.own.predicted.step.value() > 0) row.set("own", planned_json(w.own));
  if (w.best) row.set("best", planned_json(*w.best)).set("differs", w.otherwise);
  return row;
}

Json to_json(const Diagnosis& d, const std::vector<Rival>& rivals) {
  Json json = versioned();
  Json notes = Json::array(), what_ifs = Json::array(), others = Json::array();
  for (const std::string& note : d.notes) notes.push(note);
  for (const WhatIf& w : d.what_ifs) what_ifs.push(what_if_json(w));
  for (const Rival& r : rivals) {
    if (r.best) others.push(planned_json(*r.best).set("family", r.family));
  }
  json.set("job", axes_json(d.own.job))
      .set("predicted", prediction_json(d.own.job, d.own.predicted))
      .set("verdict", verdict(d.own.predicted))
      .set("binding", d.binding)
      .set("memory", memory_json(d.memory))
      .set("notes", std::move(notes))
      .set("fixes", trials_json(d.fixes))
      .set("helps", trials_json(d.helps))
      .set("faster", trials_json(d.faster))
      .set("faster_pairs", trials_json(d.faster_pairs));
  if (d.best) json.set("best", planned_json(*d.best).set("differs", d.best_words));
  if (d.changed) json.set("change", planned_json(*d.changed).set("words", d.change));
  return json.set("rivals", std::move(others)).set("what_if", std::move(what_ifs));
}

// What a planner's file holds beside the job: the best of other families, and how it was asked.
struct Beside {
  std::vector<Rival> rivals;
  std::vector<std::pair<std::string, std::string>> pins;
};

Beside read_beside(const Json& json, const Job& own, const simulator::ParameterSet& parameters) {
  Beside beside;
  const Json* rows = json.find("runners_up");
  for (std::size_t i = 0; rows != nullptr && rows->is_array() && i < rows->items().size(); ++i) {
    const Json& row = rows->items()[i];
    const Json* axes = row.is_object() ? row.find("job") : nullptr;
    const Json* family = row.is_object() ? row.find("family") : nullptr;
    if (axes == nullptr || family == nullptr || !family->is_string()) continue;
    Json whole = orrery::to_json(own);
    whole.set("job", *axes);
    const Result<Job> job = parse_job(whole.dump(-1), "runners_up");
    if (!job.ok()) continue;
    Job priced = job.value();
    simulator::apply(parameters.values, priced);
    beside.rivals.push_back(
        {family->as_string(), PlannedJob{job.value(), simulator::predict(priced)}, "", true});
  }
  const Json* pins = json.find("pins");
  for (std::size_t i = 0; pins != nullptr && pins->is_object() && i < pins->members().size(); ++i) {
    const auto& [name, value] = pins->members()[i];
    if (value.is_string()) beside.pins.emplace_back(name, value.as_string());
  }
  return beside;
}

}  // namespace

bool is_job(const std::string& path) {
  const Result<bool> trace = is_trace(path);
  if (!trace.ok() || trace.value()) return false;
  const Result<Json> json = Json::load(path);
  return json.ok() && json.value().is_object() && json.value().find("job") != nullptr;
}

Result<int> explain_job(const std::string& path, const Arguments& arguments, Output& out) {
  Question question;
  TRY(question.job, load_job(path));
  TRY(question.parameters, parameters_or_default(arguments.text("parameters")));
  TRY(question.probability_fits, read_probability(arguments.text("fit-probability")));
  TRY(const Json json, Json::load(path));
  const Beside beside = read_beside(json, question.job, question.parameters);
  question.pins = beside.pins;
  const Diagnosis d = planner::jobs::diagnose(question);
  print(d, beside.rivals, question.probability_fits, out);
  out.document(to_json(d, beside.rivals));
  if (d.own.predicted.probability_fits < 0.5) {
    out.warn("this job does not fit the memory of a device");
  }
  return 0;
}

}  // namespace orrery::cli
