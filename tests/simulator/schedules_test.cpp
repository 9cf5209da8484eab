// Schedules: the verifier is silent on all of them and names the rule when a cell is lost or moved;
// bubbles are those of their papers.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "simulator/stages/verify_schedule.h"

namespace orrery::simulator {
namespace {

using Ranks = std::vector<std::vector<Cell>>;

std::string words(const PipelineShape& s, const std::vector<Violation>& found) {
  std::string text = std::string(name_of(s.schedule)) + " of " + std::to_string(s.stages) + " x " +
                     std::to_string(s.chunks) + ", " + std::to_string(s.micro_batches) + "\n";
  for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 5); ++i) {
    text += found[i].rule + ": " + found[i].reason + "\n";
  }
  return text;
}

bool takes(PipelineSchedule s, std::int32_t p, std::int32_t v, std::int32_t m) {
  const bool chunks = s == PipelineSchedule::kInterleaved || s == PipelineSchedule::kOverlapped;
  return v == 1 || (chunks && (m <= p || m % p == 0));
}

TEST(ScheduleVerifier, IsSilentOnEverySchedule) {
  int shapes = 0;
  for (int s = 0; s < kNumSchedules; ++s) {
    for (std::int32_t p = 1; p <= 9; ++p) {
      for (std::int32_t v = 1; v <= 4; ++v) {
        for (std::int32_t m = 1; m <= 3 * p; ++m) {
          const PipelineShape shape{static_cast<PipelineSchedule>(s), p, v, m};
          if (!takes(shape.schedule, p, v, m)) continue;
          ++shapes;
          const std::vector<Violation> found = verify(shape, schedule_of(shape));
          EXPECT_TRUE(found.empty()) << words(shape, found);
        }
      }
    }
  }
  EXPECT_GT(shapes, 900);
}

bool names(const std::vector<Violation>& found, const std::string& rule) {
  return std::any_of(found.begin(), found.end(),
                     [&](const Violation& v) { return v.rule == rule; });
}

TEST(ScheduleVerifier, NamesEveryLostAndDoubledCell) {
  for (int s = 0; s < kNumSchedules; ++s) {
    const PipelineShape shape{static_cast<PipelineSchedule>(s), 3, 1, 5};
    const Ranks sound = schedule_of(shape);
    for (std::size_t r = 0; r < sound.size(); ++r) {
      for (std::size_t i = 0; i < sound[r].size(); ++i) {
        Ranks lost = sound, twice = sound;
        lost[r].erase(lost[r].begin() + static_cast<std::ptrdiff_t>(i));
        twice[r].push_back(sound[r][i]);
        EXPECT_TRUE(names(verify(shape, lost), "cell_once")) << words(shape, {});
        EXPECT_TRUE(names(verify(shape, twice), "cell_once")) << words(shape, {});
      }
    }
  }
}

TEST(ScheduleVerifier, NamesTheRuleOfEveryMove) {
  const PipelineShape steady{PipelineSchedule::kOneForwardOneBackward, 4, 1, 8};
  const Ranks sound = schedule_of(steady);
  Ranks broken = sound;
  std::swap(broken[3][0], broken[3][1]);  // the last stage begins with a backward
  EXPECT_TRUE(names(verify(steady, broken), "backward_after_forward"));
  broken = sound;
  std::swap(broken[0][0], broken[0][1]);  // another micro-batch first: the last stage waits for it
  std::swap(broken[1][0], broken[1][2]);
  EXPECT_TRUE(verify(steady, broken).empty()) << "later, but it runs: " << words(steady, {});
  broken = sound;
  std::swap(broken[0][4], broken[0][5]);  // one more forward before the first backward
  EXPECT_TRUE(names(verify(steady, broken), "in_flight"));
  EXPECT_TRUE(names(verify({PipelineSchedule::kGpipe, 4, 1, 8}, sound), "in_flight"));

  const PipelineShape zero{PipelineSchedule::kZeroBubble, 2, 1, 4};
  broken = schedule_of(zero);
  for (std::size_t i = 0; i + 1 < broken[0].size(); ++i) {
    if (broken[0][i].kind == CellKind::kInputGradient) {
      std::swap(broken[0][i], broken[0][i + 1]);
      break;
    }
  }
  EXPECT_TRUE(names(verify(zero, broken), "backward_after_forward"));

  const PipelineShape overlapped{PipelineSchedule::kOverlapped, 2, 1, 4};
  broken = schedule_of(overlapped);
  broken[0][0].with_next = true;  // beside another forward
  EXPECT_TRUE(names(verify(overlapped, broken), "backward_after_forward"));
}

TEST(ScheduleVerifier, NamesADeadlock) {
  // Stage 1 wants the second micro-batch first, stage 0 the first one's gradients before it.
  const auto f = [](std::int32_t mb) { return Cell{0, mb, CellKind::kForward}; };
  const auto b = [](std::int32_t mb) { return Cell{0, mb, CellKind::kBackward}; };
  const Ranks stuck = {{f(0), b(0), f(1), b(1)}, {f(1), f(0), b(0), b(1)}};
  const PipelineShape steady{PipelineSchedule::kOneForwardOneBackward, 2, 1, 2};
  EXPECT_TRUE(names(verify(steady, stuck), "order_possible"));
  // A second chunk before what feeds it.
  const PipelineShape chunks{PipelineSchedule::kInterleaved, 2, 2, 2};
  Ranks crossed = schedule_of(chunks);
  std::swap(crossed[0][0], crossed[0][2]);
  EXPECT_TRUE(names(verify(chunks, crossed), "order_possible"));
}

double length(const PipelineReplay& r) {
  return *std::max_element(r.end.begin(), r.end.end());
}

CellTimes equal(std::int32_t cells, double forward, double input, double weight) {
  const auto n = static_cast<std::size_t>(cells);
  CellTimes t;
  t.forward.assign(n, forward);
  t.backward.assign(n, input + weight);
  t.weight.assign(n, weight);
  return t;
}

TEST(Schedules, ZeroBubbleHasItsPapersBubble) {
  // Qi 2023, table 1: (p - 1)(F + B - W), of 1F1B's (p - 1)(F + B + W), where the parts are alike.
  for (const std::int32_t p : {1, 2, 3, 4, 8, 16}) {
    for (const std::int32_t m : {2 * p, 3 * p + 1, 8 * p}) {
      const CellTimes t = equal(p, 1, 1, 1);
      const double zero = length(Pipeline(PipelineSchedule::kZeroBubble, p, 1, m).replay(t));
      EXPECT_DOUBLE_EQ(zero, 3.0 * m + (p - 1)) << p << ' ' << m;
      const double steady =
          length(Pipeline(PipelineSchedule::kOneForwardOneBackward, p, 1, m).replay(t));
      EXPECT_DOUBLE_EQ(steady, 3.0 * m + 3.0 * (p - 1)) << p << ' ' << m;
    }
  }
}

TEST(Schedules, OverlapHidesExchangesBehindTheOtherPass) {
  const std::int32_t p = 4, v = 2, m = 32;
  CellTimes t = equal(p * v, 3, 4, 2);
  const Pipeline overlapped(PipelineSchedule::kOverlapped, p, v, m);
  const Pipeline interleaved(PipelineSchedule::kInterleaved, p, v, m);
  const double plain = length(overlapped.replay(t));
  EXPECT_GE(plain, length(interleaved.replay(t))) << "pairs wait for each other";
  t.forward_hides.assign(static_cast<std::size_t>(p * v), 1);
  t.backward_hides.assign(static_cast<std::size_t>(p * v), 1.5);
  const PipelineReplay r = overlapped.replay(t);
  EXPECT_LT(length(r), length(interleaved.replay(t)));
  EXPECT_EQ(length(interleaved.replay(t)), length(interleaved.replay(equal(p * v, 3, 4, 2))))
      << "nothing runs beside in it";
  for (std::int32_t s = 0; s < p; ++s) {
    // All but the first forwards have a backward beside them.
    const std::int32_t alone = 2 * (p - s - 1) + (v - 1) * p + 1;
    EXPECT_DOUBLE_EQ(r.hidden[static_cast<std::size_t>(s)], 2.5 * (v * m - alone));
  }
  // One rank: the first forward and the last backward stand alone.
  CellTimes one = equal(1, 3, 4, 2);
  one.forward_hides = {1};
  one.backward_hides = {1.5};
  EXPECT_DOUBLE_EQ(length(Pipeline(PipelineSchedule::kOverlapped, 1, 1, m).replay(one)),
                   3 + (m - 1) * (9 - 2.5) + 6);
  // An exchange longer than what stands beside it stays in sight for the rest.
  t.forward_hides.assign(static_cast<std::size_t>(p * v), 3);
  t.backward_hides.assign(static_cast<std::size_t>(p * v), 6);
  EXPECT_EQ(overlapped.replay(t).hidden[0], 0);
}

}  // namespace
}  // namespace orrery::simulator
