// Pipeline schedules: closed forms of equal stages, limits of any schedule, and the replay against
// the longest path through the same cells.
#include "simulator/stages/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
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

// Of every rank: each cell once, no two at a time but those that run beside each other, together as
// long as it is busy.
TEST(Pipelines, SpansAreTheReplay) {
  for (const PipelineSchedule schedule :
       {kGpipe, kOneF, kInterleaved, PipelineSchedule::kZeroBubble,
        PipelineSchedule::kOverlapped}) {
    const bool chunked = schedule == kInterleaved || schedule == PipelineSchedule::kOverlapped;
    const std::int32_t p = 4, v = chunked ? 2 : 1, m = 8;
    CellTimes times = equal(p * v, 1, 2);
    times.weight.assign(static_cast<std::size_t>(p * v), 0.75);
    times.send = 0.125;
    std::vector<CellSpan> spans;
    const PipelineReplay replay = Pipeline(schedule, p, v, m).replay(times, &spans);
    for (std::int32_t rank = 0; rank < p; ++rank) {
      double now = 0, busy = 0, begin = -1;
      std::set<std::tuple<std::int32_t, std::int32_t, CellKind>> seen;
      for (const CellSpan& span : spans) {
        if (span.rank != rank) continue;
        EXPECT_TRUE(seen.insert({span.cell.chunk, span.cell.micro_batch, span.cell.kind}).second);
        if (span.begin == begin) continue;
        EXPECT_GE(span.begin, now - 1e-12) << name_of(schedule);
        begin = span.begin;
        now = span.end;
        busy += span.end - span.begin;
      }
      const auto r = static_cast<std::size_t>(rank);
      EXPECT_EQ(seen.size(), cells_of(schedule, rank, p, v, m).size()) << name_of(schedule);
      EXPECT_DOUBLE_EQ(busy, replay.busy[r]) << name_of(schedule);
      EXPECT_NEAR(now, replay.end[r], 1e-12) << name_of(schedule);
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
          for (const Cell& c : cells) seen.insert({c.chunk, c.micro_batch, c.backward()});
          EXPECT_EQ(cells.size(), static_cast<std::size_t>(2 * v * m));
          EXPECT_EQ(seen.size(), cells.size());
        }
      }
    }
  }
}

// The same cells as a graph: each after the one before on its rank, and after what it needs. Two
// beside each other are one node: each one's exchange has the other's compute beside it.
class Reference {
 public:
  Reference(PipelineSchedule schedule, std::int32_t p, std::int32_t v, std::int32_t m,
            const CellTimes& t)
      : p_(p), v_(v), m_(m), t_(t) {
    for (std::int32_t s = 0; s < p; ++s) {
      const std::vector<Cell> cells = cells_of(schedule, s, p, v, m);
      std::int32_t before = -1;
      for (std::size_t i = 0; i < cells.size(); ++i) {
        Node node{s, before, {cells[i]}};
        if (cells[i].with_next) node.cells.push_back(cells[++i]);
        before = static_cast<std::int32_t>(nodes_.size());
        for (const Cell& c : node.cells) {
          if (c.kind != CellKind::kWeightGradient) {
            node_of_[{c.chunk * p + s, c.micro_batch, c.backward()}] = before;
          }
        }
        nodes_.push_back(std::move(node));
      }
    }
    ends_.assign(nodes_.size(), -1);
  }
  double longest() {
    double longest = 0;
    for (std::size_t n = 0; n < nodes_.size(); ++n) longest = std::max(longest, end(n));
    return longest;
  }

 private:
  struct Node {
    std::int32_t rank, before;
    std::vector<Cell> cells;
  };
  double time(const Node& node) const {
    const auto at = [&](const Cell& c) {
      return static_cast<std::size_t>(node.rank * v_ + c.chunk);
    };
    const Cell& c = node.cells[0];
    const std::size_t i = at(c);
    if (node.cells.size() == 2) {
      const std::size_t j = at(node.cells[1]);
      const double f = t_.forward_hides[i], b = t_.backward_hides[j];
      return std::max(t_.forward[i] - f, b) + std::max(t_.backward[j] - b, f);
    }
    if (!c.backward()) return t_.forward[i];
    if (c.kind == CellKind::kBackward) return t_.backward[i];
    return c.kind == CellKind::kWeightGradient ? t_.weight[i] : t_.backward[i] - t_.weight[i];
  }
  double begin(const Cell& c, std::int32_t rank) {
    if (c.kind == CellKind::kWeightGradient) return 0;
    const std::int32_t stage = c.chunk * p_ + rank;
    const bool turns = c.backward() && stage + 1 == p_ * v_;
    if (turns) return end(index(node_of_.at({stage, c.micro_batch, false})));
    const std::int32_t from = stage + (c.backward() ? 1 : -1);
    if (from < 0) return 0;
    return end(index(node_of_.at({from, c.micro_batch, c.backward()}))) + (p_ > 1 ? t_.send : 0);
  }
  double end(std::size_t n) {
    if (ends_[n] >= 0) return ends_[n];
    const Node& node = nodes_[n];
    double start = node.before < 0 ? 0 : end(index(node.before));
    for (const Cell& c : node.cells) start = std::max(start, begin(c, node.rank));
    return ends_[n] = start + time(node);
  }
  static std::size_t index(std::int32_t i) { return static_cast<std::size_t>(i); }

  std::int32_t p_, v_, m_;
  const CellTimes& t_;
  std::vector<Node> nodes_;
  std::map<std::tuple<std::int32_t, std::int32_t, bool>, std::int32_t> node_of_;
  std::vector<double> ends_;
};

TEST(Pipelines, ReplayIsTheLongestPath) {
  std::mt19937_64 random(7);
  const auto draw = [&](std::int32_t least, std::int32_t most) {
    return std::uniform_int_distribution<std::int32_t>(least, most)(random);
  };
  for (int i = 0; i < 1000; ++i) {
    const std::int32_t p = draw(1, 6);
    const auto s = static_cast<PipelineSchedule>(i % kNumSchedules);
    const bool chunks = s == kInterleaved || s == PipelineSchedule::kOverlapped;
    const std::int32_t v = chunks ? draw(1, 3) : 1;
    const std::int32_t m = v > 1 && draw(0, 1) == 1 ? p * draw(1, 4) : draw(1, v > 1 ? p : 9);
    CellTimes t;
    for (std::int32_t c = 0; c < p * v; ++c) {
      t.forward.push_back(draw(1, 20));
      t.backward.push_back(draw(1, 40));
      t.weight.push_back(draw(0, static_cast<std::int32_t>(t.backward.back())));
      t.forward_hides.push_back(draw(0, static_cast<std::int32_t>(t.forward.back())));
      t.backward_hides.push_back(draw(0, static_cast<std::int32_t>(t.backward.back())));
    }
    t.send = draw(0, 5);
    const PipelineReplay r = Pipeline(s, p, v, m).replay(t);
    EXPECT_DOUBLE_EQ(length(r), Reference(s, p, v, m, t).longest())
        << name_of(s) << ' ' << p << ' ' << v << ' ' << m;
    t.beside = false;
    EXPECT_GE(length(Pipeline(s, p, v, m).replay(t)), length(r)) << "sends that compute waits for";
  }
}

}  // namespace
}  // namespace orrery::simulator
