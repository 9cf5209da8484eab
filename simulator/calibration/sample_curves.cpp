// See sample_curves.h.
#include "simulator/calibration/sample_curves.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "simulator/calibration/text_lines.h"

namespace orrery::simulator {
namespace {

constexpr double kLeastFraction = 1e-12;
constexpr double kBeyond = 2;  // points of the base nearer to the measured ones say nothing more

}  // namespace

EfficiencyCurve CurveBuilder::measured(double most) const {
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
    out.fraction.push_back(std::clamp(median_of(fractions), kLeastFraction, most));
  }
  return out;
}

EfficiencyCurve CurveBuilder::curve(const EfficiencyCurve& base, double most) const {
  const EfficiencyCurve found = measured(most);
  if (base.empty()) return found;
  const double first = found.size.front(), last = found.size.back();
  const double below = found.fraction.front() / base.at(first);
  const double above = found.fraction.back() / base.at(last);
  EfficiencyCurve out;
  const auto add = [&](double size, double fraction) {
    out.size.push_back(size);
    out.fraction.push_back(std::clamp(fraction, kLeastFraction, most));
  };
  for (std::size_t i = 0; i < base.size.size(); ++i) {
    if (base.size[i] * kBeyond < first) add(base.size[i], base.fraction[i] * below);
  }
  for (std::size_t i = 0; i < found.size.size(); ++i) add(found.size[i], found.fraction[i]);
  for (std::size_t i = 0; i < base.size.size(); ++i) {
    if (base.size[i] > last * kBeyond) add(base.size[i], base.fraction[i] * above);
  }
  return out;
}

std::string percent_text(double fraction) {
  const std::int64_t tenths = std::llround(fraction * 1000);
  const std::string rest = tenths % 10 == 0 ? "" : "." + std::to_string(tenths % 10);
  return std::to_string(tenths / 10) + rest + " %";
}

}  // namespace orrery::simulator
