// See report.h. The page is a template with three holes: style, data, scripts. The data is one JSON
// document in a script element of a type that no browser runs.
#include "ui-export/html/report.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "tracer/compare.h"
#include "ui-export/html/assets.h"
#include "ui-export/html/breakdown.h"
#include "ui-export/html/experts.h"
#include "ui-export/html/figures.h"
#include "ui-export/html/memory.h"
#include "ui-export/html/op_table.h"
#include "ui-export/html/side.h"
#include "ui-export/html/timeline.h"

namespace orrery {
namespace {

using html::clean_text;
using html::OpTable;
using html::Side;

// How much of a trace is shown. A page that is still too large is made again with half of it.
struct Limits {
  std::size_t spans = 60'000;  // of each side
  std::size_t ops = 3'000;     // rows of the table of ops
  std::size_t points = 200;    // slices of memory over time
  std::size_t steps = 2'000;   // of the curves
  Limits half() const {
    return {spans / 2, ops / 2, std::max<std::size_t>(20, points / 2), steps / 2 + 1};
  }
};

Json texts(const std::vector<std::string>& lines) {
  Json list = Json::array();
  for (const std::string& line : lines) list.push(clean_text(line));
  return list;
}

Json ranks_json(const Side& side) {
  Json list = Json::array();
  for (const RankInfo& rank : side.ranks) {
    if (list.items().size() == 256) break;  // of more the page names none
    list.push(Json::object()
                  .set("rank", static_cast<int>(rank.rank))
                  .set("node", clean_text(rank.node))
                  .set("device", clean_text(rank.device))
                  .set("clock_error_ns", rank.clock_error_ns)
                  .set("dropped", rank.dropped));
  }
  return list;
}

// A remark is a line, not a log.
std::string shortened(const std::string& text) {
  return text.size() <= 400 ? clean_text(text) : clean_text(text.substr(0, 400)) + " ...";
}

Json remarks_of(const Side& side) {
  Json list = Json::array();
  for (const Attr& attr : side.attrs) {
    if (attr.subject == "run") list.push(shortened(attr.name + ": " + attr.value));
  }
  std::size_t shown = 0;
  for (const NoteEvent& note : side.notes) {
    if (++shown > 20) break;
    const std::string who = note.rank < 0 ? "" : " (rank " + std::to_string(note.rank) + ")";
    list.push(shortened(note.name + who + ": " + note.message));
  }
  if (side.notes.size() > 20) {
    list.push(std::to_string(side.notes.size() - 20) + " more events are in the trace");
  }
  return list;
}

Result<Json> side_json(TraceReader& trace, const Side& side, const std::optional<Plan>& plan,
                       const Limits& limits, OpTable& ops, std::vector<std::string>& omitted) {
  TRY(Json experts, html::experts_json(trace, side, omitted));
  std::int64_t dropped = 0;
  for (const RankInfo& rank : side.ranks) dropped = html::plus(dropped, rank.dropped);
  return Json::object()
      .set("kind", name_of(side.run.kind))
      .set("status", name_of(side.run.status))
      .set("reason", shortened(side.run.reason))
      .set("stack", clean_text(side.run.stack))
      .set("created", clean_text(side.run.created))
      .set("file", clean_text(side.file))
      .set("world", static_cast<std::int64_t>(side.ranks.size()))
      .set("ranks", ranks_json(side))
      .set("dropped", dropped)
      .set("remarks", remarks_of(side))
      .set("default_step", side.default_step < 0 ? Json() : Json(int{side.default_step}))
      .set("headline", html::headline_json(side, plan))
      .set("steps", html::steps_json(side, limits.steps, omitted))
      .set("timeline", html::timeline_json(side, limits.spans, ops, omitted))
      .set("breakdown", html::breakdown_json(side, html::timeline_steps(side, limits.spans)))
      .set("memory", html::memory_json(side, limits.points, omitted))
      .set("peaks", html::peaks_json(side))
      .set("experts", std::move(experts));
}

// The interval of the prediction, null where none is known.
Json interval_json(const HtmlInput& input) {
  if (!input.prediction) return {};
  return Json::object()
      .set("low_s", input.prediction->p10.value())
      .set("high_s", input.prediction->p90.value());
}

struct Sides {
  std::optional<Side> predicted, measured;
  std::optional<Plan> plan;
  CompareReport compared;
};

Result<Sides> read_sides(const HtmlInput& input) {
  Sides sides;
  CHECK(input.predicted != nullptr || input.measured != nullptr, "a report of nothing");
  if (input.predicted) {
    TRY(sides.predicted, html::read_side(*input.predicted));
  }
  if (input.measured) {
    TRY(sides.measured, html::read_side(*input.measured));
  }
  if (sides.measured) sides.plan = html::plan_of(sides.measured->run);
  if (!sides.plan && sides.predicted) sides.plan = html::plan_of(sides.predicted->run);
  TraceReader& a = input.predicted ? *input.predicted : *input.measured;
  TraceReader& b = input.measured ? *input.measured : *input.predicted;
  TRY(sides.compared, compare_runs(a, b));
  return sides;
}

Result<Json> data_within(const HtmlInput& input, const Sides& sides, const Limits& limits) {
  OpTable ops;
  std::vector<std::string> omitted;
  Json predicted, measured;
  if (sides.predicted) {
    TRY(predicted, side_json(*input.predicted, *sides.predicted, sides.plan, limits, ops, omitted));
  }
  if (sides.measured) {
    TRY(measured, side_json(*input.measured, *sides.measured, sides.plan, limits, ops, omitted));
  }
  Json compared = html::compare_json(sides.compared, sides.predicted.has_value(),
                                     sides.measured.has_value(), limits.ops, ops, omitted);
  if (sides.measured) ops.describe(*sides.measured);
  if (sides.predicted) ops.describe(*sides.predicted);
  return Json::object()
      .set("schema_version", 1)
      .set("predicted_by", clean_text(input.predicted_by))
      .set("interval", interval_json(input))
      .set("plan", html::plan_json(sides.plan))
      .set("predicted", std::move(predicted))
      .set("measured", std::move(measured))
      .set("compare", std::move(compared))
      .set("answer", input.answer)
      .set("schedule", Json())
      .set("ops", ops.json())
      .set("remarks", texts(input.remarks))
      .set("omitted", texts(omitted));
}

// Inside a script element "</script" would end it and "<!--" change how it is read.
std::string escaped(const std::string& json) {
  std::string out;
  out.reserve(json.size() + json.size() / 64);
  for (const char c : json) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

void fill_hole(std::string& page, const std::string& hole, const std::string& text) {
  const std::size_t at = page.find(hole);
  CHECK(at != std::string::npos, "page.html has no " + hole);
  page.replace(at, hole.size(), text);
}

// Scripts of one kind of page; all others are of both.
constexpr std::string_view kOfTraces[] = {"data",
                                          "headline",
                                          "timeline_scene",
                                          "timeline_draw",
                                          "timeline_details",
                                          "timeline",
                                          "breakdown",
                                          "ops",
                                          "scatter",
                                          "memory",
                                          "experts",
                                          "steps",
                                          "plan",
                                          "selftest",
                                          "main"};
constexpr std::string_view kOfJobs[] = {"job_data", "job_main"};

enum class PageKind { kTraces, kJob };

bool is_left_out(std::string_view name, PageKind kind) {
  const auto among = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  return kind == PageKind::kTraces ? among(kOfJobs) : among(kOfTraces);
}

std::string page_of(const std::string& data, PageKind kind) {
  std::string page, style, scripts;
  for (const html::Asset& asset : html::assets()) {
    if (asset.name == "page") {
      page = asset.text;
    } else if (asset.name == "style") {
      style = asset.text;
    } else if (!is_left_out(asset.name, kind)) {
      scripts += asset.text;
    }
  }
  // The data last: what stands in it is never taken for a hole.
  fill_hole(page, "/*STYLE*/", style);
  fill_hole(page, "/*SCRIPTS*/", scripts);
  fill_hole(page, "/*DATA*/", escaped(data));
  return page;
}

}  // namespace

Json job_page_data(const JobPageInput& input) {
  std::vector<std::string> omitted;
  Json schedule;
  if (input.schedule) schedule = html::schedule_json(*input.schedule, omitted);
  return Json::object()
      .set("schema_version", 1)
      .set("answer", input.answer)
      .set("schedule", std::move(schedule))
      .set("remarks", texts(input.remarks))
      .set("omitted", texts(omitted));
}

std::string job_page(const JobPageInput& input) {
  return page_of(job_page_data(input).dump(-1), PageKind::kJob);
}

Result<std::int32_t> report_step(TraceReader& trace) {
  return html::median_step(trace);
}

Result<Json> html_data(const HtmlInput& input) {
  TRY(const Sides sides, read_sides(input));
  return data_within(input, sides, Limits{});
}

Result<std::string> html_report(const HtmlInput& input) {
  TRY(const Sides sides, read_sides(input));
  Limits limits;
  for (;;) {
    TRY(const Json data, data_within(input, sides, limits));
    std::string page = page_of(data.dump(-1), PageKind::kTraces);
    // Below a hundred spans nothing is left to thin out.
    if (page.size() <= kMaxReportBytes || limits.spans < 100) return page;
    limits = limits.half();
  }
}

}  // namespace orrery
