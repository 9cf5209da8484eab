// Megatron-LM's flags of the model: its GPT with plain, grouped or latent attention, and experts.
#include <fmt/format.h>

#include <algorithm>

#include "handover/megatron.h"

namespace orrery::handover::megatron {
namespace {

// "([0]*1+[1]*47)", or "([1]+[0])*18" of a pattern that repeats: 1 where `marks` says so.
std::string pattern(const std::vector<bool>& marks) {
  constexpr std::size_t kLongestPeriod = 8;
  for (std::size_t period = 2; period <= kLongestPeriod && period < marks.size(); ++period) {
    if (marks.size() % period != 0) continue;
    bool repeats = true;
    for (std::size_t i = period; i < marks.size(); ++i) {
      repeats = repeats && marks[i] == marks[i - period];
    }
    if (!repeats || std::find(marks.begin(), marks.end(), !marks[0]) == marks.end()) continue;
    std::string text;
    for (std::size_t i = 0; i < period; ++i) {
      text += fmt::format("{}[{}]", text.empty() ? "" : "+", marks[i] ? 1 : 0);
    }
    return fmt::format("({})*{}", text, marks.size() / period);
  }
  std::string text;
  for (std::size_t i = 0; i < marks.size();) {
    std::size_t end = i;
    while (end < marks.size() && marks[end] == marks[i]) ++end;
    text += fmt::format("{}[{}]*{}", text.empty() ? "" : "+", marks[i] ? 1 : 0, end - i);
    i = end;
  }
  return "(" + text + ")";
}

void refuse_model(const Recipe& recipe, const char* why, Account& account) {
  account.refuse("model", recipe.model.name, why,
                 "`orrery list models` shows the families; hand over one without this");
}

void check_model(const Recipe& recipe, Account& account) {
  const Model& m = recipe.model;
  if (m.positions == Positions::kAlibi) {
    refuse_model(recipe, "Megatron has no positions by linear biases (ALiBi)", account);
  }
  if (m.embedding_norm) {
    refuse_model(recipe, "Megatron has no norm behind the embedding", account);
  }
  if (m.norm == NormKind::kLayer && !m.norm_bias) {
    refuse_model(recipe, "Megatron's LayerNorm has a bias", account);
  }
  if ((m.linear_bias || m.output_bias) && !(m.linear_bias && m.qkv_bias)) {
    refuse_model(recipe, "Megatron has biases in all products of a layer, or of q, k, v alone",
                 account);
  }
}

// Windows that layers have are one size, in a pattern.
void window_flags(const Recipe& recipe, Account& account, Lines& lines) {
  const Model& m = recipe.model;
  std::vector<bool> windowed;
  std::int64_t size = 0;
  bool same = true;
  for (const std::int64_t window : m.window) {
    windowed.push_back(window > 0);
    if (window > 0 && size > 0) same = same && window == size;
    size = std::max(size, window);
  }
  if (size == 0) return;
  if (!same) refuse_model(recipe, "Megatron has windows of one size", account);
  // Keys before a query, itself not counted.
  lines.push_back(fmt::format("--window-size {},0", size - 1));
  if (std::find(windowed.begin(), windowed.end(), false) == windowed.end()) return;
  lines.push_back(fmt::format("--window-attn-skip-freq \"{}\"", pattern(windowed)));
}

void attention_flags(const Recipe& recipe, Account& account, Lines& lines) {
  const Model& m = recipe.model;
  add(lines, "--num-attention-heads", m.heads);
  if (m.is_latent()) {
    lines.emplace_back("--multi-latent-attention");
    if (m.latent.q_rank > 0) add(lines, "--q-lora-rank", m.latent.q_rank);
    add(lines, "--kv-lora-rank", m.latent.kv_rank);
    add(lines, "--qk-head-dim", m.latent.nope_dim);
    add(lines, "--qk-pos-emb-head-dim", m.latent.rope_dim);
    add(lines, "--v-head-dim", m.latent.v_dim);
    lines.emplace_back("--qk-layernorm");  // of the latent rows
  } else {
    lines.emplace_back("--group-query-attention");
    add(lines, "--num-query-groups", m.kv_heads);
    add(lines, "--kv-channels", m.head_dim);
    if (m.qk_norm) lines.emplace_back("--qk-layernorm");
  }
  if (m.attention_sinks) lines.emplace_back("--softmax-type learnable");
  window_flags(recipe, account, lines);
}

void router_flags(const Recipe& recipe, Account& account, Lines& lines) {
  const Model& m = recipe.model;
  if (m.sigmoid_router) {
    lines.emplace_back("--moe-router-score-function sigmoid");
    if (!m.norm_topk && m.top_k > 1) {
      refuse_model(recipe, "Megatron normalises the weights of a sigmoid router", account);
    }
  } else if (!m.norm_topk) {
    lines.emplace_back("--moe-router-pre-softmax");
  }
  if (m.router_bias) {
    lines.emplace_back("--moe-router-enable-expert-bias");
    if (!recipe.of_job) {
      lines.push_back(fmt::format("--moe-router-bias-update-rate {}", recipe.bias_speed));
    }
  }
  if (m.expert_groups > 1) {
    add(lines, "--moe-router-num-groups", m.expert_groups);
    add(lines, "--moe-router-group-topk", m.top_groups);
  }
  if (m.routed_scale != 1) {
    lines.push_back(fmt::format("--moe-router-topk-scaling-factor {}", m.routed_scale));
  }
  const bool balances = m.balance_coefficient > 0;
  if (balances && !recipe.balances_sequences) {
    account.refuse("workload", "balance over a micro-batch of all ranks",
                   "Megatron balances over sequences, ranks or a whole step",
                   "plan with a workload that balances over sequences");
  }
  lines.push_back(
      fmt::format("--moe-router-load-balancing-type {}", balances ? "seq_aux_loss" : "none"));
  if (balances) lines.push_back(fmt::format("--moe-aux-loss-coeff {}", m.balance_coefficient));
  if (recipe.z_loss > 0) lines.push_back(fmt::format("--moe-z-loss-coeff {}", recipe.z_loss));
}

void expert_flags(const Recipe& recipe, Account& account, Lines& lines) {
  const Model& m = recipe.model;
  add(lines, "--num-experts", m.experts);
  add(lines, "--moe-router-topk", m.top_k);
  add(lines, "--moe-ffn-hidden-size", m.moe_ffn);
  if (m.shared_ffn > 0) add(lines, "--moe-shared-expert-intermediate-size", m.shared_ffn);
  if (std::find(m.moe_layer.begin(), m.moe_layer.end(), false) != m.moe_layer.end()) {
    lines.push_back(fmt::format("--moe-layer-freq \"{}\"", pattern(m.moe_layer)));
  }
  // Its kernels are those of 16 and 8 bit rows.
  if (dtype_name(recipe) == "bfloat16") lines.emplace_back("--moe-grouped-gemm");
  router_flags(recipe, account, lines);
}

}  // namespace

void add(Lines& lines, const char* flag, std::int64_t value) {
  lines.push_back(fmt::format("{} {}", flag, value));
}

Lines model_flags(const Recipe& recipe, Account& account) {
  const Model& m = recipe.model;
  check_model(recipe, account);
  Lines lines;
  add(lines, "--num-layers", m.layers);
  if (m.mtp_layers > 0) add(lines, "--mtp-num-layers", m.mtp_layers);
  add(lines, "--hidden-size", m.hidden);
  add(lines, "--ffn-hidden-size", m.ffn > 0 ? m.ffn : m.moe_ffn);
  attention_flags(recipe, account, lines);
  add(lines, "--max-position-embeddings", std::max(m.max_positions, recipe.sequence_tokens));
  add(lines, "--vocab-size", m.vocab);
  lines.push_back(fmt::format("--normalization {} --norm-epsilon {}",
                              m.norm == NormKind::kRms ? "RMSNorm" : "LayerNorm", m.rms_eps));
  if (m.positions == Positions::kRotary) {
    lines.push_back(
        fmt::format("--position-embedding-type rope --rotary-base {:.0f}", m.rope_theta));
  } else {
    lines.emplace_back("--position-embedding-type learned_absolute");
  }
  if (m.gated) lines.emplace_back("--swiglu");
  if (!m.linear_bias) lines.emplace_back("--disable-bias-linear");
  lines.emplace_back("--attention-dropout 0 --hidden-dropout 0");
  if (m.qkv_bias && !m.linear_bias) lines.emplace_back("--add-qkv-bias");
  if (!m.tied_head) lines.emplace_back("--untie-embeddings-and-output-weights");
  if (m.is_moe()) expert_flags(recipe, account, lines);
  return lines;
}

}  // namespace orrery::handover::megatron
