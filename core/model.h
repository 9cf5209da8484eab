// Model: a transformer as a Hugging Face config.json describes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace orrery {

enum class NormKind : std::uint8_t { kRms, kLayer };
enum class Positions : std::uint8_t { kRotary, kLearned, kAlibi };

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): queries and keys have nope + rope
// columns a head, values v; keys and values are kept as one latent row.
struct LatentAttention {
  std::int64_t q_rank = 0;   // 0: queries are projected from the hidden row
  std::int64_t kv_rank = 0;  // 0: the model has plain attention
  std::int64_t nope_dim = 0, rope_dim = 0, v_dim = 0;
  bool operator==(const LatentAttention&) const = default;
};

struct Model {
  std::string name;        // of the file or directory it came from
  std::string model_type;  // "qwen3", "gpt_oss": a row of the family table (models/config.cpp)
  std::int64_t vocab = 0;
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t ffn = 0;  // intermediate size of a dense layer
  std::int64_t experts = 0;
  std::int64_t top_k = 0;
  std::int64_t moe_ffn = 0;  // intermediate size of one expert
  bool norm_topk = false;
  // Router: softmax over all experts, or sigmoid of each; a bias [E] that only the choice sees
  // (loss-free balancing); experts in groups, of which the best are chosen from; weights scaled.
  bool sigmoid_router = false, router_bias = false;
  std::int64_t expert_groups = 1, top_groups = 1;
  double routed_scale = 1;
  std::int64_t shared_ffn = 0;     // intermediate size of the shared experts together; 0: none
  double balance_coefficient = 0;  // router_aux_loss_coef
  std::vector<bool> moe_layer;     // one a layer
  bool tied_head = false;
  double rms_eps = 1e-6;
  double rope_theta = 1e4;
  std::int64_t max_positions = 0;
  // What families have that are simulated and not executed; these defaults are what the engine
  // runs.
  NormKind norm = NormKind::kRms;
  bool norm_bias = false;       // of every norm
  bool embedding_norm = false;  // one behind the embedding
  Positions positions = Positions::kRotary;
  bool gated = true;    // two input matrices of an MLP, else one
  bool qk_norm = true;  // queries and keys are normed by head
  bool qkv_bias = false;
  bool output_bias = false;      // of the attention's output alone
  bool linear_bias = false;      // of the attention's output, of the MLP and of a router
  bool attention_sinks = false;  // one learned logit a head
  LatentAttention latent;
  std::vector<std::int64_t> window;  // by layer: keys that a query sees; 0 or empty: all before it
  std::int64_t mtp_layers = 0;       // predict further tokens: one more layer like the last each
  std::string sha256;                // of to_json(model).dump(-1)

  bool operator==(const Model&) const = default;
  bool is_moe() const { return experts > 0; }
  bool is_latent() const { return latent.kv_rank > 0; }
};

// `name` is a name in configs/models ("qwen3-235b-a22b"), a directory with a config.json, or a
// file. An unknown model_type is an error that names the nearest; so is every key whose value this
// house cannot honour. Keys that it does not know are fine: the file is Hugging Face's.
Result<Model> load_model(const std::string& name);
Result<Model> parse_model(const std::string& text, const std::string& place);
// The same of JSON inside another file; `place` is "file:/json/pointer".
Result<Model> model_from_json(const Json& json, const std::string& place);
// A config.json (with "name" added) that reads back to an equal Model.
Json to_json(const Model& model);

// Whether the engine runs this model's family. All others can be simulated only.
bool executes(const Model& model);

// Total and active (embedding counted, top_k of the experts and the shared ones) parameters, those
// of layers that predict further tokens among them. router_bias is none: no gradient reaches it.
std::int64_t parameter_count(const Model& model);
std::int64_t active_parameter_count(const Model& model);

// Training FLOPs of one token, Megatron's convention: three times the forward, two a multiply-add,
// router and norms left out, half of the attention square (mean attended length = pairs / tokens)
// and of a window, where that is less.
double training_flops_per_token(const Model& model, double mean_attended);

}  // namespace orrery
