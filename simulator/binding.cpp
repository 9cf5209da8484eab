// Drawing the size variables of a step, expert loads with the workload's spread; and checking those
// that a run recorded.
#include "simulator/binding.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/hash.h"
#include "core/models/family.h"
#include "simulator/simulator.h"

namespace orrery::simulator {
namespace {

double uniform(std::uint64_t seed) {
  return (static_cast<double>(mix64(seed) >> 11) + 0.5) * 0x1.0p-53;
}

// Rows each expert gets out of `slots`: log-normal popularity with coefficient of variation `cv`,
// rounded by largest remainder so that the sum is exact.
std::vector<std::int64_t> draw_rows(std::int64_t slots, std::int64_t experts, double cv,
                                    std::uint64_t seed) {
  const double sigma = std::sqrt(std::log1p(cv * cv));
  std::vector<double> weight(static_cast<std::size_t>(experts), 1.0);
  for (std::size_t e = 0; e < weight.size() && cv > 0; ++e) {
    const double u = uniform(seed + 2 * e), v = uniform(seed + 2 * e + 1);
    const double z = std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
    weight[e] = std::exp(sigma * z);
  }
  const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
  std::vector<std::int64_t> rows;
  std::vector<std::pair<double, std::size_t>> remainder;
  std::int64_t given = 0;
  for (std::size_t e = 0; e < weight.size(); ++e) {
    const double exact = static_cast<double>(slots) * weight[e] / sum;
    rows.push_back(static_cast<std::int64_t>(std::floor(exact)));
    given += rows.back();
    remainder.emplace_back(static_cast<double>(rows.back()) - exact, e);
  }
  std::sort(remainder.begin(), remainder.end());
  for (std::size_t i = 0; given < slots; ++i, ++given) ++rows[remainder[i % rows.size()].second];
  return rows;
}

// Rows that a rank routes in a micro-batch.
std::int64_t routed_rows(const Plan& plan) {
  return block_shape(plan).tokens() * plan.model.top_k;
}

// Query-key pairs of a micro-batch: what pads a row to a multiple of sp is a document of its own.
std::int64_t batch_pairs(const Plan& plan, std::int64_t pairs_per_sequence) {
  const BlockShape shape = block_shape(plan);
  const std::int64_t padding = shape.sequence_tokens - shape.valid_tokens;
  return plan.layout.micro_batch * (pairs_per_sequence + padding * (padding + 1) / 2);
}

// "route/layer.3/mb.0" of the record of one part of its exchange.
std::string exchange_of(const std::string& record) {
  return record.substr(0, record.find("/part."));
}

std::int32_t part_of(const std::string& record) {
  const std::size_t at = record.find("/part.");
  return at == std::string::npos ? 0 : std::stoi(record.substr(at + 6));
}

// One record of routed rows, its first value at `record`.
std::string route_misfit(const RouteVars& route, const std::int64_t* record, std::int64_t slots) {
  for (std::int32_t i = 0; i < route.size(); ++i) {
    if (record[i] < 0 || record[i] > slots * route.ep) {
      return std::to_string(record[i]) + " rows, of at most " + std::to_string(slots * route.ep);
    }
  }
  const auto sum = [&](std::int32_t first, std::int32_t count) {
    return std::accumulate(record + first, record + first + count, std::int64_t{0});
  };
  const std::int64_t rows = record[RouteVars::rows()];
  if (sum(route.received(0), route.ep) != rows ||
      sum(route.expert_rows(0), route.local_experts) != rows) {
    return "the rows of the peers or of the experts do not sum to the " + std::to_string(rows) +
           " received";
  }
  return "";
}

}  // namespace

std::string misfit(const Plan& plan, const Program& program, const Binding& binding) {
  if (binding.rank < 0 || binding.rank >= program.world) {
    return "a world of " + std::to_string(program.world) + " has no such rank";
  }
  const Role& role = program.role_of(binding.rank);
  if (binding.values.size() != static_cast<std::size_t>(role.num_vars)) {
    return std::to_string(binding.values.size()) + " size variables, not " +
           std::to_string(role.num_vars);
  }
  const std::int64_t tokens = plan.workload.sequence_tokens;
  const std::int64_t most_pairs = batch_pairs(plan, tokens * (tokens + 1) / 2);
  const std::int64_t slots = routed_rows(plan);
  std::int64_t sent = 0;  // of the parts of an exchange so far
  for (std::size_t base = 0; base < role.var_names.size(); ++base) {
    const std::string& name = role.var_names[base];
    std::string reason;
    if (name.rfind("batch/", 0) == 0) {
      const std::int64_t pairs = binding.values[base + BatchVars::pairs()];
      if (pairs < 0 || pairs > most_pairs) {
        reason = std::to_string(pairs) + " pairs, of at most " + std::to_string(most_pairs);
      }
    } else if (name.rfind("route/", 0) == 0) {
      const std::int64_t* record = binding.values.data() + base;
      reason = route_misfit(role.route, record, slots);
      const std::int32_t part = part_of(name);
      sent = std::accumulate(record + role.route.sent(0),
                             record + role.route.sent(0) + role.route.ep, part == 0 ? 0 : sent);
      if (reason.empty() && part + 1 == plan.chunks.exchange_parts && sent != slots) {
        reason = std::to_string(sent) + " rows sent, of " + std::to_string(slots) + " routed";
      }
    }
    if (!reason.empty()) return name + ": " + reason;
  }
  return "";
}

Loads draw_loads(const Plan& plan, const Role& role, std::uint64_t seed) {
  Loads loads;
  for (const std::string& name : role.var_names) {
    if (name.rfind("route/", 0) != 0 || part_of(name) != 0) continue;
    // By the record's name, not its place: every layout routes the same loads.
    loads.push_back(draw_rows(routed_rows(plan), plan.model.experts, plan.workload.expert_load_cv,
                              mix64(seed) + hash64(exchange_of(name))));
  }
  return loads;
}

Binding binding_of(const Plan& plan, const Program& program, std::int32_t rank,
                   const Loads& loads) {
  const Role& role = program.role_of(rank);
  const RouteVars& route = role.route;
  Binding binding;
  binding.rank = rank;
  binding.values.assign(static_cast<std::size_t>(role.num_vars), 0);
  // All ranks of an expert group route alike, so that what one sends the other receives.
  const std::int32_t self = program.ep_group().index_of(rank);
  auto next = loads.begin();
  const std::int64_t* rows = nullptr;  // of the exchange, by expert
  const std::int64_t experts = plan.model.experts / plan.layout.ep;
  for (std::size_t base = 0; base < role.var_names.size(); ++base) {
    std::int64_t* record = binding.values.data() + base;
    const std::string& name = role.var_names[base];
    if (name.rfind("batch/", 0) == 0) {
      record[BatchVars::pairs()] = batch_pairs(plan, plan.workload.pairs_per_sequence());
    } else if (name.rfind("route/", 0) == 0) {
      const std::int32_t part = part_of(name);
      if (part == 0) rows = (next++)->data();
      const std::int64_t* first = rows + part * route.local_experts;  // of rank 0's
      const auto to_rank = [&](std::int32_t p) {
        const std::int64_t* theirs = first + p * experts;
        return std::accumulate(theirs, theirs + route.local_experts, std::int64_t{0});
      };
      const std::int64_t mine = to_rank(self);
      record[RouteVars::rows()] = mine * route.ep;
      for (std::int32_t p = 0; p < route.ep; ++p) {
        record[route.sent(p)] = to_rank(p);
        record[route.received(p)] = mine;
      }
      for (std::int32_t e = 0; e < route.local_experts; ++e) {
        record[route.expert_rows(e)] = first[self * experts + e] * route.ep;
      }
    }
  }
  return binding;
}

Binding draw_binding(const Plan& plan, const Program& program, std::int32_t rank,
                     std::uint64_t seed) {
  return binding_of(plan, program, rank, draw_loads(plan, program.role_of(rank), seed));
}

}  // namespace orrery::simulator
