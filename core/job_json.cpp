// See job_json.h.
#include "core/job_json.h"

#include <algorithm>
#include <array>
#include <limits>

#include "core/configs.h"

namespace orrery {
namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

struct Axis {
  const char* name;
  std::int64_t Layout::*member;
};
constexpr std::array<Axis, 10> kAxes = {{{"dp", &Layout::dp},
                                         {"cp", &Layout::cp},
                                         {"sp", &Layout::sp},
                                         {"tp", &Layout::tp},
                                         {"pp", &Layout::pp},
                                         {"ep", &Layout::ep},
                                         {"etp", &Layout::etp},
                                         {"fsdp_d", &Layout::fsdp_d},
                                         {"replicate_d", &Layout::replicate_d},
                                         {"micro_batch", &Layout::micro_batch}}};

// The value whose name stands at `key`; the first where it is none, which is noted; `fallback`
// where the key is absent.
template <class Enum>
Enum read_word(ObjectReader& reader, const char* key, int count, Enum fallback = Enum{}) {
  if (!reader.has(key)) return fallback;
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(name_of(static_cast<Enum>(i)));
  const std::string word = reader.choice(key, names);
  for (int i = 0; i < count; ++i) {
    if (word == names[static_cast<std::size_t>(i)]) return static_cast<Enum>(i);
  }
  return Enum{};
}

std::vector<std::int64_t> read_counts(ObjectReader& reader, const char* key) {
  std::vector<std::int64_t> counts;
  if (!reader.has(key)) return counts;
  const Json* rows = reader.array(key);
  if (rows == nullptr) return counts;
  for (const Json& row : rows->items()) {
    if (row.is_integer() && row.as_integer() >= 0) {
      counts.push_back(row.as_integer());
    } else {
      reader.note(key, row.dump(-1) + " is no count");
    }
  }
  return counts;
}

Recompute read_recompute(const Json& json, const std::string& place,
                         std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  Recompute r;
  r.full = reader.boolean_or("full", false);
  r.full_layers = reader.integer_or("full_layers", 0, kMax, 0);
  r.ops = reader.boolean_or("ops", false);
  if (reader.has("modules")) {
    const Json* rows = reader.array("modules");
    for (std::size_t i = 0; rows != nullptr && i < rows->items().size(); ++i) {
      const Json& row = rows->items()[i];
      bool known = false;
      for (int m = 0; row.is_string() && m < kNumModules; ++m) {
        if (row.as_string() != name_of(static_cast<Module>(m))) continue;
        r.modules[static_cast<std::size_t>(m)] = known = true;
      }
      if (!known) reader.note("modules", row.dump(-1) + " is no module of a layer");
    }
  }
  reader.finish();
  return r;
}

void read_axes(const Json& json, const std::string& place, Job& job,
               std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  const bool has_layout = reader.has("layout");
  for (const Axis& axis : kAxes) job.layout.*axis.member = 0;  // complete() fills it
  if (const Json* layout = has_layout ? reader.child("layout") : nullptr) {
    ObjectReader axes(*layout, place + "/layout", problems);
    for (const Axis& axis : kAxes) {
      job.layout.*axis.member = axes.integer_or(axis.name, 1, kMax, 0);
    }
    axes.finish();
  }
  job.virtual_stages = reader.integer_or("virtual_stages", 1, kMax, 1);
  job.schedule = read_word(reader, "schedule", kNumSchedules, job.schedule);
  job.stage_layers = read_counts(reader, "stage_layers");
  job.sequence_parallel = reader.boolean_or("sequence_parallel", false);
  job.sharding = read_word(reader, "sharding", 4, job.sharding);
  job.keeps_gathered = reader.boolean_or("keeps_gathered", false);
  job.context = read_word(reader, "exchange", 3, job.context);
  job.dispatcher = read_word(reader, "dispatcher", 3, job.dispatcher);
  job.precision = read_word(reader, "precision", 5, job.precision);
  if (reader.has("recompute")) {
    if (const Json* recompute = reader.child("recompute")) {
      job.recompute = read_recompute(*recompute, place + "/recompute", problems);
    }
  }
  job.trains_adapters = reader.boolean_or("trains_adapters", false);
  job.expert_load_cv = reader.number_or("expert_load_cv", 0, 1e6, 0);
  job.sequence_tokens = reader.integer("sequence_tokens", 1, kMax);
  job.documents = read_counts(reader, "documents");
  job.global_sequences = reader.integer("global_sequences", 1, kMax);
  reader.finish();
}

template <class T>
void take(Result<T> result, T& out, std::vector<Problem>& problems) {
  if (result.ok()) {
    out = std::move(result).value();
    return;
  }
  const std::vector<Problem>& found = result.error().problems;
  problems.insert(problems.end(), found.begin(), found.end());
}

// Axes that the file leaves out, 0 until now: 1, but for the data axis, which takes the devices
// that are left, and its sharding, which spans it.
void complete(const Cluster& cluster, Layout& l) {
  const bool has_data = l.dp > 0, has_shards = l.fsdp_d > 0;
  for (const Axis& axis : kAxes) {
    std::int64_t& value = l.*axis.member;
    if (value == 0) value = 1;
  }
  const auto share = [](std::int64_t whole, std::int64_t part) {
    return part > 0 && whole % part == 0 ? whole / part : 1;
  };
  // A product that is no number of devices breaks a rule anyway.
  const auto used = [&](std::int64_t most) {
    std::int64_t product = 1;
    for (const std::int64_t axis : {l.cp, l.sp, l.tp, l.pp}) {
      if (axis > most / product) return most + 1;
      product *= axis;
    }
    return product;
  };
  if (!has_data) l.dp = share(cluster.devices, used(cluster.devices));
  constexpr std::int64_t kMostRanks = std::int64_t{1} << 20;
  if (!has_shards && std::max({l.dp, l.cp, l.sp}) <= kMostRanks) {
    l.fsdp_d = share(l.dp * l.cp * l.sp, l.replicate_d);
  }
}

Json list(const std::vector<std::int64_t>& counts) {
  Json rows = Json::array();
  for (const std::int64_t count : counts) rows.push(count);
  return rows;
}

// "4, 6 x 5, 3": runs of stages with as many layers.
std::string layers_words(const std::vector<std::int64_t>& counts) {
  std::string words;
  for (std::size_t i = 0, end = 0; i < counts.size(); i = end) {
    while (end < counts.size() && counts[end] == counts[i]) ++end;
    words += (words.empty() ? "" : ", ") + std::to_string(counts[i]);
    if (end - i > 1) words += " x " + std::to_string(end - i);
  }
  return words;
}

std::string sharding_words(const Job& job) {
  const Layout& l = job.layout;
  std::string words = "dp " + std::to_string(l.dp);
  if (job.sharding == Sharding::kNone) return words + ", nothing sharded";
  words += std::string(", ") + name_of(job.sharding) + " over " + std::to_string(l.fsdp_d);
  if (l.replicate_d > 1) words += " x " + std::to_string(l.replicate_d) + " replicas";
  if (job.keeps_gathered) words += ", kept gathered";
  return words;
}

}  // namespace

Json axes_json(const Job& job) {
  Json layout = Json::object();
  for (const Axis& axis : kAxes) layout.set(axis.name, job.layout.*axis.member);
  Json modules = Json::array();
  for (int m = 0; m < kNumModules; ++m) {
    if (job.recompute.again(static_cast<Module>(m))) modules.push(name_of(static_cast<Module>(m)));
  }
  Json axes = Json::object();
  axes.set("layout", std::move(layout))
      .set("virtual_stages", job.virtual_stages)
      .set("schedule", name_of(job.schedule));
  if (!job.stage_layers.empty()) axes.set("stage_layers", list(job.stage_layers));
  axes.set("sequence_parallel", job.sequence_parallel)
      .set("sharding", name_of(job.sharding))
      .set("keeps_gathered", job.keeps_gathered)
      .set("exchange", name_of(job.context))
      .set("dispatcher", name_of(job.dispatcher))
      .set("precision", name_of(job.precision))
      .set("recompute", Json::object()
                            .set("full", job.recompute.full)
                            .set("full_layers", job.recompute.full_layers)
                            .set("ops", job.recompute.ops)
                            .set("modules", std::move(modules)))
      .set("trains_adapters", job.trains_adapters)
      .set("expert_load_cv", job.expert_load_cv)
      .set("sequence_tokens", job.sequence_tokens);
  if (!job.documents.empty()) axes.set("documents", list(job.documents));
  axes.set("global_sequences", job.global_sequences);
  return axes;
}

Json to_json(const Job& job) {
  return Json::object()
      .set("job", axes_json(job))
      .set("model", to_json(job.model))
      .set("cluster", to_json(job.cluster))
      .set("stack", to_json(job.stack));
}

namespace {

Result<Cluster> whole_cluster(const Json& json, const std::string& place) {
  const Json* device = json.find("device");
  if (device != nullptr && device->is_object()) return cluster_from_json(json, place, 0);
  return Error::of(ErrorCode::kInvalid, place + "/device", "a job embeds the whole device",
                   "or name the cluster: \"h100x64\"");
}

Result<Stack> embedded_stack(const Json& json, const std::string& place) {
  return parse_stack(json.dump(-1), place);
}

// What stands at `key`: the noun itself, or its name.
template <class T, class Load, class Parse>
void read_noun(const Json& json, const char* key, const std::string& root, Load load, Parse parse,
               T& out, std::vector<Problem>& problems) {
  const Json* child = json.find(key);
  const std::string place = root + "/" + key;
  if (child != nullptr && child->is_string()) {
    take(load(child->as_string()), out, problems);
  } else if (child != nullptr && child->is_object()) {
    take(parse(*child, place), out, problems);
  } else {
    problems.push_back(
        {place, "is missing", std::string("a name (orrery list ") + key + "s) or the whole"});
  }
}

}  // namespace

Result<Job> parse_job(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  std::vector<Problem> problems;
  Job job;
  if (!json.is_object()) return Error::of(ErrorCode::kInvalid, place, "is no JSON object");
  const std::string root = place + ":";
  if (const Json* axes = json.find("job"); axes != nullptr && axes->is_object()) {
    read_axes(*axes, root + "/job", job, problems);
  } else {
    problems.push_back({root + "/job", "is missing", "orrery plan --for simulate writes jobs"});
  }
  read_noun(json, "model", root, load_model, model_from_json, job.model, problems);
  read_noun(json, "cluster", root, load_cluster, whole_cluster, job.cluster, problems);
  read_noun(json, "stack", root, load_stack, embedded_stack, job.stack, problems);
  if (problems.empty()) complete(job.cluster, job.layout);
  if (problems.empty()) {
    for (const Violation& v : violations(job)) {
      problems.push_back({root + "/job", "rule " + v.rule + ": " + v.reason, ""});
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, std::move(problems)};
  return job;
}

Result<Job> load_job(const std::string& path) {
  TRY(const std::string text, read_file(path));
  return parse_job(text, path);
}

std::string words_of(const Recompute& r) {
  if (r.full) {
    return r.full_layers == 0 ? "full"
                              : "full of " + std::to_string(r.full_layers) + " layers a stage";
  }
  if (r.ops) return "ops";
  std::string words;
  for (int m = 0; m < kNumModules; ++m) {
    if (!r.again(static_cast<Module>(m))) continue;
    words += (words.empty() ? "" : ", ") + std::string(name_of(static_cast<Module>(m)));
  }
  return words.empty() ? "none" : words;
}

std::string words_of(const Job& job) {
  const Layout& l = job.layout;
  std::string words;
  const auto add = [&](const std::string& more) { words += (words.empty() ? "" : " | ") + more; };
  if (l.tp > 1) {
    add("tp " + std::to_string(l.tp) + (job.sequence_parallel ? ", sequence parallel" : ""));
  }
  if (l.cp > 1) add("cp " + std::to_string(l.cp) + ", " + name_of(job.context));
  if (l.sp > 1) add("sp " + std::to_string(l.sp));
  if (l.pp > 1) {
    std::string stages = "pp " + std::to_string(l.pp);
    if (job.virtual_stages > 1) stages += " x " + std::to_string(job.virtual_stages);
    add(stages + ", " + name_of(job.schedule));
    if (!job.stage_layers.empty()) add("layers " + layers_words(job.stage_layers));
  }
  if (l.ep > 1) add("ep " + std::to_string(l.ep) + ", " + name_of(job.dispatcher));
  if (l.etp > 1) add("etp " + std::to_string(l.etp));
  add(sharding_words(job));
  add("micro-batch " + std::to_string(l.micro_batch) + " x " + std::to_string(job.micro_batches()));
  add("recompute " + words_of(job.recompute));
  add(name_of(job.precision));
  return words;
}

}  // namespace orrery
