// Drawn size variables: rows are conserved over experts and peers, draws repeat, and their spread
// is the workload's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/program/lower.h"
#include "simulator/simulator.h"
#include "tests/support/plans.h"

namespace orrery::simulator {
namespace {

struct Drawn {
  Plan plan;
  Program program;
  std::vector<Binding> bindings;  // by rank
  std::vector<std::size_t> routes, batches;

  Drawn(Plan p, std::uint64_t seed) : plan(std::move(p)), program(lower(plan)) {
    for (std::int32_t r = 0; r < program.world; ++r) {
      bindings.push_back(draw_binding(plan, program, r, seed));
    }
    const auto& names = role().var_names;
    for (std::size_t v = 0; v < names.size(); ++v) {
      if (names[v].rfind("route/", 0) == 0) routes.push_back(v);
      if (names[v].rfind("batch/", 0) == 0) batches.push_back(v);
    }
  }
  const Role& role() const { return program.roles[0]; }
  const RouteVars& route() const { return role().route; }
  std::int64_t value(std::int32_t rank, std::size_t record, std::int32_t offset) const {
    return bindings[static_cast<std::size_t>(rank)]
        .values[record + static_cast<std::size_t>(offset)];
  }
  std::int64_t slots() const {
    return plan.layout.micro_batch * plan.workload.sequence_tokens * plan.model.top_k;
  }
};

Plan with_spread(std::uint64_t seed, double cv) {
  Plan plan = random_plan(seed);
  plan.workload.expert_load_cv = cv;
  seal(plan);
  return plan;
}

TEST(Binding, RowsAreConserved) {
  int records = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const Drawn d(with_spread(seed, seed % 4 == 0 ? 0 : 0.2 * static_cast<double>(seed % 7)), seed);
    const Group& ep = d.program.ep_group();
    ASSERT_EQ(ep.name, "ep");
    for (const std::size_t record : d.routes) {
      ++records;
      for (std::int32_t rank = 0; rank < d.program.world; ++rank) {
        const std::int32_t first = ep.first_of(rank), self = ep.index_of(rank);
        std::int64_t sent = 0, received = 0, experts = 0;
        for (std::int32_t p = 0; p < ep.size; ++p) {
          const std::int32_t peer = first + p * ep.stride;
          sent += d.value(rank, record, d.route().sent(p));
          received += d.value(rank, record, d.route().received(p));
          EXPECT_EQ(d.value(rank, record, d.route().sent(p)),
                    d.value(peer, record, d.route().received(self)))
              << seed << ": rows from " << rank << " to " << peer;
        }
        for (std::int32_t e = 0; e < d.route().local_experts; ++e) {
          experts += d.value(rank, record, d.route().expert_rows(e));
        }
        EXPECT_EQ(sent, d.slots()) << seed;
        EXPECT_EQ(received, d.value(rank, record, RouteVars::rows())) << seed;
        EXPECT_EQ(experts, received) << seed;
      }
    }
  }
  EXPECT_GT(records, 100);
}

TEST(Binding, PairsAreThoseOfTheDocuments) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Drawn d(with_spread(seed, 0.3), seed);
    std::int64_t pairs = 0;
    for (const std::int64_t n : d.plan.workload.document_tokens) {
      for (std::int64_t query = 1; query <= n; ++query) pairs += query;
    }
    ASSERT_EQ(d.batches.size(), static_cast<std::size_t>(d.plan.layout.accumulation));
    for (const std::size_t record : d.batches) {
      EXPECT_EQ(d.value(0, record, BatchVars::pairs()), pairs * d.plan.layout.micro_batch);
    }
  }
}

TEST(Binding, TheSeedAloneDecides) {
  int different = 0, compared = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Plan plan = with_spread(seed, 0.8);
    const Program program = lower(plan);
    for (std::int32_t r = 0; r < program.world; ++r) {
      const Binding a = draw_binding(plan, program, r, seed);
      EXPECT_EQ(a.rank, r);
      EXPECT_EQ(a.values.size(), static_cast<std::size_t>(program.roles[0].num_vars));
      EXPECT_EQ(a.values, draw_binding(plan, program, r, seed).values);
      if (!plan.model.is_moe()) continue;
      ++compared;
      different += a.values != draw_binding(plan, program, r, seed + 1).values ? 1 : 0;
    }
  }
  EXPECT_GT(compared, 50);
  EXPECT_GT(different, compared / 2) << "another seed draws other loads";
}

// Rows of one sender to each of `experts` experts: received rows of its group, divided by its size.
std::vector<double> loads(const Drawn& d, std::size_t record) {
  std::vector<double> rows;
  const Group& ep = d.program.ep_group();
  for (std::int32_t p = 0; p < ep.size; ++p) {
    for (std::int32_t e = 0; e < d.route().local_experts; ++e) {
      rows.push_back(static_cast<double>(d.value(p * ep.stride, record, d.route().expert_rows(e))) /
                     ep.size);
    }
  }
  return rows;
}

TEST(Binding, WithoutSpreadExpertsDifferByOneRowAtMost) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const Drawn d(with_spread(seed, 0), seed);
    for (const std::size_t record : d.routes) {
      const std::vector<double> rows = loads(d, record);
      const auto [least, most] = std::minmax_element(rows.begin(), rows.end());
      EXPECT_LE(*most - *least, 1) << seed;
    }
  }
}

double spread(const std::vector<double>& rows) {
  const auto n = static_cast<double>(rows.size());
  const double mean = std::accumulate(rows.begin(), rows.end(), 0.0) / n;
  double square = 0;
  for (const double r : rows) square += (r - mean) * (r - mean);
  return std::sqrt(square / n) / mean;
}

// Mean coefficient of variation over seeds and layers: 64 experts, ep = 2, 4096 slots of each rank.
double mean_spread(double cv) {
  Plan plan = small_moe_plan(2, 2, 1);
  plan.model = small_moe_model(4, 64);
  plan.workload.sequence_tokens = 2048;
  plan.workload.document_tokens = {2048};
  plan.workload.expert_load_cv = cv;
  seal(plan);
  double total = 0;
  int records = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Drawn d(plan, seed);
    for (const std::size_t record : d.routes) {
      total += spread(loads(d, record));
      ++records;
    }
  }
  return total / records;
}

TEST(Binding, TheSpreadIsTheWorkloads) {
  EXPECT_EQ(mean_spread(0), 0);
  // 200 draws of 64 log-normal loads: the mean of the sample's figure is within a few per cent.
  EXPECT_NEAR(mean_spread(0.1), 0.1, 0.005);
  EXPECT_NEAR(mean_spread(0.3), 0.3, 0.02);
  const double wide = mean_spread(1.0);
  EXPECT_GT(wide, 0.8);  // a sample of 64 misses part of the tail
  EXPECT_LT(wide, 1.05);
  EXPECT_GT(mean_spread(2.0), wide);
}

// Plans are compared on equal loads: the layout decides who has an expert, not what it gets.
TEST(Binding, TheLayoutDoesNotChangeTheLoads) {
  std::vector<std::vector<double>> first;
  for (const std::int64_t ep : {1, 2, 4}) {
    Plan plan = small_moe_plan(4, ep, 2);
    plan.model = small_moe_model(3, 8);
    plan.workload.expert_load_cv = 0.6;
    seal(plan);
    const Drawn d(plan, 5);
    std::vector<std::vector<double>> all;
    for (const std::size_t record : d.routes) all.push_back(loads(d, record));
    ASSERT_EQ(all.size(), 6U);
    if (first.empty()) first = all;
    EXPECT_EQ(all, first) << "ep " << ep;
  }
}

TEST(Binding, LayersAndMicroBatchesAreDrawnApart) {
  Plan plan = small_moe_plan(2, 2, 2);
  plan.workload.sequence_tokens = 512;
  plan.workload.document_tokens = {512};
  plan.workload.expert_load_cv = 0.5;
  seal(plan);
  const Drawn d(plan, 1);
  ASSERT_EQ(d.routes.size(), 4U);
  for (std::size_t a = 0; a < 4; ++a) {
    for (std::size_t b = a + 1; b < 4; ++b) {
      EXPECT_NE(loads(d, d.routes[a]), loads(d, d.routes[b]));
    }
  }
}

}  // namespace
}  // namespace orrery::simulator
