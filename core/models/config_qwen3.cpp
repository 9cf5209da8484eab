// config.json of the families that the engine executes: Qwen3 dense and mixture of experts, and
// dots.llm1. What a key asks for beyond the executed decoder is refused by its name.
#include <algorithm>

#include "core/models/config.h"

namespace orrery::config {
namespace {

// rope_scaling (hub, 4.x) or rope_parameters (5.x): only the plain rotary embedding is executed.
void read_plain_rope(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  model.rope_theta = reader.number_or("rope_theta", 1, 1e12, 1e4);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!reader.has(key)) continue;
    const Json* rope = reader.child(key);
    if (rope == nullptr) continue;
    ObjectReader inner(*rope, reader.place() + "/" + key, s.problems);
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

void refuse_unexecuted(Source& s) {
  ObjectReader& reader = s.reader;
  refuse(s, "attention_bias", "the projections have no bias here");
  refuse(s, "mlp_bias", "the projections have no bias here");
  refuse(s, "use_sliding_window", "attention is over the whole document here");
  refuse(s, "attention_dropout", "there is no dropout here");
  refuse(s, "quantization_config", "weights are read in bf16 or wider here");
  refuse(s, "num_nextn_predict_layers", "multi-token prediction is not built");
  refuse(s, "shared_expert_intermediate_size", "shared experts are not built");
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

void read_dense(Source& s) {
  read_decoder(s);
  read_plain_rope(s);
  refuse_unexecuted(s);
}

// Layer i is sparse iff it is not in mlp_only_layers and (i + 1) % decoder_sparse_step == 0.
void read_sparse_layers(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
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

void read_qwen3(Source& s) {
  read_dense(s);
  refuse(s, "n_shared_experts", "this family has no shared experts");
}

void read_qwen3_moe(Source& s) {
  read_qwen3(s);
  Model& model = s.model;
  model.experts = aliased(s, {"num_experts", "num_local_experts"}, 0, kMaxCount);
  if (model.experts == 0) return;
  read_sparse_layers(s);
  read_picks(s, false);
  model.balance_coefficient = s.reader.number_or("router_aux_loss_coef", 0, 1e6, 0.001);
  if (!any_sparse(model)) make_dense(model);
}

void write_qwen3_moe(const Model& m, Json& json) {
  write_decoder(m, json);
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
void refuse_windows(Source& s) {
  ObjectReader& reader = s.reader;
  if (reader.has("layer_types")) return;  // refuse_unexecuted has looked at them
  const Json* window = s.json.find("sliding_window");
  if (window != nullptr && window->is_null()) return;
  const std::int64_t full = reader.integer_or("max_window_layers", 0, kMaxLayers, 62);
  if (full >= s.model.layers) return;
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

// The first layers are dense; the others route by sigmoid with a bias for the choice alone
// (DeepSeek-V3, arXiv 2412.19437) and have shared experts, which are one MLP.
void read_dots1(Source& s) {
  read_dense(s);
  refuse_windows(s);
  Model& model = s.model;
  model.experts = s.reader.integer("n_routed_experts", 0, kMaxCount);
  if (model.experts == 0) return;
  refuse_other_routing(s.reader);
  read_picks(s, false);
  read_groups(s);
  const std::int64_t dense = s.reader.integer_or("first_k_dense_replace", 0, kMaxLayers, 0);
  for (std::int64_t i = dense; i < model.layers; ++i) {
    model.moe_layer[static_cast<std::size_t>(i)] = true;
  }
  model.sigmoid_router = model.router_bias = true;
  model.routed_scale = s.reader.number_or("routed_scaling_factor", 1e-6, 1e6, 1);
  model.shared_ffn = s.reader.integer_or("n_shared_experts", 0, kMaxCount, 0) * model.moe_ffn;
  model.balance_coefficient = s.reader.number_or("router_aux_loss_coef", 0, 1e6, 0);
  if (dense >= model.layers) make_dense(model);
}

void write_dots1(const Model& m, Json& json) {
  write_decoder(m, json);
  write_sparse(m, json);
  write_dense_first(m, json);
  json.set("n_group", m.expert_groups)
      .set("topk_group", m.top_groups)
      .set("norm_topk_prob", m.norm_topk)
      .set("routed_scaling_factor", m.routed_scale)
      .set("router_aux_loss_coef", m.balance_coefficient)
      .set("scoring_func", "sigmoid")
      .set("topk_method", "noaux_tc")
      .set("sliding_window", Json());
}

}  // namespace

extern const Family kQwen3, kQwen3Moe, kDots1;
const Family kQwen3 = {"qwen3", "Qwen3ForCausalLM", true, read_qwen3, write_decoder};
const Family kQwen3Moe = {"qwen3_moe", "Qwen3MoeForCausalLM", true, read_qwen3_moe,
                          write_qwen3_moe};
const Family kDots1 = {"dots1", "Dots1ForCausalLM", true, read_dots1, write_dots1};

}  // namespace orrery::config
