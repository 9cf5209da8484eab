// Points of an efficiency curve from samples: sizes that grow, one point where several are near.
#pragma once

#include <string>
#include <vector>

#include "core/cluster.h"

namespace orrery::simulator {

inline constexpr double kSameSize = 1.1;    // sizes within this factor are one point
inline constexpr double kSameShape = 2;     // of products, which differ in shape as well
inline constexpr double kLeastPart = 0.2;   // of a sample's time: less of it says nothing
inline constexpr double kMostInside = 0.9;  // of a sample's time, by what else would bound it
inline constexpr double kBeatsPeak = 1.02;

class CurveBuilder {
 public:
  // Sizes less than `same` times the first of a point belong to it.
  explicit CurveBuilder(double same) : same_(same) {}
  void add(double size, double fraction) { points_.push_back({size, fraction}); }
  bool empty() const { return points_.empty(); }
  EfficiencyCurve curve() const;

  std::size_t bound_by_launch = 0;  // samples that were not added

 private:
  struct Point {
    double size, fraction;
  };
  double same_;
  std::vector<Point> points_;
};

std::string percent_text(double fraction);  // "3.1 %"

}  // namespace orrery::simulator
