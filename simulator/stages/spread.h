// How far a measured step may be from its prediction: p10 and p90 of a job, from how well the
// parameters that it rests on are known and from how far it is from everything that was measured.
//
//   ln(p90 / step) = slower.base + slower.exposed * exposed
//                  + slower.unseen * parameters.slower * far
//
// and p10 alike. base: what jobs are off that are like measured ones, the noise of measuring among
// it. exposed: the share of the step that is communication which is not hidden; how much of it is,
// a description of a run says least about. parameters: what the step moves by when each parameter
// moves to the end of its interval, as a root of squares. far: doublings from the nearest measured
// shape, beyond the first: what fits its neighbours holds for a job, however badly single
// parameters are known.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "core/job.h"
#include "simulator/stages/parameters.h"
#include "simulator/stages/step.h"

namespace orrery::simulator {

// Who ran a job, and its sizes: hidden, tokens of a micro-batch on a rank, devices, tp, pp, cp
// (with Ulysses' sp), ep.
inline constexpr std::size_t kShapeSizes = 7;
struct MeasuredShape {
  std::string stack, family, device;  // of the stack; of the device
  bool experts = false;
  bool low_precision = false;  // products of 8 bits
  std::array<std::int64_t, kShapeSizes> sizes{};
  auto operator<=>(const MeasuredShape&) const = default;
};
MeasuredShape shape_of(const Job& job);

// In doublings: the Euclidean norm of the sizes' logarithms, to which another release, device,
// precision or kind of layer adds one, another family of stacks two.
double distance(const MeasuredShape& a, const MeasuredShape& b);
// To the nearest, and never more than kFarthest, which it is where there are none: beyond, nothing
// that was measured says anything.
inline constexpr double kFarthest = kUnmeasured;
double distance(const MeasuredShape& shape, const std::vector<MeasuredShape>& measured);

// At most `most` of the shapes, sorted, chosen so that every other is near to one: the next is the
// one that is furthest from those taken (Gonzalez 1985). The order of the shapes is irrelevant.
std::vector<MeasuredShape> representatives(std::vector<MeasuredShape> shapes, std::size_t most);
inline constexpr std::size_t kMostShapes = 256;

struct SpreadFeatures {
  double faster = 0, slower = 0;  // ln of what the parameters' intervals make of the step, >= 0
  double exposed = 0;             // share of the step
  double distance = kFarthest;
  double far() const { return distance > 1 ? distance - 1 : 0; }
};
// Of `job` with `values` applied and what is predicted of it; predicts it with other parameters.
SpreadFeatures spread_features(const Job& job, const JobPrediction& prediction,
                               const std::vector<ParameterValue>& values,
                               const std::vector<MeasuredShape>& shapes);

// Identical layouts of two releases differ by 5.8 % in the median (the collection of published
// rows): of a normal error of each, 1.2816 * 0.058 / 0.6745 / sqrt(2) from the middle to p90.
inline constexpr double kNoise = 0.078;
// Where nothing alike was measured (far = 4), at least the p90 of the parameters' own deviations.
inline constexpr double kLeastUnseen = 1.2816 / (kFarthest - 1);

// One side of the interval. Before any fit: twice the least, and half of what is exposed.
struct SpreadSide {
  double base = 2 * kNoise, exposed = 0.5, unseen = 2 * kLeastUnseen;
  bool operator==(const SpreadSide&) const = default;
};
struct SpreadModel {
  SpreadSide faster, slower;
  std::size_t rows = 0;               // residuals that it was fitted on
  std::vector<MeasuredShape> shapes;  // representatives of what was measured
  bool operator==(const SpreadModel&) const = default;
};

// p10 and p90 over the step: p10 <= 1 <= p90.
struct SpreadFactors {
  double p10 = 1, p90 = 1;
};
SpreadFactors factors(const SpreadModel& model, const SpreadFeatures& features);

}  // namespace orrery::simulator
