// A sweep: the plan of every combination of values, as a table, CSV or JSON.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>

#include "cli/files.h"
#include "cli/plan_asked.h"
#include "cli/plan_questions.h"
#include "cli/table.h"
#include "core/quantity.h"
#include "planner/questions/size.h"

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
    std::string known;
    for (const std::string& name : keys) known += (known.empty() ? "known: " : ", ") + name;
    return Error::of(ErrorCode::kUsage, where, "there is no '" + key + "'",
                     near.empty() ? known : "did you mean '" + near + "'?");
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

// The nearest whole number of rows that divides over the devices; fewer than these are a multiple
// of a power of two, so that they divide over many.
std::int64_t rows_of(std::int64_t tokens, const planner::Setting& setting) {
  const std::int64_t row = setting.workload.sequence_tokens, world = setting.cluster.devices;
  const std::int64_t rows = std::max<std::int64_t>(1, (tokens + row / 2) / row);
  constexpr std::uint64_t kParts = 8;
  const auto coarse = std::bit_floor(static_cast<std::uint64_t>(rows)) / kParts;
  const std::int64_t part =
      rows < world ? std::max<std::int64_t>(1, static_cast<std::int64_t>(coarse)) : world;
  return (rows + part / 2) / part * part;
}

Status set_workload(planner::Setting& setting, const std::string& key, const std::string& word,
                    const std::string& where) {
  Workload& workload = setting.workload;
  if (key == "global_batch_tokens") {
    TRY(const std::int64_t tokens, parse_count(word, where));
    workload.global_sequences = rows_of(tokens, setting);
  } else if (key == "sequence_tokens") {
    TRY(const std::int64_t tokens, parse_count(word, where));
    workload = planner::with_sequence(workload, tokens);
  } else {
    TRY(const Json json, with_value(to_json(workload), key, word, where));
    TRY(workload, workload_from_json(json, "--sweep:"));
    return Ok{};
  }
  // Reads it back, for the rules of a workload and its hash.
  TRY(workload, workload_from_json(to_json(workload), "--sweep:"));
  return Ok{};
}

// What is fitted comes from --parameters, whatever stands in a noun's file.
Status not_fitted(const std::string& key, const std::string& where) {
  const bool fitted = key.starts_with("parameters.") || key.starts_with("device.attainable.");
  if (!fitted) return Ok{};
  return Error::of(ErrorCode::kUsage, where, "is fitted: --parameters sets it",
                   "a file of your own with --parameters (orrery list parameters)");
}

Status set_stack(Asked& asked, const std::string& key, const std::string& word,
                 const std::string& where) {
  if (!asked.simulates) {
    return Error::of(ErrorCode::kUsage, where, "says something about jobs that are simulated",
                     "add --for simulate");
  }
  if (key.empty()) {
    const Result<Stack> stack = load_stack(word);
    if (!stack.ok()) return Error{ErrorCode::kUsage, stack.error().problems};
    asked.setting.stack = stack.value();
    return Ok{};
  }
  TRY_OK(not_fitted(key, where));
  TRY(const Json json, with_value(to_json(asked.setting.stack), key, word, where));
  TRY(asked.setting.stack, parse_stack(json.dump(), "--sweep"));
  return Ok{};
}

Status set_value(Asked& asked, const std::string& key, const std::string& word) {
  planner::Setting& setting = asked.setting;
  const std::string where = "--sweep " + key;
  if (key == "stack") return set_stack(asked, "", word, where);
  if (key.starts_with("stack.")) return set_stack(asked, key.substr(6), word, where);
  if (key.starts_with("workload.")) return set_workload(setting, key.substr(9), word, where);
  if (key.starts_with("cluster.")) {
    if (asked.simulates) TRY_OK(not_fitted(key.substr(8), where));
    TRY(const Json json, with_value(to_json(setting.cluster), key.substr(8), word, where));
    TRY(setting.cluster, cluster_from_json(json, "--sweep:", 0));
    return Ok{};
  }
  if (key.starts_with("model.")) {
    TRY(const Json json, with_value(to_json(setting.model), key.substr(6), word, where));
    TRY(setting.model, model_from_json(json, "--sweep:"));
    return Ok{};
  }
  TRY(const PinList pin, read_pins({key + "=" + word}, "--sweep", asked.simulates));
  std::erase_if(setting.pins, [&](const auto& p) { return p.first == key; });
  setting.pins.push_back(pin.front());
  return Ok{};
}

struct Row {
  Point point;
  std::int64_t devices = 0, tokens_a_step = 0;
  planner::Answer answer;
};

// What others mean may depend on the nouns that stand first.
int rank_of(const std::string& key) {
  if (key.starts_with("cluster.")) return 0;
  return key == "stack" ? 1 : 2;
}

Result<Row> planned(const Asked& base, const Point& point) {
  Asked asked = base;
  Row row{point, 0, 0, {}};
  for (int rank = 0; rank <= 2; ++rank) {
    for (const auto& [key, word] : point) {
      if (rank_of(key) != rank) continue;
      const Status set = set_value(asked, key, word);
      if (set.ok()) continue;
      if (set.error().code == ErrorCode::kUsage) return set.error();
      const Problem& first = set.error().problems.front();
      row.answer.reason = first.where + " " + first.message;
      return row;
    }
  }
  row.devices = asked.setting.cluster.devices;
  row.tokens_a_step = asked.setting.workload.global_tokens();
  Result<planner::Answer> found = asked.searcher->decided(asked.setting);
  if (found.ok()) {
    row.answer = std::move(found).value();
    return row;
  }
  if (found.error().code != ErrorCode::kInfeasible) return found.error();
  row.answer.reason = planner::reason_of(*asked.searcher, asked.setting, found.error());
  return row;
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
    const planner::Answer& a = row.answer;
    if (a) {
      text += fmt::format("true,{},{},{},{},{},{},{},{},{},\n", row.devices, row.tokens_a_step,
                          a.step.value(), a.p10.value(), a.p90.value(), a.tokens_per_s, a.mfu,
                          a.peak.value(), csv_field(words_of(a)));
    } else {
      text += "false,,,,,,,,,," + csv_field(a.reason) + "\n";
    }
  }
  return text;
}

Json json_of(const std::vector<Row>& rows) {
  Json out = Json::array();
  for (const Row& row : rows) {
    Json values = Json::object();
    for (const auto& [key, value] : row.point) values.set(key, value);
    Json one = Json::object().set("values", std::move(values)).set("feasible", row.answer.fits);
    if (row.answer) {
      one.set("devices", row.devices).set("tokens_a_step", row.tokens_a_step);
      const Json found = row_json(row.answer);
      for (const auto& [key, value] : found.members()) one.set(key, value);
    } else {
      one.set("reason", row.answer.reason);
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
    if (const planner::Answer& a = row.answer) {
      for (const std::string& cell : {format_seconds(a.step), format_count(a.tokens_per_s),
                                      percent(a.mfu), format_bytes(a.peak), words_of(a)}) {
        cells.push_back(cell);
      }
    } else {
      cells.resize(columns.size() - 1, "-");
      cells.push_back(row.answer.reason);
    }
    table.row(std::move(cells));
  }
  out.line(table.text());
}

}  // namespace

Result<int> answer_sweep(const Arguments& arguments, Output& out) {
  TRY(const std::vector<Axis> axes, read_axes(arguments));
  const std::string csv = arguments.text("csv");
  if (arguments.has("csv")) TRY_OK(check_output(csv, files_read(arguments)));
  TRY(const Asked asked, read_asked(arguments, arguments.text("cluster")));
  std::vector<Row> rows;
  for (const Point& point : points_of(axes)) {
    TRY(Row row, planned(asked, point));
    rows.push_back(std::move(row));
  }
  if (arguments.has("csv")) {
    TRY_OK(write_whole(csv, csv_of(axes, rows)));
    out.note("wrote " + csv);
  }
  out.heading(title_of(asked.setting, asked.simulates) + ": " + plural(rows.size(), "point"));
  print_rows(axes, rows, out);
  out.document(json_of(rows));
  if (std::any_of(rows.begin(), rows.end(), [](const Row& r) { return r.answer.fits; })) return 0;
  out.error(Error::of(ErrorCode::kInfeasible, "--sweep", "no point fits",
                      "`orrery plan` with the values of one says what would fit"));
  return static_cast<int>(ErrorCode::kInfeasible);
}

}  // namespace orrery::cli
