// A sweep: the plan of every combination of values, as a table, CSV or JSON.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "cli/files.h"
#include "cli/plan_questions.h"
#include "cli/plan_report.h"
#include "cli/table.h"
#include "core/quantity.h"
#include "planner/size.h"

namespace orrery::cli {
namespace {

constexpr std::size_t kMostPoints = 1000;

struct Axis {
  std::string key;
  std::vector<std::string> values;
};
using Point = std::vector<std::pair<std::string, std::string>>;

Result<std::vector<Axis>> read_axes(const Arguments& arguments) {
  std::vector<Axis> axes;
  std::size_t points = 1;
  for (const std::string& word : arguments.all("sweep")) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      return Error::of(ErrorCode::kUsage, "--sweep", "'" + word + "' is not KEY=VALUE,VALUE",
                       "for example --sweep workload.global_batch_tokens=1M,2M,4M");
    }
    Axis axis{word.substr(0, equals), {}};
    TRY(axis.values, comma_list(word.substr(equals + 1), "--sweep"));
    for (const Axis& other : axes) {
      if (other.key == axis.key) {
        return Error::of(ErrorCode::kUsage, "--sweep", "'" + axis.key + "' is given twice",
                         "give all its values at once");
      }
    }
    points *= axis.values.size();
    axes.push_back(std::move(axis));
    if (points > kMostPoints) {
      return Error::of(ErrorCode::kUsage, "--sweep",
                       fmt::format("{} points are more than {}", points, kMostPoints),
                       "sweep in parts");
    }
  }
  return axes;
}

// The last axis varies fastest.
std::vector<Point> points_of(const std::vector<Axis>& axes) {
  std::vector<Point> points = {{}};
  for (const Axis& axis : axes) {
    std::vector<Point> longer;
    for (const Point& point : points) {
      for (const std::string& value : axis.values) {
        longer.push_back(point);
        longer.back().emplace_back(axis.key, value);
      }
    }
    points = std::move(longer);
  }
  return points;
}

// As the value that stands there: a number with a letter of thousands, a word, or text with a unit.
Result<Json> value_like(const Json& before, const std::string& word, const std::string& where) {
  if (before.is_string()) return Json(word);
  if (before.is_bool() && (word == "true" || word == "false")) return Json(word == "true");
  if (before.is_integer()) {
    if (word == "0") return Json(0);
    TRY(const std::int64_t count, parse_count(word, where));
    return Json(count);
  }
  double number = 0;
  const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (before.is_number() && error == std::errc() && rest == word.data() + word.size()) {
    return Json(number);
  }
  return Error::of(ErrorCode::kUsage, where, "'" + word + "' is no value for it", "");
}

// Sets "device.memory" of a noun's JSON; kUsage where there is no such key.
Result<Json> with_value(const Json& json, const std::string& path, const std::string& word,
                        const std::string& where) {
  const std::size_t dot = path.find('.');
  const std::string key = path.substr(0, dot);
  const Json* child = json.is_object() ? json.find(key) : nullptr;
  if (child == nullptr) {
    std::vector<std::string> keys;
    if (json.is_object()) {
      for (const auto& [name, value] : json.members()) keys.push_back(name);
    }
    const std::string near = nearest(key, keys);
    return Error::of(
        ErrorCode::kUsage, where, "there is no '" + key + "'",
        near.empty() ? "the keys are those of the noun's file" : "did you mean '" + near + "'?");
  }
  Json out = json;
  if (dot == std::string::npos) {
    TRY(Json value, value_like(*child, word, where));
    out.set(key, std::move(value));
  } else {
    TRY(Json value, with_value(*child, path.substr(dot + 1), word, where));
    out.set(key, std::move(value));
  }
  return out;
}

// The nearest whole number of rows that divides over the devices.
std::int64_t rows_of(std::int64_t tokens, const planner::Request& request) {
  const std::int64_t row = request.workload.sequence_tokens, world = request.cluster.devices;
  const std::int64_t rows = std::max<std::int64_t>(1, (tokens + row / 2) / row);
  return rows < world ? rows : (rows + world / 2) / world * world;
}

Status set_workload(planner::Request& request, const std::string& key, const std::string& word,
                    const std::string& where) {
  if (key == "global_batch_tokens") {
    TRY(const std::int64_t tokens, parse_count(word, where));
    request.workload.global_sequences = rows_of(tokens, request);
  } else if (key == "sequence_tokens") {
    TRY(const std::int64_t tokens, parse_count(word, where));
    request.workload = planner::with_sequence(request.workload, tokens);
  } else {
    TRY(const Json json, with_value(to_json(request.workload), key, word, where));
    TRY(request.workload, workload_from_json(json, "--sweep:"));
    return Ok{};
  }
  // Reads it back, for the rules of a workload and its hash.
  TRY(request.workload, workload_from_json(to_json(request.workload), "--sweep:"));
  return Ok{};
}

Status set_value(planner::Request& request, const std::string& key, const std::string& word) {
  const std::string where = "--sweep " + key;
  if (key.starts_with("workload.")) return set_workload(request, key.substr(9), word, where);
  if (key.starts_with("cluster.")) {
    TRY(const Json json, with_value(to_json(request.cluster), key.substr(8), word, where));
    TRY(request.cluster, cluster_from_json(json, "--sweep:", 0));
    return Ok{};
  }
  if (key.starts_with("model.")) {
    TRY(const Json json, with_value(to_json(request.model), key.substr(6), word, where));
    TRY(request.model, model_from_json(json, "--sweep:"));
    return Ok{};
  }
  TRY(const PinList pin, read_pins({key + "=" + word}, "--sweep"));
  std::erase_if(request.pins, [&](const auto& p) { return p.first == key; });
  request.pins.push_back(pin.front());
  return Ok{};
}

struct Row {
  Point point;
  std::optional<Plan> plan;
  std::string reason;  // where there is none
};

Result<Row> planned(const planner::Request& base, const Point& point,
                    const planner::DecisionRule& rule) {
  planner::Request request = base;
  Row row{point, std::nullopt, ""};
  // The cluster first: what the others mean may depend on it.
  for (const bool cluster : {true, false}) {
    for (const auto& [key, word] : point) {
      if (key.starts_with("cluster.") != cluster) continue;
      const Status set = set_value(request, key, word);
      if (set.ok()) continue;
      if (set.error().code == ErrorCode::kUsage) return set.error();
      row.reason = set.error().problems.front().where + " " + set.error().problems.front().message;
      return row;
    }
  }
  Result<planner::Outcome> found = planner::decide(request, rule);
  if (!found.ok()) {
    if (found.error().code != ErrorCode::kInfeasible) return found.error();
    row.reason =
        found.error().problems.front().where + ": " + found.error().problems.front().message;
    return row;
  }
  planner::Outcome outcome = std::move(found).value();
  row.plan = std::move(outcome.best);
  if (!row.plan) {
    row.reason = fmt::format("does not fit: needs {} of {}", format_bytes(outcome.shortage->needed),
                             format_bytes(outcome.shortage->usable));
  }
  return row;
}

std::string text_of(const Plan& plan) {
  return layout_text(plan.model, plan.layout, plan.chunks, plan.policy);
}

// RFC 4180: a field with a comma, a quote or a line break stands in quotes.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string csv_of(const std::vector<Axis>& axes, const std::vector<Row>& rows) {
  std::string text;
  for (const Axis& axis : axes) text += csv_field(axis.key) + ",";
  text +=
      "feasible,devices,tokens_a_step,step_s,p10_s,p90_s,tokens_per_s,mfu,peak_bytes,plan,"
      "reason\n";
  for (const Row& row : rows) {
    for (const auto& [key, value] : row.point) text += csv_field(value) + ",";
    if (row.plan) {
      const Prediction& p = row.plan->predicted;
      text += fmt::format("true,{},{},{},{},{},{},{},{},{},\n", row.plan->cluster.devices,
                          row.plan->workload.global_tokens(), p.step.value(), p.p10.value(),
                          p.p90.value(), p.tokens_per_s, p.mfu, p.peak.value(),
                          csv_field(text_of(*row.plan)));
    } else {
      text += "false,,,,,,,,,," + csv_field(row.reason) + "\n";
    }
  }
  return text;
}

Json json_of(const std::vector<Row>& rows) {
  Json out = Json::array();
  for (const Row& row : rows) {
    Json values = Json::object();
    for (const auto& [key, value] : row.point) values.set(key, value);
    Json one = Json::object().set("values", std::move(values)).set("feasible", bool(row.plan));
    if (row.plan) {
      one.set("devices", row.plan->cluster.devices)
          .set("tokens_a_step", row.plan->workload.global_tokens())
          .set("layout", to_json(row.plan->layout))
          .set("chunks", to_json(row.plan->chunks))
          .set("memory_policy", to_json(row.plan->policy))
          .set("predicted", to_json(row.plan->predicted));
    } else {
      one.set("reason", row.reason);
    }
    out.push(std::move(one));
  }
  return versioned().set("points", std::move(out));
}

void print_rows(const std::vector<Axis>& axes, const std::vector<Row>& rows, Output& out) {
  std::vector<TextTable::Column> columns;
  for (const Axis& axis : axes) columns.push_back({axis.key, Align::kRight});
  for (const char* name : {"step", "tokens/s", "MFU", "memory"}) {
    columns.push_back({name, Align::kRight});
  }
  columns.push_back({"plan"});
  TextTable table(columns);
  for (const Row& row : rows) {
    std::vector<std::string> cells;
    for (const auto& [key, value] : row.point) cells.push_back(value);
    if (row.plan) {
      const Prediction& p = row.plan->predicted;
      for (const std::string& cell : {format_seconds(p.step), format_count(p.tokens_per_s),
                                      percent(p.mfu), format_bytes(p.peak), text_of(*row.plan)}) {
        cells.push_back(cell);
      }
    } else {
      cells.resize(columns.size() - 1, "-");
      cells.push_back(row.reason);
    }
    table.row(std::move(cells));
  }
  out.line(table.text());
}

}  // namespace

Result<int> answer_sweep(const Arguments& arguments, Output& out) {
  TRY(const std::vector<Axis> axes, read_axes(arguments));
  TRY(const planner::DecisionRule rule, read_rule(arguments));
  const std::string csv = arguments.text("csv");
  if (arguments.has("csv")) TRY_OK(check_output(csv, files_read(arguments)));
  TRY(planner::Request request, read_request(arguments, arguments.text("cluster")));
  if (!arguments.has("runners-up")) request.runners_up = 0;
  std::vector<Row> rows;
  for (const Point& point : points_of(axes)) {
    TRY(Row row, planned(request, point, rule));
    rows.push_back(std::move(row));
  }
  if (arguments.has("csv")) {
    TRY_OK(write_whole(csv, csv_of(axes, rows)));
    out.note("wrote " + csv);
  }
  out.heading(request.model.name + " on " + request.cluster.name + ", " + request.workload.name +
              ": " + plural(rows.size(), "point"));
  print_rows(axes, rows, out);
  out.document(json_of(rows));
  if (std::any_of(rows.begin(), rows.end(), [](const Row& r) { return bool(r.plan); })) return 0;
  out.error(Error::of(ErrorCode::kInfeasible, "--sweep", "no point fits",
                      "`orrery plan` with the values of one says what would fit"));
  return static_cast<int>(ErrorCode::kInfeasible);
}

}  // namespace orrery::cli
