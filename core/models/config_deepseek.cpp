// config.json of DeepSeek V2 and V3, Kimi K2 and GLM-4.5: fine experts beside shared ones, the
// first layers dense; latent attention (all but GLM), layers that predict further tokens.
#include "core/models/config.h"

namespace orrery::config {
namespace {

void read_latent(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  LatentAttention& l = model.latent;
  l.q_rank = reader.integer_or("q_lora_rank", 1, kMaxDim, 0);  // null: none
  l.kv_rank = reader.integer("kv_lora_rank", 1, kMaxDim);
  l.nope_dim = reader.integer("qk_nope_head_dim", 1, kMaxCount);
  l.rope_dim = reader.integer("qk_rope_head_dim", 1, kMaxCount);
  l.v_dim = reader.integer("v_head_dim", 1, kMaxCount);
  model.head_dim = l.nope_dim + l.rope_dim;
  refuse(s, "attention_bias", "latent projections have no bias here");
  refuse(s, "index_topk", "attention is to all keys here");
}

// How experts are scored and chosen: DeepSeek's names for it.
void read_routing(Source& s, bool v3) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  const std::string scoring = reader.text_or("scoring_func", v3 ? "sigmoid" : "softmax");
  if (scoring != "sigmoid" && scoring != "softmax") {
    reader.note("scoring_func", "'" + scoring + "' is not supported", "softmax and sigmoid are");
  }
  const std::string method = reader.text_or("topk_method", v3 ? "noaux_tc" : "greedy");
  if (method != "noaux_tc" && method != "greedy" && method != "group_limited_greedy") {
    reader.note("topk_method", "'" + method + "' is not supported",
                "noaux_tc, greedy and group_limited_greedy are");
  }
  model.sigmoid_router = scoring == "sigmoid";
  model.router_bias = method == "noaux_tc";  // aux-loss-free balancing, arXiv 2412.19437
  if (method != "greedy") read_groups(s);
  if (reader.integer_or("moe_layer_freq", 1, kMaxLayers, 1) != 1) {
    reader.note("moe_layer_freq", "is not supported: every layer after the dense ones is sparse");
  }
}

void read_experts(Source& s, bool v3) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  model.mtp_layers = reader.integer_or("num_nextn_predict_layers", 0, kMaxLayers, 0);
  model.experts =
      aliased(s, {"n_routed_experts", "num_local_experts", "num_experts"}, 0, kMaxCount);
  if (model.experts == 0) return;
  read_picks(s, v3);
  read_routing(s, v3);
  read_dense_first(s);
  model.routed_scale = reader.number_or("routed_scaling_factor", 1e-6, 1e6, 1);
  model.shared_ffn = reader.integer_or("n_shared_experts", 0, kMaxCount, 0) * model.moe_ffn;
  model.balance_coefficient =
      aliased_number_or(s, {"aux_loss_alpha", "router_aux_loss_coef"}, 0, 1e6, v3 ? 0 : 0.001);
  if (!any_sparse(model)) make_dense(model);
}

void read_deepseek(Source& s, bool v3) {
  read_shape(s);
  read_heads(s);
  read_rope(s, 1e4);
  read_latent(s);
  s.model.qk_norm = false;
  read_experts(s, v3);
}

void read_deepseek_v2(Source& s) {
  read_deepseek(s, false);
}

void read_deepseek_v3(Source& s) {
  read_deepseek(s, true);
}

void write_experts(const Model& m, Json& json) {
  const bool groups = m.expert_groups > 1 || m.top_groups > 1;
  write_sparse(m, json);
  write_dense_first(m, json);
  json.set("n_group", m.expert_groups)
      .set("topk_group", m.top_groups)
      .set("norm_topk_prob", m.norm_topk)
      .set("routed_scaling_factor", m.routed_scale)
      .set("aux_loss_alpha", m.balance_coefficient)
      .set("scoring_func", m.sigmoid_router ? "sigmoid" : "softmax")
      .set("topk_method", m.router_bias ? "noaux_tc"
                          : groups      ? "group_limited_greedy"
                                        : "greedy")
      .set("num_nextn_predict_layers", m.mtp_layers);
}

void write_deepseek(const Model& m, Json& json) {
  write_decoder(m, json);
  json.set("head_dim", Json())
      .set("q_lora_rank", m.latent.q_rank > 0 ? Json(m.latent.q_rank) : Json())
      .set("kv_lora_rank", m.latent.kv_rank)
      .set("qk_nope_head_dim", m.latent.nope_dim)
      .set("qk_rope_head_dim", m.latent.rope_dim)
      .set("v_head_dim", m.latent.v_dim);
  write_experts(m, json);
}

// Grouped-query attention; its bias is of queries, keys and values alone.
void read_glm4_moe(Source& s) {
  read_decoder(s);
  read_rope(s, 1e4);
  s.model.qk_norm = s.reader.boolean_or("use_qk_norm", false);
  s.model.qkv_bias = s.reader.boolean_or("attention_bias", false);
  read_experts(s, true);
}

void write_glm4_moe(const Model& m, Json& json) {
  write_decoder(m, json);
  json.set("use_qk_norm", m.qk_norm).set("attention_bias", m.qkv_bias);
  write_experts(m, json);
}

}  // namespace

extern const Family kDeepseekV2, kDeepseekV3, kKimiK2, kGlm4Moe;
const Family kDeepseekV2 = {"deepseek_v2", "DeepseekV2ForCausalLM", false, read_deepseek_v2,
                            write_deepseek};
const Family kDeepseekV3 = {"deepseek_v3", "DeepseekV3ForCausalLM", false, read_deepseek_v3,
                            write_deepseek};
const Family kKimiK2 = {"kimi_k2", "DeepseekV3ForCausalLM", false, read_deepseek_v3,
                        write_deepseek};
const Family kGlm4Moe = {"glm4_moe", "Glm4MoeForCausalLM", false, read_glm4_moe, write_glm4_moe};

}  // namespace orrery::config
