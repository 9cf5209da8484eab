// config.json of GPT-OSS: attention sinks, a window in every other layer, biases everywhere.
#include "core/models/config.h"

namespace orrery::config {
namespace {

void read_gpt_oss(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  read_decoder(s);
  read_rope(s, 150000);
  model.rms_eps = reader.number_or("rms_norm_eps", 0, 1, 1e-5);
  read_windows(s, window_or(s, 128), 0, 2);
  if (!reader.boolean_or("attention_bias", true)) {
    reader.note("attention_bias", "false is not supported: this family's projections have a bias");
  }
  model.qk_norm = false;
  model.qkv_bias = model.linear_bias = model.attention_sinks = true;
  model.experts = aliased(s, {"num_local_experts", "num_experts"}, 1, kMaxCount);
  model.top_k = aliased(s, {"num_experts_per_tok", "experts_per_token"}, 1, kMaxCount);
  if (model.top_k > model.experts) {
    reader.note("num_experts_per_tok", std::to_string(model.top_k) + " of only " +
                                           std::to_string(model.experts) + " experts");
  }
  model.moe_ffn = model.ffn;
  model.norm_topk = true;  // the softmax is over the chosen ones
  model.moe_layer.assign(static_cast<std::size_t>(model.layers), true);
  model.balance_coefficient = reader.number_or("router_aux_loss_coef", 0, 1e6, 0.9);
}

void write_gpt_oss(const Model& m, Json& json) {
  write_decoder(m, json);
  json.set("attention_bias", true)
      .set("num_local_experts", m.experts)
      .set("num_experts_per_tok", m.top_k)
      .set("router_aux_loss_coef", m.balance_coefficient);
  write_windows(m, json);
}

}  // namespace

extern const Family kGptOss;
const Family kGptOss = {"gpt_oss", "GptOssForCausalLM", false, read_gpt_oss, write_gpt_oss};

}  // namespace orrery::config
