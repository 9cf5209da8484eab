// Sums in switches: priced only where fabric and stack both have them, never slower, and once the
// bytes where a ring sends twice.
#include <gtest/gtest.h>

#include <cmath>

#include "simulator/stages/price.h"
#include "simulator/stages/step.h"
#include "tests/outline/jobs.h"

namespace orrery::simulator {
namespace {

using outline::CollectiveKind;

constexpr double kBytes = 1e10;  // large enough for latency not to count

Job summing(bool inner, bool outer, bool used) {
  Job job = dense_job(64);
  CHECK(job.cluster.tiers.size() == 2, "two tiers");
  job.cluster.tiers.front().in_network_reduction = inner;
  job.cluster.tiers.back().in_network_reduction = outer;
  job.stack.in_network_reduction = used;
  return job;
}

double sum_seconds(const Job& job, const Span& span, double bytes = kBytes) {
  return Price(job).collective(CollectiveKind::kAllReduce, span, bytes);
}

TEST(InNetworkReduction, TakesFabricAndStack) {
  for (const Span& span : {Span{8, 8}, Span{64, 8}, Span{8, 1}}) {
    const double ring = sum_seconds(summing(false, false, false), span);
    EXPECT_EQ(sum_seconds(summing(true, true, false), span), ring) << "the stack does not use it";
    EXPECT_EQ(sum_seconds(summing(false, false, true), span), ring) << "no switch sums";
    EXPECT_LT(sum_seconds(summing(true, true, true), span), ring);
    for (const double bytes : {1e3, 1e6, 1e8}) {
      for (const bool inner : {false, true}) {
        for (const bool outer : {false, true}) {
          EXPECT_LE(sum_seconds(summing(inner, outer, true), span, bytes),
                    sum_seconds(summing(inner, outer, false), span, bytes));
        }
      }
    }
  }
}

TEST(InNetworkReduction, SendsEachByteOnce) {
  // A ring of n ranks: 2 (n - 1) / n of the bytes; a tree of one node as a ring of many: 2.
  const Span node{8, 8};
  const double ratio = sum_seconds(summing(true, false, true), node) /
                       sum_seconds(summing(false, false, true), node);
  EXPECT_NEAR(ratio, 8.0 / 14, 0.01);
  const Span pair{2, 2};
  EXPECT_NEAR(sum_seconds(summing(true, false, true), pair) /
                  sum_seconds(summing(false, false, true), pair),
              1, 0.01)
      << "two ranks send each byte once anyway";
}

TEST(InNetworkReduction, SpeedsOnlySums) {
  const Job with = summing(true, true, true), without = summing(false, false, false);
  for (const CollectiveKind kind : {CollectiveKind::kAllGather, CollectiveKind::kReduceScatter,
                                    CollectiveKind::kAllToAll, CollectiveKind::kRing}) {
    EXPECT_EQ(Price(with).collective(kind, {64, 8}, kBytes),
              Price(without).collective(kind, {64, 8}, kBytes));
  }
  // Of a step, the replicas' sums of gradients.
  Job job = with;
  job.sharding = Sharding::kNone;
  job.stack.overlaps_gradients = false;
  Job ring = job;
  ring.stack.in_network_reduction = false;
  EXPECT_LT(predict(job).step.value(), predict(ring).step.value());
}

}  // namespace
}  // namespace orrery::simulator
