// The functions of the reference against values worked out by hand: gradients are checked on the
// whole model (reference_test.cpp), conventions (which columns pair, which head reads which) here.
#include "tests/parity/reference_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace orrery::reference {
namespace {

constexpr double kExact = 1e-14;

void expect_near(const Vector& actual, const Vector& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], kExact) << i;
}

Vector random_vector(std::size_t size, std::mt19937_64& generator) {
  std::normal_distribution<double> normal;
  Vector values(size);
  for (double& value : values) value = normal(generator);
  return values;
}

TEST(ReferenceMath, LinearIsXTimesTransposedW) {
  expect_near(linear(Vector{1, 2, 3, 4}, Vector{1, 0, 0, 10, 5, 7}, 2), {1, 20, 19, 3, 40, 43});
}

TEST(ReferenceMath, RmsNormDividesByRootOfMeanSquarePlusEps) {
  const double root = std::sqrt(12.5 + 0.5);
  expect_near(rms_norm(Vector{3, 4, 3, -4}, Vector{2, 1}, 0.5),
              {6 / root, 4 / root, 6 / root, -4 / root});
}

TEST(ReferenceMath, SoftmaxSurvivesLargeLogits) {
  const double e = std::exp(1.0);
  expect_near(softmax(Vector{1000, 1001}), {1 / (1 + e), e / (1 + e)});
}

TEST(ReferenceMath, SwiGluAppliesSiluToGate) {
  const Vector gate{1}, up{3}, down{0.5};
  const double silu = 2 / (1 + std::exp(-2.0));
  expect_near(swiglu(Vector{2}, {gate, up, down}, 1), {0.5 * silu * 6});
}

TEST(ReferenceMath, RopePairsFirstHalfWithSecondHalf) {
  // d = 4, theta = 100, position 3: columns (0,2) turn by 3, columns (1,3) by 3 / 10.
  const double c = std::cos(3.0), s = std::sin(3.0), c1 = std::cos(0.3), s1 = std::sin(0.3);
  expect_near(rope(Vector{1, 2, 3, 4}, {3}, 1, 4, 100),
              {c - 3 * s, 2 * c1 - 4 * s1, 3 * c + s, 4 * c1 + 2 * s1});
}

TEST(ReferenceMath, RopeTurnsBackAndDependsOnDistanceOnly) {
  std::mt19937_64 generator(1);
  const Vector q = random_vector(2 * 6, generator), k = random_vector(2 * 6, generator);
  expect_near(rope(rope(q, {5}, 2, 6, 1e4), {5}, 2, 6, 1e4, -1), q);
  const auto score = [&](std::int64_t at_q, std::int64_t at_k) {
    const Vector a = rope(q, {at_q}, 2, 6, 1e4), b = rope(k, {at_k}, 2, 6, 1e4);
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  EXPECT_NEAR(score(7, 4), score(3, 0), 1e-12);
  EXPECT_GT(std::abs(score(7, 4) - score(7, 5)), 1e-3);
}

TEST(ReferenceMath, AttentionGroupsHeadsAndStopsAtDocuments) {
  // 4 heads over 2 kv heads, d = 2; documents {0}, {1,2}. With q = 0 every visible key weighs the
  // same, so the result is the mean of the visible values of kv head h / 2.
  const Attention shape{4, 2, 2, {{0, 1}, {1, 3}}};
  const Vector v{1, 2, 3, 4, 10, 20, 30, 40, 100, 200, 300, 400};
  const Vector y = attention(Vector(24), Vector(12, 1.0), v, shape);
  expect_near(y, {1,  2,  1,  2,  3,  4,   3,  4,   10,  20,  10,  20,
                  30, 40, 30, 40, 55, 110, 55, 110, 165, 220, 165, 220});
}

TEST(ReferenceMath, AttentionScalesByRootOfHeadDim) {
  const Attention shape{1, 1, 4, {{0, 2}}};
  const double score = std::log(3) * 2;  // over sqrt(4): the second key weighs 3 to 1
  const Vector q{0, 0, 0, 0, 1, 0, 0, 0}, k{0, 0, 0, 0, score, 0, 0, 0};
  const Vector v{4, 0, 0, 0, 8, 0, 0, 0};
  expect_near(attention(q, k, v, shape), {4, 0, 0, 0, 7, 0, 0, 0});
}

TEST(ReferenceMath, CrossEntropyIsTheMeanOverCountedLabels) {
  const Vector logits{0, std::log(3), 5, 6, std::log(4), 0};  // probabilities 1/4 3/4, -, 4/5 1/5
  const CrossEntropy result = cross_entropy(logits, {0, -100, 1}, 2);
  EXPECT_NEAR(result.loss, (std::log(4) + std::log(5)) / 2, kExact);
  expect_near(result.dlogits, {-0.375, 0.375, 0, 0, 0.4, -0.4});
}

}  // namespace
}  // namespace orrery::reference
