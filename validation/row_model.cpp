// The model of a published row, by the facts of its family that the row states.
#include <fmt/format.h>

#include <charconv>
#include <cstdlib>

#include "core/configs.h"
#include "validation/jobs.h"
#include "validation/words.h"

namespace orrery::validation {
namespace {

// Architectures that no plain transformer describes: by what the row's notes say.
void refuse_other_architectures(const std::string& notes, RowJob& out) {
  static const std::vector<std::pair<const char*, const char*>> rows = {
      {"hybrid", "layers other than attention and MLP are not priced"},
      {"not verified", "the architecture is not verified"},
      {"cut model", "the number of layers is not the stated one"}};
  for (const auto& [word, reason] : rows) {
    if (mentions(notes, word)) out.refused.push_back({"model.notes", reason});
  }
}

// "alternating sliding-window (128) / full attention layers": keys by layer.
std::vector<std::int64_t> windows_of(const std::string& notes, std::int64_t layers) {
  const std::size_t at = lower_case(notes).find("sliding-window (");
  if (at == std::string::npos) return {};
  const char* first = notes.data() + notes.find('(', at) + 1;
  std::int64_t keys = 0;
  const auto [end, error] = std::from_chars(first, notes.data() + notes.size(), keys);
  if (error != std::errc() || keys < 1) return {};
  std::vector<std::int64_t> window(static_cast<std::size_t>(layers), 0);
  for (std::size_t i = 0; i < window.size(); i += 2) window[i] = keys;
  return window;
}

void set_experts(const ModelFacts& facts, Model& m, RowJob& out) {
  m.experts = facts.experts.value_or(0);
  m.moe_layer.assign(static_cast<std::size_t>(m.layers), m.experts > 0);
  if (m.experts == 0) return;
  m.top_k = required(facts.top_k, "model.topk", out);
  m.moe_ffn = required(facts.moe_ffn, "model.moe_ffn_hidden", out);
  if (m.top_k < 1 || m.top_k > m.experts) {
    out.refused.push_back({"model.topk", fmt::format("{} of {} experts", m.top_k, m.experts)});
  }
  const std::int64_t shared =
      completed(facts.shared_experts, "shared_experts", 0, "not stated", out);
  m.shared_ffn = shared * m.moe_ffn;
  const std::int64_t dense =
      completed(facts.dense_first_layers, "dense_first_layers", 0, "not stated", out);
  const bool every_second = mentions(facts.notes, "MoE on every second layer");
  for (std::int64_t i = 0; i < m.layers; ++i) {
    const bool skipped = i < dense || (every_second && i % 2 == 0);
    if (skipped) m.moe_layer[static_cast<std::size_t>(i)] = false;
  }
}

// GPT, MPT, BLOOM: LayerNorm, biases, learned positions or ALiBi. A squared ReLU marks a later
// family: rotary, no biases.
void set_plain_family(const ModelFacts& facts, const Stack& stack, Model& m, RowJob& out) {
  m.gated = false;
  m.norm = NormKind::kLayer;
  m.norm_bias = true;
  const bool later = mentions(facts.notes, "squared ReLU");
  if (!later) {
    m.qkv_bias = m.linear_bias = true;
    m.positions = stack.positions == "alibi" ? Positions::kAlibi : Positions::kLearned;
  }
  out.completed.push_back(fmt::format("norm=layer, biases={}, positions={} (MLP without a gate)",
                                      later ? "none" : "all", later ? "rotary" : stack.positions));
}

void set_attention(const ModelFacts& facts, Model& m, RowJob& out) {
  m.heads = required(facts.heads, "model.heads", out);
  m.head_dim = completed(facts.head_dim, "head_dim", std::max<std::int64_t>(1, m.hidden / m.heads),
                         "hidden / heads", out);
  m.kv_heads = facts.attention == "mqa" ? 1 : m.heads;
  if (facts.attention == "gqa") {
    m.kv_heads = required(facts.kv_heads, "model.kv_heads", out);
  } else if (facts.attention == "mla") {
    if (facts.latent) {
      m.latent = *facts.latent;
    } else {
      out.refused.push_back({"model.mla_dims", "is missing"});
    }
  } else if (facts.attention != "mha" && facts.attention != "mqa") {
    out.refused.push_back({"model.attention", "is not mha, gqa, mqa or mla"});
  }
  if (m.heads % m.kv_heads != 0) {
    out.refused.push_back({"model.kv_heads", "does not divide the heads"});
  }
}

// The models of configs/models, read once.
const std::vector<Model>& known_models() {
  static const std::vector<Model> models = [] {
    std::vector<Model> all;
    for (const std::string& name : list_configs("models")) {
      Result<Model> model = load_model(name);
      if (model.ok()) all.push_back(std::move(model).value());
    }
    return all;
  }();
  return models;
}

// What a row has no field for is that of the model in configs/models with the same vocabulary (but
// for padding) and layers of the same extents, if there is one: biases, norms, sinks, windows. Its
// name is not asked for.
void complete_from_known(Model& m, RowJob& out) {
  for (const Model& known : known_models()) {
    const bool same = known.hidden == m.hidden && known.heads == m.heads &&
                      known.kv_heads == m.kv_heads && known.head_dim == m.head_dim &&
                      known.experts == m.experts && known.top_k == m.top_k &&
                      known.moe_ffn == m.moe_ffn && known.gated == m.gated &&
                      (known.is_moe() || known.ffn == m.ffn);
    constexpr std::int64_t kPadding = 1024;
    if (!same || known.is_latent() != m.is_latent()) continue;
    if (std::abs(known.vocab - m.vocab) > kPadding) continue;
    const Model before = m;
    m.norm = known.norm;
    m.norm_bias = known.norm_bias;
    m.positions = known.positions;
    m.qk_norm = known.qk_norm;
    m.qkv_bias = known.qkv_bias;
    m.output_bias = known.output_bias;
    m.linear_bias = known.linear_bias;
    m.attention_sinks = known.attention_sinks;
    if (m.window.empty() && known.layers == m.layers) m.window = known.window;
    if (m == before) return;
    out.completed.push_back(fmt::format(
        "norms, biases, sinks, windows as configs/models/{}.json (same extents)", known.name));
    return;
  }
}

}  // namespace

Model model_of(const ModelFacts& facts, const PlanFacts& plan, const Stack& stack, RowJob& out) {
  refuse_other_architectures(facts.notes, out);
  Model m;
  m.name = facts.name;
  m.layers = required(facts.layers, "model.layers", out);
  m.hidden = required(facts.hidden, "model.hidden", out);
  m.vocab = required(facts.vocab, "model.vocab", out);
  m.max_positions = required(facts.sequence_tokens, "model.seq_len", out);
  m.qk_norm = false;
  set_attention(facts, m, out);
  set_experts(facts, m, out);
  const bool all_experts = m.experts > 0 && facts.dense_first_layers.value_or(0) == 0 &&
                           !mentions(facts.notes, "MoE on every second layer");
  m.ffn = all_experts ? facts.ffn.value_or(0) : required(facts.ffn, "model.ffn_hidden", out);
  if (!facts.gated) {
    out.refused.push_back({"model.gated_mlp", "is missing"});
  } else if (!*facts.gated) {
    set_plain_family(facts, stack, m, out);
  }
  m.tied_head = facts.tied.value_or(!m.gated);
  if (!facts.tied) {
    out.completed.push_back(
        fmt::format("tied_embeddings={} (usual with its MLP)", m.tied_head ? "true" : "false"));
  }
  m.window = windows_of(facts.notes, m.layers);
  complete_from_known(m, out);
  if (mentions(extra_of(plan, "variant"), "w/ MTP") || !extra_of(plan, "mtp_depth").empty()) {
    m.mtp_layers = 1;
  }
  return m;
}

}  // namespace orrery::validation
