// plan.json: the names are a contract (design, section 9); more fields may be added.
#include <limits>

#include "core/configs.h"
#include "core/hash.h"
#include "core/plan.h"

namespace orrery {
namespace {

constexpr std::int64_t kSchemaVersion = 1;
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr double kHuge = std::numeric_limits<double>::max();

Layout read_layout(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  const auto count = [&](const char* key) { return reader.integer(key, 1, kMax); };
  Layout l;
  l.dp = count("dp");
  l.cp = count("cp");
  l.sp = count("sp");
  l.tp = count("tp");
  l.pp = count("pp");
  l.replicate_d = count("replicate_d");
  l.fsdp_d = count("fsdp_d");
  l.replicate_e = count("replicate_e");
  l.fsdp_e = count("fsdp_e");
  l.ep = count("ep");
  l.etp = count("etp");
  l.micro_batch = count("micro_batch");
  l.accumulation = count("accumulation");
  l.dense_inner = reader.choice("dense_inner", {"fsdp", "replicate"});
  l.expert_inner = reader.choice("expert_inner", {"ep", "fsdp"});
  if (reader.has("dispatcher")) {
    l.dispatcher = reader.choice("dispatcher", {"all_to_all", "all_gather"});
  }
  reader.finish();
  return l;
}

Chunks read_chunks(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  Chunks chunks;
  chunks.loss_tokens = reader.integer("loss_tokens", 0, kMax);
  chunks.attention_query = reader.integer("attention_query", 0, kMax);
  chunks.prefetch_depth = reader.integer("prefetch_depth", 0, kMax);
  // Plans of before these keys ran with their defaults.
  chunks.gather_layers = reader.integer_or("gather_layers", 1, kMax, 1);
  chunks.domino = reader.integer_or("domino", 1, kMax, 1);
  chunks.exchange_parts = reader.integer_or("exchange_parts", 1, kMax, 1);
  reader.finish();
  return chunks;
}

MemoryPolicy read_policy(const Json& json, const std::string& place,
                         std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  MemoryPolicy policy;
  policy.recompute_layers = reader.integer("recompute_layers", 0, kMax);
  policy.recompute_attention = reader.integer_or("recompute_attention", 0, kMax, 0);
  policy.recompute_ffn = reader.integer_or("recompute_ffn", 0, kMax, 0);
  policy.recompute_experts = reader.integer_or("recompute_experts", 0, kMax, 0);
  policy.swap_layers = reader.integer_or("swap_layers", 0, kMax, 0);
  policy.swap_distance = reader.integer_or("swap_distance", 1, kMax, 1);
  policy.keep_layers = reader.integer_or("keep_layers", 0, kMax, 0);
  policy.host_optimizer = reader.boolean_or("host_optimizer", false);
  reader.finish();
  return policy;
}

Prediction read_prediction(const Json& json, const std::string& place,
                           std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  Prediction p;
  p.step = Seconds(reader.number("step_s", 0, kHuge));
  p.p10 = Seconds(reader.number("p10_s", 0, kHuge));
  p.p90 = Seconds(reader.number("p90_s", 0, kHuge));
  p.peak = Bytes(reader.integer("peak_bytes", 0, kMax));
  p.tokens_per_s = reader.number("tokens_per_s", 0, kHuge);
  p.mfu = reader.number("mfu", 0, kHuge);
  if (const Json* memory = reader.child("memory")) {
    ObjectReader classes(*memory, place + "/memory", problems);
    for (const auto& [name, value] : memory->members()) {
      p.memory.push_back({name, Bytes(classes.integer(name, 0, kMax))});
    }
  }
  if (reader.has("document_cost")) {
    ObjectReader cost(*json.find("document_cost"), place + "/document_cost", problems);
    p.document_cost.linear_s = cost.number("linear_s", 0, kHuge);
    p.document_cost.quadratic_s = cost.number("quadratic_s", 0, kHuge);
    cost.finish();
  }
  reader.finish();
  return p;
}

Proof read_proof(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  Proof proof;
  proof.legal = reader.integer("legal", 0, kMax);
  proof.bounded = reader.integer("bounded", 0, kMax);
  proof.replayed = reader.integer("replayed", 0, kMax);
  proof.refined = reader.integer_or("refined", 0, kMax, 0);
  proof.best_s = reader.number("best_s", 0, kHuge);
  proof.bound_remaining_s = reader.number("bound_remaining_s", 0, kHuge);
  proof.seconds = reader.number("seconds", 0, kHuge);
  reader.finish();
  return proof;
}

// Reads reader[key] by `read`, or notes that it is missing.
template <class T>
void read_child(ObjectReader& reader, const char* key, T& out, std::vector<Problem>& problems,
                T (*read)(const Json&, const std::string&, std::vector<Problem>&)) {
  if (const Json* child = reader.child(key)) {
    out = read(*child, reader.place() + "/" + key, problems);
  }
}

RunnerUp read_runner_up(const Json& json, const std::string& place,
                        std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  RunnerUp runner;
  read_child(reader, "layout", runner.layout, problems, read_layout);
  read_child(reader, "chunks", runner.chunks, problems, read_chunks);
  read_child(reader, "memory_policy", runner.policy, problems, read_policy);
  read_child(reader, "predicted", runner.predicted, problems, read_prediction);
  runner.lost_by = reader.text("lost_by");
  runner.tie = reader.boolean_or("tie", false);
  reader.finish();
  return runner;
}

FrontierPoint read_frontier_point(const Json& json, const std::string& place,
                                  std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  FrontierPoint point;
  point.memory = Bytes(reader.integer("memory_bytes", 0, kMax));
  point.searched = Bytes(reader.integer("searched_bytes", 0, kMax));
  read_child(reader, "layout", point.layout, problems, read_layout);
  read_child(reader, "chunks", point.chunks, problems, read_chunks);
  read_child(reader, "memory_policy", point.policy, problems, read_policy);
  read_child(reader, "predicted", point.predicted, problems, read_prediction);
  reader.finish();
  return point;
}

Rejection read_rejection(const Json& json, const std::string& place,
                         std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  Rejection rejection;
  rejection.rule = reader.text("rule");
  rejection.count = reader.integer("count", 0, kMax);
  reader.finish();
  return rejection;
}

FitReason read_fit_reason(const Json& json, const std::string& place,
                          std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  FitReason reason;
  reason.mechanism = reader.text("mechanism");
  reason.without_peak = Bytes(reader.integer("without_peak_bytes", 0, kMax));
  reason.fits_without = reader.boolean_or("fits_without", false);
  reader.finish();
  return reason;
}

Decision read_decision(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  Decision decision;
  decision.risk = reader.choice("risk", {"expected", "p90"});
  decision.asked_fit = reader.number("asked_fit", 0, 1);
  decision.fit = reader.number("fit", 0, 1);
  decision.held_back = Bytes(reader.integer("held_back_bytes", 0, kMax));
  decision.fastest_s = reader.number("fastest_s", 0, kHuge);
  reader.finish();
  return decision;
}

template <class T>
void read_rows(ObjectReader& reader, const char* key, std::vector<T>& out,
               std::vector<Problem>& problems,
               T (*read)(const Json&, const std::string&, std::vector<Problem>&)) {
  const Json* rows = reader.array(key);
  if (rows == nullptr) return;
  for (std::size_t i = 0; i < rows->items().size(); ++i) {
    const std::string place = reader.place() + "/" + key + "/" + std::to_string(i);
    out.push_back(read(rows->items()[i], place, problems));
  }
}

// Takes the noun out of its result, or its problems.
template <class T>
void take_noun(Result<T> result, T& out, std::vector<Problem>& problems) {
  if (result.ok()) {
    out = std::move(result).value();
    return;
  }
  const std::vector<Problem>& found = result.error().problems;
  problems.insert(problems.end(), found.begin(), found.end());
}

void read_nouns(ObjectReader& reader, Plan& plan, std::vector<Problem>& problems) {
  const std::string& place = reader.place();
  if (const Json* json = reader.child("model")) {
    take_noun(model_from_json(*json, place + "/model"), plan.model, problems);
  }
  if (const Json* json = reader.child("cluster")) {
    // The devices are embedded, so that a plan never depends on a file of another machine.
    const Json* device = json->find("device");
    if (device == nullptr || !device->is_object()) {
      reader.note("cluster/device", "a plan embeds the whole device");
    } else {
      take_noun(cluster_from_json(*json, place + "/cluster", 0), plan.cluster, problems);
    }
  }
  if (const Json* json = reader.child("workload")) {
    take_noun(workload_from_json(*json, place + "/workload"), plan.workload, problems);
  }
}

// Only for nouns that were read: problems must be empty before.
void check_inputs(const Json& inputs, const std::string& place, const Plan& plan,
                  std::vector<Problem>& problems) {
  ObjectReader reader(inputs, place, problems);
  const auto check = [&](const char* key, const std::string& sha256) {
    const std::string said = reader.text(key);
    if (reader.has(key) && said != sha256) {
      reader.note(key,
                  "the embedded " + std::string(key) + " hashes to " + sha256.substr(0, 12) +
                      "..., not to " + said.substr(0, 12) + "...",
                  "the file was edited; plan again instead");
    }
  };
  check("model", plan.model.sha256);
  check("cluster", plan.cluster.sha256);
  check("workload", plan.workload.sha256);
  reader.finish();
}

void check_rules(const Plan& plan, const std::string& place, std::vector<Problem>& problems) {
  for (const Violation& v :
       violations(plan.model, plan.cluster, plan.workload, plan.layout, plan.chunks, plan.policy)) {
    problems.push_back({place + "/layout", v.reason, "rule " + v.rule});
  }
}

Json frontier_json(const Plan& plan) {
  Json rows = Json::array();
  for (const FrontierPoint& point : plan.frontier) {
    rows.push(Json::object()
                  .set("memory_bytes", point.memory.value())
                  .set("searched_bytes", point.searched.value())
                  .set("layout", to_json(point.layout))
                  .set("chunks", to_json(point.chunks))
                  .set("memory_policy", to_json(point.policy))
                  .set("predicted", to_json(point.predicted)));
  }
  return rows;
}

Plan read_plan(ObjectReader& reader, std::vector<Problem>& problems) {
  Plan plan;
  const std::int64_t version = reader.integer("schema_version", 0, kMax);
  if (reader.has("schema_version") && version != kSchemaVersion) {
    reader.note(
        "schema_version",
        "is " + std::to_string(version) + "; this orrery reads " + std::to_string(kSchemaVersion),
        "plan again with this version");
  }
  read_nouns(reader, plan, problems);
  read_child(reader, "layout", plan.layout, problems, read_layout);
  read_child(reader, "chunks", plan.chunks, problems, read_chunks);
  read_child(reader, "memory_policy", plan.policy, problems, read_policy);
  read_child(reader, "predicted", plan.predicted, problems, read_prediction);
  read_rows(reader, "runners_up", plan.runners_up, problems, read_runner_up);
  read_rows(reader, "rejected", plan.rejected, problems, read_rejection);
  read_child(reader, "proof", plan.proof, problems, read_proof);
  if (reader.has("fits_because")) {
    read_rows(reader, "fits_because", plan.fits_because, problems, read_fit_reason);
  }
  if (reader.has("decision")) {
    read_child(reader, "decision", plan.decision, problems, read_decision);
  }
  if (reader.has("frontier")) {
    read_rows(reader, "frontier", plan.frontier, problems, read_frontier_point);
  }
  return plan;
}

}  // namespace

Json to_json(const Layout& l) {
  Json json = Json::object();
  json.set("dp", l.dp).set("cp", l.cp).set("sp", l.sp).set("tp", l.tp).set("pp", l.pp);
  json.set("replicate_d", l.replicate_d).set("fsdp_d", l.fsdp_d);
  json.set("replicate_e", l.replicate_e).set("fsdp_e", l.fsdp_e).set("ep", l.ep).set("etp", l.etp);
  json.set("micro_batch", l.micro_batch).set("accumulation", l.accumulation);
  json.set("dense_inner", l.dense_inner).set("expert_inner", l.expert_inner);
  json.set("dispatcher", l.dispatcher);
  return json;
}

Json to_json(const Chunks& chunks) {
  Json json = Json::object();
  json.set("loss_tokens", chunks.loss_tokens)
      .set("attention_query", chunks.attention_query)
      .set("prefetch_depth", chunks.prefetch_depth)
      .set("gather_layers", chunks.gather_layers)
      .set("domino", chunks.domino)
      .set("exchange_parts", chunks.exchange_parts);
  return json;
}

Json to_json(const MemoryPolicy& policy) {
  Json json = Json::object();
  json.set("recompute_layers", policy.recompute_layers)
      .set("recompute_attention", policy.recompute_attention)
      .set("recompute_ffn", policy.recompute_ffn)
      .set("recompute_experts", policy.recompute_experts)
      .set("swap_layers", policy.swap_layers)
      .set("swap_distance", policy.swap_distance)
      .set("keep_layers", policy.keep_layers)
      .set("host_optimizer", policy.host_optimizer);
  return json;
}

Json to_json(const Prediction& p) {
  Json memory = Json::object();
  for (const MemoryRow& row : p.memory) memory.set(row.cls, row.bytes.value());
  Json json = Json::object();
  json.set("step_s", p.step.value())
      .set("p10_s", p.p10.value())
      .set("p90_s", p.p90.value())
      .set("peak_bytes", p.peak.value())
      .set("tokens_per_s", p.tokens_per_s)
      .set("mfu", p.mfu)
      .set("memory", std::move(memory));
  if (p.document_cost != DocumentCost{}) {
    json.set("document_cost", Json::object()
                                  .set("linear_s", p.document_cost.linear_s)
                                  .set("quadratic_s", p.document_cost.quadratic_s));
  }
  return json;
}

Json to_json(const Plan& plan) {
  Json model = to_json(plan.model);
  Json cluster = to_json(plan.cluster);
  Json workload = to_json(plan.workload);
  Json inputs = Json::object();
  inputs.set("model", sha256_hex(model.dump(-1)))
      .set("cluster", sha256_hex(cluster.dump(-1)))
      .set("workload", sha256_hex(workload.dump(-1)));
  Json runners = Json::array();
  for (const RunnerUp& runner : plan.runners_up) {
    Json one = Json::object();
    one.set("layout", to_json(runner.layout))
        .set("chunks", to_json(runner.chunks))
        .set("memory_policy", to_json(runner.policy))
        .set("predicted", to_json(runner.predicted))
        .set("lost_by", runner.lost_by);
    if (runner.tie) one.set("tie", true);
    runners.push(std::move(one));
  }
  Json rejected = Json::array();
  for (const Rejection& rejection : plan.rejected) {
    rejected.push(Json::object().set("rule", rejection.rule).set("count", rejection.count));
  }
  Json proof = Json::object();
  proof.set("legal", plan.proof.legal)
      .set("bounded", plan.proof.bounded)
      .set("replayed", plan.proof.replayed)
      .set("refined", plan.proof.refined)
      .set("best_s", plan.proof.best_s)
      .set("bound_remaining_s", plan.proof.bound_remaining_s)
      .set("seconds", plan.proof.seconds);
  Json because = Json::array();
  for (const FitReason& reason : plan.fits_because) {
    because.push(Json::object()
                     .set("mechanism", reason.mechanism)
                     .set("without_peak_bytes", reason.without_peak.value())
                     .set("fits_without", reason.fits_without));
  }
  Json json = Json::object();
  json.set("schema_version", kSchemaVersion)
      .set("sha256", plan_sha256(plan))
      .set("inputs", std::move(inputs))
      .set("layout", to_json(plan.layout))
      .set("chunks", to_json(plan.chunks))
      .set("memory_policy", to_json(plan.policy))
      .set("predicted", to_json(plan.predicted))
      .set("runners_up", std::move(runners))
      .set("rejected", std::move(rejected))
      .set("proof", std::move(proof))
      .set("fits_because", std::move(because));
  if (const Decision& d = plan.decision; !d.risk.empty()) {
    json.set("decision", Json::object()
                             .set("risk", d.risk)
                             .set("asked_fit", d.asked_fit)
                             .set("fit", d.fit)
                             .set("held_back_bytes", d.held_back.value())
                             .set("fastest_s", d.fastest_s));
  }
  if (!plan.frontier.empty()) json.set("frontier", frontier_json(plan));
  json.set("model", std::move(model))
      .set("cluster", std::move(cluster))
      .set("workload", std::move(workload));
  return json;
}

Result<Plan> parse_plan(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  std::vector<Problem> problems;
  const std::string root = place + ":";
  ObjectReader reader(json, root, problems);
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  Plan plan = read_plan(reader, problems);
  const Json* inputs = reader.child("inputs");
  const std::string said = reader.text_or("sha256", "");
  reader.finish();
  if (inputs != nullptr && problems.empty()) {
    check_inputs(*inputs, root + "/inputs", plan, problems);
    check_rules(plan, root, problems);
    plan.sha256 = plan_sha256(plan);
    if (reader.has("sha256") && said != plan.sha256) {
      reader.note("sha256",
                  "the layout, chunks, policy and inputs hash to " + plan.sha256.substr(0, 12) +
                      "..., not to " + said.substr(0, 12) + "...",
                  "the file was edited; plan again (with --pin) instead");
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  return plan;
}

Result<Plan> load_plan(const std::string& path) {
  TRY(const std::string text, read_file(path));
  return parse_plan(text, path);
}

}  // namespace orrery
