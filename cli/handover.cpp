// See handover.h.
#include "cli/handover.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "cli/files.h"
#include "cli/inputs.h"
#include "core/configs.h"
#include "handover/handover.h"

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
                        pin.name + " = " + pin.value + ": a plan cannot have this axis yet, only 1",
                        "set it to 1 in a copy of the file, and let the search find the rest"});
  }
  if (problems.empty()) return Ok{};
  return Error{ErrorCode::kInfeasible, std::move(problems)};
}

void say(const std::string& path, const handover::Imported& imported, Output& out) {
  std::string pins;
  for (const handover::Pin& pin : imported.pins) pins += " " + pin.name + "=" + pin.value;
  out.note("from " + path + " (" + imported.format + "):" + pins);
  std::string others;
  std::size_t named = 0, count = 0;
  for (const handover::Unused& unused : imported.unused) {
    if (!unused.why.empty()) {
      out.note("not used: " + unused.what + " (" + unused.where + "): " + unused.why);
      continue;
    }
    if (++count <= kMostNamed) {
      others += (named++ == 0 ? "" : ", ") + unused.what;
    }
  }
  if (count == 0) return;
  if (count > named) others += " and " + std::to_string(count - named) + " more";
  out.note("not used: " + others + ": none of the layout's");
}

}  // namespace

Result<Json> export_handover(const Arguments& arguments, Output& out) {
  if (arguments.has("against")) {
    return Error::of(ErrorCode::kUsage, "--against", "a configuration has no other beside it",
                     "--format html shows a run beside its prediction");
  }
  const std::string path = arguments.text("TRACE"), name = arguments.text("format");
  TRY(const Plan plan, open_plan(path));
  Json unsaid = Json::array();
  for (const handover::Format& format : handover::formats()) {
    if (format.name != name) continue;
    TRY(const handover::HandedOver made, format.write(plan, path));
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
  std::vector<Problem> problems;
  const auto given = request.pins;
  for (const handover::Pin& pin : imported.pins) {
    const auto same = std::find_if(given.begin(), given.end(),
                                   [&](const auto& other) { return other.first == pin.name; });
    if (same == given.end()) {
      request.pins.emplace_back(pin.name, pin.value);
    } else if (same->second != pin.value) {
      problems.push_back({"--pin " + pin.name,
                          "is " + same->second + ", but " + pin.where + " says " + pin.value,
                          "drop the pin, or change the file"});
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kUsage, std::move(problems)};
  say(path, imported, out);
  return Ok{};
}

}  // namespace orrery::cli
