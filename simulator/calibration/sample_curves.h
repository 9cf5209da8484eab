// Points of an efficiency curve from samples: sizes that grow, one point where several are near.
#pragma once

#include <algorithm>
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
  // `rate` is the fraction with the launch in the time: what was plainly measured.
  void add(double size, double fraction, double rate) {
    points_.push_back({size, fraction});
    best_rate = std::max(best_rate, rate);
  }
  bool empty() const { return points_.empty(); }
  // Fractions are at most `most`. Beyond the measured sizes the shape of `base` goes on, scaled to
  // meet the measured end.
  EfficiencyCurve curve(const EfficiencyCurve& base, double most) const;

  std::size_t bound_by_launch = 0;  // samples that were not added
  double best_rate = 0;

 private:
  struct Point {
    double size, fraction;
  };
  EfficiencyCurve measured(double most) const;
  double same_;
  std::vector<Point> points_;
};

std::string percent_text(double fraction);  // "3.1 %"

}  // namespace orrery::simulator
