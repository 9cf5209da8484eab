// Units priced, and layers dealt out to chunks. See units.h.
#include "simulator/stages/units.h"

#include <algorithm>

#include "core/check.h"

namespace orrery::simulator {
namespace {

using outline::Axis;
using outline::CollectiveKind;
using outline::Parameters;
using outline::Piece;
using outline::Task;

double over_shards(const Job& job, const Price& price, const Parameters& p, double bytes_each,
                   CollectiveKind kind) {
  Span dense = price.span(Axis::kData);
  const auto shards = static_cast<double>(job.layout.fsdp_d);
  dense.in_node = std::min(dense.in_node, shards);
  dense.ranks = shards;
  return price.collective(kind, dense, p.dense * bytes_each) +
         price.collective(kind, price.span(Axis::kExpertData), p.expert * bytes_each);
}

UnitName layer_name(const Model& m, std::int64_t layer, bool again) {
  const auto i = static_cast<std::size_t>(layer);
  return {UnitKind::kLayer, m.moe_layer[i], i < m.window.size() ? m.window[i] : 0, again};
}

// `index`: of the layer in its chunk.
bool runs_again(const Recompute& r, std::int64_t index) {
  return r.full && (r.full_layers == 0 || index < r.full_layers);
}

Piece piece_of(const Job& job, const UnitName& name) {
  switch (name.kind) {
    case UnitKind::kEmbedding:
      return outline::embedding(job);
    case UnitKind::kFurther:
      return outline::further_token(job);
    case UnitKind::kHead:
      return outline::head(job);
    case UnitKind::kLayer:
      break;
  }
  for (std::int64_t i = 0; i < job.model.layers; ++i) {
    if (layer_name(job.model, i, name.again) == name) return outline::layer(job, i, name.again);
  }
  CHECK(false, "a layer that the model does not have");
}

// What stands behind the last layer.
void add_ends(const Job& job, std::vector<UnitName>& units) {
  const Model& m = job.model;
  const UnitName head{UnitKind::kHead};
  for (std::int64_t i = 0; i < m.mtp_layers; ++i) {
    units.push_back({UnitKind::kFurther});
    units.push_back(layer_name(m, m.layers - 1, runs_again(job.recompute, m.layers)));
    units.push_back(head);
  }
  units.push_back(head);
}

}  // namespace

ShardingSeconds sharding_seconds(const Job& job, const Price& price, const Parameters& p) {
  ShardingSeconds out;
  if (job.sharding != Sharding::kParameters) return out;
  const double each = job.precision == Precision::kFp32 ? 4 : 2;
  out.gather = over_shards(job, price, p, each, CollectiveKind::kAllGather);
  if (job.trains_adapters) return out;
  const double sums = job.stack.fp32_gradients ? 4 : 2;
  out.reduce = over_shards(job, price, p, sums, CollectiveKind::kReduceScatter);
  return out;
}

Unit price_unit(const Job& job, const Price& price, const UnitName& name) {
  const Piece piece = piece_of(job, name);
  const outline::Outline& o = piece.outline;
  Unit u;
  u.forward = spend(job, price, o.forward);
  u.backward = spend(job, price, o.backward);
  u.backward += spend(job, price, o.again);
  for (const Task& t : o.backward) u.weight += t.of_weights ? price.seconds(t) : 0;
  u.parameters = piece.parameters;
  u.sharding = sharding_seconds(job, price, piece.parameters);
  u.memory = {o.saves, o.worst, o.transient, u.parameters.dense + u.parameters.expert};
  return u;
}

std::vector<ChunkUnits> units_of_chunks(const Job& job) {
  const Model& m = job.model;
  const std::int64_t stages = job.stages();
  const std::vector<std::int64_t> counts =
      job.stage_layers.empty() ? even_layers(m.layers, stages) : job.stage_layers;
  std::vector<ChunkUnits> chunks(static_cast<std::size_t>(stages));
  std::int64_t layer = 0;
  for (std::int64_t s = 0; s < stages; ++s) {
    // Chunk k of rank r is virtual stage k * pp + r.
    const std::int64_t rank = s % job.layout.pp, chunk = s / job.layout.pp;
    ChunkUnits& c = chunks[static_cast<std::size_t>(rank * job.virtual_stages + chunk)];
    c.first = s == 0;
    c.last = s + 1 == stages;
    if (c.first) c.units.push_back({UnitKind::kEmbedding});
    for (std::int64_t i = 0; i < counts[static_cast<std::size_t>(s)]; ++i, ++layer) {
      c.units.push_back(layer_name(m, layer, runs_again(job.recompute, i)));
    }
    if (!c.last) continue;
    add_ends(job, c.units);
    // Each further prediction shares the head's weights, and has a norm of its own.
    c.shared_tables = m.mtp_layers + (m.tied_head && c.first ? 1 : 0);
  }
  return chunks;
}

}  // namespace orrery::simulator
