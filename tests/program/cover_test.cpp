// What lowering gives communication to hide behind: with interleaved micro-batches every exchange
// of one has blocks with parameters of the other, and a prefetched gather has those of a layer.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/program/lower.h"
#include "tests/support/cover.h"
#include "tests/support/plans.h"

namespace orrery {
namespace {

// Whether a block with parameters (attention, router, experts, head; not merge) is among the ops.
bool has_block(const Role& role, const std::vector<OpId>& ops, std::int32_t micro_batch) {
  return std::any_of(ops.begin(), ops.end(), [&](OpId id) {
    const Op& op = role.ops[static_cast<std::size_t>(id)];
    return op.block >= 0 && !op.units.empty() && (micro_batch < 0 || op.micro_batch == micro_batch);
  });
}

// Of dispatch and combine, forward and backward, in each layer: those of the first micro-batch hide
// behind the second, in the top layer behind its loss. Those of the second may meet the seam of two
// phases, where nothing of the first is left.
TEST(Cover, ExchangesOfOneMicroBatchHideBehindTheOther) {
  Plan plan = small_moe_plan(2, 2, 1);
  plan.model = small_moe_model(4);
  plan.chunks.domino = 2;
  plan.workload.global_sequences *= 2;
  seal(plan);
  const Program program = lower(plan);
  const Role& role = program.roles[0];
  int exchanges = 0;
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    const Op& op = role.ops[i];
    if (op.kind != OpKind::kAllToAllV || op.micro_batch != 0) continue;
    ++exchanges;
    EXPECT_TRUE(has_block(role, cover_of(role, static_cast<OpId>(i)), 1))
        << op.path << " " << name_of(op.phase);
  }
  EXPECT_EQ(exchanges, 4 * 4);
}

// Alone, an exchange has nothing with parameters to hide behind.
TEST(Cover, OneMicroBatchHidesNoExchange) {
  const Program program = lower(small_moe_plan(2, 2, 1));
  const Role& role = program.roles[0];
  for (std::size_t i = 0; i < role.ops.size(); ++i) {
    if (role.ops[i].kind != OpKind::kAllToAllV) continue;
    EXPECT_FALSE(has_block(role, cover_of(role, static_cast<OpId>(i)), -1)) << role.ops[i].path;
  }
}

TEST(Cover, GathersAheadHideBehindALayer) {
  for (const std::int64_t depth : {0, 1}) {
    Plan plan = small_dense_plan(2, 1);
    plan.model = small_dense_model(4);
    plan.chunks.prefetch_depth = depth;
    seal(plan);
    const Program program = lower(plan);
    const Role& role = program.roles[0];
    int gathers = 0;
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      const Op& op = role.ops[i];
      if (op.kind != OpKind::kAllGather || op.path == "embed/gather") continue;
      ++gathers;
      EXPECT_EQ(has_block(role, cover_of(role, static_cast<OpId>(i)), -1), depth == 1)
          << op.path << " " << name_of(op.phase);
    }
    EXPECT_EQ(gathers, 4 + 1 + 3);  // forward, head, backward but the last layer's, which stays
  }
}

}  // namespace
}  // namespace orrery
