// The interval of a step: it contains the prediction, grows with what is not known, and does not
// depend on any order.
#include "simulator/stages/spread.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "simulator/stages/parameter_set.h"
#include "tests/outline/jobs.h"

namespace orrery::simulator {
namespace {

Job small(std::int64_t hidden, std::int64_t tp, std::int64_t sequence) {
  Job job = dense_job(16, 4);
  job.model.hidden = hidden;
  job.stack.name = "made_up-1";
  job.stack.family = "made_up";
  job.layout.tp = tp;
  job.layout.dp = job.layout.fsdp_d = 16 / tp;
  job.sequence_tokens = sequence;
  return job;
}

std::vector<MeasuredShape> grid() {
  std::vector<MeasuredShape> shapes;
  for (const std::int64_t hidden : {1024, 2048, 4096, 8192}) {
    for (const std::int64_t tp : {1, 2, 4, 8}) {
      for (const std::int64_t sequence : {512, 4096, 32768}) {
        shapes.push_back(shape_of(small(hidden, tp, sequence)));
      }
    }
  }
  return shapes;
}

double width(const JobPrediction& p) {
  return std::log(p.p90.value() / p.p10.value());
}

TEST(Spread, DistancesAreDoublings) {
  const MeasuredShape a = shape_of(small(1024, 1, 2048));
  EXPECT_EQ(distance(a, a), 0);
  MeasuredShape b = a;
  b.sizes[0] *= 8;  // hidden
  EXPECT_DOUBLE_EQ(distance(a, b), 3);
  EXPECT_DOUBLE_EQ(distance(b, a), 3);
  b.sizes[3] *= 16;  // tp
  EXPECT_DOUBLE_EQ(distance(a, b), 5);
  MeasuredShape release = a, family = a;
  release.stack = family.stack = "made_up-2";
  family.family = "another";
  EXPECT_GT(distance(a, family), distance(a, release));
  EXPECT_GT(distance(a, release), 0);
  EXPECT_EQ(distance(a, std::vector<MeasuredShape>{}), kFarthest);
  EXPECT_DOUBLE_EQ(distance(a, {b, release}), 1);
}

TEST(Spread, SharesOfASequenceAreItsTokens) {
  Job job = small(1024, 1, 4096);
  const MeasuredShape whole = shape_of(job);
  job.layout.cp = 4;
  const MeasuredShape part = shape_of(job);
  EXPECT_EQ(part.sizes[1] * 4, whole.sizes[1]);
  EXPECT_EQ(part.sizes[5], 4);
}

TEST(Spread, RepresentativesCoverInAnyOrder) {
  std::vector<MeasuredShape> shapes = grid();
  const std::vector<MeasuredShape> taken = representatives(shapes, 12);
  ASSERT_EQ(taken.size(), 12U);
  std::mt19937_64 rng(7);
  for (int i = 0; i < 5; ++i) {
    std::shuffle(shapes.begin(), shapes.end(), rng);
    shapes.push_back(shapes.front());  // the same once more
    EXPECT_EQ(representatives(shapes, 12), taken);
  }
  // Each of 48 shapes is nearer to one of 12 than the grid is wide; and all are kept where they
  // may.
  for (const MeasuredShape& s : shapes) EXPECT_LT(distance(s, taken), 3.1);
  EXPECT_EQ(representatives(shapes, 100).size(), 48U);
}

TEST(Spread, ContainsThePredictionAndGrowsWithDistance) {
  ParameterSet set;
  const Job measured = small(1024, 2, 2048);
  set.spread.shapes = {shape_of(measured)};
  double before = 0;
  for (const std::int64_t hidden : {1024, 2048, 4096, 8192, 16384}) {
    Job job = measured;  // the same job; it is its shape that is moved away
    set.spread.shapes[0].sizes[0] = hidden;
    const JobPrediction p = predict_with(set, job);
    EXPECT_LT(p.p10.value(), p.step.value());
    EXPECT_GT(p.p90.value(), p.step.value());
    EXPECT_GE(width(p), 2 * kNoise);
    // Within a doubling it is measured.
    if (hidden > 2048) {
      EXPECT_GT(width(p), before) << hidden;
    } else if (hidden == 2048) {
      EXPECT_EQ(width(p), before);
    }
    before = width(p);
  }
  // Beyond what counts, nothing changes; and it is what a set without shapes says.
  set.spread.shapes[0].sizes[0] <<= 10;
  const double furthest = width(predict_with(set, measured));
  set.spread.shapes.clear();
  EXPECT_EQ(width(predict_with(set, measured)), furthest);
  EXPECT_GT(furthest, before * (1 - 1e-12));
}

TEST(Spread, KnownParametersNarrowIt) {
  Job job = small(1024, 1, 512);
  job.cluster.device.family = "made_up";
  const auto set_of = [](Owner owner, const char* of, const char* name, double value, double by) {
    ParameterSet set;
    set.values = {{owner, of, name, value, 50, value / by, value * by}};
    return set;
  };
  const auto p90 = [&](const ParameterSet& set) { return predict_with(set, job).p90.value(); };
  EXPECT_GT(p90(set_of(Owner::kDevice, "made_up", "product", 0.6, 1.6)),
            1.2 * p90(set_of(Owner::kDevice, "made_up", "product", 0.6, 1.05)));
  // The deviation of stacks within a family is added where the value is a family's.
  EXPECT_GT(p90(set_of(Owner::kStack, "made_up", "product_factor", 1, 1.001)),
            p90(set_of(Owner::kStack, "made_up-1", "product_factor", 1, 1.001)));
  // Where it was measured, single parameters count for nothing.
  ParameterSet measured = set_of(Owner::kDevice, "made_up", "product", 0.6, 1.6);
  measured.spread.shapes = {shape_of(job)};
  const double near = p90(measured);
  measured.values[0].low = 0.3;
  EXPECT_EQ(p90(measured), near);
}

TEST(Spread, ParametersOfTheOtherSideDoNot) {
  SpreadModel model;
  model.faster = {0.1, 0.3, 0.5};
  model.slower = {0.2, 0.4, 1};
  SpreadFeatures f;
  f.distance = 3;
  f.slower = 0.3;
  f.exposed = 0.1;
  const SpreadFactors by = factors(model, f);
  EXPECT_NEAR(std::log(by.p10), -(0.1 + 0.3 * 0.1), 1e-12);
  EXPECT_NEAR(std::log(by.p90), 0.2 + 0.4 * 0.1 + 0.3 * 2, 1e-12);
}

TEST(Spread, ReadsBack) {
  ParameterSet set;
  set.values = {{Owner::kStack, "made_up", "step_s", 0.02, 30, 0.01, 0.05},
                {Owner::kLink, "near", "attainable", 0.7, 3}};
  set.spread.faster = {0.1, 0, 0.5};
  set.spread.slower = {0.2, 0.75, 1.25};
  set.spread.rows = 123;
  set.spread.shapes = representatives(grid(), 20);
  const auto read = parse_parameters(to_json(set).dump(), "set.json");
  ASSERT_TRUE(read.ok()) << read.error().text();
  EXPECT_EQ(read.value().spread, set.spread);
  EXPECT_EQ(read.value().values[0].low, 0.01);
  EXPECT_EQ(read.value().values[0].high, 0.05);
  EXPECT_EQ(read.value().values[1].low, 0);
}

std::string problem_of(const std::string& text) {
  const auto read = parse_parameters(text, "x");
  EXPECT_FALSE(read.ok()) << text;
  return read.ok() ? "" : read.error().text();
}

TEST(Spread, ErrorsNameThePlace) {
  const auto value = [](const char* more) {
    return std::string(
               R"({"values": [{"owner": "device", "of": "d", "name": "product", "value": )") +
           more + "}]}";
  };
  EXPECT_NE(problem_of(value(R"(0.7, "low": 0.8, "high": 0.9)")).find("/values/0/low"),
            std::string::npos);
  EXPECT_NE(problem_of(value(R"(0.7, "low": 0.6)")).find("one end"), std::string::npos);
  const auto spread = [](const char* sizes, const char* base = "0.2") {
    return std::string(R"({"values": [], "spread": {"faster": {"base": )") + base +
           R"(, "exposed": 1, "unseen": 0.5}, "slower": {"base": 0.2, "exposed": 0,
           "unseen": 0.5}, "shapes": [{"stack": "s", "family": "f", "device": "d", "sizes": [)" +
           sizes + "]}]}}";
  };
  EXPECT_TRUE(parse_parameters(spread(R"("1 2 3 4 5 6 7")"), "x").ok());
  for (const char* wrong : {R"("1 2 3 4 5 6")", R"("1 2 3 4 5 6 7 8")", R"("1 2 3 4 5 6 0")",
                            R"("1 2 3 4 5 6 -7")", R"("1  2 3 4 5 6 7")", "7", R"("")"}) {
    EXPECT_NE(problem_of(spread(wrong)).find("/spread/shapes/0/sizes"), std::string::npos) << wrong;
  }
  // Less than the noise is no interval.
  EXPECT_NE(problem_of(spread(R"("1 2 3 4 5 6 7")", "0.01")).find("/spread/faster/base"),
            std::string::npos);
}

}  // namespace
}  // namespace orrery::simulator
