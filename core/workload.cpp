// Workload files: strict JSON; every key is known.
#include "core/workload.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
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
void read_document_tokens(ObjectReader& reader, const Json& json, Workload& workload) {
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

std::optional<DocumentLengths> read_lengths(const Json& json, const std::string& place,
                                            const Workload& workload,
                                            std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  const std::size_t before = problems.size();
  reader.choice("kind", {"lognormal"});
  DocumentLengths lengths;
  lengths.median_tokens = reader.number("median_tokens", 1, kMaxTokens);
  lengths.sigma = reader.number("sigma", 0, 10);
  lengths.max_tokens = reader.integer("max_tokens", 1, kMaxTokens);
  lengths.seed = reader.integer("seed", 0, std::numeric_limits<std::int64_t>::max());
  reader.finish();
  if (problems.size() > before) return std::nullopt;
  const auto max = static_cast<double>(lengths.max_tokens);
  if (lengths.median_tokens > max) {
    reader.note("median_tokens", "is more than max_tokens = " + std::to_string(lengths.max_tokens));
  }
  if (workload.packing == Packing::kSoft && lengths.max_tokens > workload.sequence_tokens) {
    reader.note("max_tokens",
                "is " + std::to_string(lengths.max_tokens) + ", more than a row of " +
                    std::to_string(workload.sequence_tokens) + ", and \"soft\" cuts no document",
                "no more than sequence_tokens, or packing \"hard\"");
  }
  const std::int64_t most = workload.sequence_tokens / kMaxDocuments;
  if (lengths.median_tokens < static_cast<double>(most)) {
    reader.note("median_tokens",
                "gives a row more than " + std::to_string(kMaxDocuments) + " documents",
                "at least " + std::to_string(most));
  }
  return lengths;
}

// Exactly one of a typical row and a distribution.
void read_documents(ObjectReader& reader, const Json& json, Workload& workload,
                    std::vector<Problem>& problems) {
  if (reader.has("packing")) {
    const std::string packing = reader.choice("packing", {"soft", "hard"});
    workload.packing = packing == "soft" ? Packing::kSoft : Packing::kHard;
  }
  const bool listed = reader.has("document_tokens"), drawn = reader.has("document_lengths");
  if (listed && drawn) {
    reader.note("document_lengths", "stands beside document_tokens", "leave one of them out");
  } else if (listed) {
    read_document_tokens(reader, json, workload);
  } else if (!drawn) {
    reader.note("document_tokens", "is missing",
                "one length, an array of lengths, or a distribution in document_lengths");
  }
  if (!drawn) return;
  workload.document_lengths = read_lengths(
      *json.find("document_lengths"), reader.place() + "/document_lengths", workload, problems);
}

const char* text_of(ScheduleKind kind) {
  if (kind == ScheduleKind::kConstant) return "constant";
  return kind == ScheduleKind::kLinear ? "linear" : "cosine";
}

Schedule read_schedule(const Json& json, const std::string& place, double lr,
                       std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  constexpr std::int64_t kMaxSteps = std::int64_t{1} << 31;
  Schedule schedule;
  const std::string kind = reader.choice("kind", {"constant", "linear", "cosine"});
  schedule.warmup_steps = reader.integer_or("warmup_steps", 0, kMaxSteps, 0);
  if (kind != "constant") {
    schedule.kind = kind == "linear" ? ScheduleKind::kLinear : ScheduleKind::kCosine;
    schedule.total_steps = reader.integer("total_steps", 1, kMaxSteps);
    schedule.min_lr = reader.number_or("min_lr", 0, 1e3, 0);
    if (schedule.total_steps <= schedule.warmup_steps && reader.has("total_steps")) {
      reader.note("total_steps",
                  "is " + std::to_string(schedule.total_steps) + ", and the warm-up alone takes " +
                      std::to_string(schedule.warmup_steps),
                  "more than warmup_steps");
    }
    if (schedule.min_lr > lr) {
      reader.note("min_lr", "is more than lr = " + Json(lr).dump(-1), "no more than lr");
    }
  } else {
    for (const char* key : {"total_steps", "min_lr"}) {
      if (!reader.has(key)) continue;
      reader.note(key, "means nothing to a constant rate", "leave it out, or kind \"cosine\"");
    }
  }
  reader.finish();
  return schedule;
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
  if (reader.has("schedule")) {
    adamw.schedule = read_schedule(*json.find("schedule"), place + "/schedule", adamw.lr, problems);
  }
  reader.finish();
  return adamw;
}

Json documents_json(const std::vector<std::int64_t>& lengths) {
  const bool equal =
      std::adjacent_find(lengths.begin(), lengths.end(), std::not_equal_to<>()) == lengths.end();
  if (equal && !lengths.empty()) return lengths.front();
  Json documents = Json::array();
  for (const std::int64_t length : lengths) documents.push(length);
  return documents;
}

Json lengths_json(const DocumentLengths& lengths) {
  Json json = Json::object();
  json.set("kind", "lognormal")
      .set("median_tokens", lengths.median_tokens)
      .set("sigma", lengths.sigma)
      .set("max_tokens", lengths.max_tokens)
      .set("seed", lengths.seed);
  return json;
}

Json schedule_json(const Schedule& schedule) {
  Json json = Json::object();
  json.set("kind", text_of(schedule.kind)).set("warmup_steps", schedule.warmup_steps);
  if (schedule.kind == ScheduleKind::kConstant) return json;
  json.set("total_steps", schedule.total_steps).set("min_lr", schedule.min_lr);
  return json;
}

}  // namespace

std::int64_t Workload::pairs_per_sequence() const {
  if (document_lengths) return expected_pairs(*document_lengths, sequence_tokens, packing);
  std::int64_t pairs = 0;
  for (const std::int64_t length : document_tokens) pairs += length * (length + 1) / 2;
  return pairs;
}

std::vector<std::int64_t> Workload::typical_documents(std::int64_t row) const {
  return document_lengths ? draw_row(*document_lengths, sequence_tokens, row) : document_tokens;
}

// With t = step + 1, w warm-up steps, T steps in all and x = (t - w) / (T - w):
//   t <= w: lr t / w;  then, linear: min + (lr - min) (1 - x);
//   cosine: min + (lr - min) (1 + cos(pi x)) / 2;  t >= T: min.
double learning_rate(const AdamW& optimizer, std::int64_t step) {
  const Schedule& schedule = optimizer.schedule;
  CHECK(step >= 0, "steps are counted from zero");
  const std::int64_t t = step + 1, warmup = schedule.warmup_steps, total = schedule.total_steps;
  if (t <= warmup) {
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
  read_documents(reader, json, workload, problems);
  workload.compute = read_dtype(reader, "compute", {"bf16", "fp32", "fp64"});
  workload.master = read_dtype(reader, "master", {"fp32", "fp64"});
  if (workload.compute == DType::kFloat64 && workload.master != DType::kFloat64) {
    reader.note("master", "must be as wide as the compute type", "write \"fp64\"");
  }
  const std::string scope = reader.choice("balance_scope", {"sequence", "microbatch_global"});
  workload.balance_scope =
      scope == "sequence" ? BalanceScope::kSequence : BalanceScope::kMicrobatchGlobal;
  workload.expert_load_cv = reader.number_or("expert_load_cv", 0, 100, 0);
  workload.z_loss = reader.number_or("z_loss", 0, 1e3, 0);
  workload.bias_speed = reader.number_or("bias_speed", 0, 1, 0);
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

// What a file need not say is written only where it differs from its default: files that were
// written before the key was known keep their hash.
Json to_json(const Workload& workload) {
  const AdamW& adamw = workload.optimizer;
  Json optimizer = Json::object();
  optimizer.set("lr", adamw.lr)
      .set("beta1", adamw.beta1)
      .set("beta2", adamw.beta2)
      .set("eps", adamw.eps)
      .set("weight_decay", adamw.weight_decay)
      .set("clip_norm", adamw.clip_norm);
  if (adamw.schedule != Schedule{}) optimizer.set("schedule", schedule_json(adamw.schedule));
  const bool sequence = workload.balance_scope == BalanceScope::kSequence;
  Json json = Json::object();
  json.set("name", workload.name)
      .set("sequence_tokens", workload.sequence_tokens)
      .set("global_sequences", workload.global_sequences);
  if (workload.document_lengths) {
    json.set("document_lengths", lengths_json(*workload.document_lengths));
  } else {
    json.set("document_tokens", documents_json(workload.document_tokens));
  }
  if (workload.packing != Packing::kNone) {
    json.set("packing", workload.packing == Packing::kSoft ? "soft" : "hard");
  }
  json.set("compute", text_of(workload.compute))
      .set("master", text_of(workload.master))
      .set("balance_scope", sequence ? "sequence" : "microbatch_global")
      .set("expert_load_cv", workload.expert_load_cv);
  if (workload.z_loss != 0) json.set("z_loss", workload.z_loss);
  if (workload.bias_speed != 0) json.set("bias_speed", workload.bias_speed);
  json.set("optimizer", std::move(optimizer));
  return json;
}

}  // namespace orrery
