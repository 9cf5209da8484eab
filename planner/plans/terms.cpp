// Terms by a sweep over the starts and ends of a rank's ops.
#include "planner/plans/terms.h"

#include <algorithm>
#include <array>
#include <map>

#include "core/check.h"
#include "core/program/lower.h"
#include "simulator/simulator.h"

namespace orrery::planner {
namespace {

// Phases first, then the lanes beside compute, then waiting.
constexpr std::size_t kPhases = 5, kLanes = kNumLanes - 1, kWaiting = kPhases + kLanes;

}  // namespace

const std::vector<std::string>& term_names() {
  // In the order of Phase and Lane.
  static const std::vector<std::string> names = {"data",
                                                 "forward",
                                                 "recompute",
                                                 "backward",
                                                 "optimizer",
                                                 "exposed gathers and reductions",
                                                 "exposed expert exchanges",
                                                 "exposed sequence exchanges",
                                                 "exposed copies to the host",
                                                 "exposed copies from the host",
                                                 "waiting"};
  return names;
}

std::vector<Seconds> term_times(const Role& role, const std::vector<SpanEvent>& spans,
                                Nanoseconds end) {
  struct Edge {
    std::int64_t at;
    std::size_t term;
    int change;
  };
  std::vector<Edge> edges;
  for (const SpanEvent& s : spans) {
    const Op& op = role.ops[static_cast<std::size_t>(s.op)];
    const std::size_t term = op.lane == Lane::kCompute
                                 ? static_cast<std::size_t>(op.phase)
                                 : kPhases + static_cast<std::size_t>(op.lane) - 1;
    edges.push_back({s.start_ns, term, 1});
    edges.push_back({s.end_ns, term, -1});
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });
  std::array<int, kWaiting> running{};
  std::array<double, kWaiting + 1> ns{};
  std::int64_t last = 0;
  const auto spend = [&](std::int64_t until) {
    const auto dt = static_cast<double>(until - last);
    last = until;
    const auto share = [&](std::size_t from, std::size_t to) {
      const auto busy = std::count_if(running.begin() + static_cast<std::ptrdiff_t>(from),
                                      running.begin() + static_cast<std::ptrdiff_t>(to),
                                      [](int n) { return n > 0; });
      for (std::size_t t = from; t < to; ++t) {
        if (running[t] > 0) ns[t] += dt / static_cast<double>(busy);
      }
      return busy > 0;
    };
    if (!share(0, kPhases) && !share(kPhases, kWaiting)) ns[kWaiting] += dt;
  };
  for (const Edge& e : edges) {
    spend(e.at);
    running[e.term] += e.change;
  }
  spend(std::max(end.value(), last));
  std::vector<Seconds> times;
  for (const double t : ns) times.emplace_back(t * 1e-9);
  return times;
}

Seconds Terms::of(const std::string& name) const {
  const auto found =
      std::find_if(parts.begin(), parts.end(), [&](const Term& t) { return t.name == name; });
  CHECK(found != parts.end(), "no term '" + name + "'");
  return found->time;
}

Seconds Terms::compute() const {
  Seconds sum(0);
  for (std::size_t i = 0; i < kPhases; ++i) sum += parts[i].time;
  return sum;
}

Seconds Terms::exposed() const {
  Seconds sum(0);
  for (std::size_t i = kPhases; i < kWaiting; ++i) sum += parts[i].time;
  return sum;
}

Seconds Terms::waiting() const {
  return parts[kWaiting].time;
}

Terms terms_of(const Plan& plan) {
  const Program program = lower(plan);
  simulator::Options options;
  options.document_cost = false;
  const auto simulated = simulator::simulate(plan, program, options);
  CHECK(simulated.ok(), "a legal plan that cannot be simulated: " + simulated.error().text());
  const simulator::Simulation& s = simulated.value();
  std::map<std::int32_t, std::vector<SpanEvent>> by_rank;
  for (const SpanEvent& span : s.events.spans) by_rank[span.rank].push_back(span);
  Terms terms;
  terms.step = s.prediction.step;
  terms.predicted = s.prediction;
  for (const std::string& name : term_names()) terms.parts.push_back({name, Seconds(0)});
  for (const auto& [rank, spans] : by_rank) {
    const std::vector<Seconds> times = term_times(program.role_of(rank), spans, s.step);
    for (std::size_t i = 0; i < times.size(); ++i) {
      terms.parts[i].time += times[i] * (1 / static_cast<double>(by_rank.size()));
    }
  }
  return terms;
}

}  // namespace orrery::planner
