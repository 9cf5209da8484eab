// orrery list: the names that the other commands take.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "cli/commands.h"
#include "cli/formats.h"
#include "cli/table.h"
#include "core/cluster.h"
#include "core/configs.h"
#include "core/model.h"
#include "core/quantity.h"
#include "core/stack.h"
#include "core/workload.h"
#include "planner/plans/planner.h"
#include "simulator/stages/parameter_set.h"
#include "tracer/analysis.h"

namespace orrery::cli {
namespace {

constexpr const char* kFittedSet = "published";  // what predictions take where nothing is said

struct Row {
  std::string name, about;
  std::string of = {};  // where it is one of several of the name: whose
};

// No name at all means that configs/ was not found: the error of looking one up says so.
Result<std::vector<std::string>> names_in(const std::string& folder) {
  std::vector<std::string> names = list_configs(folder);
  if (names.empty()) {
    TRY(const std::string path, find_config(folder, "any"));
  }
  return names;
}

Result<std::vector<Row>> models() {
  std::vector<Row> rows;
  TRY(const std::vector<std::string> names, names_in("models"));
  for (const std::string& name : names) {
    TRY(const Model model, load_model(name));
    const std::string experts =
        model.is_moe() ? fmt::format("; {} of {} experts", model.top_k, model.experts) : "";
    rows.push_back(
        {name, fmt::format("{}: {} parameters, {} active; {} layers{}{}", model.model_type,
                           format_count(static_cast<double>(parameter_count(model))),
                           format_count(static_cast<double>(active_parameter_count(model))),
                           model.layers, experts, executes(model) ? "" : "; simulated only")});
  }
  return rows;
}

Result<std::vector<Row>> clusters() {
  std::vector<Row> rows;
  TRY(const std::vector<std::string> names, names_in("clusters"));
  for (const std::string& name : names) {
    TRY(const Json json, [&]() -> Result<Json> {
      TRY(const std::string path, find_config("clusters", name));
      return Json::load(path);
    }());
    const Json* devices = json.find("devices");
    const Json* per_node = json.find("devices_per_node");
    const Json* device = json.find("device");
    const std::string kind =
        device != nullptr && device->is_string() ? device->as_string() : "device";
    const std::int64_t node =
        per_node != nullptr && per_node->is_integer() ? per_node->as_integer() : 1;
    const bool fixed = devices != nullptr && devices->is_integer();
    rows.push_back(
        {fixed ? name : name + "xN",
         fixed ? fmt::format("{} x {}", devices->as_integer(), kind)
               : fmt::format("N x {}, {} a node; for example {}x{}", kind, node, name, 32 * node)});
  }
  return rows;
}

Result<std::vector<Row>> devices() {
  std::vector<Row> rows;
  TRY(const std::vector<std::string> names, names_in("devices"));
  for (const std::string& name : names) rows.push_back({name, ""});
  return rows;
}

Result<std::vector<Row>> workloads() {
  std::vector<Row> rows;
  TRY(const std::vector<std::string> names, names_in("workloads"));
  for (const std::string& name : names) {
    TRY(const Workload workload, load_workload(name));
    rows.push_back({name, fmt::format("{} rows of {} tokens a step: {} tokens; compute {}",
                                      workload.global_sequences, workload.sequence_tokens,
                                      format_count(static_cast<double>(workload.global_tokens())),
                                      name_of(workload.compute))});
  }
  return rows;
}

Result<std::vector<Row>> stacks() {
  std::vector<Row> rows;
  TRY(const std::vector<Stack> all, load_stacks());
  for (const Stack& stack : all) {
    rows.push_back(
        {stack.name, fmt::format("{}, {}: attention {}, recompute {}", stack.family, stack.released,
                                 name_of(stack.attention), stack.recompute)});
  }
  return rows;
}

// Under each its fitted values, with how far they may move, where there is a fitted set.
Result<std::vector<Row>> parameters() {
  std::vector<Row> rows;
  simulator::ParameterSet fitted;
  const std::vector<std::string> sets = list_configs("parameters");
  if (std::find(sets.begin(), sets.end(), kFittedSet) != sets.end()) {
    TRY(fitted, simulator::load_parameters(kFittedSet));
  }
  for (const simulator::FreeParameter& p : simulator::free_parameters()) {
    const std::string unit = p.unit.empty() ? "" : " " + p.unit;
    rows.push_back({p.name, fmt::format("of a {}: {}; {:g} to {:g}{}, prior {:g}{}",
                                        simulator::name_of(p.owner), p.meaning, p.min, p.max, unit,
                                        p.prior, unit)});
    for (const simulator::ParameterValue& v : fitted.values) {
      if (v.owner != p.owner || v.name != p.name) continue;
      const std::string range =
          v.low > 0 ? fmt::format(" ({:.3g} to {:.3g})", v.low, v.high) : std::string();
      rows.push_back({p.name,
                      fmt::format("{:.3g}{}{}, {}", v.value, unit, range, plural(v.rows, "row")),
                      v.of});
    }
  }
  return rows;
}

Result<std::vector<Row>> analyses() {
  std::vector<Row> rows;
  for (const AnalysisInfo& info : list_analyses()) rows.push_back({info.name, info.description});
  return rows;
}

Result<std::vector<Row>> formats() {
  std::vector<Row> rows;
  for (const ExportFormat& format : export_formats()) {
    rows.push_back({std::string(format.name), std::string(format.about)});
  }
  return rows;
}

Result<std::vector<Row>> pins() {
  std::vector<Row> rows;
  for (const std::string& name : planner::pinnable()) rows.push_back({name, ""});
  return rows;
}

// What every layout has to obey; the names are those of core/plan.h.
Result<std::vector<Row>> rules() {
  return std::vector<Row>{
      {"engine_family", "the engine runs the model's family"},
      {"positive", "every axis is at least 1"},
      {"engine_axes", "axes that nothing executes yet stay 1: cp, sp, tp, pp, etp"},
      {"world_size", "dp x cp x sp x tp x pp is the number of devices"},
      {"world_factors", "replicate_d x fsdp_d = dp x cp x sp"},
      {"expert_world_factors", "replicate_e x fsdp_e x ep x etp = world / pp"},
      {"ep_without_experts", "a dense model has ep = etp = 1"},
      {"experts_divide", "the experts divide by ep"},
      {"batch_divides", "dp x micro_batch x accumulation is the rows of a step"},
      {"order_names", "dense_inner is fsdp or replicate, expert_inner ep or fsdp"},
      {"chunk_ranges", "chunk sizes are not beyond what they cut"},
      {"recompute_range", "recompute_layers is from 0 to the layers of the model"}};
}

struct Kind {
  std::string name;
  std::string next;  // a command that takes such a name
  Result<std::vector<Row>> (*rows)();
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {"models", "orrery plan --model NAME --cluster CLUSTER", models},
      {"clusters", "orrery plan --model MODEL --cluster NAME", clusters},
      {"devices", "", devices},
      {"workloads", "orrery plan --model MODEL --cluster CLUSTER --workload NAME", workloads},
      {"stacks", "", stacks},
      {"parameters", "", parameters},
      {"analyses", "orrery analyze run.db NAME", analyses},
      {"formats", "orrery export run.db --format NAME -o FILE", formats},
      {"rules", "", rules},
      {"pins", "orrery plan --model MODEL --cluster CLUSTER --pin NAME=VALUE", pins}};
  return all;
}

Result<int> run(const Arguments& arguments, Output& out) {
  const std::string what = arguments.text("WHAT");
  std::vector<std::string> names;
  for (const Kind& kind : kinds()) names.push_back(kind.name);
  for (const Kind& kind : kinds()) {
    if (kind.name != what) continue;
    TRY(const std::vector<Row> rows, kind.rows());
    TextTable table({{""}, {""}});
    Json items = Json::array();
    for (const Row& row : rows) {
      table.row({row.of.empty() ? row.name : "  " + row.of, row.about});
      Json item = Json::object().set("name", row.name).set("about", row.about);
      if (!row.of.empty()) item.set("of", row.of);
      items.push(std::move(item));
    }
    out.line(table.text(0));
    out.document(versioned().set("what", what).set("items", std::move(items)));
    if (!kind.next.empty() && !out.json()) out.note("next: " + kind.next);
    return 0;
  }
  const std::string near = nearest(what, names);
  std::string hint = "did you mean '" + near + "'?";
  if (near.empty()) {
    hint.clear();
    for (const std::string& name : names) hint += (hint.empty() ? "known: " : ", ") + name;
  }
  return Error::of(ErrorCode::kUsage, "orrery list", "there is no list of '" + what + "'", hint);
}

}  // namespace

const Command& list_command() {
  static const Command command = {
      "list",
      "the names that other commands take",
      "Lists models, clusters, devices, workloads, stacks, parameters, analyses, formats, rules "
      "or\n"
      "pins.",
      "orrery list models",
      {{"WHAT",
        "models | clusters | devices | workloads | stacks | parameters | analyses | formats | "
        "rules | pins"}},
      {},
      run};
  return command;
}

}  // namespace orrery::cli
