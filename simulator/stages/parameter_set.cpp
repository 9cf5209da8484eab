// Reading and writing of the file, and predictions with it. See the header.
#include "simulator/stages/parameter_set.h"

#include <algorithm>
#include <charconv>

#include "core/configs.h"

namespace orrery::simulator {
namespace {

constexpr std::int64_t kMostRows = 1 << 30, kLargestSize = std::int64_t{1} << 40;
constexpr double kMostSide = 10;  // exp(10) either way is no interval

ParameterValue read_value(const Json& json, const std::string& place,
                          std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  ParameterValue value;
  value.of = reader.text("of");
  value.name = reader.text("name");
  value.rows = static_cast<std::size_t>(reader.integer_or("rows", 0, kMostRows, 0));
  const std::string owner = reader.text("owner");
  const FreeParameter* parameter = nullptr;
  for (const Owner o : {Owner::kDevice, Owner::kLink, Owner::kStack}) {
    if (owner != name_of(o)) continue;
    value.owner = o;
    parameter = find_parameter(o, value.name);
  }
  if (parameter == nullptr) {
    reader.note("name", "'" + value.name + "' is no free parameter of a " + owner,
                "orrery list parameters");
    reader.ignore("value");
  } else {
    value.value = reader.number_or("value", parameter->min, parameter->max, parameter->prior);
    value.low = reader.number_or("low", parameter->min, value.value, 0);
    value.high = reader.number_or("high", value.value, parameter->max, 0);
    if (reader.has("low") != reader.has("high"))
      reader.note("low", "one end of an interval is missing");
  }
  reader.finish();
  return value;
}

// "4096 2048 8 1 1 1 1"; false where it is not that.
bool read_sizes(const std::string& text, std::array<std::int64_t, kShapeSizes>& sizes) {
  const char* at = text.data();
  const char* const end = at + text.size();
  for (std::size_t i = 0; i < kShapeSizes; ++i) {
    if (i > 0 && (at == end || *at++ != ' ')) return false;
    const auto [next, error] = std::from_chars(at, end, sizes[i]);
    if (error != std::errc() || sizes[i] < 1 || sizes[i] > kLargestSize) return false;
    at = next;
  }
  return at == end;
}

std::string sizes_text(const MeasuredShape& shape) {
  std::string text;
  for (const std::int64_t size : shape.sizes)
    text += (text.empty() ? "" : " ") + std::to_string(size);
  return text;
}

// Shapes that differ in their sizes alone.
void read_shapes(const Json& json, const std::string& place, std::vector<MeasuredShape>& shapes,
                 std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  MeasuredShape shape;
  shape.stack = reader.text("stack");
  shape.family = reader.text("family");
  shape.device = reader.text("device");
  shape.experts = reader.boolean_or("experts", false);
  shape.low_precision = reader.boolean_or("low_precision", false);
  if (const Json* rows = reader.array("sizes")) {
    for (const Json& row : rows->items()) {
      if (row.is_string() && read_sizes(row.as_string(), shape.sizes)) {
        shapes.push_back(shape);
      } else {
        reader.note("sizes", row.dump() + " is no shape",
                    "hidden, tokens, devices, tp, pp, cp, ep: \"4096 2048 8 1 1 1 1\"");
      }
    }
  }
  reader.finish();
}

SpreadSide read_side(ObjectReader& spread, const char* name, std::vector<Problem>& problems) {
  SpreadSide side;
  if (const Json* json = spread.child(name)) {
    ObjectReader reader(*json, spread.place() + "/" + name, problems);
    side.base = reader.number("base", kNoise, kMostSide);
    side.exposed = reader.number("exposed", 0, kMostSide);
    side.unseen = reader.number("unseen", kLeastUnseen, kMostSide);
    reader.finish();
  }
  return side;
}

SpreadModel read_spread(const Json& json, const std::string& place,
                        std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  SpreadModel model;
  model.faster = read_side(reader, "faster", problems);
  model.slower = read_side(reader, "slower", problems);
  model.rows = static_cast<std::size_t>(reader.integer_or("rows", 0, kMostRows, 0));
  if (const Json* groups = reader.array("shapes")) {
    for (std::size_t i = 0; i < groups->items().size(); ++i) {
      read_shapes(groups->items()[i], place + "/shapes/" + std::to_string(i), model.shapes,
                  problems);
    }
  }
  if (model.shapes.size() > kMostShapes) {
    reader.note("shapes", std::to_string(model.shapes.size()) + " shapes, more than " +
                              std::to_string(kMostShapes));
  }
  std::sort(model.shapes.begin(), model.shapes.end());
  reader.finish();
  return model;
}

Json to_json(const SpreadSide& side) {
  return Json::object()
      .set("base", side.base)
      .set("exposed", side.exposed)
      .set("unseen", side.unseen);
}

Json to_json(const SpreadModel& model) {
  Json groups = Json::array();
  for (std::size_t i = 0; i < model.shapes.size();) {
    const MeasuredShape& first = model.shapes[i];
    Json sizes = Json::array();
    for (; i < model.shapes.size(); ++i) {
      MeasuredShape same = first;
      same.sizes = model.shapes[i].sizes;
      if (same != model.shapes[i]) break;
      sizes.push(sizes_text(same));
    }
    groups.push(Json::object()
                    .set("stack", first.stack)
                    .set("family", first.family)
                    .set("device", first.device)
                    .set("experts", first.experts)
                    .set("low_precision", first.low_precision)
                    .set("sizes", std::move(sizes)));
  }
  return Json::object()
      .set("faster", to_json(model.faster))
      .set("slower", to_json(model.slower))
      .set("rows", static_cast<std::int64_t>(model.rows))
      .set("shapes", std::move(groups));
}

}  // namespace

JobPrediction predict_with(const ParameterSet& set, const Job& job) {
  Job fitted = job;
  apply(set.values, fitted);
  JobPrediction out = predict(fitted);
  const SpreadFeatures features = spread_features(fitted, out, set.values, set.spread.shapes);
  const SpreadFactors by = factors(set.spread, features);
  out.p10 = Seconds(out.step.value() * by.p10);
  out.p90 = Seconds(out.step.value() * by.p90);
  out.distance = features.distance;
  return out;
}

Result<ParameterSet> parse_parameters(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  std::vector<Problem> problems;
  ObjectReader reader(json, place + ":", problems);
  ParameterSet set;
  reader.ignore("source");
  if (const Json* rows = reader.array("values")) {
    for (std::size_t i = 0; i < rows->items().size(); ++i) {
      set.values.push_back(
          read_value(rows->items()[i], place + ":/values/" + std::to_string(i), problems));
    }
  }
  if (reader.has("spread")) {
    if (const Json* spread = reader.child("spread")) {
      set.spread = read_spread(*spread, place + ":/spread", problems);
    }
  }
  for (const auto& [key, figures] : {std::pair{"without_source", &set.without_source},
                                     {"without_device", &set.without_device}}) {
    if (!reader.has(key)) continue;
    const Json* object = reader.child(key);
    if (object == nullptr) continue;
    for (const auto& [words, value] : object->members()) {
      if (value.is_number()) {
        figures->emplace(words, value.as_double());
      } else {
        reader.note(key, "'" + words + "' is no number");
      }
    }
  }
  reader.finish();
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  return set;
}

Result<ParameterSet> load_parameters(const std::string& name) {
  std::string path = name;
  if (!looks_like_path(name)) {
    TRY(path, find_config("parameters", name));
  }
  TRY(const std::string text, read_file(path));
  return parse_parameters(text, path);
}

Json to_json(const ParameterSet& set) {
  Json rows = Json::array();
  for (const ParameterValue& v : set.values) {
    Json row = Json::object()
                   .set("owner", name_of(v.owner))
                   .set("of", v.of)
                   .set("name", v.name)
                   .set("value", v.value)
                   .set("rows", static_cast<std::int64_t>(v.rows));
    if (v.low > 0 && v.high > 0) row.set("low", v.low).set("high", v.high);
    rows.push(std::move(row));
  }
  Json json = Json::object();
  json.set("values", std::move(rows));
  if (!(set.spread == SpreadModel{})) json.set("spread", to_json(set.spread));
  for (const auto& [key, figures] : {std::pair{"without_source", &set.without_source},
                                     {"without_device", &set.without_device}}) {
    if (figures->empty()) continue;
    Json object = Json::object();
    for (const auto& [words, value] : *figures) object.set(words, value);
    json.set(key, std::move(object));
  }
  return json;
}

}  // namespace orrery::simulator
