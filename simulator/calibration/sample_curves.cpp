// See sample_curves.h.
#include "simulator/calibration/sample_curves.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "simulator/calibration/text_lines.h"

namespace orrery::simulator {

EfficiencyCurve CurveBuilder::curve() const {
  constexpr double kLeastFraction = 1e-12;
  std::vector<Point> points = points_;
  std::stable_sort(points.begin(), points.end(),
                   [](const Point& a, const Point& b) { return a.size < b.size; });
  EfficiencyCurve out;
  for (std::size_t i = 0; i < points.size();) {
    std::vector<double> sizes, fractions;
    const double first = points[i].size;
    for (; i < points.size() && (points[i].size < first * same_); ++i) {
      sizes.push_back(points[i].size);
      fractions.push_back(points[i].fraction);
    }
    out.size.push_back(median_of(sizes));
    out.fraction.push_back(std::max(median_of(fractions), kLeastFraction));
  }
  return out;
}

std::string percent_text(double fraction) {
  const std::int64_t tenths = std::llround(fraction * 1000);
  const std::string rest = tenths % 10 == 0 ? "" : "." + std::to_string(tenths % 10);
  return std::to_string(tenths / 10) + rest + " %";
}

}  // namespace orrery::simulator
