// config.json of the decoders in Llama's keys that are simulated: Llama, Mistral, Mixtral, Qwen2,
// InternLM and Nemotron-4. They differ in biases, windows, experts, norm and activation.
#include "core/models/config.h"

namespace orrery::config {
namespace {

// A bias of the attention's four projections, and one of the MLP, as Llama's code has them.
void read_biases(Source& s, const char* attention_key, bool default_attention) {
  Model& model = s.model;
  const bool attention = s.reader.boolean_or(attention_key, default_attention);
  const bool mlp = s.reader.boolean_or("mlp_bias", false);
  if (mlp && !attention) {
    s.reader.note("mlp_bias", "is not supported without a bias of the attention",
                  "set " + std::string(attention_key) + " too, or mlp_bias to false");
  }
  model.qkv_bias = attention;
  model.linear_bias = attention && mlp;
  model.output_bias = attention && !mlp;
}

void read_plain(Source& s) {
  read_decoder(s);
  s.model.qk_norm = false;
  read_rope(s, 1e4);
  refuse(s, "num_nextn_predict_layers", "this family predicts one token");
}

void read_llama(Source& s) {
  read_plain(s);
  read_biases(s, "attention_bias", false);
}

void write_llama(const Model& m, Json& json) {
  write_decoder(m, json);
  json.set("attention_bias", m.qkv_bias).set("mlp_bias", m.linear_bias);
}

// Both generations; in the first a file without the key has a bias.
void read_internlm(Source& s) {
  read_plain(s);
  read_biases(s, "bias", true);
}

void write_internlm(const Model& m, Json& json) {
  write_decoder(m, json);
  json.set("bias", m.qkv_bias).set("mlp_bias", m.linear_bias);
}

// The first Mistral had a window of 4096 in every layer, which is still its default.
void read_mistral(Source& s) {
  read_plain(s);
  read_windows(s, window_or(s, 4096), 0, 1);
}

void write_mistral(const Model& m, Json& json) {
  write_decoder(m, json);
  write_windows(m, json);
}

// Every layer is sparse; the weights of the chosen experts always sum to one.
void read_mixtral(Source& s) {
  read_plain(s);
  read_windows(s, window_or(s, 0), 0, 1);
  Model& model = s.model;
  model.experts = aliased(s, {"num_local_experts", "num_experts"}, 1, kMaxCount);
  model.top_k = s.reader.integer("num_experts_per_tok", 1, kMaxCount);
  if (model.top_k > model.experts) {
    s.reader.note("num_experts_per_tok", std::to_string(model.top_k) + " of only " +
                                             std::to_string(model.experts) + " experts");
  }
  model.moe_ffn = model.ffn;
  model.norm_topk = true;
  model.moe_layer.assign(static_cast<std::size_t>(model.layers), true);
  model.balance_coefficient = s.reader.number_or("router_aux_loss_coef", 0, 1e6, 0.001);
}

void write_mixtral(const Model& m, Json& json) {
  write_mistral(m, json);
  json.set("num_local_experts", m.experts)
      .set("num_experts_per_tok", m.top_k)
      .set("router_aux_loss_coef", m.balance_coefficient);
}

// Biases of queries, keys and values alone, and no norm of them. Where windows are used at all,
// the layers from max_window_layers on have one.
void read_qwen2(Source& s) {
  read_plain(s);
  s.model.qkv_bias = true;
  const bool used = s.reader.boolean_or("use_sliding_window", false);
  const std::int64_t window = window_or(s, 4096);
  const std::int64_t full = s.reader.integer_or("max_window_layers", 0, kMaxLayers, 28);
  if (used) read_windows(s, window, full, 1);
}

void write_qwen2(const Model& m, Json& json) {
  write_decoder(m, json);
  json.set("attention_bias", true).set("use_sliding_window", !m.window.empty());
  write_windows(m, json);
}

// LayerNorm with a bias, squared ReLU and so one input matrix of the MLP.
void read_nemotron(Source& s) {
  read_llama(s);
  Model& model = s.model;
  model.norm = NormKind::kLayer;
  model.norm_bias = true;
  model.gated = false;
  model.rms_eps = aliased_number_or(s, {"norm_eps", "layer_norm_eps"}, 0, 1, 1e-5);
}

void write_nemotron(const Model& m, Json& json) {
  write_llama(m, json);
  json.set("norm_eps", m.rms_eps).set("hidden_act", "relu2");
}

}  // namespace

extern const Family kLlama, kMistral, kMixtral, kQwen2, kInternlm, kInternlm2, kNemotron;
const Family kLlama = {"llama", "LlamaForCausalLM", false, read_llama, write_llama};
const Family kMistral = {"mistral", "MistralForCausalLM", false, read_mistral, write_mistral};
const Family kMixtral = {"mixtral", "MixtralForCausalLM", false, read_mixtral, write_mixtral};
const Family kQwen2 = {"qwen2", "Qwen2ForCausalLM", false, read_qwen2, write_qwen2};
const Family kInternlm = {"internlm", "InternLMForCausalLM", false, read_internlm, write_internlm};
const Family kInternlm2 = {"internlm2", "InternLM2ForCausalLM", false, read_internlm,
                           write_internlm};
const Family kNemotron = {"nemotron", "NemotronForCausalLM", false, read_nemotron, write_nemotron};

}  // namespace orrery::config
