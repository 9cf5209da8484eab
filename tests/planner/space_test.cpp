// Enumeration: what is legal, what each rule removed, and what a pin may ask.
#include "planner/space.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/support/plans.h"

namespace orrery::planner {
namespace {

Request request_of(Model model, std::int64_t devices, std::int64_t sequences) {
  Request r;
  r.model = std::move(model);
  r.cluster = small_cluster(devices);
  r.workload = small_workload(sequences);
  return r;
}

TEST(Space, EveryCandidateIsLegalAndNoneIsTwice) {
  for (const std::int64_t devices : {1, 4, 6}) {
    for (const bool moe : {false, true}) {
      const Request r = request_of(moe ? small_moe_model(2, 4) : small_dense_model(), devices, 24);
      const Space space = enumerate(r).value();
      std::set<std::string> seen;
      std::int64_t count = 0;
      for (const Layout& l : space.layouts) {
        for (const Chunks& c : space.chunks.at(l.micro_batch)) {
          for (const std::int64_t n : space.recompute) {
            EXPECT_TRUE(violations(r.model, r.cluster, r.workload, l, c, {n}).empty());
            EXPECT_TRUE(
                seen.insert(to_json(l).dump(-1) + to_json(c).dump(-1) + std::to_string(n)).second);
            ++count;
          }
        }
      }
      EXPECT_EQ(count, space.legal);
    }
  }
}

TEST(Space, LegalAndRejectedAddUp) {
  const Space space = enumerate(request_of(small_moe_model(3, 8), 6, 12)).value();
  std::int64_t rejected = 0;
  std::set<std::string> rules;
  for (const Rejection& r : space.rejected) {
    EXPECT_GT(r.count, 0);
    EXPECT_TRUE(rules.insert(r.rule).second);
    rejected += r.count;
  }
  EXPECT_EQ(space.legal + rejected, space.enumerated);
  EXPECT_TRUE(rules.count("experts_divide") == 1);        // 8 experts, ep 3 and 6
  EXPECT_TRUE(rules.count("expert_world_factors") == 1);  // ep 4 and 8 do not divide 6 ranks
  EXPECT_TRUE(rules.count("batch_divides") == 1);
}

TEST(Space, HasTheLayoutsThatPeopleAskFor) {
  const Space space = enumerate(request_of(small_moe_model(2, 8), 8, 8)).value();
  const auto has = [&](std::int64_t fsdp_d, std::int64_t ep, std::int64_t fsdp_e) {
    return std::any_of(space.layouts.begin(), space.layouts.end(), [&](const Layout& l) {
      return l.fsdp_d == fsdp_d && l.ep == ep && l.fsdp_e == fsdp_e;
    });
  };
  EXPECT_TRUE(has(8, 1, 8));
  EXPECT_TRUE(has(8, 8, 1));
  EXPECT_TRUE(has(1, 4, 2));
  EXPECT_TRUE(has(4, 2, 1));
  const Space dense = enumerate(request_of(small_dense_model(), 8, 8)).value();
  for (const Layout& l : dense.layouts) {
    EXPECT_EQ(l.ep, 1);
    EXPECT_EQ(l.fsdp_e, 8);
  }
}

TEST(Space, ChunksArePowersOfTwoUpToTheWhole) {
  const auto sizes = [](std::int64_t sequence) {
    Request r = request_of(small_dense_model(), 2, 4);
    r.workload.sequence_tokens = sequence;
    r.workload.document_tokens = {sequence};
    r.pins = {{"prefetch_depth", "1"}, {"micro_batch", "2"}};
    std::set<std::int64_t> loss, query;
    const Space space = enumerate(r).value();
    for (const Chunks& c : space.chunks.at(2)) {
      loss.insert(c.loss_tokens);
      query.insert(c.attention_query);
    }
    return std::make_pair(loss, query);
  };
  using Sizes = std::set<std::int64_t>;
  EXPECT_EQ(sizes(4096),
            std::make_pair(Sizes({0, 512, 1024, 2048, 4096}), Sizes({0, 512, 1024, 2048})));
  EXPECT_EQ(sizes(768), std::make_pair(Sizes({0, 512, 1024}), Sizes({0, 512})));
  EXPECT_EQ(sizes(256), std::make_pair(Sizes({0, 64, 128, 256}), Sizes({0, 64, 128})));
  EXPECT_EQ(sizes(32), std::make_pair(Sizes({0}), Sizes({0})));
}

TEST(Space, APinnedValueNeedNotBeInTheList) {
  Request r = request_of(small_dense_model(3), 2, 4);
  r.pins = {{"loss_tokens", "5"}, {"prefetch_depth", "3"}, {"recompute_layers", "all"}};
  const Space space = enumerate(r).value();
  for (const auto& [micro_batch, chunks] : space.chunks) {
    for (const Chunks& c : chunks) {
      EXPECT_EQ(c.loss_tokens, 5);
      EXPECT_EQ(c.prefetch_depth, 3);
    }
  }
  EXPECT_EQ(space.recompute, std::vector<std::int64_t>{3});
}

TEST(Space, BadPinsAreUsageErrorsAllAtOnce) {
  Request r = request_of(small_dense_model(), 2, 4);
  r.pins = {{"epp", "2"}, {"fsdp_d", "two"}, {"dense_inner", "ep"}, {"dp", "2"}, {"dp", "2"}};
  const auto space = enumerate(r);
  ASSERT_FALSE(space.ok());
  EXPECT_EQ(space.error().code, ErrorCode::kUsage);
  ASSERT_EQ(space.error().problems.size(), 4u);
  EXPECT_EQ(space.error().problems[0].hint, "did you mean 'ep'?");
}

TEST(Space, IllegalPinsNameTheirRule) {
  const auto rule = [](const char* name, const char* value) {
    Request r = request_of(small_moe_model(2, 4), 4, 8);
    r.pins = {{name, value}};
    const auto space = enumerate(r);
    if (space.ok()) return std::string("legal");
    EXPECT_EQ(space.error().code, ErrorCode::kInfeasible);
    return space.error().problems.front().where;
  };
  EXPECT_EQ(rule("ep", "3"), "expert_world_factors");
  EXPECT_EQ(rule("ep", "8"), "expert_world_factors");
  EXPECT_EQ(rule("fsdp_d", "3"), "world_factors");
  EXPECT_EQ(rule("tp", "2"), "engine_axes");
  EXPECT_EQ(rule("dp", "2"), "world_size");
  EXPECT_EQ(rule("micro_batch", "3"), "batch_divides");
  EXPECT_EQ(rule("micro_batch", "0"), "positive");
  EXPECT_EQ(rule("recompute_layers", "9"), "recompute_range");
  EXPECT_EQ(rule("loss_tokens", "-1"), "chunk_ranges");
  EXPECT_EQ(rule("ep", "4"), "legal");
}

TEST(Space, ABatchThatDoesNotDivideNamesTheNearestThatDo) {
  const auto space = enumerate(request_of(small_dense_model(), 4, 10));
  ASSERT_FALSE(space.ok());
  EXPECT_EQ(space.error().code, ErrorCode::kInfeasible);
  ASSERT_EQ(space.error().problems.size(), 1u);
  EXPECT_EQ(space.error().problems[0].where, "batch_divides");
  EXPECT_NE(space.error().problems[0].hint.find("8 or 12"), std::string::npos);
}

TEST(Space, Divisors) {
  EXPECT_EQ(divisors(1), (std::vector<std::int64_t>{1}));
  EXPECT_EQ(divisors(12), (std::vector<std::int64_t>{1, 2, 3, 4, 6, 12}));
  EXPECT_EQ(divisors(16), (std::vector<std::int64_t>{1, 2, 4, 8, 16}));
}

}  // namespace
}  // namespace orrery::planner
