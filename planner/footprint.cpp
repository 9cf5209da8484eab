// Probes and the moments of a step that may be its peak: the backward of the last layer, of the
// last one run again, of the first one, and the loss.
#include "planner/footprint.h"

#include <algorithm>
#include <string>

#include "core/program/lower.h"
#include "simulator/simulator.h"

namespace orrery::planner {
namespace {

constexpr std::int64_t kProbeLayers = 4;
// Padding of the units that are at hand at one time, in the probe over what the candidate has.
constexpr std::int64_t kPaddingBytes = 64;  // a rank

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

bool starts_with(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}

// -1: none.
std::int64_t layer_of(const std::string& path) {
  return starts_with(path, "layer.") ? std::stoll(path.substr(6)) : -1;
}

}  // namespace

Footprints::Footprints(const Costs& costs) : costs_(costs) {
  const std::vector<bool>& moe = costs.model().moe_layer;
  uniform_ = std::all_of(moe.begin(), moe.end(), [&](bool m) { return m == moe.front(); });
}

Bytes Footprints::state(const Layout& layout, const CandidateCosts& p) const {
  // Shard and two moments, all in the master dtype.
  std::int64_t bytes = p.embed.shard_bytes + p.head.shard_bytes;
  for (const bool moe : costs_.model().moe_layer) {
    bytes += moe ? p.moe_layer.shard_bytes + p.experts.shard_bytes : p.dense_layer.shard_bytes;
  }
  return Bytes(3 * bytes + (layout.accumulation > 1 ? bytes : 0));
}

// The step gradients that a single micro-batch has begun when it comes to `layer`.
std::int64_t Footprints::gradients_above(const CandidateCosts& p, std::int64_t layer) const {
  const std::int64_t layers = costs_.model().layers;
  const bool moe = costs_.model().moe_layer.back();
  const std::int64_t each =
      moe ? p.moe_layer.shard_bytes + p.experts.shard_bytes : p.dense_layer.shard_bytes;
  return (layer < layers - 1 ? p.head.shard_bytes : 0) +
         std::max<std::int64_t>(0, layers - layer - 2) * each;
}

Bytes Footprints::least(const Layout& layout, const Choice& choice, const CandidateCosts& p) {
  const std::int64_t base = state(layout, p).value();
  const std::int64_t layers = costs_.model().layers, n = choice.policy.recompute_layers;
  if (!uniform_) return Bytes(base);
  const bool once = layout.accumulation == 1;
  std::int64_t most = base + (once ? gradients_above(p, 0) : 0);
  const std::int64_t kept_again = n > 0 ? layer_probe(layout, choice, true).kept : 0;
  const std::int64_t kept = n < layers ? layer_probe(layout, choice, false).kept : 0;
  const auto below = [&](std::int64_t layer) {
    const std::int64_t again = std::min(n, layer);
    return again * kept_again + (layer - again) * kept;
  };
  const auto consider = [&](bool again, std::int64_t layer) {
    const Probe& probed = layer_probe(layout, choice, again);
    const auto depth = static_cast<std::int64_t>(probed.layers.size());
    // The last layer follows the loss; the others follow a layer's backward.
    const std::int64_t like = layer == layers - 1 ? depth - 1 : std::min(layer, depth - 2);
    most = std::max(most, base + probed.layers[at(like)] + below(layer) +
                              (once ? gradients_above(p, layer) : 0));
  };
  consider(n == layers, layers - 1);
  if (n > 0 && n < layers) consider(true, n - 1);
  consider(n > 0, 0);
  most = std::max(most, base + loss_probe(layout, choice).loss + below(layers));
  return Bytes(most - kPaddingBytes * layout.world());
}

const Footprints::Probe& Footprints::layer_probe(const Layout& layout, const Choice& choice,
                                                 bool recompute) {
  Chunks chunks = choice.chunks;
  chunks.loss_tokens = 0;
  return probe(layout, chunks, recompute);
}

const Footprints::Probe& Footprints::loss_probe(const Layout& layout, const Choice& choice) {
  Chunks chunks = choice.chunks;
  chunks.attention_query = 0;
  return probe(layout, chunks, false);
}

const Footprints::Probe& Footprints::probe(const Layout& layout, const Chunks& chunks,
                                           bool recompute) {
  const Key key{
      layout.micro_batch,    layout.ep,         chunks.loss_tokens, chunks.attention_query,
      chunks.prefetch_depth, layout.fsdp_d > 1, layout.fsdp_e > 1,  recompute};
  const auto found = probes_.find(key);
  if (found != probes_.end()) return found->second;
  Plan plan;
  plan.model = costs_.model();
  plan.cluster = costs_.cluster();
  plan.workload = costs_.workload();
  plan.model.layers = std::min(kProbeLayers, plan.model.layers);
  plan.model.moe_layer.resize(at(plan.model.layers));
  plan.workload.expert_load_cv = 0;
  Layout& l = plan.layout;
  l = layout;
  l.accumulation = 1;
  plan.workload.global_sequences = l.world() * l.micro_batch;
  l.fsdp_d = layout.fsdp_d > 1 ? l.world() : 1;
  l.replicate_d = l.world() / l.fsdp_d;
  l.fsdp_e = layout.fsdp_e > 1 ? l.world() / l.ep : 1;
  l.replicate_e = l.world() / l.ep / l.fsdp_e;
  plan.chunks = chunks;
  plan.policy.recompute_layers = recompute ? plan.model.layers : 0;
  return probes_.emplace(key, measure(plan)).first->second;
}

Footprints::Probe Footprints::measure(const Plan& plan) const {
  const Program program = lower(plan);
  const Role& role = program.roles[0];
  // What does not divide evenly goes to the first experts: the last rank has no more than its
  // share.
  const Group& ep = program.ep_group();
  const Binding binding = simulator::draw_binding(plan, program, (ep.size - 1) * ep.stride, 0);
  const simulator::MemoryTimeline timeline = simulator::memory_timeline(role, binding.values);
  const auto bytes = [&](const Buffer& b) { return b.bytes.eval(binding.values, b.vars); };
  // State and step gradients are counted by formulas of the real depth: take them out.
  std::vector<std::int64_t> counted(role.ops.size(), 0);
  std::int64_t state = 0;
  for (const Buffer& b : role.buffers) state += b.taken_by < 0 ? bytes(b) : 0;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    if (role.ops[i].kind != OpKind::kAccumulate) continue;
    const Buffer& b = role.buffers[static_cast<std::size_t>(role.ops[i].updates[0])];
    for (OpId j = b.taken_by; j <= b.freed_by; ++j)
      counted[static_cast<std::size_t>(j)] += bytes(b);
  }
  std::size_t loss_op = 0;
  while (role.ops[loss_op].path != "head/loss") ++loss_op;
  Probe probe;
  for (const Buffer& b : role.buffers) {
    const auto op = static_cast<OpId>(loss_op);
    const bool live = b.taken_by >= 0 && b.taken_by <= op && b.freed_by >= op;
    const bool kept = b.cls == BufferClass::kActivation || b.cls == BufferClass::kSaved ||
                      b.cls == BufferClass::kCommunication;
    if (live && kept && starts_with(b.name, "layer.0/")) probe.kept += bytes(b);
  }
  probe.layers.assign(at(plan.model.layers), 0);
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    const std::int64_t added = timeline.at[i] - state - counted[i];
    const std::int64_t layer = layer_of(op.path);
    const bool backward = op.phase == Phase::kBackward || op.phase == Phase::kRecompute;
    if (op.path == "head/loss") {
      probe.loss = std::max(probe.loss, added - plan.model.layers * probe.kept);
    } else if (layer >= 0 && backward && op.block >= 0) {
      std::int64_t& most = probe.layers[at(layer)];
      most = std::max(most, added - layer * probe.kept);
    }
  }
  return probe;
}

}  // namespace orrery::planner
