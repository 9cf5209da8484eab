// See handover.h.
#include "cli/handover.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "cli/files.h"
#include "cli/inputs.h"
#include "cli/job_explain.h"
#include "cli/plan_request.h"
#include "cli/table.h"
#include "core/configs.h"
#include "core/job_json.h"
#include "handover/handover.h"
#include "planner/jobs/deal.h"

namespace orrery::cli {
namespace {

constexpr std::size_t kMostNamed = 12;  // settings of other kinds, in one line

// Axes that lowering does not take: a search with them could only fail, and would not say where
// they come from.
Status check_axes(const handover::Imported& imported) {
  const std::vector<std::string> axes = {"cp", "tp", "pp", "etp"};
  std::vector<Problem> problems;
  for (const handover::Pin& pin : imported.pins) {
    if (pin.value == "1" || std::find(axes.begin(), axes.end(), pin.name) == axes.end()) continue;
    problems.push_back({pin.where,
                        pin.name + " = " + pin.value + ": a plan of the engine has no such axis",
                        "plan with --for simulate, or set it to 1 in a copy of the file"});
  }
  if (problems.empty()) return Ok{};
  return Error{ErrorCode::kInfeasible, std::move(problems)};
}

// Lines of a terminal's width; those behind the first are indented.
void note_lines(const std::string& text, Output& out) {
  constexpr std::size_t kWidth = 98;
  std::string indent;
  for (const std::string& line : wrap(text, kWidth)) {
    out.note(indent + line);
    indent = "  ";
  }
}

void say(const std::string& path, const handover::Imported& imported, Output& out) {
  std::string pins;
  for (const handover::Pin& pin : imported.pins) pins += " " + pin.name + "=" + pin.value;
  note_lines("from " + path + " (" + imported.format + "):" + pins, out);
  std::string others;
  std::size_t named = 0, count = 0;
  for (const handover::Unused& unused : imported.unused) {
    if (!unused.why.empty()) {
      note_lines("not used: " + unused.what + " (" + unused.where + "): " + unused.why, out);
      continue;
    }
    if (++count <= kMostNamed) {
      others += (named++ == 0 ? "" : ", ") + unused.what;
    }
  }
  if (count == 0) return;
  if (count > named) others += " and " + std::to_string(count - named) + " more";
  note_lines("not used: " + others + ": none of the layout's", out);
}

// A plan of the engine, or a job over all axes.
Result<handover::Recipe> recipe_at(const std::string& path) {
  if (is_job(path)) {
    TRY(const Job job, load_job(path));
    return handover::recipe_of(job);
  }
  TRY(const Plan plan, open_plan(path));
  return handover::recipe_of(plan);
}

// Adds the pins of --import to those that were given; one that says otherwise is a problem.
Status add_pins(const handover::Imported& imported, PinList& pins) {
  std::vector<Problem> problems;
  const PinList given = pins;
  for (const handover::Pin& pin : imported.pins) {
    const auto same = std::find_if(given.begin(), given.end(),
                                   [&](const auto& other) { return other.first == pin.name; });
    if (same == given.end()) {
      pins.emplace_back(pin.name, pin.value);
    } else if (same->second != pin.value) {
      problems.push_back({"--pin " + pin.name,
                          "is " + same->second + ", but " + pin.where + " says " + pin.value,
                          "drop the pin, or change the file"});
    }
  }
  if (problems.empty()) return Ok{};
  return Error{ErrorCode::kUsage, std::move(problems)};
}

// Layers of each stage as the search's word for such a dealing; empty: it has none.
std::string deal_of(const std::string& counts, std::int64_t layers) {
  using planner::jobs::Deal;
  const auto stages = std::count(counts.begin(), counts.end(), ',') + 1;
  for (const Deal deal :
       planner::jobs::deals_of({Deal::kLast, Deal::kFirst, Deal::kEnds}, layers, stages)) {
    std::string own;
    for (const std::int64_t n : planner::jobs::dealt(deal, layers, stages)) {
      own += (own.empty() ? "" : ",") + std::to_string(n);
    }
    if (own == counts) return name_of(deal);
  }
  return "";
}

// Pins that the search over all axes does not take: what cannot be held is said, and what would
// then be another layout is refused.
Status keep_known(std::int64_t layers, handover::Imported& imported) {
  std::vector<Problem> problems;
  std::vector<handover::Pin> kept;
  const std::vector<std::string> known = planner::jobs::pinnable();
  for (handover::Pin pin : imported.pins) {
    if (pin.name == "stage_layers" && pin.value.find(',') != std::string::npos) {
      const std::string deal = deal_of(pin.value, layers);
      if (deal.empty()) {
        imported.unused.push_back({pin.where, pin.name + "=" + pin.value,
                                   "no dealing of the search: layers are dealt out as it finds"});
        continue;
      }
      pin.value = deal;
    }
    const auto alone = planner::jobs::Pins::parse({{pin.name, pin.value}});
    if (alone.ok()) {
      kept.push_back(pin);
    } else if (std::find(known.begin(), known.end(), pin.name) == known.end()) {
      imported.unused.push_back(
          {pin.where, pin.name + "=" + pin.value, "the search over all axes does not hold it"});
    } else {
      const Problem& p = alone.error().problems.front();
      problems.push_back({pin.where, pin.name + " " + p.message, p.hint});
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kInfeasible, std::move(problems)};
  imported.pins = std::move(kept);
  return Ok{};
}

}  // namespace

Result<Json> export_handover(const Arguments& arguments, Output& out) {
  if (arguments.has("against")) {
    return Error::of(ErrorCode::kUsage, "--against", "a configuration has no other beside it",
                     "--format html shows a run beside its prediction");
  }
  const std::string path = arguments.text("TRACE"), name = arguments.text("format");
  TRY(const handover::Recipe recipe, recipe_at(path));
  Json unsaid = Json::array();
  for (const handover::Format& format : handover::formats()) {
    if (format.name != name) continue;
    TRY(const handover::HandedOver made, handover::write(format, recipe, path));
    TRY_OK(write_whole(arguments.text("out"), made.text));
    for (const handover::Unsaid& u : made.unsaid) {
      out.warn(name + " does not say " + u.field + " = " + u.value + ": " + u.why);
      unsaid.push(Json::object().set("field", u.field).set("value", u.value).set("why", u.why));
    }
  }
  return unsaid;
}

Status import_pins(const Arguments& arguments, planner::Request& request, Output& out) {
  if (!arguments.has("import")) return Ok{};
  const std::string path = arguments.text("import");
  TRY(const std::string text, read_file(path));
  TRY(const handover::Imported imported,
      handover::import_layout(text, path,
                              {request.cluster.devices, request.model, request.workload}));
  TRY_OK(check_axes(imported));
  TRY_OK(add_pins(imported, request.pins));
  say(path, imported, out);
  return Ok{};
}

Status import_pins(const Arguments& arguments, planner::jobs::Request& request, Output& out) {
  if (!arguments.has("import")) return Ok{};
  const std::string path = arguments.text("import");
  TRY(const std::string text, read_file(path));
  TRY(handover::Imported imported,
      handover::import_layout(text, path,
                              {request.cluster.devices, request.model, request.workload, true}));
  TRY_OK(keep_known(request.model.layers, imported));
  TRY_OK(add_pins(imported, request.pins));
  say(path, imported, out);
  return Ok{};
}

}  // namespace orrery::cli
