// Enumeration: what is legal, what each rule removed, and what a pin may ask.
#include "planner/plans/space.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

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

std::vector<MemoryPolicy> policies_of(const Space& space) {
  std::vector<MemoryPolicy> all;
  for (const auto& line : space.policies) all.insert(all.end(), line.begin(), line.end());
  return all;
}

TEST(Space, EveryCandidateIsLegalAndNoneIsTwice) {
  for (const std::int64_t devices : {1, 4, 6}) {
    for (const bool moe : {false, true}) {
      const Request r = request_of(moe ? small_moe_model(2, 4) : small_dense_model(), devices, 24);
      const Space space = enumerate(r).value();
      std::set<std::string> seen;
      std::int64_t count = 0;
      for (const Layout& l : space.layouts) {
        for (const Chunks& c : space.chunks_of(l)) {
          for (const MemoryPolicy& p : policies_of(space)) {
            EXPECT_TRUE(violations(r.model, r.cluster, r.workload, l, c, p).empty());
            EXPECT_TRUE(seen.insert(to_json(l).dump(-1) + to_json(c).dump(-1) + to_json(p).dump(-1))
                            .second);
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
  EXPECT_TRUE(rules.count("heads_divide") == 1);  // 4 heads, sp 3 and 6
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
    r.pins = {{"prefetch_depth", "1"}, {"micro_batch", "2"}, {"sp", "1"}};
    std::set<std::int64_t> loss, query;
    const Space space = enumerate(r).value();
    for (const Chunks& c : space.chunks_of(space.layouts.front())) {
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
  for (const auto& [key, chunks] : space.chunks) {
    for (const Chunks& c : chunks) {
      EXPECT_EQ(c.loss_tokens, 5);
      EXPECT_EQ(c.prefetch_depth, 3);
    }
  }
  for (const MemoryPolicy& p : policies_of(space)) EXPECT_EQ(p.recompute_layers, 3);
  EXPECT_EQ(policies_of(space).size(), 4u);  // with and without swap, moments here and there
}

TEST(Space, SharedSequencesAndTheHostAreAxes) {
  const Request r = request_of(small_moe_model(3, 4), 8, 8);
  const Space space = enumerate(r).value();
  std::set<std::int64_t> degrees;
  for (const Layout& l : space.layouts) {
    degrees.insert(l.sp);
    EXPECT_EQ(l.dp * l.sp, 8);
    EXPECT_EQ(l.dp * l.micro_batch * l.accumulation, 8);
  }
  EXPECT_EQ(degrees, (std::set<std::int64_t>{1, 2, 4}));  // 4 query and 2 key heads
  ASSERT_EQ(space.policies.size(), 4u);
  EXPECT_EQ(space.policy_count(), 2 * (4 + 3));  // without recompute there is nothing to swap
  for (const MemoryPolicy& p : policies_of(space)) {
    EXPECT_TRUE(p.swap_layers == 0 || p.swap_layers == p.recompute_layers);
  }
}

TEST(Space, EveryMechanismCanBePinned) {
  const auto pinned = [](std::vector<std::pair<std::string, std::string>> pins) {
    Request r = request_of(small_moe_model(4, 8), 8, 16);
    r.pins = std::move(pins);
    return enumerate(r).value();
  };
  for (const Layout& l : pinned({{"sp", "4"}}).layouts) EXPECT_EQ(l.sp, 4);
  const Space domino = pinned({{"domino", "2"}});
  for (const Layout& l : domino.layouts) EXPECT_EQ(l.dp * l.micro_batch * 2 * l.accumulation, 16);
  EXPECT_EQ(domino.chunks_of(domino.layouts.front()).front().domino, 2);
  const Space parts = pinned({{"exchange_parts", "2"}});
  EXPECT_FALSE(parts.layouts.empty());
  for (const Layout& l : parts.layouts) {
    EXPECT_TRUE(l.ep == 2 || l.ep == 4) << l.ep;  // 8 / ep experts go in two parts
    for (const Chunks& c : parts.chunks_of(l)) EXPECT_EQ(c.exchange_parts, 2);
  }
  const Space gather = pinned({{"dispatcher", "all_gather"}});
  EXPECT_FALSE(gather.layouts.empty());
  for (const Layout& l : gather.layouts) {
    EXPECT_EQ(l.dispatcher, "all_gather");
    EXPECT_GT(l.ep, 1);
  }
  const Space buckets = pinned({{"gather_layers", "3"}});
  EXPECT_EQ(buckets.chunks_of(buckets.layouts.front()).front().gather_layers, 3);
  for (const MemoryPolicy& p : policies_of(pinned({{"keep_layers", "2"},
                                                   {"recompute_attention", "all"},
                                                   {"recompute_ffn", "1"},
                                                   {"recompute_experts", "3"},
                                                   {"host_optimizer", "true"}}))) {
    EXPECT_EQ(p.keep_layers, 2);
    EXPECT_EQ(p.recompute_attention, 4);
    EXPECT_EQ(p.recompute_ffn, 1);
    EXPECT_EQ(p.recompute_experts, 3);
    EXPECT_TRUE(p.host_optimizer);
  }
  for (const MemoryPolicy& p : policies_of(pinned({{"swap_layers", "all"}}))) {
    EXPECT_EQ(p.swap_layers, p.recompute_layers);
  }
  const Space two = pinned({{"swap_layers", "2"}, {"swap_distance", "3"}});
  for (const MemoryPolicy& p : policies_of(two)) {
    EXPECT_EQ(p.swap_layers, 2);
    EXPECT_EQ(p.swap_distance, 3);
    EXPECT_GE(p.recompute_layers, 2);
  }
  EXPECT_TRUE(std::any_of(two.rejected.begin(), two.rejected.end(),
                          [](const Rejection& r) { return r.rule == "swap_range"; }));
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
  EXPECT_EQ(rule("dp", "3"), "world_size");
  EXPECT_EQ(rule("dp", "2"), "legal");  // sp 2
  EXPECT_EQ(rule("sp", "3"), "world_size");
  EXPECT_EQ(rule("domino", "9"), "batch_divides");
  EXPECT_EQ(rule("exchange_parts", "3"), "exchange_parts");
  EXPECT_EQ(rule("gather_layers", "3"), "chunk_ranges");
  EXPECT_EQ(rule("keep_layers", "3"), "keep_range");
  EXPECT_EQ(rule("swap_layers", "9"), "swap_range");
  EXPECT_EQ(rule("micro_batch", "3"), "batch_divides");
  EXPECT_EQ(rule("micro_batch", "0"), "positive");
  EXPECT_EQ(rule("recompute_layers", "9"), "recompute_range");
  EXPECT_EQ(rule("loss_tokens", "-1"), "chunk_ranges");
  EXPECT_EQ(rule("ep", "4"), "legal");
}

TEST(Space, ABatchThatDoesNotDivideNamesTheNearestThatDo) {
  const auto space = enumerate(request_of(small_dense_model(), 3, 10));
  ASSERT_FALSE(space.ok());
  EXPECT_EQ(space.error().code, ErrorCode::kInfeasible);
  ASSERT_EQ(space.error().problems.size(), 1u);
  EXPECT_EQ(space.error().problems[0].where, "batch_divides");
  EXPECT_NE(space.error().problems[0].hint.find("9 or 12"), std::string::npos);
}

TEST(Space, Divisors) {
  EXPECT_EQ(divisors(1), (std::vector<std::int64_t>{1}));
  EXPECT_EQ(divisors(12), (std::vector<std::int64_t>{1, 2, 3, 4, 6, 12}));
  EXPECT_EQ(divisors(16), (std::vector<std::int64_t>{1, 2, 4, 8, 16}));
}

}  // namespace
}  // namespace orrery::planner
