// Meaning, unit and prior of each. See the header.
#include "simulator/stages/parameters.h"

#include <algorithm>
#include <array>

#include "core/check.h"
#include "core/configs.h"

namespace orrery::simulator {
namespace {

struct Words {
  const char *name, *meaning, *unit;
  double spread;
  bool of_time = true;
};

constexpr Words kStackWords[] = {
    {"host_per_kernel_s", "the host launches one kernel", "s", 0.7},
    {"pass_factor", "bytes of element-wise passes over what they cannot avoid", "", 0.4},
    {"product_factor", "time of products over that of the device's curve", "", 0.1},
    {"attention_factor", "time of attention over that of the device's curve", "", 0.25},
    {"exposed_share", "of what is overlapped, the part that is not hidden", "", 0.7},
    {"step_s", "of each step, beyond its ops: data, logging, host", "s", 1.0},
    {"straggle", "relative wait, a doubling of the ranks that wait for each other", "", 0.7},
    {"reserve_bytes", "context, communicators and libraries", "bytes", 0.5, false},
    {"fragmentation", "what the allocator takes over what comes and goes in a step", "", 0.1,
     false}};

struct DeviceParameter {
  const char* name;
  double Attainable::*member;
  const char* meaning;
  double min, max, spread;
};

constexpr DeviceParameter kDevice[] = {
    {"product", &Attainable::product, "of the 16 bit peak, by large products", 0.3, 1, 0.1},
    {"low_product", &Attainable::low_product, "of the 8 bit peak, by large products", 0.2, 1, 0.2},
    {"attention", &Attainable::attention, "of the 16 bit peak, by attention forward", 0.1, 1, 0.25},
    {"attention_backward", &Attainable::attention_backward, "the same backward", 0.1, 1, 0.25},
    {"memory", &Attainable::memory, "of the bandwidth, by large passes", 0.4, 1, 0.1}};

const double kLinkPrior = LinkTier{}.attainable;

std::vector<FreeParameter> registry() {
  std::vector<FreeParameter> rows;
  const Attainable device;
  for (const DeviceParameter& p : kDevice) {
    rows.push_back(
        {Owner::kDevice, p.name, p.meaning, "", p.min, p.max, device.*p.member, p.spread, true});
  }
  rows.push_back({Owner::kLink, "attainable", "of the bandwidth, by large collectives", "", 0.2, 1,
                  kLinkPrior, 0.2, true});
  const Stack prior;
  for (const StackParameter& p : stack_parameters()) {
    const Words* words = nullptr;
    for (const Words& w : kStackWords) {
      if (std::string(w.name) == p.name) words = &w;
    }
    CHECK(words != nullptr, std::string("no meaning of ") + p.name);
    rows.push_back({Owner::kStack, p.name, words->meaning, words->unit, p.min, p.max,
                    prior.*p.member, words->spread, words->of_time});
  }
  return rows;
}

const FreeParameter* find(Owner owner, const std::string& name) {
  for (const FreeParameter& p : free_parameters()) {
    if (p.owner == owner && p.name == name) return &p;
  }
  return nullptr;
}

ParameterValue read_value(const Json& json, const std::string& place,
                          std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  ParameterValue value;
  value.of = reader.text("of");
  value.name = reader.text("name");
  value.rows = static_cast<std::size_t>(reader.integer_or("rows", 0, 1 << 30, 0));
  const std::string owner = reader.text("owner");
  const FreeParameter* parameter = nullptr;
  for (const Owner o : {Owner::kDevice, Owner::kLink, Owner::kStack}) {
    if (owner != name_of(o)) continue;
    value.owner = o;
    parameter = find(o, value.name);
  }
  if (parameter == nullptr) {
    reader.note("name", "'" + value.name + "' is no free parameter of a " + owner,
                "orrery list parameters");
    reader.ignore("value");
  } else {
    value.value = reader.number_or("value", parameter->min, parameter->max, parameter->prior);
  }
  reader.finish();
  return value;
}

}  // namespace

const char* name_of(Owner owner) {
  constexpr std::array<const char*, 3> names = {"device", "link", "stack"};
  return names[static_cast<std::size_t>(owner)];
}

const std::vector<FreeParameter>& free_parameters() {
  static const std::vector<FreeParameter> rows = registry();
  return rows;
}

bool belongs(const ParameterValue& value, const Job& job) {
  switch (value.owner) {
    case Owner::kDevice:
      return value.of == job.cluster.device.family;
    case Owner::kLink:
      return std::any_of(job.cluster.tiers.begin(), job.cluster.tiers.end(),
                         [&](const LinkTier& t) { return t.name == value.of; });
    case Owner::kStack:
      return value.of == job.stack.name || value.of == job.stack.family;
  }
  return false;
}

void apply(const std::vector<ParameterValue>& values, Job& job) {
  for (const ParameterValue& v : values) {
    if (!belongs(v, job)) continue;
    if (v.owner == Owner::kDevice) {
      for (const DeviceParameter& p : kDevice) {
        if (v.name == p.name) job.cluster.device.attainable.*p.member = v.value;
      }
    } else if (v.owner == Owner::kLink) {
      for (LinkTier& tier : job.cluster.tiers) {
        if (tier.name == v.of) tier.attainable = v.value;
      }
    } else {
      for (const StackParameter& p : stack_parameters()) {
        if (v.name == p.name) job.stack.*p.member = v.value;
      }
    }
  }
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
    rows.push(Json::object()
                  .set("owner", name_of(v.owner))
                  .set("of", v.of)
                  .set("name", v.name)
                  .set("value", v.value)
                  .set("rows", static_cast<std::int64_t>(v.rows)));
  }
  Json json = Json::object();
  json.set("values", std::move(rows));
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
