// Reading published rows. Keys that nobody asks for are fine: the files belong to their sources.
#include "validation/rows.h"

#include <set>

#include "core/configs.h"
#include "core/json.h"

namespace orrery::validation {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 24;  // of any count: products of two stay exact
constexpr std::int64_t kMostRanks = 1 << 15;           // of an axis: the product of four does not
                                                       // overflow

// Sources whose memory is in GiB; elsewhere it is in GB.
constexpr const char* kGibibyteSources[] = {"torchtitan", "simumax", "megatron_bridge_cards",
                                            "community_threads"};

Count count(ObjectReader& reader, const char* key, std::int64_t min, std::int64_t max = kMost) {
  if (!reader.has(key)) return std::nullopt;
  return reader.integer(key, min, max);
}

std::optional<double> amount(ObjectReader& reader, const char* key) {
  if (!reader.has(key)) return std::nullopt;
  const double value = reader.number(key, 0, 1e12);
  if (value <= 0) {
    reader.note(key, "is not more than 0", "null where the source says nothing");
    return std::nullopt;
  }
  return value;
}

std::optional<bool> flag(ObjectReader& reader, const char* key) {
  if (!reader.has(key)) return std::nullopt;
  return reader.boolean_or(key, false);
}

LatentAttention read_latent(const Json& json, const std::string& place,
                            std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  LatentAttention latent;
  latent.q_rank = reader.integer_or("q_lora_rank", 0, kMost, 0);
  latent.kv_rank = reader.integer("kv_lora_rank", 1, kMost);
  latent.nope_dim = reader.integer("qk_nope", 1, kMost);
  latent.rope_dim = reader.integer("qk_rope", 0, kMost);
  latent.v_dim = reader.integer("v_head", 1, kMost);
  return latent;
}

ModelFacts read_model(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  ModelFacts m;
  m.name = reader.text("name");
  m.layers = count(reader, "layers", 1, 1 << 14);
  m.hidden = count(reader, "hidden", 1);
  m.ffn = count(reader, "ffn_hidden", 0);
  m.heads = count(reader, "heads", 1);
  m.kv_heads = count(reader, "kv_heads", 1);
  m.head_dim = count(reader, "head_dim", 1);
  m.vocab = count(reader, "vocab", 1);
  m.sequence_tokens = count(reader, "seq_len", 1);
  m.experts = count(reader, "experts", 0, 1 << 16);
  m.top_k = count(reader, "topk", 0, 1 << 16);
  m.moe_ffn = count(reader, "moe_ffn_hidden", 0);
  m.shared_experts = count(reader, "shared_experts", 0, 1 << 16);
  m.dense_first_layers = count(reader, "dense_first_layers", 0, 1 << 14);
  m.attention = reader.text_or("attention", "");
  m.gated = flag(reader, "gated_mlp");
  m.tied = flag(reader, "tied_embeddings");
  if (reader.has("mla_dims")) {
    if (const Json* dims = reader.child("mla_dims"); dims != nullptr) {
      m.latent = read_latent(*dims, place + "/mla_dims", problems);
    }
  }
  m.notes = reader.text_or("notes", "");
  return m;
}

ClusterFacts read_cluster(const Json& json, const std::string& place,
                          std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  ClusterFacts c;
  c.gpu = reader.text("gpu");
  c.gpus = count(reader, "gpus", 1);
  c.gpus_per_node = count(reader, "gpus_per_node", 1, 1 << 12);
  c.nvlink_domain = count(reader, "nvlink_domain", 1, 1 << 12);
  c.intra_gbyte_s = amount(reader, "intra_node_bw_GBps");
  c.inter_gbit_s = amount(reader, "inter_node_bw_Gbps");
  return c;
}

std::string word_of(const Json& json) {
  return json.is_string() ? json.as_string() : json.dump(-1);
}

void flatten(const Json& json, const std::string& prefix, std::map<std::string, std::string>& out) {
  for (const auto& [key, value] : json.members()) {
    if (value.is_null()) continue;
    if (value.is_object()) {
      flatten(value, prefix + key + ".", out);
    } else {
      out[prefix + key] = word_of(value);
    }
  }
}

PlanFacts read_plan(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  PlanFacts p;
  p.dp = count(reader, "dp", 1);
  p.tp = count(reader, "tp", 1, kMostRanks);
  p.pp = count(reader, "pp", 1, kMostRanks);
  p.vpp = count(reader, "vpp", 1, kMostRanks);
  p.cp = count(reader, "cp", 1, kMostRanks);
  p.sp = count(reader, "sp_ulysses", 1, kMostRanks);
  p.ep = count(reader, "ep", 1, kMostRanks);
  p.etp = count(reader, "etp", 1, kMostRanks);
  p.zero_stage = count(reader, "zero_stage", 0, 3);
  p.micro_batch = count(reader, "micro_batch", 1, 1 << 16);
  p.global_batch = count(reader, "global_batch", 1);
  if (reader.has("fsdp")) p.fsdp = word_of(*json.find("fsdp"));
  p.recompute = reader.text_or("recompute", "");
  p.precision = reader.text_or("precision", "");
  p.sequence_parallel = flag(reader, "sequence_parallel");
  if (reader.has("extra")) {
    if (const Json* extra = reader.child("extra"); extra != nullptr) flatten(*extra, "", p.extra);
  }
  return p;
}

Measured read_measured(const Json& json, const std::string& place, const std::string& source,
                       std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  Measured m;
  m.step_s = amount(reader, "step_time_s");
  m.tokens_per_device_s = amount(reader, "tokens_per_s_per_gpu");
  m.memory = amount(reader, "peak_mem_gb");
  for (const char* name : kGibibyteSources) {
    if (source == name) m.memory_unit = 1024.0 * 1024 * 1024;
  }
  return m;
}

PublishedRow read_row(const Json& json, const std::string& place, const std::string& source,
                      std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  PublishedRow row;
  row.source = source;
  row.id = reader.text("id");
  if (const Json* m = reader.child("model"); m != nullptr) {
    row.model = read_model(*m, place + "/model", problems);
  }
  if (const Json* c = reader.child("cluster"); c != nullptr) {
    row.cluster = read_cluster(*c, place + "/cluster", problems);
  }
  if (const Json* p = reader.child("plan"); p != nullptr) {
    row.plan = read_plan(*p, place + "/plan", problems);
  }
  if (const Json* m = reader.child("measured"); m != nullptr) {
    row.measured = read_measured(*m, place + "/measured", source, problems);
  }
  // A source that gives the allocator's reserve beside it gives what was allocated.
  row.measured.memory_allocated = row.plan.extra.contains("max_reserved_gib");
  row.measured.out_of_memory = reader.text_or("outcome", "") == "oom";
  return row;
}

void complete_frameworks(std::vector<PublishedRow>& rows) {
  std::set<std::string> named;
  for (const PublishedRow& row : rows) {
    const auto it = row.plan.extra.find("framework");
    if (it != row.plan.extra.end()) named.insert(it->second);
  }
  if (named.size() != 1) return;
  for (PublishedRow& row : rows) row.plan.extra.emplace("framework", *named.begin());
}

}  // namespace

std::optional<double> PublishedRow::step_s() const {
  if (measured.step_s) return measured.step_s;
  if (!measured.tokens_per_device_s || !plan.global_batch || !model.sequence_tokens ||
      !cluster.gpus) {
    return std::nullopt;
  }
  const double tokens =
      static_cast<double>(*plan.global_batch) * static_cast<double>(*model.sequence_tokens);
  return tokens / (*measured.tokens_per_device_s * static_cast<double>(*cluster.gpus));
}

std::optional<double> PublishedRow::memory_bytes() const {
  if (!measured.memory) return std::nullopt;
  return *measured.memory * measured.memory_unit;
}

Result<std::vector<PublishedRow>> parse_rows(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  std::vector<Problem> problems;
  ObjectReader reader(json, place + ":", problems);
  std::string date;
  if (const Json* source = reader.child("source"); source != nullptr) {
    ObjectReader about(*source, place + ":/source", problems);
    date = about.text_or("date", "");
  }
  std::vector<PublishedRow> rows;
  const std::string stem = config_stem(place + ":");
  if (const Json* items = reader.array("rows"); items != nullptr) {
    for (std::size_t i = 0; i < items->items().size(); ++i) {
      const std::string at = place + ":/rows/" + std::to_string(i);
      rows.push_back(read_row(items->items()[i], at, stem, problems));
      rows.back().date = date;
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, std::move(problems)};
  complete_frameworks(rows);
  return rows;
}

Result<std::vector<PublishedRow>> load_rows(const std::string& path) {
  TRY(const std::string text, read_file(path));
  return parse_rows(text, path);
}

}  // namespace orrery::validation
