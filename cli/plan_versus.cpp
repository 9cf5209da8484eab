// See plan_versus.h.
#include "cli/plan_versus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "cli/inputs.h"
#include "cli/plan_asked.h"
#include "cli/plan_report.h"
#include "cli/table.h"
#include "core/configs.h"
#include "core/quantity.h"
#include "planner/questions/engine_searcher.h"
#include "planner/questions/job_searcher.h"

namespace orrery::cli {
namespace {

// Terms below this share of the step in both plans are not shown.
constexpr double kLeastShown = 1e-5;

std::string signed_bytes(std::int64_t bytes) {
  if (bytes == 0) return "0";
  return (bytes < 0 ? "-" : "+") + format_bytes(Bytes(std::abs(bytes)));
}

Bytes bytes_of(const planner::Side& side, const std::string& cls) {
  for (const MemoryRow& row : side.memory) {
    if (row.cls == cls) return row.bytes;
  }
  return Bytes(0);
}

// Classes of memory of either, each once, those of the first first.
std::vector<std::string> classes_of(const planner::Side& own, const planner::Side& best) {
  std::vector<std::string> classes;
  for (const planner::Side* side : {&own, &best}) {
    for (const MemoryRow& row : side->memory) {
      if (std::find(classes.begin(), classes.end(), row.cls) != classes.end()) continue;
      classes.push_back(row.cls);
    }
  }
  return classes;
}

void print_terms(const planner::Side& own, const planner::Side& best, Output& out) {
  TextTable table(
      {{"term"}, {"yours", Align::kRight}, {"best", Align::kRight}, {"difference", Align::kRight}});
  const Seconds step = own.answer.step, other = best.answer.step;
  for (std::size_t i = 0; i < own.terms.size(); ++i) {
    const Seconds a = own.terms[i].time, b = best.terms[i].time;
    if (std::max(a, b) < other * kLeastShown) continue;
    table.row({own.terms[i].name, format_seconds(a), format_seconds(b), signed_seconds(a - b)});
  }
  table.row({"step", format_seconds(step), format_seconds(other), signed_seconds(step - other)});
  for (const std::string& cls : classes_of(own, best)) {
    const Bytes mine = bytes_of(own, cls), its = bytes_of(best, cls);
    if (mine.value() == 0 && its.value() == 0) continue;
    table.row({"memory: " + cls, format_bytes(mine), format_bytes(its),
               signed_bytes(mine.value() - its.value())});
  }
  const Bytes mine = own.answer.peak, its = best.answer.peak;
  table.row({"memory at the peak", format_bytes(mine), format_bytes(its),
             signed_bytes(mine.value() - its.value())});
  out.line(table.text());
}

Json side_json(const planner::Side& side) {
  Json terms = Json::object(), memory = Json::object();
  for (const planner::Term& term : side.terms) {
    std::string key = term.name;
    std::replace(key.begin(), key.end(), ' ', '_');
    terms.set(key, term.time.value());
  }
  for (const MemoryRow& row : side.memory) memory.set(row.cls, row.bytes.value());
  return row_json(side.answer)
      .set("terms_s", std::move(terms))
      .set("memory_bytes", std::move(memory));
}

Json nearest_json(const planner::Nearest& nearest) {
  Json json = Json::object().set("change", nearest.change);
  const Json layout = layout_json(nearest.answer);
  for (const auto& [key, value] : layout.members()) json.set(key, value);
  return json.set("peak_bytes", nearest.answer.peak.value())
      .set("step_s", nearest.answer.step.value());
}

}  // namespace

std::string signed_seconds(Seconds seconds) {
  if (std::abs(seconds.value()) < 0.5e-9) return "0 s";
  return (seconds.value() < 0 ? "-" : "+") + format_seconds(Seconds(std::abs(seconds.value())));
}

Result<planner::OwnLayout> read_versus(const std::string& word, bool simulates) {
  planner::OwnLayout own;
  if (looks_like_path(word)) {
    if (simulates) {
      TRY(own.job, open_job(word));
      own.pins = planner::pins_of(*own.job);
    } else {
      TRY(const Plan plan, open_plan(word));
      own.pins = planner::pins_of(plan);
    }
    return own;
  }
  TRY(const std::vector<std::string> words, comma_list(word, "--versus"));
  TRY(own.pins, read_pins(words, "--versus", simulates));
  return own;
}

void print_versus(const planner::Comparison& c, Output& out) {
  out.heading("your layout beside the best");
  const auto say = [&](const std::string& text) {
    for (const std::string& line : wrap(text, kTerminalColumns - 2)) out.line("  " + line);
  };
  if (c.own) {
    TextTable facts({{""}, {""}});
    facts.row({"yours", words_of(c.own->answer)});
    facts.row({"best", words_of(c.best.answer)});
    out.line(facts.text());
    print_terms(*c.own, c.best, out);
  }
  for (const Problem& rule : c.broken) {
    say("breaks " + rule.where + ": " + rule.message + (rule.hint.empty() ? "" : "; " + rule.hint));
  }
  if (c.broken.empty()) say("yours: " + c.reason);
  if (!c.nearest) return;
  const planner::Answer& near = c.nearest->answer;
  say(fmt::format("the nearest that fits: {} ({}, {} a step; {})", c.nearest->change,
                  format_bytes(near.peak), format_seconds(near.step), words_of(near)));
}

Json versus_json(const planner::Comparison& c) {
  Json broken = Json::array();
  for (const Problem& rule : c.broken) {
    broken.push(
        Json::object().set("rule", rule.where).set("reason", rule.message).set("hint", rule.hint));
  }
  Json json = Json::object();
  json.set("legal", c.broken.empty())
      .set("fits", c.fits)
      .set("reason", c.reason)
      .set("broken_rules", std::move(broken))
      .set("own", c.own ? side_json(*c.own) : Json())
      .set("best", side_json(c.best));
  if (c.nearest) json.set("nearest_feasible", nearest_json(*c.nearest));
  return json;
}

}  // namespace orrery::cli
