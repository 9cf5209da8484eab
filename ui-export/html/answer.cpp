// See answer.h.
#include "ui-export/html/answer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/job_json.h"
#include "ui-export/html/figures.h"
#include "ui-export/html/rules.h"
#include "ui-export/html/side.h"

namespace orrery::html {
namespace {

Json terms_json(const std::vector<TermRow>& terms) {
  Json rows = Json::array();
  for (const TermRow& term : terms) {
    rows.push(Json::object().set("name", clean_text(term.name)).set("seconds", term.seconds));
  }
  return rows;
}

Json rule_json(const std::string& rule, std::int64_t count) {
  return Json::object()
      .set("rule", clean_text(rule))
      .set("words", clean_text(rule_words(rule)))
      .set("count", count);
}

// Largest first: what removed most is read first.
Json sorted_rules(std::vector<Rejection> rules) {
  std::stable_sort(rules.begin(), rules.end(),
                   [](const Rejection& a, const Rejection& b) { return a.count > b.count; });
  Json rows = Json::array();
  for (const Rejection& row : rules) {
    if (row.count > 0) rows.push(rule_json(row.rule, row.count));
  }
  return rows;
}

Json nouns_json(const char* purpose, const Model& model, const Cluster& cluster) {
  return Json::object()
      .set("purpose", purpose)
      .set("model", clean_text(model.name))
      .set("parameters", parameter_count(model))
      .set("active_parameters", active_parameter_count(model))
      .set("cluster", clean_text(cluster.name))
      .set("device", clean_text(cluster.device.name))
      .set("devices", cluster.devices)
      .set("node", std::min(cluster.devices_per_node, cluster.devices))
      .set("capacity_bytes", cluster.device.memory.value());
}

Json times_json(const Prediction& p) {
  return Json::object()
      .set("step_s", p.step.value())
      .set("p10_s", p.p10.value())
      .set("p90_s", p.p90.value())
      .set("tokens_per_s", p.tokens_per_s)
      .set("mfu", p.mfu)
      .set("peak_bytes", p.peak.value());
}

// "ep > 1: +15.36 %: 699 ms more ..." of a runner-up that stands for a family, as its name and why
// it lost; no name where it stands for itself.
std::pair<std::string, std::string> family_of(const RunnerUp& runner) {
  const std::size_t colon = runner.lost_by.find(": ");
  if (runner.tie || colon == std::string::npos || runner.lost_by[0] == '+') return {};
  std::string why = runner.lost_by.substr(colon + 2);
  const std::size_t percent = why.find(" %: ");
  if (why[0] == '+' && percent != std::string::npos) why = why.substr(percent + 4);
  return {runner.lost_by.substr(0, colon), why};
}

// Rows that fit first, the fastest of them first.
Json sorted_families(std::vector<Json> rows) {
  const auto step = [](const Json& row) {
    const Json* fits = row.find("fits");
    const Json* seconds = row.find("step_s");
    const bool known = fits->as_bool() && seconds != nullptr && seconds->is_number();
    return known ? seconds->as_double() : HUGE_VAL;
  };
  std::stable_sort(rows.begin(), rows.end(),
                   [&](const Json& a, const Json& b) { return step(a) < step(b); });
  return Json::array(std::move(rows));
}

Json families_json(const Plan& plan, const std::vector<std::vector<TermRow>>& terms, Bytes usable) {
  std::vector<Json> rows;
  for (std::size_t i = 0; i < plan.runners_up.size(); ++i) {
    const RunnerUp& runner = plan.runners_up[i];
    const auto [family, why] = family_of(runner);
    if (family.empty()) continue;
    rows.push_back(times_json(runner.predicted)
                       .set("family", clean_text(family))
                       .set("words", plan_words(plan, runner.layout, runner.chunks, runner.policy))
                       .set("lost_by", clean_text(why))
                       .set("proved", true)
                       .set("fits", runner.predicted.peak <= usable)
                       .set("terms", terms_json(i + 1 < terms.size() ? terms[i + 1]
                                                                     : std::vector<TermRow>{})));
  }
  return sorted_families(std::move(rows));
}

// A number of an object, or null.
Json value_of(const Json& json, const char* key) {
  const Json* found = json.find(key);
  return found == nullptr || !found->is_number() ? Json() : *found;
}

const Json* child_of(const Json& json, const char* key) {
  const Json* found = json.is_object() ? json.find(key) : nullptr;
  return found != nullptr && found->is_object() ? found : nullptr;
}

const Json::Array& rows_of(const Json& json, const char* key) {
  static const Json::Array none;
  const Json* found = json.is_object() ? json.find(key) : nullptr;
  return found != nullptr && found->is_array() ? found->items() : none;
}

std::string text_of(const Json& json, const char* key) {
  const Json* found = json.is_object() ? json.find(key) : nullptr;
  return found != nullptr && found->is_string() ? clean_text(found->as_string()) : "";
}

// {"name": seconds} as rows, in order.
Json named_rows(const Json* object, const char* name, const char* value) {
  Json rows = Json::array();
  if (object == nullptr) return rows;
  for (const auto& [key, number] : object->members()) {
    if (!number.is_number()) continue;
    rows.push(Json::object().set(name, clean_text(key)).set(value, number));
  }
  return rows;
}

// What was predicted of a job, as the page has it.
Json predicted_json(const Json& predicted) {
  Json json = Json::object();
  for (const char* key : {"step_s", "p10_s", "p90_s", "tokens_per_s", "mfu", "peak_bytes",
                          "usable_bytes", "probability_fits"}) {
    json.set(key, value_of(predicted, key));
  }
  return json.set("terms", named_rows(child_of(predicted, "parts"), "name", "seconds"))
      .set("memory", named_rows(child_of(predicted, "memory"), "class", "bytes"));
}

// Other jobs of the plan have their axes alone: the nouns are those of the whole.
class Jobs {
 public:
  Jobs(const Json& plan, std::string place) : place_(std::move(place)) {
    for (const char* noun : {"model", "cluster", "stack"}) {
      if (const Json* found = child_of(plan, noun)) nouns_.set(noun, *found);
    }
  }
  Result<Job> job(const Json& axes) const {
    Json whole = nouns_;
    return parse_job(whole.set("job", axes).dump(-1), place_);
  }
  // {"words", ...predicted}; nullopt where it has no job.
  Result<Json> candidate(const Json& row) const {
    const Json* axes = child_of(row, "job");
    const Json* predicted = child_of(row, "predicted");
    if (axes == nullptr || predicted == nullptr) {
      return Json::object().set("words", "").set("terms", Json::array());
    }
    TRY(const Job read, job(*axes));
    return predicted_json(*predicted).set("words", clean_text(words_of(read)));
  }

 private:
  std::string place_;
  Json nouns_ = Json::object();
};

Result<Json> job_families(const Jobs& jobs, const Json& plan) {
  std::vector<Json> rows;
  for (const Json& row : rows_of(plan, "runners_up")) {
    TRY(Json one, jobs.candidate(row));
    const bool fits = one.find("step_s") != nullptr;
    const Json* proved = row.is_object() ? row.find("proved") : nullptr;
    rows.push_back(one.set("family", text_of(row, "family"))
                       .set("lost_by", text_of(row, "lost_by"))
                       .set("proved", proved == nullptr || !proved->is_bool() || proved->as_bool())
                       .set("fits", fits));
  }
  return sorted_families(std::move(rows));
}

Result<Json> job_frontier(const Jobs& jobs, const Json& plan) {
  Json rows = Json::array();
  for (const Json& row : rows_of(plan, "frontier")) {
    TRY(Json one, jobs.candidate(row));
    rows.push(one.set("memory_bytes", value_of(row, "memory_bytes"))
                  .set("searched_bytes", value_of(row, "searched_bytes")));
  }
  return rows;
}

Json job_rules(const Json& plan) {
  std::vector<Rejection> rules;
  for (const Json& row : rows_of(plan, "rejected")) {
    if (!row.is_object()) continue;
    const Json* count = row.find("count");
    if (count == nullptr || !count->is_integer()) continue;
    rules.push_back({text_of(row, "rule"), count->as_integer()});
  }
  return sorted_rules(std::move(rules));
}

}  // namespace

Json answer_json(const Plan& plan, const std::vector<std::vector<TermRow>>& terms) {
  const Bytes usable = plan.cluster.device.memory - plan.cluster.device.reserved;
  Json memory = Json::array();
  for (const MemoryRow& row : plan.predicted.memory) {
    if (row.bytes.value() == 0) continue;
    memory.push(Json::object().set("class", clean_text(row.cls)).set("bytes", row.bytes.value()));
  }
  // What is held back of the device is drawn too: the bar ends where the device does.
  if (plan.cluster.device.reserved.value() > 0) {
    memory.push(Json::object()
                    .set("class", "held back")
                    .set("bytes", plan.cluster.device.reserved.value()));
  }
  Json frontier = Json::array();
  for (const FrontierPoint& point : plan.frontier) {
    frontier.push(times_json(point.predicted)
                      .set("memory_bytes", point.memory.value())
                      .set("searched_bytes", point.searched.value())
                      .set("words", plan_words(plan, point.layout, point.chunks, point.policy)));
  }
  const Proof& proof = plan.proof;
  const auto ties = std::count_if(plan.runners_up.begin(), plan.runners_up.end(),
                                  [](const RunnerUp& runner) { return runner.tie; });
  const Json fit = plan.decision.risk.empty() ? Json() : Json(plan.decision.fit);
  return nouns_json("train", plan.model, plan.cluster)
      .set("stack", Json())
      .set("tokens", plan.workload.global_tokens())
      .set("sequence_tokens", plan.workload.sequence_tokens)
      .set("sequences", plan.workload.global_sequences)
      .set("usable_bytes", usable.value())
      .set("winner",
           times_json(plan.predicted)
               .set("words", plan_words(plan, plan.layout, plan.chunks, plan.policy))
               .set("axes", Json::object()
                                .set("layout", orrery::to_json(plan.layout))
                                .set("chunks", orrery::to_json(plan.chunks))
                                .set("memory_policy", orrery::to_json(plan.policy)))
               .set("probability_fits", fit)
               .set("terms", terms_json(terms.empty() ? std::vector<TermRow>{} : terms.front()))
               .set("memory", std::move(memory)))
      .set("ties", static_cast<std::int64_t>(ties))
      .set("families", families_json(plan, terms, usable))
      .set("frontier", std::move(frontier))
      .set("rules", sorted_rules(plan.rejected))
      .set("counts", "plans")
      .set("proof", Json::object()
                        .set("legal", proof.legal)
                        .set("layouts", Json())
                        .set("bounded", proof.bounded)
                        .set("replayed", proof.replayed)
                        .set("refined", proof.refined)
                        .set("best_s", proof.best_s)
                        .set("bound_remaining_s", proof.bound_remaining_s)
                        .set("seconds", proof.seconds));
}

Result<Json> answer_of_job(const std::string& text, const std::string& place) {
  TRY(const Job job, parse_job(text, place));
  TRY(const Json plan, Json::parse(text, place));
  const Json* predicted = child_of(plan, "predicted");
  if (predicted == nullptr || value_of(*predicted, "step_s").is_null()) {
    return Error::of(ErrorCode::kInvalid, place + ":/predicted", "is missing",
                     "orrery plan --for simulate -o writes it beside the job");
  }
  const Jobs jobs(plan, place);
  TRY(Json families, job_families(jobs, plan));
  TRY(Json frontier, job_frontier(jobs, plan));
  Json winner = predicted_json(*predicted);
  winner.set("words", clean_text(words_of(job))).set("axes", axes_json(job));
  const Json* decision = child_of(plan, "decision");
  Json ties = decision == nullptr ? Json() : value_of(*decision, "ties");
  if (ties.is_null()) ties = 0;
  Json proof = Json::object();
  const Json* said = child_of(plan, "proof");
  for (const char* key : {"legal", "layouts", "bounded", "replayed", "refined", "best_s",
                          "bound_remaining_s", "seconds"}) {
    proof.set(key, said == nullptr ? Json() : value_of(*said, key));
  }
  return nouns_json("simulate", job.model, job.cluster)
      .set("stack", clean_text(job.stack.name))
      .set("tokens", job.sequence_tokens * job.global_sequences)
      .set("sequence_tokens", job.sequence_tokens)
      .set("sequences", job.global_sequences)
      .set("usable_bytes", value_of(*predicted, "usable_bytes"))
      .set("winner", std::move(winner))
      .set("ties", ties)
      .set("families", std::move(families))
      .set("frontier", std::move(frontier))
      .set("rules", job_rules(plan))
      .set("counts", "layouts")
      .set("proof", std::move(proof));
}

}  // namespace orrery::html
