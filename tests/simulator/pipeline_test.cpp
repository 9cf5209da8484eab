// Pipeline schedules: closed forms of equal stages, limits of any schedule, and the replay against
// the longest path through the same cells.
#include "simulator/stages/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace orrery::simulator {
namespace {

const auto kGpipe = PipelineSchedule::kGpipe;
const auto kOneF = PipelineSchedule::kOneForwardOneBackward;
const auto kInterleaved = PipelineSchedule::kInterleaved;

CellTimes equal(std::int32_t cells, double forward, double backward) {
  CellTimes t;
  t.forward.assign(static_cast<std::size_t>(cells), forward);
  t.backward.assign(static_cast<std::size_t>(cells), backward);
  return t;
}

double length(const PipelineReplay& r) {
  return *std::max_element(r.end.begin(), r.end.end());
}

TEST(Pipelines, EqualStagesTakeTheClosedForm) {
  for (const std::int32_t p : {1, 2, 3, 4, 8}) {
    for (const std::int32_t m : {1, 2, 5, 8, 32}) {
      for (const PipelineSchedule s : {kGpipe, kOneF}) {
        const PipelineReplay r = Pipeline(s, p, 1, m).replay(equal(p, 1, 2));
        EXPECT_DOUBLE_EQ(length(r), (m + p - 1) * 3.0) << name_of(s) << ' ' << p << ' ' << m;
      }
    }
  }
}

TEST(Pipelines, InterleavingDividesTheBubble) {
  // Narayanan 2021: the bubble is (p - 1) (f + b) / v where m is a multiple of p.
  for (const std::int32_t p : {2, 4, 8}) {
    for (const std::int32_t v : {2, 3, 5}) {
      for (const std::int32_t groups : {2, 3, 8}) {
        const std::int32_t m = groups * p;
        const PipelineReplay r = Pipeline(kInterleaved, p, v, m).replay(equal(p * v, 1, 2));
        EXPECT_DOUBLE_EQ(length(r), (m * v + p - 1) * 3.0) << p << ' ' << v << ' ' << m;
      }
    }
  }
}

TEST(Pipelines, HoldsAsManyMicroBatchesAsTheScheduleSays) {
  for (std::int32_t s = 0; s < 4; ++s) {
    EXPECT_EQ(in_flight(kGpipe, s, 4, 1, 12), 12);
    EXPECT_EQ(in_flight(kOneF, s, 4, 1, 12), 4 - s);
    EXPECT_EQ(in_flight(kOneF, s, 4, 1, 2), std::min(2, 4 - s));
    // Chunks: Megatron's warm-up and the one that runs.
    EXPECT_EQ(in_flight(kInterleaved, s, 4, 2, 12), 2 * (4 - s - 1) + 4 + 1);
  }
}

TEST(Pipelines, EveryCellRunsOnceOnItsRank) {
  for (const std::int32_t p : {1, 2, 4}) {
    for (const std::int32_t v : {1, 2, 3}) {
      for (const std::int32_t m : {1, 3, 4, 7, 8}) {
        if (v > 1 && m > p && m % p != 0) continue;
        for (std::int32_t s = 0; s < p; ++s) {
          const std::vector<Cell> cells = cells_of(kInterleaved, s, p, v, m);
          std::set<std::tuple<std::int32_t, std::int32_t, bool>> seen;
          for (const Cell& c : cells) seen.insert({c.chunk, c.micro_batch, c.backward});
          EXPECT_EQ(cells.size(), static_cast<std::size_t>(2 * v * m));
          EXPECT_EQ(seen.size(), cells.size());
        }
      }
    }
  }
}

// The same cells as a graph: each after the one before on its rank, and after what it needs.
double longest_path(PipelineSchedule schedule, std::int32_t p, std::int32_t v, std::int32_t m,
                    const CellTimes& t) {
  using Key = std::tuple<std::int32_t, std::int32_t, bool>;  // virtual stage, micro-batch, backward
  std::map<Key, Key> before;
  for (std::int32_t s = 0; s < p; ++s) {
    const std::vector<Cell> cells = cells_of(schedule, s, p, v, m);
    for (std::size_t i = 1; i < cells.size(); ++i) {
      const auto key = [&](const Cell& c) {
        return Key{c.chunk * p + s, c.micro_batch, c.backward};
      };
      before[key(cells[i])] = key(cells[i - 1]);
    }
  }
  std::map<Key, double> ends;
  std::function<double(const Key&)> end = [&](const Key& key) -> double {
    if (const auto found = ends.find(key); found != ends.end()) return found->second;
    const auto [stage, mb, backward] = key;
    double begin = 0;
    if (const auto b = before.find(key); b != before.end()) begin = end(b->second);
    const double send = p > 1 ? t.send : 0;
    if (!backward && stage > 0) begin = std::max(begin, end({stage - 1, mb, false}) + send);
    if (backward && stage + 1 == p * v) begin = std::max(begin, end({stage, mb, false}));
    if (backward && stage + 1 < p * v) begin = std::max(begin, end({stage + 1, mb, true}) + send);
    const auto cell = static_cast<std::size_t>(stage % p * v + stage / p);
    return ends[key] = begin + (backward ? t.backward : t.forward)[cell];
  };
  double longest = 0;
  for (std::int32_t s = 0; s < p * v; ++s) {
    for (std::int32_t b = 0; b < m; ++b) longest = std::max(longest, end({s, b, true}));
  }
  return longest;
}

TEST(Pipelines, ReplayIsTheLongestPath) {
  std::mt19937_64 random(7);
  const auto draw = [&](std::int32_t least, std::int32_t most) {
    return std::uniform_int_distribution<std::int32_t>(least, most)(random);
  };
  for (int i = 0; i < 400; ++i) {
    const std::int32_t p = draw(1, 6);
    const PipelineSchedule s = i % 3 == 0 ? kGpipe : i % 3 == 1 ? kOneF : kInterleaved;
    const std::int32_t v = s == kInterleaved ? draw(1, 3) : 1;
    const std::int32_t m = v > 1 && draw(0, 1) == 1 ? p * draw(1, 4) : draw(1, v > 1 ? p : 9);
    CellTimes t;
    for (std::int32_t c = 0; c < p * v; ++c) {
      t.forward.push_back(draw(1, 20));
      t.backward.push_back(draw(1, 40));
    }
    t.send = draw(0, 5);
    const PipelineReplay r = Pipeline(s, p, v, m).replay(t);
    EXPECT_DOUBLE_EQ(length(r), longest_path(s, p, v, m, t))
        << name_of(s) << ' ' << p << ' ' << v << ' ' << m;
    t.beside = false;
    EXPECT_GE(length(Pipeline(s, p, v, m).replay(t)), length(r)) << "sends that compute waits for";
  }
}

}  // namespace
}  // namespace orrery::simulator
