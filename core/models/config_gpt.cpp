// config.json of the decoders before Llama: GPT-2 (and Megatron's GPT in its keys), MPT, BLOOM.
// They have LayerNorm, a plain MLP, tied ends, and no rotary embeddings.
#include "core/models/config.h"

namespace orrery::config {
namespace {

// As many keys as queries, in heads that divide the hidden size.
void read_equal_heads(Source& s, std::initializer_list<const char*> keys) {
  Model& model = s.model;
  model.heads = model.kv_heads = aliased(s, keys, 1, kMaxCount);
  model.head_dim = model.hidden / model.heads;
  if (model.hidden % model.heads == 0) return;
  const char* key = *keys.begin();
  for (const char* name : keys) {
    if (s.reader.has(name)) key = name;
  }
  s.reader.note(key, std::to_string(model.heads) + " does not divide the hidden size, " +
                         std::to_string(model.hidden));
}

// LayerNorm, biases everywhere, one input matrix of the MLP.
void set_layers(Model& model, bool biases) {
  model.norm = NormKind::kLayer;
  model.norm_bias = model.qkv_bias = model.linear_bias = biases;
  model.gated = model.qk_norm = false;
  model.moe_layer.assign(static_cast<std::size_t>(model.layers), false);
}

// n_inner, or four times the hidden size.
std::int64_t inner_size(Source& s) {
  return s.reader.integer_or("n_inner", 1, 4 * kMaxDim, 4 * s.model.hidden);
}

void read_gpt2(Source& s) {
  Model& model = s.model;
  model.vocab = s.reader.integer("vocab_size", 1, kMaxDim);
  model.hidden = aliased(s, {"n_embd", "hidden_size"}, 1, kMaxDim);
  model.layers = aliased(s, {"n_layer", "num_hidden_layers"}, 1, kMaxLayers);
  read_equal_heads(s, {"n_head", "num_attention_heads"});
  model.ffn = inner_size(s);
  model.tied_head = s.reader.boolean_or("tie_word_embeddings", true);
  model.rms_eps = s.reader.number_or("layer_norm_epsilon", 0, 1, 1e-5);
  model.max_positions =
      aliased_or(s, {"n_positions", "max_position_embeddings", "n_ctx"}, 1, kMaxDim, 1024);
  model.positions = Positions::kLearned;
  set_layers(model, true);
  refuse(s, "add_cross_attention", "a decoder attends to itself here");
}

void write_gpt2(const Model& m, Json& json) {
  json.set("vocab_size", m.vocab)
      .set("n_embd", m.hidden)
      .set("n_layer", m.layers)
      .set("n_head", m.heads)
      .set("n_inner", m.ffn)
      .set("n_positions", m.max_positions)
      .set("activation_function", "gelu_new")
      .set("tie_word_embeddings", m.tied_head)
      .set("layer_norm_epsilon", m.rms_eps);
}

// attn_config: what positions there are, and how many keys.
void read_mpt_attention(Source& s, std::vector<Problem>& problems) {
  Model& model = s.model;
  const bool learned = s.reader.boolean_or("learned_pos_emb", true);
  model.positions = learned ? Positions::kLearned : Positions::kRotary;
  if (!s.reader.has("attn_config")) return;
  const Json* json = s.reader.child("attn_config");
  if (json == nullptr) return;
  ObjectReader attention(*json, s.reader.place() + "/attn_config", problems);
  if (attention.boolean_or("rope", false)) model.positions = Positions::kRotary;
  if (attention.boolean_or("alibi", false)) model.positions = Positions::kAlibi;
  if (attention.boolean_or("qk_ln", false)) {
    attention.note("qk_ln", "is not supported: it norms queries and keys over all heads together");
  }
  const std::string type = attention.text_or("attn_type", "multihead_attention");
  if (type == "multiquery_attention") {
    model.kv_heads = 1;
  } else if (type == "grouped_query_attention") {
    model.kv_heads = attention.integer("kv_n_heads", 1, kMaxCount);
    if (model.heads % model.kv_heads != 0) {
      attention.note("kv_n_heads", std::to_string(model.kv_heads) + " does not divide " +
                                       std::to_string(model.heads) + " heads");
    }
  } else if (type != "multihead_attention") {
    attention.note("attn_type", "'" + type + "' is not supported",
                   "multihead_attention, multiquery_attention and grouped_query_attention are");
  }
}

void read_mpt(Source& s) {
  ObjectReader& reader = s.reader;
  Model& model = s.model;
  model.vocab = reader.integer("vocab_size", 1, kMaxDim);
  model.hidden = aliased(s, {"d_model", "hidden_size"}, 1, kMaxDim);
  model.layers = aliased(s, {"n_layers", "num_hidden_layers"}, 1, kMaxLayers);
  read_equal_heads(s, {"n_heads", "num_attention_heads"});
  model.ffn = model.hidden * reader.integer_or("expansion_ratio", 1, 1 << 10, 4);
  model.tied_head = reader.boolean_or("tie_word_embeddings", true);
  model.rms_eps = reader.number_or("layer_norm_epsilon", 0, 1, 1e-5);
  model.max_positions = reader.integer_or("max_seq_len", 1, kMaxDim, 2048);
  set_layers(model, !reader.boolean_or("no_bias", true));
  read_mpt_attention(s, s.problems);
  const std::string norm = reader.text_or("norm_type", "low_precision_layernorm");
  if (norm.find("layernorm") == std::string::npos) {
    reader.note("norm_type", "'" + norm + "' is not supported", "layernorm is");
  }
  if (!reader.has("ffn_config")) return;
  const Json* json = reader.child("ffn_config");
  if (json == nullptr) return;
  ObjectReader ffn(*json, reader.place() + "/ffn_config", s.problems);
  const std::string type = ffn.text_or("ffn_type", "mptmlp");
  if (type != "mptmlp") ffn.note("ffn_type", "'" + type + "' is not supported", "mptmlp is");
}

void write_mpt(const Model& m, Json& json) {
  const bool grouped = m.kv_heads != m.heads;
  Json attention = Json::object();
  attention.set("alibi", m.positions == Positions::kAlibi)
      .set("rope", m.positions == Positions::kRotary)
      .set("attn_type", grouped ? "grouped_query_attention" : "multihead_attention");
  if (grouped) attention.set("kv_n_heads", m.kv_heads);
  json.set("vocab_size", m.vocab)
      .set("d_model", m.hidden)
      .set("n_layers", m.layers)
      .set("n_heads", m.heads)
      .set("expansion_ratio", m.ffn / m.hidden)
      .set("max_seq_len", m.max_positions)
      .set("no_bias", !m.linear_bias)
      .set("norm_type", "low_precision_layernorm")
      .set("learned_pos_emb", m.positions == Positions::kLearned)
      .set("tie_word_embeddings", m.tied_head)
      .set("layer_norm_epsilon", m.rms_eps)
      .set("attn_config", std::move(attention));
}

void read_bloom(Source& s) {
  Model& model = s.model;
  model.vocab = s.reader.integer("vocab_size", 1, kMaxDim);
  model.hidden = aliased(s, {"hidden_size", "n_embed"}, 1, kMaxDim);
  model.layers = aliased(s, {"n_layer", "num_hidden_layers"}, 1, kMaxLayers);
  read_equal_heads(s, {"n_head", "num_attention_heads"});
  model.ffn = inner_size(s);
  model.tied_head = s.reader.boolean_or("tie_word_embeddings", true);
  model.rms_eps = s.reader.number_or("layer_norm_epsilon", 0, 1, 1e-5);
  model.max_positions = s.reader.integer_or("seq_length", 1, kMaxDim, 2048);
  model.positions = Positions::kAlibi;
  model.embedding_norm = true;
  set_layers(model, true);
}

void write_bloom(const Model& m, Json& json) {
  json.set("vocab_size", m.vocab)
      .set("hidden_size", m.hidden)
      .set("n_layer", m.layers)
      .set("n_head", m.heads)
      .set("n_inner", m.ffn)
      .set("seq_length", m.max_positions)
      .set("tie_word_embeddings", m.tied_head)
      .set("layer_norm_epsilon", m.rms_eps);
}

}  // namespace

extern const Family kGpt2, kMpt, kBloom;
const Family kGpt2 = {"gpt2", "GPT2LMHeadModel", false, read_gpt2, write_gpt2};
const Family kMpt = {"mpt", "MPTForCausalLM", false, read_mpt, write_mpt};
const Family kBloom = {"bloom", "BloomForCausalLM", false, read_bloom, write_bloom};

}  // namespace orrery::config
