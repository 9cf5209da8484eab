// Probes and the moments of a step that may be its peak: the backward of the last layer, of the
// last one run again, of the first one, and the loss.
#include "planner/plans/footprint.h"

#include <algorithm>
#include <set>
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

std::size_t ProbeStore::KeyHash::operator()(const Key& key) const {
  std::uint64_t hash = 0;
  for (const std::int64_t part : key) {
    hash = (hash ^ static_cast<std::uint64_t>(part)) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 32;
  }
  return hash;
}

ProbeStore::Probes& ProbeStore::of(const Model& model, const Workload& workload,
                                   std::int64_t devices) {
  Workload step = workload;
  step.global_sequences = 1;
  return by_job_[to_json(model).dump(-1) + to_json(step).dump(-1) + std::to_string(devices)];
}

Footprints::Footprints(const Costs& costs, std::shared_ptr<ProbeStore> store)
    : costs_(costs),
      store_(store ? std::move(store) : std::make_shared<ProbeStore>()),
      probes_(store_->of(costs.model(), costs.workload(), costs.cluster().devices)) {
  const std::vector<bool>& moe = costs.model().moe_layer;
  uniform_ = std::all_of(moe.begin(), moe.end(), [&](bool m) { return m == moe.front(); });
}

std::int64_t Footprints::shards(const CandidateCosts& p) const {
  const std::int64_t layers = costs_.model().layers, moe = costs_.moe_layers(layers);
  return p.embed.shard_bytes + p.head.shard_bytes + (layers - moe) * p.dense_layer.shard_bytes +
         moe * (p.moe_layer.shard_bytes + p.experts.shard_bytes);
}

// Shard and two moments, all in the master dtype.
Bytes Footprints::state(const Layout& layout, const MemoryPolicy& policy,
                        const CandidateCosts& p) const {
  const std::int64_t bytes = shards(p);
  return Bytes((policy.host_optimizer ? 1 : 3) * bytes + (layout.accumulation > 1 ? bytes : 0));
}

bool Footprints::bounds_swap() const {
  return costs_.model().layers >= kProbeLayers;
}

Bytes Footprints::host(const Layout& layout, const Choice& choice, const CandidateCosts& p) const {
  std::int64_t bytes = 0;
  if (choice.policy.host_optimizer) {
    bytes = 2 * shards(p);
    // A bucket is padded once, not once a layer.
    if (choice.chunks.gather_layers > 1) bytes -= 2 * kPaddingBytes * costs_.model().layers;
  }
  if (choice.policy.swap_layers == 0) return Bytes(bytes);
  const BlockShape shape = costs_.shape_of(layout, choice.chunks);
  const std::int64_t input = shape.tokens() * costs_.model().hidden * size_of(shape.compute);
  return Bytes(bytes + choice.policy.swap_layers * choice.chunks.domino * input);
}

// The step gradients that a single pass has begun when it comes to `layer`.
std::int64_t Footprints::gradients_above(const Choice& choice, const CandidateCosts& p,
                                         std::int64_t layer) const {
  const std::int64_t layers = costs_.model().layers, bucket = choice.chunks.gather_layers;
  const bool moe = costs_.model().moe_layer.back();
  const std::int64_t each =
      moe ? p.moe_layer.shard_bytes + p.experts.shard_bytes : p.dense_layer.shard_bytes;
  const std::int64_t late = 2 + (bucket > 1 ? 2 * bucket : 0);
  return (layer < layers - 1 ? p.head.shard_bytes : 0) +
         std::max<std::int64_t>(0, layers - layer - late) * each;
}

// Moments of the unit that is updated and of the next, where they live on the host.
std::int64_t Footprints::staged_moments(const Choice& choice, const CandidateCosts& p) const {
  if (!choice.policy.host_optimizer) return 0;
  const std::vector<bool>& moe = costs_.model().moe_layer;
  const auto dense = [&](bool m) {
    return m ? p.moe_layer.shard_bytes : p.dense_layer.shard_bytes;
  };
  const auto last = moe.back() ? p.experts.shard_bytes : p.dense_layer.shard_bytes;
  std::int64_t most = std::max(p.embed.shard_bytes + dense(moe.front()), last + p.head.shard_bytes);
  if (costs_.model().is_moe()) {
    most = std::max(most, p.moe_layer.shard_bytes + p.experts.shard_bytes);
  }
  return 2 * most;
}

Footprints::Spans Footprints::spans(const MemoryPolicy& p) const {
  const std::int64_t layers = costs_.model().layers;
  const std::int64_t attention = std::max(p.recompute_layers, p.recompute_attention);
  const std::int64_t ffn = std::max(p.recompute_layers, p.recompute_ffn);
  std::array<std::int64_t, 6> borders = {0,     attention, ffn, p.recompute_experts, p.swap_layers,
                                         layers};
  std::sort(borders.begin(), borders.end());
  Spans out;
  for (std::size_t i = 1; i < borders.size(); ++i) {
    const std::int64_t begin = borders[i - 1];
    if (begin == borders[i]) continue;
    out.all[out.count++] = {begin,
                            borders[i],
                            {begin < attention, begin < ffn,
                             begin >= ffn && begin < p.recompute_experts, begin < p.swap_layers}};
  }
  return out;
}

Bytes Footprints::least(const Layout& layout, const Choice& choice, const CandidateCosts& p) {
  KnownProbes known;
  return least(layout, choice, p, known);
}

Bytes Footprints::least(const Layout& layout, const Choice& choice, const CandidateCosts& p,
                        KnownProbes& known) {
  const std::int64_t base = state(layout, choice.policy, p).value();
  const std::int64_t layers = costs_.model().layers;
  const bool once = layout.accumulation == 1;
  const std::int64_t late = staged_moments(choice, p) + (once ? shards(p) : 0);
  const std::int64_t optimizer = choice.policy.host_optimizer ? base + late : base;
  if (!uniform_) return Bytes(std::max(base, optimizer - kPaddingBytes * layout.world()));
  std::int64_t most = std::max(optimizer, base + (once ? gradients_above(choice, p, 0) : 0));
  std::int64_t below = 0;
  for (const Span& span : spans(choice.policy)) {
    const Probe*& found = known.layers[span.kind.number()];
    if (found == nullptr) found = &layer_probe(layout, choice.chunks, span.kind);
    const Probe& probed = *found;
    const auto depth = static_cast<std::int64_t>(probed.layers.size());
    const auto consider = [&](std::int64_t layer) {
      // The last layer follows the loss; the others follow a layer's backward.
      const std::int64_t like = layer == layers - 1 ? depth - 1 : std::min(layer, depth - 2);
      most = std::max(most, base + probed.layers[at(like)] + below +
                                (layer - span.begin) * probed.kept +
                                (once ? gradients_above(choice, p, layer) : 0));
    };
    // In a short model, copies of the layers above are still on their way.
    if (!span.kind.swapped || bounds_swap()) {
      consider(span.end - 1);
      if (span.begin == 0) consider(0);
    }
    below += (span.end - span.begin) * probed.kept;
  }
  if (known.loss == nullptr) known.loss = &loss_probe(layout, choice.chunks);
  most = std::max(most, base + known.loss->loss + below);
  return Bytes(most - kPaddingBytes * layout.world());
}

const Probe& Footprints::layer_probe(const Layout& layout, const Chunks& chunks, const Kind& kind) {
  Chunks own = chunks;
  own.loss_tokens = 0;
  return probe(layout, own, kind);
}

const Probe& Footprints::loss_probe(const Layout& layout, const Chunks& chunks) {
  Chunks own = chunks;
  own.attention_query = 0;
  return probe(layout, own, {});
}

const Probe& Footprints::probe(const Layout& layout, const Chunks& chunks, const Kind& kind) {
  const ProbeStore::Key key = {layout.micro_batch,
                               layout.sp,
                               layout.ep,
                               layout.dispatcher == "all_gather",
                               layout.fsdp_d > 1,
                               layout.fsdp_e > 1,
                               chunks.loss_tokens,
                               chunks.attention_query,
                               chunks.prefetch_depth,
                               chunks.domino,
                               chunks.exchange_parts,
                               kind.attention,
                               kind.ffn,
                               kind.experts,
                               kind.swapped};
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
  plan.workload.global_sequences = l.dp * l.micro_batch * chunks.domino;
  l.fsdp_d = layout.fsdp_d > 1 ? l.world() : 1;
  l.replicate_d = l.world() / l.fsdp_d;
  l.fsdp_e = layout.fsdp_e > 1 ? l.world() / l.ep : 1;
  l.replicate_e = l.world() / l.ep / l.fsdp_e;
  plan.chunks = chunks;
  plan.chunks.gather_layers = 1;
  const std::int64_t all = plan.model.layers;
  plan.policy.recompute_attention = kind.attention ? all : 0;
  plan.policy.recompute_ffn = kind.ffn ? all : 0;
  plan.policy.recompute_experts = kind.experts ? all : 0;
  plan.policy.swap_layers = kind.swapped ? all : 0;
  return probes_.emplace(key, measure(plan)).first->second;
}

Probe Footprints::measure(const Plan& plan) const {
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
  for (const Buffer& b : role.buffers)
    state += b.taken_by < 0 && b.space == MemorySpace::kDevice ? bytes(b) : 0;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    if (role.ops[i].kind != OpKind::kAccumulate) continue;
    const Buffer& b = role.buffers[static_cast<std::size_t>(role.ops[i].updates[0])];
    for (OpId j = b.taken_by; j <= b.freed_by; ++j)
      counted[static_cast<std::size_t>(j)] += bytes(b);
  }
  std::size_t loss_op = 0;
  while (role.ops[loss_op].path != "head/loss") ++loss_op;
  // On their way to the host, if not yet there.
  std::set<const Buffer*> leaves;
  for (const Op& op : role.ops) {
    if (op.kind != OpKind::kCopyToHost) continue;
    leaves.insert(&role.buffers[static_cast<std::size_t>(op.in[0])]);
  }
  Probe probe;
  for (const Buffer& b : role.buffers) {
    const auto op = static_cast<OpId>(loss_op);
    const bool live = b.taken_by >= 0 && b.taken_by <= op && b.freed_by >= op &&
                      b.space == MemorySpace::kDevice && !leaves.count(&b);
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
