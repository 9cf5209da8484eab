// Reads a Hugging Face config.json in its three dialects (hub originals; transformers 4.56,
// `dtype`; transformers 5, `rope_parameters` and `num_local_experts`) and counts parameters and
// FLOPs.
#include "core/model.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "core/configs.h"
#include "core/hash.h"
#include "core/quantity.h"

namespace orrery {
namespace {

constexpr std::int64_t kMaxDim = std::int64_t{1} << 24;
constexpr std::int64_t kMaxLayers = 10000;
constexpr std::int64_t kMaxCount = 1 << 16;  // heads, experts
constexpr double kMaxParameters = 1e16;      // keeps every count and byte sum within int64

std::string shown(const Json& json) {
  std::string text = json.dump(-1);
  return text.size() > 60 ? text.substr(0, 60) + "..." : text;
}

// Notes a problem unless the key is absent, null, false, zero or empty.
void refuse(ObjectReader& reader, const Json& json, const char* key, const char* why) {
  if (!reader.has(key)) return;
  const Json& value = *json.find(key);
  if (value.is_bool() && !value.as_bool()) return;
  if (value.is_number() && value.as_double() == 0) return;
  if (value.is_array() && value.items().empty()) return;
  reader.note(key, shown(value) + " is not supported: " + why);
}

// rope_scaling (hub, 4.x) or rope_parameters (5.x): only the plain rotary embedding is executed.
void read_rope(ObjectReader& reader, Model& model, std::vector<Problem>& problems) {
  model.rope_theta = reader.number_or("rope_theta", 1, 1e12, 1e4);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!reader.has(key)) continue;
    const Json* rope = reader.child(key);
    if (rope == nullptr) continue;
    ObjectReader inner(*rope, reader.place() + "/" + key, problems);
    for (const char* type_key : {"rope_type", "type"}) {
      const std::string type = inner.text_or(type_key, "default");
      if (type == "default") continue;
      inner.note(type_key, "'" + type + "' is not supported: only plain rotary embeddings are",
                 "set " + std::string(key) + " to null to train without it");
    }
    for (const auto& [name, value] : rope->members()) {
      if (value.is_object()) inner.note(name, "rotary settings by layer type are not supported");
    }
    if (inner.number_or("partial_rotary_factor", 0, 1, 1) != 1) {
      inner.note("partial_rotary_factor", "is not supported: the whole head is rotated");
    }
    if (!inner.has("rope_theta")) continue;
    const double theta = inner.number_or("rope_theta", 1, 1e12, model.rope_theta);
    if (reader.has("rope_theta") && theta != model.rope_theta) {
      inner.note("rope_theta", "differs from the rope_theta beside it");
    }
    model.rope_theta = theta;
  }
}

void read_unsupported(ObjectReader& reader, const Json& json) {
  refuse(reader, json, "attention_bias", "the projections have no bias here");
  refuse(reader, json, "mlp_bias", "the projections have no bias here");
  refuse(reader, json, "use_sliding_window", "attention is over the whole document here");
  refuse(reader, json, "attention_dropout", "there is no dropout here");
  refuse(reader, json, "quantization_config", "weights are read in bf16 or wider here");
  refuse(reader, json, "num_nextn_predict_layers", "multi-token prediction is not built");
  refuse(reader, json, "shared_expert_intermediate_size", "shared experts are not built");
  if (reader.number_or("partial_rotary_factor", 0, 1, 1) != 1) {
    reader.note("partial_rotary_factor", "is not supported: the whole head is rotated");
  }
  const std::string act = reader.text_or("hidden_act", "silu");
  if (act != "silu") {
    reader.note("hidden_act", "'" + act + "' is not supported", "silu (SwiGLU) is");
  }
  if (reader.has("layer_types")) {
    if (const Json* types = reader.array("layer_types")) {
      for (const Json& type : types->items()) {
        if (type == Json("full_attention")) continue;
        reader.note("layer_types", shown(type) + " is not supported: only full_attention is");
        break;
      }
    }
  }
}

void read_attention(ObjectReader& reader, Model& model) {
  model.heads = reader.integer("num_attention_heads", 1, kMaxCount);
  model.kv_heads = reader.integer_or("num_key_value_heads", 1, kMaxCount, model.heads);
  if (reader.has("head_dim")) {
    model.head_dim = reader.integer("head_dim", 2, kMaxCount);
  } else {
    model.head_dim = model.hidden / model.heads;
    if (model.hidden % model.heads != 0) {
      reader.note("head_dim", "is missing, and hidden_size is no multiple of num_attention_heads");
    }
  }
  if (model.heads % model.kv_heads != 0) {
    reader.note("num_key_value_heads", std::to_string(model.kv_heads) + " does not divide " +
                                           std::to_string(model.heads) + " attention heads");
  }
  if (model.head_dim % 2 != 0) {
    reader.note("head_dim", "is odd; rotary embeddings turn pairs of columns");
  }
}

// What every family of this table shares: the dense decoder.
void read_dense(ObjectReader& reader, const Json& json, Model& model,
                std::vector<Problem>& problems) {
  model.vocab = reader.integer("vocab_size", 1, kMaxDim);
  model.hidden = reader.integer("hidden_size", 1, kMaxDim);
  model.layers = reader.integer("num_hidden_layers", 1, kMaxLayers);
  model.ffn = reader.integer("intermediate_size", 1, kMaxDim);
  read_attention(reader, model);
  model.tied_head = reader.boolean_or("tie_word_embeddings", false);
  model.rms_eps = reader.number_or("rms_norm_eps", 0, 1, 1e-6);
  model.max_positions = reader.integer_or("max_position_embeddings", 1, 1LL << 40, 32768);
  model.moe_layer.assign(static_cast<std::size_t>(model.layers), false);
  read_rope(reader, model, problems);
  read_unsupported(reader, json);
}

// Layer i is sparse iff it is not in mlp_only_layers and (i + 1) % decoder_sparse_step == 0.
void read_sparse_layers(ObjectReader& reader, Model& model) {
  const std::int64_t step = reader.integer_or("decoder_sparse_step", 1, kMaxLayers, 1);
  for (std::int64_t i = 0; i < model.layers; ++i) {
    model.moe_layer[static_cast<std::size_t>(i)] = (i + 1) % step == 0;
  }
  if (!reader.has("mlp_only_layers")) return;
  const Json* dense = reader.array("mlp_only_layers");
  if (dense == nullptr) return;
  for (const Json& item : dense->items()) {
    if (!item.is_integer() || item.as_integer() < 0 || item.as_integer() >= model.layers) {
      reader.note("mlp_only_layers", shown(item) + " is no layer of this model");
      continue;
    }
    model.moe_layer[static_cast<std::size_t>(item.as_integer())] = false;
  }
}

void read_qwen3(ObjectReader& reader, const Json& json, Model& model,
                std::vector<Problem>& problems) {
  read_dense(reader, json, model, problems);
  refuse(reader, json, "n_shared_experts", "this family has no shared experts");
}

// No layer is sparse: the same network as a dense one, and said so.
void make_dense(Model& model) {
  const Model dense;
  model.moe_layer.assign(static_cast<std::size_t>(model.layers), false);
  model.experts = model.top_k = model.moe_ffn = model.shared_ffn = 0;
  model.norm_topk = model.sigmoid_router = model.router_bias = false;
  model.expert_groups = model.top_groups = 1;
  model.routed_scale = dense.routed_scale;
  model.balance_coefficient = 0;
}

void read_picks(ObjectReader& reader, Model& model) {
  model.top_k = reader.integer("num_experts_per_tok", 1, kMaxCount);
  model.moe_ffn = reader.integer("moe_intermediate_size", 1, kMaxDim);
  model.norm_topk = reader.boolean_or("norm_topk_prob", false);
  if (model.top_k > model.experts) {
    reader.note("num_experts_per_tok", std::to_string(model.top_k) + " of only " +
                                           std::to_string(model.experts) + " experts");
  }
}

void read_qwen3_moe(ObjectReader& reader, const Json& json, Model& model,
                    std::vector<Problem>& problems) {
  read_qwen3(reader, json, model, problems);
  const bool local = reader.has("num_local_experts");
  const bool both = reader.has("num_experts") && local;
  model.experts = reader.integer(local ? "num_local_experts" : "num_experts", 0, kMaxCount);
  if (both && reader.integer_or("num_experts", 0, kMaxCount, model.experts) != model.experts) {
    reader.note("num_local_experts", "differs from num_experts");
  }
  if (model.experts == 0) return;
  read_sparse_layers(reader, model);
  read_picks(reader, model);
  model.balance_coefficient = reader.number_or("router_aux_loss_coef", 0, 1e6, 0.001);
  if (std::find(model.moe_layer.begin(), model.moe_layer.end(), true) == model.moe_layer.end()) {
    make_dense(model);
  }
}

void write_qwen3(const Model&, Json&) {}

void write_qwen3_moe(const Model& m, Json& json) {
  Json dense = Json::array();
  for (std::size_t i = 0; i < m.moe_layer.size() && m.experts > 0; ++i) {
    if (!m.moe_layer[i]) dense.push(static_cast<std::int64_t>(i));
  }
  json.set("num_experts", m.experts)
      .set("num_experts_per_tok", m.top_k)
      .set("moe_intermediate_size", m.moe_ffn)
      .set("norm_topk_prob", m.norm_topk)
      .set("router_aux_loss_coef", m.balance_coefficient)
      .set("decoder_sparse_step", 1)
      .set("mlp_only_layers", std::move(dense));
}

// Layers from max_window_layers on attend to a window of sliding_window, where that is a number:
// what the family's own reader makes of a file without layer_types, its defaults included.
void refuse_windows(ObjectReader& reader, const Json& json, const Model& model) {
  if (reader.has("layer_types")) return;  // read_unsupported has looked at them
  const Json* window = json.find("sliding_window");
  if (window != nullptr && window->is_null()) return;
  const std::int64_t full = reader.integer_or("max_window_layers", 0, kMaxLayers, 62);
  if (full >= model.layers) return;
  reader.note("sliding_window",
              "applies to the layers from " + std::to_string(full) +
                  " on: attention is over the whole document here",
              "set it to null to train without it");
}

// Keys of DeepSeek's that this family's files carry; only what the family does is accepted.
void refuse_other_routing(ObjectReader& reader) {
  const std::string scoring = reader.text_or("scoring_func", "sigmoid");
  if (scoring != "sigmoid" && scoring != "noaux_tc") {
    reader.note("scoring_func", "'" + scoring + "' is not supported", "sigmoid is");
  }
  const std::string method = reader.text_or("topk_method", "noaux_tc");
  if (method != "noaux_tc") {
    reader.note("topk_method", "'" + method + "' is not supported", "noaux_tc is");
  }
  if (reader.integer_or("moe_layer_freq", 1, kMaxLayers, 1) != 1) {
    reader.note("moe_layer_freq", "is not supported: every layer after the dense ones is sparse");
  }
}

void read_groups(ObjectReader& reader, Model& model) {
  model.expert_groups = reader.integer_or("n_group", 1, kMaxCount, 1);
  model.top_groups = reader.integer_or("topk_group", 1, kMaxCount, 1);
  if (model.expert_groups == 1 && model.top_groups == 1) return;
  const std::int64_t each = model.experts / model.expert_groups;
  const std::string groups = std::to_string(model.expert_groups) + " groups";
  if (model.experts % model.expert_groups != 0 || each < 2) {
    reader.note("n_group", groups + " of " + std::to_string(model.experts) +
                               " experts: at least two in each, as many in all");
  } else if (model.top_groups > model.expert_groups) {
    reader.note("topk_group", std::to_string(model.top_groups) + " of only " + groups);
  } else if (model.top_k > model.top_groups * each) {
    reader.note("topk_group", "the best groups have " + std::to_string(model.top_groups * each) +
                                  " experts, fewer than num_experts_per_tok");
  }
}

// The first layers are dense; the others route by sigmoid with a bias for the choice alone
// (DeepSeek-V3, arXiv 2412.19437) and have shared experts, which are one MLP.
void read_dots1(ObjectReader& reader, const Json& json, Model& model,
                std::vector<Problem>& problems) {
  read_dense(reader, json, model, problems);
  refuse_windows(reader, json, model);
  model.experts = reader.integer("n_routed_experts", 0, kMaxCount);
  if (model.experts == 0) return;
  refuse_other_routing(reader);
  read_picks(reader, model);
  read_groups(reader, model);
  const std::int64_t dense = reader.integer_or("first_k_dense_replace", 0, kMaxLayers, 0);
  for (std::int64_t i = dense; i < model.layers; ++i) {
    model.moe_layer[static_cast<std::size_t>(i)] = true;
  }
  model.sigmoid_router = model.router_bias = true;
  model.routed_scale = reader.number_or("routed_scaling_factor", 1e-6, 1e6, 1);
  model.shared_ffn = reader.integer_or("n_shared_experts", 0, kMaxCount, 0) * model.moe_ffn;
  model.balance_coefficient = reader.number_or("router_aux_loss_coef", 0, 1e6, 0);
  if (dense >= model.layers) make_dense(model);
}

void write_dots1(const Model& m, Json& json) {
  const auto sparse = std::find(m.moe_layer.begin(), m.moe_layer.end(), true);
  json.set("n_routed_experts", m.experts)
      .set("n_shared_experts", m.is_moe() ? m.shared_ffn / m.moe_ffn : 0)
      .set("num_experts_per_tok", m.top_k)
      .set("moe_intermediate_size", m.moe_ffn)
      .set("first_k_dense_replace", static_cast<std::int64_t>(sparse - m.moe_layer.begin()))
      .set("n_group", m.expert_groups)
      .set("topk_group", m.top_groups)
      .set("norm_topk_prob", m.norm_topk)
      .set("routed_scaling_factor", m.routed_scale)
      .set("router_aux_loss_coef", m.balance_coefficient)
      .set("scoring_func", "sigmoid")
      .set("topk_method", "noaux_tc")
      .set("sliding_window", Json());
}

// One row a family: to add one, write its reader and writer and name them here.
struct Family {
  const char* model_type;
  const char* architecture;
  void (*read)(ObjectReader&, const Json&, Model&, std::vector<Problem>&);
  void (*write)(const Model&, Json&);  // what the dense decoder has not
};
constexpr std::array<Family, 3> kFamilies = {{
    {"qwen3", "Qwen3ForCausalLM", read_qwen3, write_qwen3},
    {"qwen3_moe", "Qwen3MoeForCausalLM", read_qwen3_moe, write_qwen3_moe},
    {"dots1", "Dots1ForCausalLM", read_dots1, write_dots1},
}};

const Family* find_family(const std::string& model_type) {
  for (const Family& family : kFamilies) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

std::int64_t attention_parameters(const Model& m) {
  return m.hidden * m.head_dim * (2 * m.heads + 2 * m.kv_heads);
}

std::int64_t count(const Model& m, std::int64_t experts_counted) {
  std::int64_t total = m.vocab * m.hidden * (m.tied_head ? 1 : 2) + m.hidden;  // and the last norm
  for (const bool moe : m.moe_layer) {
    total += attention_parameters(m) + 2 * m.head_dim + 2 * m.hidden;  // q/k norms, two norms
    total +=
        moe ? 3 * m.hidden * (experts_counted * m.moe_ffn + m.shared_ffn) + m.experts * m.hidden
            : 3 * m.hidden * m.ffn;
  }
  return total;
}

// The same sum in floating point, before int64 is trusted with it.
double rough_count(const Model& m) {
  const auto d = [](std::int64_t x) { return static_cast<double>(x); };
  const double layer =
      d(m.hidden) * d(m.head_dim) * 2 * d(m.heads + m.kv_heads) +
      d(m.hidden) * 3 * (d(m.ffn) + d(m.experts) * d(m.moe_ffn + 1) + d(m.shared_ffn));
  return 2 * d(m.vocab) * d(m.hidden) + d(m.layers) * layer;
}

// A directory of the hub's cache holds refs/main -> snapshots/<revision>/config.json.
std::string config_in_directory(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code ec;
  const fs::path plain = fs::path(directory) / "config.json";
  if (fs::exists(plain, ec)) return plain.string();
  if (Result<std::string> ref = read_file((fs::path(directory) / "refs/main").string()); ref.ok()) {
    std::string revision = ref.value();
    while (!revision.empty() && revision.back() <= ' ') revision.pop_back();
    return (fs::path(directory) / "snapshots" / revision / "config.json").string();
  }
  return plain.string();
}

}  // namespace

Result<Model> model_from_json(const Json& json, const std::string& place) {
  std::vector<Problem> problems;
  ObjectReader reader(json, place, problems);
  Model model;
  model.model_type = reader.text("model_type");
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  const Family* family = find_family(model.model_type);
  if (family == nullptr) {
    std::vector<std::string> names;
    std::string known;
    for (const Family& row : kFamilies) {
      names.emplace_back(row.model_type);
      known += (known.empty() ? "known: " : ", ") + names.back();
    }
    const std::string near = nearest(model.model_type, names);
    reader.note("model_type", "unknown model_type '" + model.model_type + "'",
                near.empty() ? known : "did you mean '" + near + "'? " + known);
    return Error{ErrorCode::kInvalid, problems};
  }
  model.name = reader.text_or("name", config_stem(place));
  if (model.name.empty()) model.name = model.model_type;
  family->read(reader, json, model, problems);
  if (problems.empty() && rough_count(model) > kMaxParameters) {
    reader.note("", "the model has more than 1e16 parameters");
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  model.sha256 = sha256_hex(to_json(model).dump(-1));
  return model;
}

Result<Model> parse_model(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  return model_from_json(json, place + ":");
}

Result<Model> load_model(const std::string& name) {
  std::error_code ec;
  std::string path = name;
  Result<std::string> config = find_config("models", name);
  if (config.ok()) {
    path = config.value();
  } else if (std::filesystem::is_directory(name, ec)) {
    path = config_in_directory(name);
  } else if (!looks_like_path(name)) {
    return config.error();
  } else if (!std::filesystem::exists(name, ec)) {
    return Error::of(ErrorCode::kInvalid, name, "no such file or directory",
                     "give a config.json, its directory, or a name of `orrery list models`");
  }
  TRY(const std::string text, read_file(path));
  return parse_model(text, path);
}

Json to_json(const Model& m) {
  const Family* family = find_family(m.model_type);
  CHECK(family != nullptr, "no family " + m.model_type);
  Json json = Json::object();
  json.set("name", m.name)
      .set("architectures", Json::array().push(family->architecture))
      .set("model_type", m.model_type)
      .set("vocab_size", m.vocab)
      .set("hidden_size", m.hidden)
      .set("num_hidden_layers", m.layers)
      .set("num_attention_heads", m.heads)
      .set("num_key_value_heads", m.kv_heads)
      .set("head_dim", m.head_dim)
      .set("intermediate_size", m.ffn)
      .set("hidden_act", "silu")
      .set("attention_bias", false)
      .set("tie_word_embeddings", m.tied_head)
      .set("rms_norm_eps", m.rms_eps)
      .set("rope_theta", m.rope_theta)
      .set("max_position_embeddings", m.max_positions);
  family->write(m, json);
  return json;
}

std::int64_t parameter_count(const Model& model) {
  return count(model, model.experts);
}

std::int64_t active_parameter_count(const Model& model) {
  return count(model, model.top_k);
}

// 6 [sum over layers (attention projections + 3 h f, or 3 h (k f_e + f_s)) + V h] is three times
// two FLOPs a multiply-add; scores and values are 12 n_h d mean_attended a layer in the same
// convention.
double training_flops_per_token(const Model& model, double mean_attended) {
  double weights = static_cast<double>(model.vocab) * static_cast<double>(model.hidden);
  for (const bool moe : model.moe_layer) {
    const std::int64_t ffn = moe ? model.top_k * model.moe_ffn + model.shared_ffn : model.ffn;
    weights += static_cast<double>(attention_parameters(model) + 3 * model.hidden * ffn);
  }
  const auto square = static_cast<double>(model.layers * model.heads * model.head_dim);
  return 6 * weights + 12 * square * mean_attended;
}

}  // namespace orrery
