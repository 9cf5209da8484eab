// Workload files: strict JSON; every key is known.
#include "core/workload.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <numbers>
#include <system_error>

#include "core/check.h"
#include "core/hash.h"

namespace orrery {
namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 27;  // of a row: its pairs fit int64
constexpr std::int64_t kMaxRows = 1 << 24;
constexpr std::int64_t kMaxDocuments = 1 << 20;  // of a row

const char* text_of(DType dtype) {
  if (dtype == DType::kBFloat16) return "bf16";
  return dtype == DType::kFloat32 ? "fp32" : "fp64";
}

DType read_dtype(ObjectReader& reader, const char* key, const std::vector<std::string>& choices) {
  const std::string text = reader.choice(key, choices);
  if (text == "bf16") return DType::kBFloat16;
  return text == "fp32" ? DType::kFloat32 : DType::kFloat64;
}

// One length, repeated, or all the lengths of a typical row.
void read_documents(ObjectReader& reader, const Json& json, Workload& workload) {
  if (!reader.has("document_tokens")) {
    reader.note("document_tokens", "is missing", "one length, or an array of lengths");
    return;
  }
  const Json& value = *json.find("document_tokens");
  const std::int64_t row = workload.sequence_tokens;
  if (!value.is_array()) {
    const std::int64_t length = reader.integer("document_tokens", 1, kMaxTokens);
    if (row % length != 0 || row / length > kMaxDocuments) {
      reader.note("document_tokens", "documents of " + std::to_string(length) +
                                         " tokens do not fill a row of " + std::to_string(row));
      return;
    }
    workload.document_tokens.assign(static_cast<std::size_t>(row / length), length);
    return;
  }
  for (const Json& item : value.items()) {
    if (!item.is_integer() || item.as_integer() < 1 || item.as_integer() > kMaxTokens) {
      reader.note("document_tokens", "not a length: " + item.dump(-1).substr(0, 60));
      return;
    }
    workload.document_tokens.push_back(item.as_integer());
  }
  std::int64_t sum = 0;
  for (const std::int64_t length : workload.document_tokens) sum += length;
  if (sum != row) {
    reader.note("document_tokens", "the lengths sum to " + std::to_string(sum) +
                                       ", not to sequence_tokens = " + std::to_string(row));
  }
}

AdamW read_optimizer(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  const AdamW fallback;
  AdamW adamw;
  adamw.lr = reader.number_or("lr", 0, 1e3, fallback.lr);
  adamw.beta1 = reader.number_or("beta1", 0, 1, fallback.beta1);
  adamw.beta2 = reader.number_or("beta2", 0, 1, fallback.beta2);
  adamw.eps = reader.number_or("eps", 0, 1, fallback.eps);
  adamw.weight_decay = reader.number_or("weight_decay", 0, 1e3, fallback.weight_decay);
  adamw.clip_norm = reader.number_or("clip_norm", 0, 1e12, fallback.clip_norm);
  // Bias correction divides by 1 - beta^step.
  if (adamw.beta1 == 1) reader.note("beta1", "must be less than 1");
  if (adamw.beta2 == 1) reader.note("beta2", "must be less than 1");
  if (adamw.clip_norm == 0) reader.note("clip_norm", "must be more than zero");
  reader.finish();
  return adamw;
}

}  // namespace

std::int64_t Workload::pairs_per_sequence() const {
  std::int64_t pairs = 0;
  for (const std::int64_t length : document_tokens) pairs += length * (length + 1) / 2;
  return pairs;
}

// With t = step + 1, w warm-up steps, T steps in all and x = (t - w) / (T - w):
//   t < w: lr t / w;  then, linear: min + (lr - min) (1 - x);
//   cosine: min + (lr - min) (1 + cos(pi x)) / 2;  t >= T: min.
double learning_rate(const AdamW& optimizer, std::int64_t step) {
  const Schedule& schedule = optimizer.schedule;
  CHECK(step >= 0, "steps are counted from zero");
  const std::int64_t t = step + 1, warmup = schedule.warmup_steps, total = schedule.total_steps;
  if (t < warmup) {
    return optimizer.lr * (static_cast<double>(t) / static_cast<double>(warmup));
  }
  if (schedule.kind == ScheduleKind::kConstant || total <= 0) return optimizer.lr;
  if (t >= total) return schedule.min_lr;
  const double x = static_cast<double>(t - warmup) / static_cast<double>(total - warmup);
  const double rest =
      schedule.kind == ScheduleKind::kLinear ? 1 - x : (1 + std::cos(std::numbers::pi * x)) / 2;
  return schedule.min_lr + (optimizer.lr - schedule.min_lr) * rest;
}

Result<Workload> workload_from_json(const Json& json, const std::string& place) {
  std::vector<Problem> problems;
  ObjectReader reader(json, place, problems);
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  Workload workload;
  workload.name = reader.text_or("name", config_stem(place));
  workload.sequence_tokens = reader.integer("sequence_tokens", 1, kMaxTokens);
  workload.global_sequences = reader.integer("global_sequences", 1, kMaxRows);
  read_documents(reader, json, workload);
  workload.compute = read_dtype(reader, "compute", {"bf16", "fp32", "fp64"});
  workload.master = read_dtype(reader, "master", {"fp32", "fp64"});
  if (workload.compute == DType::kFloat64 && workload.master != DType::kFloat64) {
    reader.note("master", "must be as wide as the compute type", "write \"fp64\"");
  }
  const std::string scope = reader.choice("balance_scope", {"sequence", "microbatch_global"});
  workload.balance_scope =
      scope == "sequence" ? BalanceScope::kSequence : BalanceScope::kMicrobatchGlobal;
  workload.expert_load_cv = reader.number_or("expert_load_cv", 0, 100, 0);
  if (reader.has("optimizer")) {
    const Json& optimizer = *json.find("optimizer");
    workload.optimizer = read_optimizer(optimizer, place + "/optimizer", problems);
  }
  reader.ignore("source");
  reader.finish();
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  workload.sha256 = sha256_hex(to_json(workload).dump(-1));
  return workload;
}

Result<Workload> parse_workload(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  return workload_from_json(json, place + ":");
}

Result<Workload> load_workload(const std::string& name) {
  std::error_code ec;
  std::string path = name;
  Result<std::string> config = find_config("workloads", name);
  if (config.ok()) {
    path = config.value();
  } else if (!looks_like_path(name)) {
    return config.error();
  } else if (!std::filesystem::exists(name, ec)) {
    return Error::of(ErrorCode::kInvalid, name, "no such file",
                     "give a workload file or a name of `orrery list workloads`");
  }
  TRY(const std::string text, read_file(path));
  return parse_workload(text, path);
}

Json to_json(const Workload& workload) {
  const std::vector<std::int64_t>& lengths = workload.document_tokens;
  Json documents = Json::array();
  const bool equal =
      std::adjacent_find(lengths.begin(), lengths.end(), std::not_equal_to<>()) == lengths.end();
  if (equal && !lengths.empty()) {
    documents = Json(lengths.front());
  } else {
    for (const std::int64_t length : lengths) documents.push(length);
  }
  const AdamW& adamw = workload.optimizer;
  Json optimizer = Json::object();
  optimizer.set("lr", adamw.lr)
      .set("beta1", adamw.beta1)
      .set("beta2", adamw.beta2)
      .set("eps", adamw.eps)
      .set("weight_decay", adamw.weight_decay)
      .set("clip_norm", adamw.clip_norm);
  const bool sequence = workload.balance_scope == BalanceScope::kSequence;
  Json json = Json::object();
  json.set("name", workload.name)
      .set("sequence_tokens", workload.sequence_tokens)
      .set("global_sequences", workload.global_sequences)
      .set("document_tokens", std::move(documents))
      .set("compute", text_of(workload.compute))
      .set("master", text_of(workload.master))
      .set("balance_scope", sequence ? "sequence" : "microbatch_global")
      .set("expert_load_cv", workload.expert_load_cv)
      .set("optimizer", std::move(optimizer));
  return json;
}

}  // namespace orrery
