// Layers dealt out to stages, and what a micro-batch takes on each. See stage.h.
#include "simulator/stages/stage.h"

#include <algorithm>
#include <map>

#include "simulator/stages/units.h"

namespace orrery::simulator {
namespace {

using outline::Axis;
using outline::Task;
using outline::TaskKind;

constexpr auto kData = static_cast<std::size_t>(Axis::kData);

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
  c.dense += u.parameters.dense;
  c.expert += u.parameters.expert;
  c.units.push_back(u.memory);
}

// Gathers and reductions of sharded parameters beside the units' compute.
void add_sharding(const Job& job, const std::vector<const Unit*>& units, Chunk& c) {
  if (job.sharding != Sharding::kParameters) return;
  const bool once = gathers_once(job);
  Lanes forward{job}, backward{job};
  for (const Unit* u : units) forward.unit(u->forward.total(), once ? 0 : u->sharding.gather, 0);
  forward.finish();
  for (auto u = units.rbegin(); u != units.rend(); ++u) {
    const double gather = once || job.keeps_gathered ? 0 : (*u)->sharding.gather;
    backward.unit((*u)->backward.total(), gather, (*u)->sharding.reduce);
  }
  backward.finish();
  c.forward.exposed[kData] += forward.exposed;
  c.backward.exposed[kData] += backward.exposed;
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
  std::map<UnitName, Unit> units;  // those that do the same are priced once
  const auto unit_of = [&](const UnitName& name) -> const Unit& {
    const auto [found, fresh] = units.try_emplace(name);
    if (fresh) found->second = price_unit(job, price, name);
    return found->second;
  };
  std::vector<Chunk> chunks;
  for (const ChunkUnits& plan : units_of_chunks(job)) {
    Chunk& c = chunks.emplace_back();
    c.first = plan.first;
    c.last = plan.last;
    std::vector<const Unit*> own;
    for (const UnitName& name : plan.units) own.push_back(&unit_of(name));
    for (const Unit* u : own) add_unit(c, *u);
    add_sharding(job, own, c);
    if (plan.shared_tables == 0) continue;
    const outline::Parameters& head = own.back()->parameters;
    c.dense -= static_cast<double>(plan.shared_tables) * (head.dense - head.replicated);
  }
  return chunks;
}

}  // namespace orrery::simulator
