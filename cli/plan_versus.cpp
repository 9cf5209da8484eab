// See plan_versus.h.
#include "cli/plan_versus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "cli/plan_report.h"
#include "cli/table.h"
#include "core/configs.h"
#include "core/quantity.h"

namespace orrery::cli {
namespace {

// Terms below this share of the step in both plans are not shown.
constexpr double kLeastShown = 1e-5;

std::string signed_bytes(std::int64_t bytes) {
  if (bytes == 0) return "0";
  return (bytes < 0 ? "-" : "+") + format_bytes(Bytes(std::abs(bytes)));
}

Bytes bytes_of(const Prediction& predicted, const std::string& cls) {
  for (const MemoryRow& row : predicted.memory) {
    if (row.cls == cls) return row.bytes;
  }
  return Bytes(0);
}

void print_terms(const planner::Side& own, const planner::Side& best, Output& out) {
  TextTable table(
      {{"term"}, {"yours", Align::kRight}, {"best", Align::kRight}, {"difference", Align::kRight}});
  for (std::size_t i = 0; i < own.terms.parts.size(); ++i) {
    const Seconds a = own.terms.parts[i].time, b = best.terms.parts[i].time;
    if (std::max(a, b) < best.terms.step * kLeastShown) continue;
    table.row(
        {own.terms.parts[i].name, format_seconds(a), format_seconds(b), signed_seconds(a - b)});
  }
  const Seconds a = own.terms.step, b = best.terms.step;
  table.row({"step", format_seconds(a), format_seconds(b), signed_seconds(a - b)});
  for (const MemoryRow& row : own.terms.predicted.memory) {
    const Bytes other = bytes_of(best.terms.predicted, row.cls);
    if (row.bytes.value() == 0 && other.value() == 0) continue;
    table.row({"memory: " + row.cls, format_bytes(row.bytes), format_bytes(other),
               signed_bytes(row.bytes.value() - other.value())});
  }
  const Bytes mine = own.terms.predicted.peak, its = best.terms.predicted.peak;
  table.row({"memory at the peak", format_bytes(mine), format_bytes(its),
             signed_bytes(mine.value() - its.value())});
  out.line(table.text());
}

Json terms_json(const planner::Terms& terms) {
  Json json = Json::object();
  for (const planner::Term& term : terms.parts) {
    std::string key = term.name;
    std::replace(key.begin(), key.end(), ' ', '_');
    json.set(key, term.time.value());
  }
  return json;
}

Json side_json(const planner::Side& side) {
  return Json::object()
      .set("layout", to_json(side.plan.layout))
      .set("chunks", to_json(side.plan.chunks))
      .set("memory_policy", to_json(side.plan.policy))
      .set("predicted", to_json(side.terms.predicted))
      .set("terms_s", terms_json(side.terms));
}

}  // namespace

std::string signed_seconds(Seconds seconds) {
  if (std::abs(seconds.value()) < 0.5e-9) return "0 s";
  return (seconds.value() < 0 ? "-" : "+") + format_seconds(Seconds(std::abs(seconds.value())));
}

Result<PinList> read_versus(const std::string& word) {
  if (looks_like_path(word)) {
    TRY(const Plan plan, load_plan(word));
    return planner::pins_of(plan);
  }
  TRY(const std::vector<std::string> pins, comma_list(word, "--versus"));
  return read_pins(pins, "--versus");
}

void print_versus(const planner::Comparison& c, Output& out) {
  out.heading("your layout beside the best");
  const auto say = [&](const std::string& text) {
    for (const std::string& line : wrap(text, kTerminalColumns - 2)) out.line("  " + line);
  };
  if (c.own) {
    const Plan& own = c.own->plan;
    TextTable facts({{""}, {""}});
    facts.row({"yours", layout_text(own.model, own.layout, own.chunks, own.policy)});
    const Plan& best = c.best.plan;
    facts.row({"best", layout_text(best.model, best.layout, best.chunks, best.policy)});
    out.line(facts.text());
    print_terms(*c.own, c.best, out);
  }
  for (const Problem& rule : c.broken) {
    say("breaks " + rule.where + ": " + rule.message + (rule.hint.empty() ? "" : "; " + rule.hint));
  }
  if (c.broken.empty()) say("yours: " + c.reason);
  if (!c.nearest) return;
  const Plan& near = c.nearest->plan;
  say(fmt::format("the nearest that fits: {} ({}, {} a step; {})", c.nearest->change,
                  format_bytes(near.predicted.peak), format_seconds(near.predicted.step),
                  layout_text(near.model, near.layout, near.chunks, near.policy)));
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
