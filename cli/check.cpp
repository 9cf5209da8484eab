// orrery check: is this file sound? It finds out by itself what the file is.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/table.h"
#include "core/cluster.h"
#include "core/configs.h"
#include "core/job_json.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/stack.h"
#include "core/workload.h"
#include "simulator/stages/parameter_set.h"
#include "tracer/trace_db.h"

namespace orrery::cli {
namespace {

struct Verdict {
  std::string path, kind;
  std::string about;  // what a sound file holds
  Error error;        // without problems: sound
};

// Keeps what the parser says; `about` of a sound value comes from `describe_value`.
template <class T, class Describe>
void judge(Verdict& verdict, const Result<T>& result, Describe describe_value) {
  if (result.ok()) {
    verdict.about = describe_value(result.value());
  } else {
    verdict.error = result.error();
  }
}

// A template of clusters has no size of its own: it is checked as one node.
std::int64_t size_to_check(const Json& json) {
  const Json* devices = json.find("devices");
  const Json* per_node = json.find("devices_per_node");
  if (devices != nullptr || per_node == nullptr || !per_node->is_integer()) return 0;
  return per_node->as_integer();
}

void check_json(Verdict& verdict, const std::string& text) {
  const Result<Json> parsed = Json::parse(text, verdict.path);
  if (!parsed.ok()) {
    verdict.error = parsed.error();
    return;
  }
  const Json& json = parsed.value();
  const auto has = [&](const char* key) { return json.is_object() && json.find(key) != nullptr; };
  if (has("job")) {
    verdict.kind = "job";
    judge(verdict, parse_job(text, verdict.path), [](const Job& job) {
      return fmt::format("{} on {} with {}: {}", job.model.name, job.cluster.name, job.stack.name,
                         words_of(job));
    });
  } else if (has("layout")) {
    verdict.kind = "plan";
    judge(verdict, parse_plan(text, verdict.path), [](const Plan& plan) {
      return fmt::format("{} on {}, {}", plan.model.name, plan.cluster.name, plan.workload.name);
    });
  } else if (has("sequence_tokens") || has("global_sequences")) {
    verdict.kind = "workload";
    judge(verdict, parse_workload(text, verdict.path), [](const Workload& workload) {
      return fmt::format("{}: {} tokens a step", workload.name, workload.global_tokens());
    });
  } else if (has("family") && has("attention")) {
    verdict.kind = "stack";
    judge(verdict, parse_stack(text, verdict.path), [](const Stack& stack) {
      return fmt::format("{}: {}, attention {}", stack.name, stack.family,
                         name_of(stack.attention));
    });
  } else if (has("values")) {
    verdict.kind = "parameters";
    judge(verdict, simulator::parse_parameters(text, verdict.path),
          [](const simulator::ParameterSet& set) {
            return fmt::format("{}, {}", plural(set.values.size(), "fitted value"),
                               plural(set.spread.shapes.size(), "measured shape"));
          });
  } else if (has("tiers") || has("devices_per_node")) {
    verdict.kind = "cluster";
    judge(verdict, parse_cluster(text, verdict.path, size_to_check(json)), [](const Cluster& c) {
      return fmt::format("{}: {} a node", c.name, c.devices_per_node);
    });
  } else if (has("model_type") || has("hidden_size") || has("architectures")) {
    verdict.kind = "model";
    judge(verdict, parse_model(text, verdict.path), [](const Model& model) {
      return fmt::format("{}: {} parameters", model.name, parameter_count(model));
    });
  } else {
    verdict.error = Error::of(
        ErrorCode::kInvalid, verdict.path, "is no kind of file known here",
        "models have model_type, clusters tiers, workloads "
        "sequence_tokens, stacks family, plans layout, jobs job, parameters values; traces "
        "are SQLite");
  }
}

// Also what makes it no plain run: a slow link that was emulated, a fault on purpose.
Result<std::string> about_trace(const std::string& path) {
  TRY(TraceReader reader, TraceReader::open(path));
  TRY(const std::vector<Attr> attrs, reader.attrs());
  std::string about = fmt::format("a {} run", name_of(reader.run().kind));
  for (const Attr& attr : attrs) {
    if (attr.subject == "run") about += fmt::format(" ({} {})", attr.name, attr.value);
  }
  const std::string& reason = reader.run().reason;
  return fmt::format("{}, {}{}", about, name_of(reader.run().status),
                     reason.empty() ? "" : ": " + reason);
}

Verdict check_file(const std::string& path) {
  Verdict verdict{path, "unknown", "", {}};
  const Result<bool> trace = is_trace(path);
  if (!trace.ok()) {
    verdict.error = trace.error();
    return verdict;
  }
  if (trace.value()) {
    verdict.kind = "trace";
    judge(verdict, about_trace(path), [](const std::string& about) { return about; });
    return verdict;
  }
  const Result<std::string> text = read_file(path);
  if (text.ok()) {
    check_json(verdict, text.value());
  } else {
    verdict.error = text.error();
  }
  return verdict;
}

Json to_json(const Verdict& verdict) {
  return Json::object()
      .set("file", verdict.path)
      .set("kind", verdict.kind)
      .set("ok", verdict.error.problems.empty())
      .set("about", verdict.about)
      .set("problems", problems_json(verdict.error));
}

Result<int> run(const Arguments& arguments, Output& out) {
  TextTable table({{"file"}, {"kind"}, {""}, {""}});
  Json files = Json::array();
  Error all;
  for (const std::string& path : arguments.all("FILE")) {
    const Verdict verdict = check_file(path);
    const std::size_t count = verdict.error.problems.size();
    if (count > 0) {
      // A file that is wrong weighs more than one that cannot be read.
      if (all.problems.empty() || verdict.error.code == ErrorCode::kInvalid) {
        all.code = verdict.error.code;
      }
      all.problems.insert(all.problems.end(), verdict.error.problems.begin(),
                          verdict.error.problems.end());
    }
    table.row({path, verdict.kind, count == 0 ? "ok" : "bad",
               count == 0 ? verdict.about : plural(count, "problem")});
    files.push(to_json(verdict));
  }
  out.line(table.text(0));
  out.document(versioned().set("ok", all.problems.empty()).set("files", std::move(files)));
  if (all.problems.empty()) return 0;
  return all;
}

}  // namespace

const Command& check_command() {
  static const Command command = {
      "check",
      "is a model, cluster, workload, plan, job, trace or set of parameters sound?",
      "Finds out what each file is and reports every problem in it. Exit code 3 where one is bad.",
      "orrery check plan.json run.db",
      {{"FILE", "a config.json, cluster, workload, stack, set of parameters, plan, job or trace",
        true, true}},
      {},
      run};
  return command;
}

}  // namespace orrery::cli
