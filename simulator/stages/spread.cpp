// Shapes, their distances, and the factors of an interval. See the header.
#include "simulator/stages/spread.h"

#include <algorithm>
#include <cmath>

namespace orrery::simulator {

MeasuredShape shape_of(const Job& job) {
  const Layout& l = job.layout;
  const std::int64_t context = l.cp * l.sp;
  const std::int64_t tokens = l.micro_batch * job.sequence_tokens / context;
  return {
      job.stack.name,
      job.stack.family,
      job.cluster.device.family,
      job.model.is_moe(),
      job.precision == Precision::kFp8,
      {job.model.hidden, std::max<std::int64_t>(1, tokens), l.world(), l.tp, l.pp, context, l.ep}};
}

double distance(const MeasuredShape& a, const MeasuredShape& b) {
  double squares = 0;
  for (std::size_t i = 0; i < kShapeSizes; ++i) {
    const double doublings =
        std::log2(static_cast<double>(a.sizes[i]) / static_cast<double>(b.sizes[i]));
    squares += doublings * doublings;
  }
  const auto differs = [&](bool does, double doublings) {
    if (does) squares += doublings * doublings;
  };
  differs(a.family != b.family, 2);
  differs(a.family == b.family && a.stack != b.stack, 1);
  differs(a.device != b.device, 1);
  differs(a.experts != b.experts, 1);
  differs(a.low_precision != b.low_precision, 1);
  return std::sqrt(squares);
}

double distance(const MeasuredShape& shape, const std::vector<MeasuredShape>& measured) {
  double nearest = kFarthest;
  for (const MeasuredShape& m : measured) nearest = std::min(nearest, distance(shape, m));
  return nearest;
}

std::vector<MeasuredShape> representatives(std::vector<MeasuredShape> shapes, std::size_t most) {
  std::sort(shapes.begin(), shapes.end());
  shapes.erase(std::unique(shapes.begin(), shapes.end()), shapes.end());
  if (shapes.size() <= most) return shapes;
  std::vector<MeasuredShape> taken;
  std::vector<double> away(shapes.size(), HUGE_VAL);
  while (taken.size() < most) {
    const auto next = std::max_element(away.begin(), away.end()) - away.begin();
    taken.push_back(shapes[static_cast<std::size_t>(next)]);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      away[i] = std::min(away[i], distance(shapes[i], taken.back()));
    }
  }
  std::sort(taken.begin(), taken.end());
  return taken;
}

SpreadFeatures spread_features(const Job& job, const JobPrediction& prediction,
                               const std::vector<ParameterValue>& values,
                               const std::vector<MeasuredShape>& shapes) {
  SpreadFeatures out;
  const StepParts& parts = prediction.parts;
  const double step = prediction.step.value();
  out.exposed = (parts.tensor + parts.context + parts.expert + parts.data) / step;
  out.distance = distance(shape_of(job), shapes);
  if (out.far() == 0) return out;  // then they count for nothing
  double faster = 0, slower = 0;
  for (const ParameterValue& value : values_of_time(values, job)) {
    double least = 0, most = 0;
    for (const double end : {value.low, value.high}) {
      if (end == value.value) continue;
      ParameterValue moved = value;
      moved.value = end;
      Job changed = job;
      apply({moved}, changed);
      const double change = std::log(predict(changed).step.value() / step);
      least = std::min(least, change);
      most = std::max(most, change);
    }
    faster += least * least;
    slower += most * most;
  }
  out.faster = std::sqrt(faster);
  out.slower = std::sqrt(slower);
  return out;
}

SpreadFactors factors(const SpreadModel& model, const SpreadFeatures& features) {
  const auto of = [&](const SpreadSide& side, double parameters) {
    return std::exp(side.base + side.exposed * features.exposed +
                    side.unseen * parameters * features.far());
  };
  return {1 / of(model.faster, features.faster), of(model.slower, features.slower)};
}

}  // namespace orrery::simulator
