// The table of families, and what their readers share.
#include "core/models/config.h"

#include <algorithm>

namespace orrery::config {

// One row a family; an unknown model_type is told these names in this order.
extern const Family kQwen3, kQwen3Moe, kDots1;                                  // executed
extern const Family kLlama, kMistral, kMixtral, kQwen2, kInternlm, kInternlm2;  // llama
extern const Family kNemotron;                                                  // llama
extern const Family kGpt2, kMpt, kBloom;                                        // gpt
extern const Family kGptOss;                                                    // gpt_oss
extern const Family kDeepseekV2, kDeepseekV3, kKimiK2, kGlm4Moe;                // deepseek

const std::vector<const Family*>& families() {
  static const std::vector<const Family*> rows = {
      &kQwen3, &kQwen3Moe, &kDots1,      &kLlama,      &kMistral, &kMixtral,
      &kQwen2, &kInternlm, &kInternlm2,  &kNemotron,   &kGpt2,    &kMpt,
      &kBloom, &kGptOss,   &kDeepseekV2, &kDeepseekV3, &kKimiK2,  &kGlm4Moe};
  return rows;
}

const Family* find_family(const std::string& model_type) {
  for (const Family* family : families()) {
    if (model_type == family->model_type) return family;
  }
  return nullptr;
}

std::string shown(const Json& json) {
  std::string text = json.dump(-1);
  return text.size() > 60 ? text.substr(0, 60) + "..." : text;
}

std::int64_t aliased_or(Source& s, std::initializer_list<const char*> keys, std::int64_t min,
                        std::int64_t max, std::int64_t fallback) {
  const char* first = nullptr;
  std::int64_t value = fallback;
  for (const char* key : keys) {
    if (!s.reader.has(key)) continue;
    if (first == nullptr) {
      first = key;
      value = s.reader.integer_or(key, min, max, fallback);
    } else if (s.reader.integer_or(key, min, max, value) != value) {
      s.reader.note(key, std::string("differs from ") + first);
    }
  }
  return value;
}

std::int64_t aliased(Source& s, std::initializer_list<const char*> keys, std::int64_t min,
                     std::int64_t max) {
  const bool there =
      std::any_of(keys.begin(), keys.end(), [&](const char* key) { return s.reader.has(key); });
  return there ? aliased_or(s, keys, min, max, min) : s.reader.integer(*keys.begin(), min, max);
}

double aliased_number_or(Source& s, std::initializer_list<const char*> keys, double min, double max,
                         double fallback) {
  for (const char* key : keys) {
    if (s.reader.has(key)) return s.reader.number_or(key, min, max, fallback);
  }
  return fallback;
}

void refuse(Source& s, const char* key, const char* why) {
  if (!s.reader.has(key)) return;
  const Json& value = *s.json.find(key);
  if (value.is_bool() && !value.as_bool()) return;
  if (value.is_number() && value.as_double() == 0) return;
  if (value.is_array() && value.items().empty()) return;
  s.reader.note(key, shown(value) + " is not supported: " + why);
}

// The heads and how many of them have keys.
void read_heads(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  model.heads = reader.integer("num_attention_heads", 1, kMaxCount);
  model.kv_heads = reader.integer_or("num_key_value_heads", 1, kMaxCount, model.heads);
  if (model.heads % model.kv_heads == 0) return;
  reader.note("num_key_value_heads", std::to_string(model.kv_heads) + " does not divide " +
                                         std::to_string(model.heads) + " attention heads");
}

void read_decoder(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  read_shape(s);
  read_heads(s);
  if (reader.has("head_dim") || reader.has("kv_channels")) {  // kv_channels: Megatron's name
    model.head_dim = aliased(s, {"head_dim", "kv_channels"}, 2, kMaxCount);
  } else {
    model.head_dim = model.hidden / model.heads;
    if (model.hidden % model.heads != 0) {
      reader.note("head_dim", "is missing, and hidden_size is no multiple of num_attention_heads");
    }
  }
  if (model.head_dim % 2 != 0) {
    reader.note("head_dim", "is odd; rotary embeddings turn pairs of columns");
  }
}

void read_shape(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  model.vocab = reader.integer("vocab_size", 1, kMaxDim);
  model.hidden = reader.integer("hidden_size", 1, kMaxDim);
  model.layers = reader.integer("num_hidden_layers", 1, kMaxLayers);
  model.ffn = reader.integer("intermediate_size", 1, kMaxDim);
  model.tied_head = reader.boolean_or("tie_word_embeddings", false);
  model.rms_eps = reader.number_or("rms_norm_eps", 0, 1, 1e-6);
  model.max_positions = reader.integer_or("max_position_embeddings", 1, kMaxPositions, 32768);
  model.moe_layer.assign(static_cast<std::size_t>(model.layers), false);
}

void write_decoder(const Model& m, Json& json) {
  json.set("vocab_size", m.vocab)
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
}

void read_rope(Source& s, double default_theta) {
  Model& model = s.model;
  model.rope_theta = s.reader.number_or("rope_theta", 1, 1e12, default_theta);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!s.reader.has(key)) continue;
    const Json* rope = s.reader.child(key);
    if (rope == nullptr) continue;
    ObjectReader inner(*rope, s.reader.place() + "/" + key, s.problems);
    inner.text_or("rope_type", "");
    inner.text_or("type", "");
    const double theta = inner.number_or("rope_theta", 1, 1e12, model.rope_theta);
    if (s.reader.has("rope_theta") && theta != model.rope_theta) {
      inner.note("rope_theta", "differs from the rope_theta beside it");
    }
    model.rope_theta = theta;
  }
}

std::int64_t window_or(Source& s, std::int64_t fallback) {
  const Json* window = s.json.find("sliding_window");
  if (window != nullptr && window->is_null()) return 0;
  return s.reader.integer_or("sliding_window", 1, kMaxPositions, fallback);
}

void read_windows(Source& s, std::int64_t window, std::int64_t first, std::int64_t stride) {
  Model& model = s.model;
  model.window.assign(static_cast<std::size_t>(model.layers), 0);
  if (s.reader.has("layer_types")) {
    const Json* types = s.reader.array("layer_types");
    if (types == nullptr) return;
    if (types->items().size() != model.window.size()) {
      s.reader.note("layer_types", "has " + std::to_string(types->items().size()) +
                                       " entries, but num_hidden_layers is " +
                                       std::to_string(model.layers));
      return;
    }
    for (std::size_t i = 0; i < model.window.size(); ++i) {
      const Json& type = types->items()[i];
      if (type == Json("sliding_attention")) {
        model.window[i] = window;
        if (window > 0) continue;
        s.reader.note("sliding_window", "is missing, and layer_types has sliding_attention");
        return;
      }
      if (type == Json("full_attention")) continue;
      s.reader.note("layer_types", shown(type) + " is not supported",
                    "full_attention and sliding_attention are");
      return;
    }
  } else {
    for (std::int64_t i = first; i < model.layers; i += stride) {
      model.window[static_cast<std::size_t>(i)] = window;
    }
  }
  const auto full = static_cast<std::size_t>(
      std::count(model.window.begin(), model.window.end(), std::int64_t{0}));
  if (full == model.window.size()) model.window.clear();
}

void write_windows(const Model& m, Json& json) {
  Json types = Json::array();
  std::int64_t widest = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(m.layers); ++i) {
    const std::int64_t window = m.window.empty() ? 0 : m.window[i];
    types.push(window > 0 ? "sliding_attention" : "full_attention");
    widest = std::max(widest, window);
  }
  json.set("sliding_window", widest > 0 ? Json(widest) : Json());
  json.set("layer_types", std::move(types));
}

void make_dense(Model& model) {
  const Model dense;
  model.moe_layer.assign(static_cast<std::size_t>(model.layers), false);
  model.experts = model.top_k = model.moe_ffn = model.shared_ffn = 0;
  model.norm_topk = model.sigmoid_router = model.router_bias = false;
  model.expert_groups = model.top_groups = 1;
  model.routed_scale = dense.routed_scale;
  model.balance_coefficient = 0;
}

bool any_sparse(const Model& model) {
  return std::find(model.moe_layer.begin(), model.moe_layer.end(), true) != model.moe_layer.end();
}

void read_picks(Source& s, bool default_norm_topk) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  model.top_k = reader.integer("num_experts_per_tok", 1, kMaxCount);
  model.moe_ffn = reader.integer("moe_intermediate_size", 1, kMaxDim);
  model.norm_topk = reader.boolean_or("norm_topk_prob", default_norm_topk);
  if (model.top_k > model.experts) {
    reader.note("num_experts_per_tok", std::to_string(model.top_k) + " of only " +
                                           std::to_string(model.experts) + " experts");
  }
}

void read_groups(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
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

void write_sparse(const Model& m, Json& json) {
  json.set("n_routed_experts", m.experts)
      .set("n_shared_experts", m.is_moe() ? m.shared_ffn / m.moe_ffn : 0)
      .set("num_experts_per_tok", m.top_k)
      .set("moe_intermediate_size", m.moe_ffn);
}

void read_dense_first(Source& s) {
  Model& model = s.model;
  if (s.reader.has("mlp_layer_types")) {  // transformers 5
    const Json* types = s.reader.array("mlp_layer_types");
    if (types == nullptr) return;
    if (types->items().size() != model.moe_layer.size()) {
      s.reader.note("mlp_layer_types", "has " + std::to_string(types->items().size()) +
                                           " entries, but num_hidden_layers is " +
                                           std::to_string(model.layers));
      return;
    }
    for (std::size_t i = 0; i < model.moe_layer.size(); ++i) {
      const Json& type = types->items()[i];
      model.moe_layer[i] = type == Json("sparse");
      if (type == Json("sparse") || type == Json("dense")) continue;
      s.reader.note("mlp_layer_types", shown(type) + " is not supported", "dense and sparse are");
      return;
    }
    return;
  }
  const std::int64_t dense = s.reader.integer_or("first_k_dense_replace", 0, kMaxLayers, 0);
  for (std::int64_t i = dense; i < model.layers; ++i) {
    model.moe_layer[static_cast<std::size_t>(i)] = true;
  }
}

void write_dense_first(const Model& m, Json& json) {
  const auto sparse = std::find(m.moe_layer.begin(), m.moe_layer.end(), true);
  json.set("first_k_dense_replace", static_cast<std::int64_t>(sparse - m.moe_layer.begin()));
  if (std::find(sparse, m.moe_layer.end(), false) == m.moe_layer.end()) return;
  Json types = Json::array();
  for (const bool moe : m.moe_layer) types.push(moe ? "sparse" : "dense");
  json.set("mlp_layer_types", std::move(types));
}

}  // namespace orrery::config
