// By what plans and jobs are ranked under uncertainty, and what is noise for both.
#pragma once

namespace orrery::planner {

enum class Risk { kExpected, kP90 };  // the step, or its 90th percentile

// Differences below this share of a step are noise in any case: pairs closer than 2 % are not
// judged in docs/accuracy.md either.
inline constexpr double kNoiseFloor = 0.02;

}  // namespace orrery::planner
