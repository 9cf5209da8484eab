// See verify_forms.h. Products: Kaplan 2020 (2 FLOPs a weight and token), latent attention as in
// DeepSeek-V2 (arXiv 2405.04434). Moved bytes: Shoeybi 2019, Korthikanti 2022 (tensor), Liu 2023
// (ring), Jacobs 2023 (Ulysses), Lepikhin 2020 (experts).
#include "core/outline/verify_forms.h"

#include <algorithm>
#include <cmath>

namespace orrery::outline {
namespace {

double d(std::int64_t x) {
  return static_cast<double>(x);
}

double query_columns(const Model& m) {
  return d(m.is_latent() ? m.latent.nope_dim + m.latent.rope_dim : m.head_dim);
}

double value_columns(const Model& m) {
  return d(m.is_latent() ? m.latent.v_dim : m.head_dim);
}

double mlp_weights(const Model& m, std::int64_t ffn) {
  return (m.gated ? 3 : 2) * d(m.hidden) * d(ffn);
}

}  // namespace

std::string Forms::part_of(Module module) {
  switch (module) {
    case Module::kProjections:
    case Module::kLatentUp:
    case Module::kOutput:
      return "projections";
    case Module::kCoreAttention:
      return "attention";
    case Module::kSharedExperts:
      return "shared experts";
    case Module::kEnds:
      return "ends";
    default:
      return name_of(module);
  }
}

double Forms::tokens() const {
  return d(job_.layout.micro_batch) * d(job_.sequence_tokens);
}

double Forms::ranks() const {
  return d(job_.layout.tp * job_.layout.cp * job_.layout.sp);
}

double Forms::ranks_of(Axis axis) const {
  const Layout& l = job_.layout;
  switch (axis) {
    case Axis::kTensor:
      return d(l.tp);
    case Axis::kContext:
      return d(l.cp);
    case Axis::kSequence:
      return d(l.sp);
    case Axis::kExpert:
      return d(l.ep);
    case Axis::kExpertTensor:
      return d(l.etp);
    case Axis::kStage:
      return d(l.pp);
    case Axis::kData:
      return d(l.dp * l.cp * l.sp);
    case Axis::kExpertData:
      return d(l.dp * l.cp * l.sp * l.tp) / d(l.ep * l.etp);
  }
  return 1;
}

double Forms::width() const {
  return job_.precision == Precision::kFp32 || job_.precision == Precision::kTf32 ? 4 : 2;
}

double Forms::row_bytes() const {
  return tokens() / d(job_.layout.cp * job_.layout.sp) * d(job_.model.hidden) * width();
}

double Forms::gathered_bytes() const {
  return row_bytes() / (job_.precision == Precision::kFp8 ? 2 : 1);
}

bool Forms::inside() const {
  return is_flash(job_.stack.attention) && !(job_.model.attention_sinks && !job_.stack.fuses_sinks);
}

double Forms::input_bytes() const {
  return row_bytes() / (job_.sequence_parallel ? d(job_.layout.tp) : 1);
}

double Forms::repeated_key_parameters() const {
  const Model& m = job_.model;
  if (m.is_latent()) return 0;
  const double repeated = std::max(0.0, d(job_.layout.tp) - d(m.kv_heads));
  return 2 * repeated * d(m.head_dim) * (d(m.hidden) + (m.qkv_bias ? 1 : 0));
}

double Forms::load() const {
  const double cv = job_.expert_load_cv, ranks = d(job_.layout.ep);
  if (cv <= 0 || ranks <= 1) return 1;
  const double local = d(job_.model.experts) / ranks;
  return 1 + cv * std::sqrt(2 * std::log(ranks) / local);
}

// Weights of attention's projections, over all tensor ranks: those into latent rows stand on each.
double Forms::projections() const {
  const Model& m = job_.model;
  const double tp = d(job_.layout.tp), hidden = d(m.hidden), heads = d(m.heads);
  const double out = heads * value_columns(m) * hidden;
  if (!m.is_latent()) {
    return hidden * d(m.head_dim) * (heads + 2 * std::max(d(m.kv_heads), tp)) + out;
  }
  const LatentAttention& l = m.latent;
  const double queries = heads * query_columns(m);
  const double q = l.q_rank > 0 ? d(l.q_rank) * (tp * hidden + queries) : hidden * queries;
  const double kv = tp * hidden * d(l.kv_rank + l.rope_dim);
  return q + kv + d(l.kv_rank) * heads * d(l.nope_dim + l.v_dim) + out;
}

// Of the queries at [from, to) of a sequence: query p of a document sees min(p + 1, window) keys.
double Forms::pairs_within(std::int64_t layer, std::int64_t from, std::int64_t to) const {
  const std::vector<std::int64_t>& windows = job_.model.window;
  const auto i = static_cast<std::size_t>(layer);
  const std::int64_t s = job_.sequence_tokens;
  const std::int64_t w = i < windows.size() && windows[i] > 0 ? windows[i] : s;
  std::vector<std::int64_t> documents = job_.documents;
  if (documents.empty()) documents.push_back(s);
  double sum = 0;
  std::int64_t begin = 0;
  for (const std::int64_t tokens : documents) {
    // Positions [a, b) of this document; those below w - 1 see their position and one more.
    const std::int64_t a = std::max<std::int64_t>(0, from - begin);
    const std::int64_t b = std::min(tokens, to - begin);
    begin += tokens;
    if (a >= b) continue;
    const std::int64_t turn = std::clamp(w, a, b);
    sum += d((turn * (turn + 1) - a * (a + 1)) / 2) + d((b - turn) * w);
  }
  return sum;
}

double Forms::pairs(std::int64_t layer) const {
  const std::int64_t s = job_.sequence_tokens, cp = job_.layout.cp;
  if (!inside()) {
    return tokens() * d(s);  // masked, not left out
  }
  const std::vector<std::int64_t>& windows = job_.model.window;
  const auto i = static_cast<std::size_t>(layer);
  const bool windowed = i < windows.size() && windows[i] > 0 && windows[i] < s;
  const bool by_sequence =
      job_.context == ContextExchange::kAllGather && (windowed || job_.documents.size() > 1);
  double fullest = pairs_within(layer, 0, s) / d(cp);
  for (std::int64_t r = 0; by_sequence && r < cp; ++r) {
    const auto at = [&](std::int64_t n) { return std::llround(d(s) / d(2 * cp) * d(n)); };
    const std::int64_t tail = 2 * cp - 1 - r;
    fullest = std::max(fullest, pairs_within(layer, at(r), at(r + 1)) +
                                    pairs_within(layer, at(tail), at(tail + 1)));
  }
  return d(job_.layout.micro_batch) * d(cp) * fullest;
}

double Forms::routed_rows() const {
  return tokens() * (job_.sequence_parallel ? 1 : d(job_.layout.tp));
}

Forms::Flops Forms::layer_flops(std::int64_t layer) const {
  const Model& m = job_.model;
  Flops out;
  out["projections"] = 2 * tokens() * projections();
  out["attention"] = 2 * pairs(layer) * d(m.heads) * (query_columns(m) + value_columns(m));
  if (!m.moe_layer[static_cast<std::size_t>(layer)]) {
    out["mlp"] = 2 * tokens() * mlp_weights(m, m.ffn);
    return out;
  }
  out["router"] = 2 * routed_rows() * d(m.hidden) * d(m.experts);
  out["experts"] = 2 * routed_rows() * d(m.top_k) * mlp_weights(m, m.moe_ffn) * load();
  if (m.shared_ffn > 0) out["shared experts"] = 2 * tokens() * mlp_weights(m, m.shared_ffn);
  return out;
}

Forms::Flops Forms::further_flops() const {
  return {{"ends", 4 * tokens() * d(job_.model.hidden) * d(job_.model.hidden)}};
}

std::vector<Forms::Moved> Forms::further_moved() const {
  std::vector<Moved> out;
  if (job_.layout.tp == 1) return out;
  for (int half = 0; half < (job_.sequence_parallel ? 2 : 0); ++half) {
    out.push_back({Axis::kTensor, CollectiveKind::kAllGather, gathered_bytes(), nullptr, "join"});
  }
  out.push_back({Axis::kTensor, CollectiveKind::kAllGather, gathered_bytes(), "join", nullptr});
  return out;
}

Forms::Flops Forms::head_flops() const {
  return {{"ends", 2 * tokens() * d(job_.model.vocab) * d(job_.model.hidden)}};
}

std::vector<Forms::Moved> Forms::embedding_moved() const {
  if (job_.layout.tp == 1) return {};
  const bool parts = job_.sequence_parallel;
  return {{Axis::kTensor, parts ? CollectiveKind::kReduceScatter : CollectiveKind::kAllReduce,
           row_bytes(), "embed", nullptr}};
}

std::vector<Forms::Moved> Forms::head_moved() const {
  std::vector<Moved> out;
  if (job_.layout.tp == 1) return out;
  if (job_.sequence_parallel) {
    out.push_back({Axis::kTensor, CollectiveKind::kAllGather, gathered_bytes(), nullptr, "logits"});
  }
  // Of a row: the largest, the sum, the target's logit, in fp32.
  out.push_back({Axis::kTensor, CollectiveKind::kAllReduce,
                 12 * tokens() / d(job_.layout.cp * job_.layout.sp), "logits", nullptr});
  return out;
}

void Forms::attention_moved(std::vector<Moved>& out) const {
  const Model& m = job_.model;
  const Layout& l = job_.layout;
  const bool flash = inside();
  const char* core = flash ? "core" : "scores";
  const char* last = flash ? "core" : "attended";
  const double tp = d(l.tp), sp = d(l.sp), rows = tokens() / d(l.cp * l.sp);
  const double q = d(m.heads) / tp;
  const double kv = m.is_latent() ? q : std::max(d(m.kv_heads) / tp, sp);
  const double qk = query_columns(m), v = value_columns(m);
  const auto exchange = [&](Axis axis) {
    const double in = q * qk + kv * (qk + v);
    out.push_back({axis, CollectiveKind::kAllToAll, rows * in * width(), nullptr, core});
    out.push_back({axis, CollectiveKind::kAllToAll, rows * q * v * width(), last, nullptr});
  };
  if (l.sp > 1) exchange(Axis::kSequence);
  if (l.cp == 1) return;
  if (job_.context == ContextExchange::kAllToAll) {
    exchange(Axis::kContext);
    return;
  }
  // Keys of the whole sequence, of this rank's heads.
  const bool ring = job_.context == ContextExchange::kRing;
  const double keys = tokens() * kv / sp * (qk + v) * width();
  out.push_back({Axis::kContext, ring ? CollectiveKind::kRing : CollectiveKind::kAllGather, keys,
                 nullptr, core});
}

void Forms::expert_moved(std::vector<Moved>& out) const {
  const Model& m = job_.model;
  const Layout& l = job_.layout;
  const double own = routed_rows() / ranks() * d(m.hidden) * width();
  const double chosen = own * d(m.top_k) * load();
  const auto move = [&](Axis axis, bool exchange, double bytes) {
    const auto in = exchange ? CollectiveKind::kAllToAll : CollectiveKind::kAllGather;
    const auto back = exchange ? CollectiveKind::kAllToAll : CollectiveKind::kReduceScatter;
    out.push_back({axis, in, bytes, "router", "experts_up"});
    out.push_back({axis, back, bytes, "experts_down", nullptr});
  };
  const bool all = job_.dispatcher == Dispatcher::kAllGather;
  if (l.ep > 1) move(Axis::kExpert, !all, all ? own * d(l.ep) : chosen);
  if (l.etp > 1) move(Axis::kExpertTensor, false, chosen * d(l.etp));
}

std::vector<Forms::Moved> Forms::layer_moved(std::int64_t layer) const {
  const Model& m = job_.model;
  std::vector<Moved> out;
  const bool moe = m.moe_layer[static_cast<std::size_t>(layer)];
  if (job_.layout.tp > 1) {
    const bool parts = job_.sequence_parallel;
    const auto sum = parts ? CollectiveKind::kReduceScatter : CollectiveKind::kAllReduce;
    const double bytes = row_bytes();
    const auto half = [&](const char* first, const char* last) {
      if (parts) {
        out.push_back(
            {Axis::kTensor, CollectiveKind::kAllGather, gathered_bytes(), nullptr, first});
      }
      out.push_back({Axis::kTensor, sum, bytes, last, nullptr});
    };
    const bool down = m.is_latent() && m.latent.q_rank > 0;
    half(m.is_latent() ? (down ? "q_down" : "q_proj") : "qkv", "output");
    if (!moe || m.shared_ffn > 0) half("up", "down");
  }
  attention_moved(out);
  if (moe) expert_moved(out);
  return out;
}

}  // namespace orrery::outline
