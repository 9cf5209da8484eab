// Plans for tests; see plans.h.
#include "tests/support/plans.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/hash.h"

namespace orrery {
namespace {

void complete(Model& m) {
  m.name = m.is_moe() ? "small-moe" : "small-dense";
  m.model_type = m.is_moe() ? "qwen3_moe" : "qwen3";
  m.moe_layer.resize(static_cast<std::size_t>(m.layers), m.is_moe());
}

void seal(Model& m) {
  m.sha256 = sha256_hex(to_json(m).dump(-1));
}

Model random_model(Draw& draw) {
  Model m = draw.coin() ? small_moe_model(draw.between(1, 4), draw.coin() ? 4 : 8)
                        : small_dense_model(draw.between(1, 4), draw.coin());
  m.tied_head = draw.coin();
  m.hidden = 2 * draw.between(2, 5);
  m.kv_heads = draw.between(1, 2);
  m.heads = m.kv_heads * draw.between(1, 2);
  m.head_dim = 2 * draw.between(1, 3);
  m.vocab = draw.between(11, 40);
  m.ffn = draw.between(3, 12);
  if (!m.is_moe()) return m;
  m.top_k = draw.between(1, 3);
  m.moe_ffn = draw.between(2, 7);
  m.norm_topk = draw.coin();
  m.balance_coefficient = draw.between(0, 3) == 0 ? 0 : 0.01;
  if (m.layers > 1 && draw.coin()) {
    m.moe_layer[static_cast<std::size_t>(draw.between(0, m.layers - 1))] = false;
  }
  return m;
}

Workload random_workload(Draw& draw, std::int64_t global_sequences) {
  Workload w = small_workload(global_sequences);
  w.sequence_tokens = draw.between(2, 20);
  w.document_tokens.clear();
  for (std::int64_t left = w.sequence_tokens; left > 0;) {
    w.document_tokens.push_back(draw.between(1, left));
    left -= w.document_tokens.back();
  }
  switch (draw.between(0, 2)) {
    case 0:
      w.compute = DType::kBFloat16;
      break;
    case 1:
      w.compute = DType::kFloat32;
      break;
    default:
      w.compute = w.master = DType::kFloat64;
      break;
  }
  w.balance_scope = draw.coin() ? BalanceScope::kSequence : BalanceScope::kMicrobatchGlobal;
  return w;
}

Layout random_layout(Draw& draw, const Model& model) {
  Layout l;
  const std::int64_t world = draw.between(1, 16);
  l.dp = world;
  l.fsdp_d = draw.divisor_of(world);
  l.replicate_d = world / l.fsdp_d;
  if (model.is_moe()) {
    do {
      l.ep = draw.divisor_of(world);
    } while (model.experts % l.ep != 0);
    l.fsdp_e = draw.divisor_of(world / l.ep);
    l.replicate_e = world / l.ep / l.fsdp_e;
  }
  l.dense_inner = draw.coin() ? "fsdp" : "replicate";
  l.expert_inner = draw.coin() ? "ep" : "fsdp";
  l.micro_batch = draw.between(1, 3);
  l.accumulation = draw.between(1, 3);
  return l;
}

Plan plan_of(Model model, const Layout& layout) {
  Plan plan;
  plan.model = std::move(model);
  plan.layout = layout;
  plan.cluster = small_cluster(layout.world());
  plan.workload = small_workload(layout.world() * layout.micro_batch * layout.accumulation);
  seal(plan);
  return plan;
}

// The same sizes as dots.llm1: sigmoid routing in groups with a bias, shared experts.
void make_dots1(Draw& draw, Model& m) {
  m.model_type = "dots1";
  const std::int64_t dense = draw.between(0, m.layers - 1);
  for (std::int64_t i = 0; i < m.layers; ++i) {
    m.moe_layer[static_cast<std::size_t>(i)] = i >= dense;
  }
  m.sigmoid_router = m.router_bias = true;
  m.expert_groups = draw.between(1, 2);
  const std::int64_t each = m.experts / m.expert_groups;
  const std::int64_t least = (m.top_k + each - 1) / each;
  m.top_groups = draw.between(least, m.expert_groups);
  m.routed_scale = 1.5;
  m.shared_ffn = m.moe_ffn * draw.between(0, 2);
}

// Heads, sequences and experts that the axis of a shared sequence and the parts divide.
void draw_mechanisms(Draw& draw, Plan& plan) {
  Model& m = plan.model;
  Layout& l = plan.layout;
  Chunks& c = plan.chunks;
  const std::int64_t world = l.world();
  do {
    l.sp = draw.divisor_of(world);
  } while (m.heads % l.sp != 0 || (m.kv_heads % l.sp != 0 && l.sp % m.kv_heads != 0) ||
           l.sp > plan.workload.sequence_tokens);
  l.dp = world / l.sp;
  c.domino = draw.between(1, 3);
  c.gather_layers = draw.between(1, m.layers);
  if (l.ep > 1 && draw.coin()) {
    l.dispatcher = "all_gather";
  } else if (l.ep > 1) {
    c.exchange_parts = draw.divisor_of(m.experts / l.ep);
  }
  MemoryPolicy& p = plan.policy;
  p.recompute_attention = draw.coin() ? draw.between(0, m.layers) : 0;
  p.recompute_ffn = draw.coin() ? draw.between(0, m.layers) : 0;
  if (m.is_moe() && draw.coin()) p.recompute_experts = draw.between(0, m.layers);
  if (draw.coin()) p.swap_layers = draw.between(0, p.recompute_layers);
  p.swap_distance = draw.between(1, 3);
  p.keep_layers = draw.coin() ? draw.between(0, m.layers) : 0;
  p.host_optimizer = draw.coin();
  plan.workload.z_loss = m.is_moe() && draw.coin() ? 0.01 : 0;
  plan.workload.bias_speed = m.router_bias && draw.coin() ? 0.001 : 0;
}

}  // namespace

std::uint64_t Draw::next() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

std::int64_t Draw::between(std::int64_t low, std::int64_t high) {
  CHECK(low <= high, "an empty range");
  return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
}

std::int64_t Draw::divisor_of(std::int64_t n) {
  std::vector<std::int64_t> divisors;
  for (std::int64_t d = 1; d <= n; ++d) {
    if (n % d == 0) divisors.push_back(d);
  }
  return divisors[static_cast<std::size_t>(
      between(0, static_cast<std::int64_t>(divisors.size()) - 1))];
}

Model small_dense_model(std::int64_t layers, bool tied_head) {
  Model m;
  m.vocab = 32;
  m.hidden = 8;
  m.layers = layers;
  m.heads = 4;
  m.kv_heads = 2;
  m.head_dim = 4;
  m.ffn = 12;
  m.max_positions = 4096;
  m.tied_head = tied_head;
  complete(m);
  seal(m);
  return m;
}

Model small_moe_model(std::int64_t layers, std::int64_t experts) {
  Model m = small_dense_model(layers);
  m.experts = experts;
  m.top_k = 2;
  m.moe_ffn = 6;
  m.norm_topk = true;
  m.balance_coefficient = 0.01;
  m.moe_layer.clear();
  complete(m);
  seal(m);
  return m;
}

Cluster small_cluster(std::int64_t devices) {
  Cluster c;
  c.name = "small-x" + std::to_string(devices);
  c.devices = devices;
  c.devices_per_node = devices;
  for (std::int64_t d = 1; d <= 8; ++d) {
    if (devices % d == 0) c.devices_per_node = d;
  }
  DeviceProfile& d = c.device;
  d.name = "small-device";
  d.peak_bf16 = d.peak_fp16 = FlopsPerSecond(1e12);
  d.peak_fp32 = FlopsPerSecond(5e11);
  d.peak_fp64 = FlopsPerSecond(2.5e11);
  d.memory_bandwidth = BytesPerSecond(1e11);
  d.memory = kGiB;
  d.reserved = kMiB;
  d.launch = Seconds(1e-6);
  d.host_bandwidth = BytesPerSecond(1e10);
  d.gemm = d.grouped = d.attention = {{1e3, 1e9}, {0.1, 0.8}};
  d.memory_eff = {{1e3, 1e8}, {0.2, 0.9}};
  c.tiers.push_back({"near", c.devices_per_node, BytesPerSecond(5e10), Seconds(1e-6)});
  if (devices > c.devices_per_node) {
    c.tiers.push_back({"far", devices, BytesPerSecond(1e10), Seconds(5e-6)});
  }
  c.sha256 = sha256_hex(to_json(c).dump(-1));
  return c;
}

Workload small_workload(std::int64_t global_sequences, DType compute) {
  Workload w;
  w.name = "small";
  w.sequence_tokens = 8;
  w.global_sequences = global_sequences;
  w.document_tokens = {5, 3};
  w.compute = compute;
  w.master = compute == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  w.sha256 = sha256_hex(to_json(w).dump(-1));
  return w;
}

void seal(Plan& plan) {
  seal(plan.model);
  plan.cluster.sha256 = sha256_hex(to_json(plan.cluster).dump(-1));
  plan.workload.sha256 = sha256_hex(to_json(plan.workload).dump(-1));
  const std::vector<Violation> found =
      violations(plan.model, plan.cluster, plan.workload, plan.layout, plan.chunks, plan.policy);
  CHECK(found.empty(), found[0].rule + ": " + found[0].reason);
  plan.sha256 = plan_sha256(plan);
}

Plan small_dense_plan(std::int64_t world, std::int64_t accumulation) {
  Layout l;
  l.dp = l.fsdp_d = world;
  l.accumulation = accumulation;
  return plan_of(small_dense_model(), l);
}

Plan small_moe_plan(std::int64_t world, std::int64_t ep, std::int64_t accumulation) {
  Layout l;
  l.dp = l.fsdp_d = world;
  l.ep = ep;
  l.fsdp_e = world / ep;
  l.accumulation = accumulation;
  return plan_of(small_moe_model(), l);
}

Plan random_mechanism_plan(std::uint64_t seed, std::int64_t largest_world) {
  Draw draw(seed);
  Plan plan;
  plan.model = random_model(draw);
  plan.model.heads *= draw.between(1, 2);
  if (plan.model.is_moe() && draw.coin()) make_dots1(draw, plan.model);
  do {
    plan.layout = random_layout(draw, plan.model);
  } while (plan.layout.world() > largest_world);
  plan.workload = random_workload(draw, 1);
  plan.policy.recompute_layers = draw.between(0, plan.model.layers);
  draw_mechanisms(draw, plan);
  const Layout& l = plan.layout;
  plan.cluster = small_cluster(l.world());
  plan.workload.global_sequences = l.dp * l.micro_batch * plan.chunks.domino * l.accumulation;
  const std::int64_t rows = (plan.workload.sequence_tokens + l.sp - 1) / l.sp;
  plan.chunks.loss_tokens = draw.coin() ? 0 : draw.between(1, l.micro_batch * rows);
  plan.chunks.attention_query = draw.coin() ? 0 : draw.between(1, plan.workload.sequence_tokens);
  plan.chunks.prefetch_depth = draw.between(0, 3);
  seal(plan);
  return plan;
}

Plan random_plan(std::uint64_t seed) {
  Draw draw(seed);
  Plan plan;
  plan.model = random_model(draw);
  plan.layout = random_layout(draw, plan.model);
  plan.cluster = small_cluster(plan.layout.world());
  plan.workload = random_workload(
      draw, plan.layout.world() * plan.layout.micro_batch * plan.layout.accumulation);
  const std::int64_t tokens = plan.layout.micro_batch * plan.workload.sequence_tokens;
  plan.chunks.loss_tokens = draw.coin() ? 0 : draw.between(1, tokens);
  plan.chunks.attention_query = draw.coin() ? 0 : draw.between(1, plan.workload.sequence_tokens);
  plan.chunks.prefetch_depth = draw.coin() ? draw.between(0, 2) : draw.between(0, 8);
  plan.policy.recompute_layers = draw.between(0, plan.model.layers);
  seal(plan);
  return plan;
}

}  // namespace orrery
