// See breakdown.h. A sweep over the ends of spans, as the definition says.
#include "ui-export/html/breakdown.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace orrery::html {
namespace {

// In the order in which a step has them; others follow as they come.
const std::vector<std::string>& phase_order() {
  static const std::vector<std::string> order = {"data",      "fwd",        "recompute", "bwd",
                                                 "bwd_input", "bwd_weight", "opt",       "ckpt"};
  return order;
}

struct Parts {
  double compute = 0, exposed = 0, hidden = 0, idle = 0;
};

struct Edge {
  std::int64_t at_ns = 0;
  int phase = 0;
  bool communication = false;
  int delta = 0;  // +1 begins, -1 ends
};

// Spans of a rank inside its step, as edges in the order of time.
std::vector<Edge> edges_of(const Side& side, const StepEvent& step,
                           const std::map<std::string, int>& phases) {
  std::vector<Edge> edges;
  const auto range = side.ranges.find({step.step, step.rank});
  if (range == side.ranges.end()) return edges;
  for (std::size_t i = range->second.begin; i < range->second.end; ++i) {
    const OpRow* op = side.op_of(side.spans[i]);
    if (op == nullptr) continue;
    const std::int64_t start = std::max(side.spans[i].start_ns, step.start_ns);
    const std::int64_t end = std::min(side.spans[i].end_ns, step.end_ns);
    if (end <= start) continue;
    const int phase = phases.at(op->phase);
    edges.push_back({start, phase, op->communication, 1});
    edges.push_back({end, phase, op->communication, -1});
  }
  std::stable_sort(edges.begin(), edges.end(),
                   [](const Edge& a, const Edge& b) { return a.at_ns < b.at_ns; });
  return edges;
}

int first_active(const std::vector<int>& active) {
  for (std::size_t i = 0; i < active.size(); ++i) {
    if (active[i] > 0) return static_cast<int>(i);
  }
  return -1;
}

void sweep(const StepEvent& step, const std::vector<Edge>& edges, std::vector<Parts>& parts) {
  std::vector<int> compute(parts.size()), wire(parts.size());
  std::int64_t now = step.start_ns;
  const auto pass = [&](std::int64_t until, int next) {
    const auto ns = static_cast<double>(nanoseconds(now, until));
    now = until;
    if (ns <= 0) return;
    const int computing = first_active(compute), moving = first_active(wire);
    const auto at = [&](int phase) -> Parts& { return parts[static_cast<std::size_t>(phase)]; };
    if (computing >= 0) at(computing).compute += ns;
    if (moving >= 0 && computing >= 0) at(moving).hidden += ns;
    if (moving >= 0 && computing < 0) at(moving).exposed += ns;
    if (moving < 0 && computing < 0) at(next).idle += ns;
  };
  for (const Edge& edge : edges) {
    pass(edge.at_ns, edge.phase);
    (edge.communication ? wire : compute)[static_cast<std::size_t>(edge.phase)] += edge.delta;
  }
  pass(step.end_ns, edges.empty() ? 0 : edges.back().phase);
}

std::vector<std::string> phases_of(const Side& side) {
  std::set<std::string> there;
  for (const OpRow& op : side.ops) there.insert(op.phase);
  std::vector<std::string> phases;
  for (const std::string& phase : phase_order()) {
    if (there.erase(phase) > 0) phases.push_back(phase);
  }
  phases.insert(phases.end(), there.begin(), there.end());
  return phases;
}

Json numbers(const std::vector<Parts>& parts, double Parts::*part, double ranks) {
  Json list = Json::array();
  for (const Parts& phase : parts)
    list.push(static_cast<std::int64_t>(std::llround(phase.*part / ranks)));
  return list;
}

}  // namespace

Json breakdown_json(const Side& side, const std::vector<std::int32_t>& wanted) {
  const std::vector<std::string> phases = phases_of(side);
  std::map<std::string, int> index;
  Json names = Json::array();
  for (const std::string& phase : phases) {
    index.emplace(phase, static_cast<int>(index.size()));
    names.push(clean_text(phase));
  }
  struct Sum {
    std::vector<Parts> parts;
    double ranks = 0;
  };
  std::map<std::int32_t, Sum> steps;
  for (const StepEvent& step : side.step_rows) {
    if (std::find(wanted.begin(), wanted.end(), step.step) == wanted.end()) continue;
    const std::vector<Edge> edges = edges_of(side, step, index);
    if (edges.empty()) continue;
    Sum& sum = steps[step.step];
    sum.parts.resize(phases.size());
    sum.ranks += 1;
    sweep(step, edges, sum.parts);
  }
  Json list = Json::array();
  for (const auto& [step, sum] : steps) {
    list.push(Json::object()
                  .set("step", static_cast<int>(step))
                  .set("compute", numbers(sum.parts, &Parts::compute, sum.ranks))
                  .set("exposed", numbers(sum.parts, &Parts::exposed, sum.ranks))
                  .set("hidden", numbers(sum.parts, &Parts::hidden, sum.ranks))
                  .set("idle", numbers(sum.parts, &Parts::idle, sum.ranks)));
  }
  return Json::object().set("phases", std::move(names)).set("steps", std::move(list));
}

}  // namespace orrery::html
