// Units priced by the simulator's own functions. See prices.h.
#include "planner/jobs/prices.h"

#include <algorithm>

#include "core/check.h"

namespace orrery::planner::jobs {

using simulator::UnitKind;
using simulator::UnitName;

UnitNumbers::UnitNumbers(const Job& base) {
  Job job = base;
  job.layout.pp = job.virtual_stages = 1;
  job.stage_layers.clear();
  job.recompute = {};
  std::vector<UnitName> layers;
  const std::vector<simulator::ChunkUnits> whole = simulator::units_of_chunks(job);
  for (const UnitName& name : whole.front().units) {
    if (std::find(names_.begin(), names_.end(), name) != names_.end()) continue;
    names_.push_back(name);
    if (name.kind == UnitKind::kLayer) layers.push_back(name);
  }
  for (UnitName& name : layers) {
    name.again = true;
    names_.push_back(name);
  }
  std::map<std::int32_t, double> counts;
  for (const UnitName& name : whole.front().units) ++counts[of(name)];
  whole_.assign(counts.begin(), counts.end());
  for (auto i = static_cast<std::size_t>(base.model.layers) + 1; i < whole.front().units.size();
       ++i) {
    ends_.push_back(of(whole.front().units[i]));
  }
}

std::int32_t UnitNumbers::of(const UnitName& name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  CHECK(found != names_.end(), "a unit without a number");
  return static_cast<std::int32_t>(found - names_.begin());
}

Shape UnitNumbers::shape_of(const Job& job, const Shape* plain) const {
  Shape shape;
  const auto add = [](auto& list, const auto& value) {
    const auto found = std::find(list.begin(), list.end(), value);
    if (found != list.end()) return static_cast<std::int32_t>(found - list.begin());
    list.push_back(value);
    return static_cast<std::int32_t>(list.size() - 1);
  };
  const std::vector<simulator::ChunkUnits> chunks = simulator::units_of_chunks(job);
  const auto v = static_cast<std::size_t>(job.virtual_stages);
  for (std::size_t rank = 0; rank * v < chunks.size(); ++rank) {
    std::vector<std::int32_t> own;
    for (std::size_t c = 0; c < v; ++c) {
      const simulator::ChunkUnits& units = chunks[rank * v + c];
      std::map<std::int32_t, double> counts;
      for (const UnitName& name : units.units) ++counts[of(name)];
      ChunkShape chunk;
      chunk.counts.assign(counts.begin(), counts.end());
      chunk.front = of(units.units.front());
      chunk.back = of(units.units.back());
      chunk.shared_tables = static_cast<double>(units.shared_tables);
      own.push_back(add(shape.chunks, chunk));
    }
    shape.kind.push_back(add(shape.ranks, own));
  }
  shape.plain.resize(shape.ranks.size());
  for (std::size_t r = 0; r < shape.kind.size(); ++r) {
    const std::int32_t kind = shape.kind[r];
    shape.plain[static_cast<std::size_t>(kind)] = plain == nullptr ? kind : plain->kind[r];
  }
  return shape;
}

Shapes::Shapes(const Job& base, const Space& space, const UnitNumbers& units) {
  const Choices& c = space.choices;
  std::vector<std::int64_t> stages;
  for (const Block& b : space.blocks) stages.push_back(b.pp);
  std::sort(stages.begin(), stages.end());
  stages.erase(std::unique(stages.begin(), stages.end()), stages.end());
  Job job = base;
  for (const std::int64_t pp : stages) {
    for (const std::int64_t v : c.virtual_stages) {
      if (pp * v > base.model.layers) continue;
      job.layout.pp = pp;
      job.virtual_stages = v;
      job.recompute = {};
      Shape plain = units.shape_of(job, nullptr);
      job.recompute.full = true;
      for (const std::int64_t k : full_layers_of(c, base.model.layers, pp * v)) {
        job.recompute.full_layers = k;
        shapes_.try_emplace({pp, v, k}, units.shape_of(job, &plain));
      }
      shapes_.try_emplace({pp, v, -1}, std::move(plain));
    }
  }
}

const Shape& Shapes::of(std::int64_t pp, std::int64_t virtual_stages,
                        std::int64_t full_layers) const {
  return shapes_.at({pp, virtual_stages, full_layers});
}

Prices::Prices(const Job& base, const Choices& choices, const UnitNumbers& units)
    : job_(base), price_(job_), choices_(choices), units_(units) {}

void Prices::enter(const Block& block) {
  if (!entered_ || block.layer_key() != block_.layer_key()) {
    tables_.assign(choices_.recompute.size(), {});
  }
  entered_ = true;
  block_ = block;
  set_block(block, job_);
}

const PriceTable& Prices::table(std::size_t recompute) {
  PriceTable& table = tables_[recompute];
  if (table.empty()) table = make_table(choices_.recompute[recompute]);
  return table;
}

// Weights are cast to 8 bit once a step: priced with the most micro-batches, so that it holds for
// any number of data ranks.
PriceTable Prices::make_table(const RecomputeChoice& choice) {
  const std::int64_t dp = job_.layout.dp, pp = job_.layout.pp;
  job_.layout.dp = job_.layout.pp = 1;
  job_.sharding = Sharding::kOptimizer;
  job_.recompute = choice.recompute;
  PriceTable table;
  constexpr auto kExpert = static_cast<std::size_t>(outline::Axis::kExpert);
  const double hides = 1 - job_.stack.exposed_share;
  for (const UnitName& name : units_.names()) {
    if (name.again && !choice.full()) break;
    const simulator::Unit u = simulator::price_unit(job_, price_, name);
    table.push_back({u.forward.total(), u.backward.total(), u.weight,
                     hides * u.forward.exposed[kExpert], hides * u.backward.exposed[kExpert],
                     u.parameters.dense, u.parameters.expert, u.parameters.replicated,
                     u.memory.saves, u.memory.worst + u.memory.transient});
  }
  job_.layout.dp = dp;
  job_.layout.pp = pp;
  return table;
}

void Prices::sharding(const PriceTable& table, std::vector<simulator::ShardingSeconds>& out) const {
  out.clear();
  for (const UnitPrice& u : table) {
    out.push_back(simulator::sharding_seconds(job_, price_, {u.dense, u.expert, u.replicated}));
  }
}

}  // namespace orrery::planner::jobs
