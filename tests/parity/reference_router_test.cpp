// The reference's router by worked examples; its derivatives are those of the whole model, which
// reference_test.cpp compares with differences.
#include "tests/parity/reference_router.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/parity/cases.h"

namespace orrery::reference {
namespace {

using Ids = std::vector<std::int64_t>;

// Logits whose sigmoids are `scores`.
Vector logits_of(const Vector& scores) {
  Vector logits;
  for (const double s : scores) logits.push_back(std::log(s / (1 - s)));
  return logits;
}

Vector zeros() {
  return Vector(8, 0.0);
}

// Groups {0,1} {2,3} {4,5} {6,7}: sums 1.0, 1.1, 0.9, 1.32. The best expert, 4, is in the worst
// group.
const Vector kScores = {0.5, 0.5, 0.7, 0.4, 0.85, 0.05, 0.6, 0.72};

TEST(ReferenceRouter, TheBestGroupsAreThoseOfTheTwoBestExperts) {
  const Route r = route_token(tiny_dots(), logits_of(kScores), zeros());
  EXPECT_EQ(r.experts, (Ids{7, 2, 6}));
  for (std::size_t e = 0; e < 8; ++e) EXPECT_NEAR(r.scores[e], kScores[e], 1e-15);
  EXPECT_NEAR(r.weights[0], 2.5 * 0.72 / 2.02, 1e-15);
  EXPECT_NEAR(r.weights[2], 2.5 * 0.6 / 2.02, 1e-15);
  EXPECT_NEAR(r.probs[4], 0.85 / 4.32, 1e-15);
  double sum = 0;
  for (const double z : logits_of(kScores)) sum += std::exp(z);
  EXPECT_NEAR(r.log_sum, std::log(sum), 1e-14);
}

TEST(ReferenceRouter, TheBiasChoosesAndDoesNotWeigh) {
  Vector bias = zeros();
  bias[5] = 0.7;  // group 2 has now 0.85 + 0.75, group 3 stays at 1.32
  const Route r = route_token(tiny_dots(), logits_of(kScores), bias);
  EXPECT_EQ(r.experts, (Ids{4, 5, 7}));
  EXPECT_NEAR(r.weights[1], 2.5 * 0.05 / 1.62, 1e-15);
}

TEST(ReferenceRouter, NegativeChoicesStayInTheBestGroups) {
  const Vector bias(8, -0.9);  // every choice is negative
  EXPECT_EQ(route_token(tiny_dots(), logits_of(kScores), bias).experts, (Ids{7, 2, 6}));
}

TEST(ReferenceRouter, TiesGoToTheLowerGroupAndExpert) {
  EXPECT_EQ(route_token(tiny_dots(), zeros(), zeros()).experts, (Ids{0, 1, 2}));
  Model softmax = tiny_dots();
  softmax.sigmoid_router = false;
  const Route r = route_token(softmax, zeros(), zeros());
  EXPECT_EQ(r.experts, (Ids{0, 1, 2}));
  EXPECT_NEAR(r.probs[7], 0.125, 1e-15);
  EXPECT_NEAR(r.log_sum, std::log(8), 1e-15);
}

TEST(ReferenceRouter, BiasesMoveAgainstTheLoad) {
  Model model = tiny_dots();
  model.experts = 4;
  Parameters biases{{"layers.1.router_bias", {0.5, 0, 0, 0}}};
  // Picks 3, 2, 1, 2 of a mean of 2.
  update_biases(model, {{0, 0, 0, 1, 1, 2, 3, 3}}, 0.25, biases);
  EXPECT_EQ(biases.at("layers.1.router_bias"), (Vector{0.25, 0, 0.25, 0}));
  EXPECT_EQ(biases.size(), 1U);
}

}  // namespace
}  // namespace orrery::reference
