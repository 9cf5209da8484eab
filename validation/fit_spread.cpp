// The pinball loss is made smooth near zero: then descent along its three coordinates ends at the
// least, since it is convex.
#include "validation/fit_spread.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "core/check.h"
#include "validation/metrics.h"

namespace orrery::validation {
namespace {

using simulator::SpreadModel;
using simulator::SpreadSide;

constexpr double kUpper = 0.9;    // the quantile; of the other side 0.1, mirrored
constexpr double kSmooth = 0.02;  // of a residual
constexpr double kMost = 10;      // of either coefficient
constexpr int kTurns = 200, kCuts = 40;

// A residual as one side sees it, and what the side's coefficients multiply.
struct Point {
  double residual = 0, exposed = 0, unseen = 0, weight = 0;
};

double smooth_pinball(double above) {
  if (std::abs(above) > kSmooth) return pinball(kUpper, 0, above);
  return (kUpper - 0.5) * above + (above * above / kSmooth + kSmooth) / 4;
}

double loss_of(const std::vector<Point>& points, const SpreadSide& side) {
  double sum = 0;
  for (const Point& p : points) {
    const double edge = side.base + side.exposed * p.exposed + side.unseen * p.unseen;
    sum += p.weight * smooth_pinball(p.residual - edge);
  }
  return sum;
}

// Golden section over one coefficient.
void descend(const std::vector<Point>& points, double SpreadSide::*member, double least,
             SpreadSide& side) {
  const double part = (3 - std::sqrt(5.0)) / 2;
  double low = least, high = kMost;
  SpreadSide left = side, right = side;
  for (int cut = 0; cut < kCuts; ++cut) {
    left.*member = low + part * (high - low);
    right.*member = high - part * (high - low);
    if (loss_of(points, left) <= loss_of(points, right)) {
      high = right.*member;
    } else {
      low = left.*member;
    }
  }
  // The edge itself, where the loss only grows from it.
  left.*member = least;
  right.*member = (low + high) / 2;
  side = loss_of(points, left) <= loss_of(points, right) ? left : right;
}

SpreadSide fit_side(const std::vector<Point>& points) {
  constexpr double kSettled = 1e-4;
  SpreadSide side;
  for (int turn = 0; turn < kTurns; ++turn) {
    const SpreadSide before = side;
    descend(points, &SpreadSide::base, simulator::kNoise, side);
    descend(points, &SpreadSide::exposed, 0, side);
    descend(points, &SpreadSide::unseen, simulator::kLeastUnseen, side);
    const double moved = std::abs(side.base - before.base) +
                         std::abs(side.exposed - before.exposed) +
                         std::abs(side.unseen - before.unseen);
    if (moved < kSettled) break;
  }
  return side;
}

}  // namespace

SpreadModel fit_spread(std::vector<SpreadSample> samples,
                       std::vector<simulator::MeasuredShape> shapes) {
  SpreadModel model;
  model.shapes = simulator::representatives(std::move(shapes), simulator::kMostShapes);
  std::map<std::pair<Held, std::string>, double> counts;
  std::set<std::string> sources;
  for (const SpreadSample& s : samples) {
    CHECK(std::isfinite(s.residual), "a residual of a step that was not measured");
    ++counts[{s.held, s.source}];
    sources.insert(s.source);
  }
  if (samples.size() < kFewestSamples || sources.size() < 2) return model;
  const auto weight = [&](const SpreadSample& s) {
    return 1 / std::sqrt(counts.at({s.held, s.source}));
  };
  // One order, whatever they came in: sums do not depend on it then.
  const auto key = [&](const SpreadSample& s) {
    const simulator::SpreadFeatures& f = s.features;
    return std::tuple(s.residual, f.distance, f.faster, f.slower, f.exposed, weight(s));
  };
  std::sort(samples.begin(), samples.end(),
            [&](const SpreadSample& a, const SpreadSample& b) { return key(a) < key(b); });
  std::vector<Point> slower, faster;
  for (const SpreadSample& s : samples) {
    const double far = s.features.far();
    slower.push_back({s.residual, s.features.exposed, s.features.slower * far, weight(s)});
    faster.push_back({-s.residual, s.features.exposed, s.features.faster * far, weight(s)});
  }
  model.slower = fit_side(slower);
  model.faster = fit_side(faster);
  model.rows = samples.size();
  return model;
}

}  // namespace orrery::validation
