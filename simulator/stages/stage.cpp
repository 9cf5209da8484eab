// Layers dealt out to stages, and what a micro-batch takes on each. See stage.h.
#include "simulator/stages/stage.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace orrery::simulator {
namespace {

using outline::Axis;
using outline::Outline;
using outline::Piece;
using outline::Task;
using outline::TaskKind;

// A layer or an end, priced. `gather`, `reduce`: of its parameters, where they are sharded.
struct Unit {
  Piece piece;
  Spent forward, backward;
  double weight = 0;
  double gather = 0, reduce = 0;
};

constexpr auto kData = static_cast<std::size_t>(Axis::kData);

double gather_seconds(const Job& job, const Price& price, const outline::Parameters& p,
                      double bytes_each, outline::CollectiveKind kind) {
  Span dense = price.span(Axis::kData);
  const auto shards = static_cast<double>(job.layout.fsdp_d);
  dense.in_node = std::min(dense.in_node, shards);
  dense.ranks = shards;
  return price.collective(kind, dense, p.dense * bytes_each) +
         price.collective(kind, price.span(Axis::kExpertData), p.expert * bytes_each);
}

Unit price_unit(const Job& job, const Price& price, Piece piece) {
  Unit u;
  u.forward = spend(job, price, piece.outline.forward);
  u.backward = spend(job, price, piece.outline.backward);
  u.backward += spend(job, price, piece.outline.again);
  for (const Task& t : piece.outline.backward) u.weight += t.of_weights ? price.seconds(t) : 0;
  if (job.sharding == Sharding::kParameters) {
    using outline::CollectiveKind;
    const double each = job.precision == Precision::kFp32 ? 4 : 2;
    u.gather = gather_seconds(job, price, piece.parameters, each, CollectiveKind::kAllGather);
    if (!job.trains_adapters) {
      const double sums = job.stack.fp32_gradients ? 4 : 2;
      u.reduce = gather_seconds(job, price, piece.parameters, sums, CollectiveKind::kReduceScatter);
    }
  }
  u.piece = std::move(piece);
  return u;
}

// Two lanes: compute of one unit after the other; gathers, which are issued when the unit before
// begins, and reductions, which are issued when their unit ends.
struct Lanes {
  const Job& job;
  double compute = 0, links = 0, begun = 0, exposed = 0;
  double reducing = 0;  // of the unit before, issued but behind this unit's gather

  void unit(double seconds, double gather, double reduce) {
    double ready = compute;
    if (gather > 0) {
      links = std::max(links, begun) + gather;
      ready = std::max(compute, links);
      exposed += ready - compute;
    }
    if (reducing > 0) links = std::max(links, compute) + reducing;
    begun = compute = ready;
    // Both are slower while the other runs.
    const double beside = std::min(seconds, reduce + gather);
    const double slowed = beside * (job.cluster.compute_slowdown - 1 + job.stack.exposed_share);
    exposed += slowed;
    compute += seconds + slowed;
    reducing = reduce;
  }
  void finish() {
    if (reducing > 0) links = std::max(links, compute) + reducing;
    exposed += std::max(0.0, links - compute);
    compute = std::max(compute, links);
  }
};

void add_unit(Chunk& c, const Unit& u) {
  c.forward += u.forward;
  c.backward += u.backward;
  c.weight += u.weight;
  c.dense += u.piece.parameters.dense;
  c.expert += u.piece.parameters.expert;
  const Outline& o = u.piece.outline;
  c.units.push_back(
      {o.saves, o.worst, o.transient, u.piece.parameters.dense + u.piece.parameters.expert});
}

// Gathers and reductions of sharded parameters beside the units' compute.
void add_sharding(const Job& job, const std::vector<const Unit*>& units, Chunk& c) {
  if (job.sharding != Sharding::kParameters) return;
  const bool once = gathers_once(job);
  Lanes forward{job}, backward{job};
  for (const Unit* u : units) forward.unit(u->forward.total(), once ? 0 : u->gather, 0);
  forward.finish();
  for (auto u = units.rbegin(); u != units.rend(); ++u) {
    const double gather = once || job.keeps_gathered ? 0 : (*u)->gather;
    backward.unit((*u)->backward.total(), gather, (*u)->reduce);
  }
  backward.finish();
  c.forward.exposed[kData] += forward.exposed;
  c.backward.exposed[kData] += backward.exposed;
}

std::vector<std::int64_t> layers_of(std::int64_t layers, std::int64_t stages) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), layers / stages);
  // From the middle outwards, the last stage last.
  std::int64_t left = layers % stages;
  for (std::int64_t i = 1; left > 0 && i < stages - 1; ++i, --left) {
    ++counts[static_cast<std::size_t>(i)];
  }
  for (std::int64_t i = 0; left > 0; ++i, --left) ++counts[static_cast<std::size_t>(i)];
  return counts;
}

}  // namespace

bool gathers_once(const Job& job) {
  return job.layout.pp > 1;
}

double Spent::total() const {
  double sum = compute + host;
  for (const double e : exposed) sum += e;
  return sum;
}

Spent& Spent::operator+=(const Spent& other) {
  compute += other.compute;
  host += other.host;
  for (std::size_t i = 0; i < outline::kNumAxes; ++i) exposed[i] += other.exposed[i];
  return *this;
}

Spent spend(const Job& job, const Price& price, const std::vector<Task>& tasks) {
  Spent out;
  double kernels = 0, device = 0;
  // A collective beside products hides behind the next of them.
  double beside = 0;
  std::size_t beside_axis = 0;
  for (const Task& t : tasks) {
    const double seconds = price.seconds(t);
    kernels += t.kernels;
    if (t.kind == TaskKind::kCollective) {
      const auto axis = static_cast<std::size_t>(t.axis);
      if (!t.beside) {
        out.exposed[axis] += seconds;
        device += seconds;
        continue;
      }
      out.exposed[axis] += job.stack.exposed_share * seconds;
      beside += (1 - job.stack.exposed_share) * seconds;
      beside_axis = axis;
      continue;
    }
    out.compute += seconds;
    device += seconds;
    if (beside <= 0 || t.kind == TaskKind::kPass) continue;
    out.exposed[beside_axis] += std::max(0.0, beside - seconds);
    beside = 0;
  }
  out.exposed[beside_axis] += beside;
  if (!job.stack.graphs) {
    out.host = std::max(0.0, kernels * job.stack.host_per_kernel_s - device);
  }
  return out;
}

std::vector<Chunk> make_chunks(const Job& job, const Price& price) {
  const Model& m = job.model;
  const std::int64_t stages = job.stages();
  std::vector<Chunk> chunks(static_cast<std::size_t>(stages));
  const std::vector<std::int64_t> counts =
      job.stage_layers.empty() ? layers_of(m.layers, stages) : job.stage_layers;
  // Layers that do the same are priced once: by kind, window, and whether they are run again.
  std::map<std::tuple<bool, std::int64_t, bool>, Unit> units;
  const Unit embedding = price_unit(job, price, outline::embedding(job));
  const Unit further =
      m.mtp_layers > 0 ? price_unit(job, price, outline::further_token(job)) : Unit{};
  const Unit head = price_unit(job, price, outline::head(job));
  const auto unit_of = [&](std::int64_t layer, std::int64_t index) -> const Unit& {
    const auto i = static_cast<std::size_t>(layer);
    const std::int64_t window = i < m.window.size() ? m.window[i] : 0;
    const Recompute& r = job.recompute;
    const bool again = r.full && (r.full_layers == 0 || index < r.full_layers);
    const auto [found, fresh] = units.try_emplace({m.moe_layer[i], window, again});
    if (fresh) found->second = price_unit(job, price, outline::layer(job, layer, again));
    return found->second;
  };
  std::int64_t layer = 0;
  for (std::int64_t s = 0; s < stages; ++s) {
    // Chunk k of rank r is virtual stage k * pp + r.
    const std::int64_t rank = s % job.layout.pp, chunk = s / job.layout.pp;
    Chunk& c = chunks[static_cast<std::size_t>(rank * job.virtual_stages + chunk)];
    std::vector<const Unit*> own;
    c.first = s == 0;
    c.last = s + 1 == stages;
    if (c.first) own.push_back(&embedding);
    for (std::int64_t i = 0; i < counts[static_cast<std::size_t>(s)]; ++i, ++layer) {
      own.push_back(&unit_of(layer, i));
    }
    if (c.last) {
      for (std::int64_t i = 0; i < m.mtp_layers; ++i) {
        own.push_back(&further);
        own.push_back(&unit_of(m.layers - 1, m.layers));
        own.push_back(&head);
      }
      own.push_back(&head);
    }
    for (const Unit* u : own) add_unit(c, *u);
    add_sharding(job, own, c);
    // Each further prediction shares the head's weights, and has a norm of its own.
    const double table = head.piece.parameters.dense - head.piece.parameters.replicated;
    if (c.last) c.dense -= static_cast<double>(m.mtp_layers) * table;
    if (c.last && m.tied_head && c.first) c.dense -= table;
  }
  return chunks;
}

}  // namespace orrery::simulator
